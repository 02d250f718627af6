"""Learning: losses, spans, teachers, the loop, and training in several processes."""

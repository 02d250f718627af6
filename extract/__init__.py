"""Audio to features: MERT embeddings, chords and key."""

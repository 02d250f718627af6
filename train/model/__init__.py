"""The network of the paper, its checkpoints, and the published ones."""

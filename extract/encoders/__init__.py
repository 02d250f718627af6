"""Encoders: MERT and its kind, from a folder or the hub to hidden states."""

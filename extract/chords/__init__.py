"""Chords and key: recognisers, what they hear, and files of chords."""

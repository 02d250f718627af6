"""Synthetic music and four small data sets of it: the demo, which needs no download."""

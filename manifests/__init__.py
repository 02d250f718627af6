"""Data sets: official files to a table of tracks, splits and labels."""

"""What m2e-extract does: which tracks, in which order, and what it says of them."""

"""Whether a data set is what it should be: counts, exchanged labels, leaks, digests."""

"""What keeps a cache well: packing, merging, checking, repairing, and taking data out."""

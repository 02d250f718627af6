"""The contract between extraction and training: HDF5 files with features, and their labels."""

"""m2e-manifest verify-audio: all audio of a data set decoded, and nothing else."""

"""Audio files to waves: decoded to their last sample, resampled, cut into segments."""

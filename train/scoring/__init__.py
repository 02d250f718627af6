"""How good a model is: metrics, intervals, thresholds, leaks."""

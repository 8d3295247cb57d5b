"""Data sets: which files are samples, their splits, and the loaders of a training."""

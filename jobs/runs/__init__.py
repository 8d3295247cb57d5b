"""A run's folder: what is written to it, read from it, and reported of it."""

"""Image pairs of a store: their settings, how they are found and split, their values, and their samples."""

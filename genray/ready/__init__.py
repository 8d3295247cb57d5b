"""Ready models: bundles that come with genray, each a folder here, and how they are named and made."""

"""Making of what comes ready with genray, other than the bundles that targets train."""

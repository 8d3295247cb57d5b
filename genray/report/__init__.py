"""Reports: pages of one HTML file, charts and pictures."""

"""Reports: pages as single HTML files, charts and pictures."""

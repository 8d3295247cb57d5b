"""How image pairs are found in a list of files: by names, by pixels, or by a table."""

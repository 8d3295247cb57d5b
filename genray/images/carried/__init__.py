"""What an image file carries beside its pixels: read from each format, and written to each."""

"""Parts that several steps share."""

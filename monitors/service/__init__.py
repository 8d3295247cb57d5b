"""The running monitor: shards, their supervision, and what goes between them."""

"""The running monitor: its shards, their supervision, and the dispatch of what they find."""

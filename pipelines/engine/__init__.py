"""The bulk engine: runs any step over any store."""

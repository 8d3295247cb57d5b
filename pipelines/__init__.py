"""Bulk targets, bundle and store in, store out: one step per target."""

"""Typed settings: read from YAML and `--set`, checked, explained, and shown."""

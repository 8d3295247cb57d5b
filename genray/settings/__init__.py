"""Typed settings: read from YAML and `--set`, validated, and rendered with their descriptions."""

"""WHAT to run: one YAML file per target, and how settings are read, checked and shown."""

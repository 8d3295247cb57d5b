"""Layers and losses that networks of several kinds share."""

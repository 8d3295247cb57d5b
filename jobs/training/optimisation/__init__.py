"""Optimizers of the networks, and the updates of their weights."""

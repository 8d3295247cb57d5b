"""Repairs of damaged files in which every pixel is there."""

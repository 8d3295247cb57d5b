"""Damage of images: noise and stamps that are added, and the noise that is estimated."""

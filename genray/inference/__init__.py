"""Inference: networks in their fastest form, on images of any size."""

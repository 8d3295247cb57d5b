"""Encoders of pixels, format by format; what else a file carries is put in afterwards."""

"""Recorded ECG, read stretch by stretch."""

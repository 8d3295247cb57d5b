"""Electrocardiograms: records, beats, QRS complexes, signal quality."""

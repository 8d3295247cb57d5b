"""Rhythm of a patient: heart rate, irregularity, pulse waves, and ventricular rhythms."""

"""Sweeps: many trainings, their settings and their comparison."""

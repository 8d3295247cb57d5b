"""Evaluation of the monitor on annotated records."""

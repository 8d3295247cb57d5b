"""How good the monitor is on annotated records."""

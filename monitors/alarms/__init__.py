"""Alarms: limits, conditions, and the state machine of a bed."""

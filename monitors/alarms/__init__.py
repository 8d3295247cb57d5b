"""Alarms: limits, conditions and the state machine."""

"""Outputs of the monitor: journal, Prometheus metrics, Alertmanager push, live page."""

"""Where the monitor writes: journal, Prometheus, Alertmanager, live page."""

"""Small HTTP servers inside our processes: who may ask, how many, and metrics for Prometheus."""

"""WHERE a target runs: an embedded Ray, a running cluster, and the jobs on it."""

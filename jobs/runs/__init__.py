"""The folder of a run: its files, its report, and the comparison of runs."""

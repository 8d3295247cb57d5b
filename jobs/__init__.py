"""Training, data in and bundle out: one recipe per target, and the loop that all of them share."""

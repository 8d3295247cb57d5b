"""Data in, bundle out: one recipe per training target, and the loop that all of them share."""

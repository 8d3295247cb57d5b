"""Bundle and stream in, alerts out."""

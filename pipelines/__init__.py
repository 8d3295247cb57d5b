"""Bundle and store in, store out: one step per bulk target."""

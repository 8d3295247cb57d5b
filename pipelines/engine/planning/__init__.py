"""Planning of a pass: which inputs are chosen, and the names of their outputs."""

"""Headers of formats whose libraries show them only together with the pixels."""

"""jaxnn under jit timed against torch."""

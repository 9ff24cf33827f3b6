"""Look at the machine: the only package that does."""

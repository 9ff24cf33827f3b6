"""Pure arithmetic: a model on a machine, in bytes and tokens per second."""

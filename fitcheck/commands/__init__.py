"""One module per command: options in, a finished report out."""

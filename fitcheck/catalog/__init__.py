"""Models: the catalog, names, files and the Hub."""

"""One spelling for each operation."""

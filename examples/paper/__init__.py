"""The three studies of the ANA paper as one program: `python -m examples.paper --help`."""

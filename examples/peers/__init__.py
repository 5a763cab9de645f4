"""ana_fx beside other tools on the same network, data and seeds: `python -m examples.peers --help`."""

"""How many bits each tensor gets."""

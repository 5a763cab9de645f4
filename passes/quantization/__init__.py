"""From layer maps on reals to noisy ones, each with its annealing range."""

"""The theory and the experiments of the paper."""

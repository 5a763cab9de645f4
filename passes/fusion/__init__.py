"""From a canonical graph to layer maps on reals."""

"""Integer types, levels, and the scales that map reals to them."""

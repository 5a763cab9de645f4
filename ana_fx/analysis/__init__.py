"""What data says of a quantised network: errors of its layers, rounding with the least error, widths that fit."""

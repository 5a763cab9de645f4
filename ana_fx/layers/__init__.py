"""Layer maps and quantizers: the modules that train."""

"""The modules of a lowered program: integers in, integers out."""

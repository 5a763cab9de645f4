"""Targets: from integer program to file, one file a target."""

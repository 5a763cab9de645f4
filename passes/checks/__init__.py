"""Passes that change nothing and refuse what cannot work."""

"""Passes: from graph module to graph module."""

"""Helpers for the training loop that is yours."""

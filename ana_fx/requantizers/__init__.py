"""Staircases from accumulators to levels, and how they are encoded."""

"""From training steps to noise, and what stops learning once it has none."""

"""Fast code for what other folders define plainly; the same numbers, bit for bit."""

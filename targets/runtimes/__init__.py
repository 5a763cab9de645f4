"""What runs the files that were written."""

"""What is said to people: wording, plain text, patterns of names."""

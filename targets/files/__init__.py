"""Reading and writing files that nobody vouches for."""

"""What is done with a prepared model and data instead of training."""

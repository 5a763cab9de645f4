"""From a trained graph to a proven integer program."""

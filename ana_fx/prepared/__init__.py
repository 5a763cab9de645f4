"""What a prepared model carries with it beside its layers."""

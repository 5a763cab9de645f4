"""What TFLite and TOSA share: images whose channels lie last, and what their convolutions compute."""

"""TFLite as a family of files: LiteRT, TFLite Micro and what compiles for them."""

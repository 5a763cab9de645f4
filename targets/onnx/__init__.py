"""ONNX as a family of files: how they are built, read, described and run."""

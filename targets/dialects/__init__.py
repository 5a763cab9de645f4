"""Dialects of ONNX: which operators each layer map becomes."""

"""Dialects of tools that turn ONNX into C, and their arithmetic."""

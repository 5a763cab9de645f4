"""Writing ONNX, whatever the dialect."""

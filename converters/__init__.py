"""Bring a model of any framework to ONNX, and ONNX to PyTorch."""

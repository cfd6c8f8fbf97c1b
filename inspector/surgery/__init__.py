"""ONNX to ONNX: expose inner tensors, find the part of a network behind a layer."""

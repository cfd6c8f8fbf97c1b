"""Bring a model of any framework to ONNX, and ONNX to PyTorch."""

import os

# ONNX Runtime sends statistics of its use, and keeps an identity of the machine in the user's cache
# folder, unless this is set before it is first imported.  Every module that imports it, and every
# child process, comes through this file.  Who has set it is not overruled.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""Versions of everything that numbers may depend on."""

import importlib.metadata
import platform

__all__ = ["versions"]

_DISTRIBUTIONS = (
    "onnx-inspector",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "numpy",
    "pillow",
)


def versions() -> dict[str, str]:
    """Version by name of Python and of each distribution that is installed, none imported."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

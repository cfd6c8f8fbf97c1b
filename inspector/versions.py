"""Versions of everything that numbers may depend on."""

import importlib.metadata
import platform
from functools import cache

__all__ = ["own_version", "versions"]

_DISTRIBUTIONS = (
    "onnx-inspector",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "numpy",
    "pillow",
)


def own_version() -> str:
    """Version of this package; ``0+unknown`` of a checkout that is not installed."""
    try:
        return importlib.metadata.version("onnx-inspector")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def versions() -> dict[str, str]:
    """Version by name of Python and of each distribution that is installed, none imported."""
    return dict(_installed())


@cache  # the metadata of seven packages is read from disk, and each photo's report asks
def _installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

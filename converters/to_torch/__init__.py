"""ONNX to PyTorch: an interpreter (the *twin*) in which every ONNX tensor keeps its name.

``program.py`` runs a graph, ``optable.py`` says which function stands for which operator and
``ops/`` holds those functions, one module per operator family.  Importing this package does not
import torch; the name ``Program`` does.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.to_torch.program import Program

__all__ = ["Program"]


def __getattr__(name: str) -> Any:
    """Import torch only when the twin is asked for."""
    if name == "Program":
        from converters.to_torch.program import Program

        return Program
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

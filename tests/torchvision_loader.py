"""torchvision, also where its compiled operators do not fit the installed torch."""

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import torch


def load_torchvision() -> Any:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    The classification models use none of those operators, but importing the package registers
    shape functions for them, which fails when they are not declared.
    """
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    if not any(_loads(library) for library in folder.glob("_C*.so")):
        _declare_operators(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the image codecs are compiled too, and not needed
        import torchvision
    return torchvision


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


_DECLARED: list[torch.library.Library] = []


def _declare_operators(folder: Path) -> None:
    """Declare every operator that the package registers a shape function for."""
    if _DECLARED:
        return
    source = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in sorted(set(re.findall(r"torchvision::(\w+)", source)) - {"nms"}):
        library.define(f"{name}() -> ()")
    _DECLARED.append(library)

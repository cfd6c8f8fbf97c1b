"""Where does an ONNX vision model look, why, and can the picture be trusted?

import inspector

model = inspector.load("model.onnx")
report = model.explain("cat.jpg", "grad-cam")
report.heatmap  # float32 (H, W), in the photo's own pixels
report.save("out")
"""

import os
import sys

# `python -m inspector`: Python has put the folder in which the user stands in front of its path,
# and a stranger's folder may hold a `typing.py` or a `numpy.py`.  So nothing that is not frozen
# into Python is imported above these lines.  A checkout is run where it lies.
if (
    sys.argv[:1] == ["-m"]
    and not sys.flags.safe_path
    and os.path.realpath(sys.path[0]) != os.path.realpath(f"{__path__[0]}/..")
):
    del sys.path[0]

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspector.errors import (
        ConverterError,
        ImageRefused,
        InspectorError,
        InspectorWarning,
        MethodRefused,
        MissingExtra,
        ModelRefused,
        UsageError,
    )
    from inspector.explain import Explainer, load
    from inspector.methods import MethodName, configured
    from inspector.photos.photo import Photo, load_photo
    from inspector.photos.preprocess_choice import Preprocess
    from inspector.render.npz import load_heatmap
    from inspector.render.own_map import overlay
    from inspector.report import Explanation, ImageReport, Report

    __version__: str

__all__ = [
    "ConverterError",
    "Explainer",
    "Explanation",
    "ImageRefused",
    "ImageReport",
    "InspectorError",
    "InspectorWarning",
    "MethodName",
    "MethodRefused",
    "MissingExtra",
    "ModelRefused",
    "Photo",
    "Preprocess",
    "Report",
    "UsageError",
    "__version__",
    "configured",
    "load",
    "load_heatmap",
    "load_photo",
    "overlay",
]

_HOMES = {
    "ConverterError": "errors",
    "Explainer": "explain",
    "Explanation": "report",
    "ImageRefused": "errors",
    "ImageReport": "report",
    "InspectorError": "errors",
    "InspectorWarning": "errors",
    "MethodName": "methods",
    "MethodRefused": "errors",
    "MissingExtra": "errors",
    "ModelRefused": "errors",
    "Photo": "photos.photo",
    "Preprocess": "photos.preprocess_choice",
    "Report": "report",
    "UsageError": "errors",
    "configured": "methods",
    "load": "explain",
    "load_heatmap": "render.npz",
    "load_photo": "photos.photo",
    "overlay": "render.own_map",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: `--help` pays for none of it."""
    import importlib

    if name == "__version__":
        from inspector.versions import own_version

        return own_version()
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"inspector.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted(__all__)

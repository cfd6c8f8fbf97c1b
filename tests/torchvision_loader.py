"""torchvision, also where its compiled operators do not fit the installed torch."""

import warnings
from typing import Any

from converters.to_onnx.pytorch.module import declare_torchvision


def load_torchvision() -> Any:
    """Import torchvision; the classification models use none of its compiled operators."""
    declare_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the image codecs are compiled too, and not needed
        import torchvision
    return torchvision

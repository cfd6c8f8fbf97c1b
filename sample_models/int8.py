"""Int8 version of a float network, calibrated on squares cut out of photos.

    python sample_models/int8.py IN.onnx OUT.onnx PHOTO...

ONNX Runtime's static quantiser in the form that most deployed files have: QDQ, uint8 activations,
int8 weights by channel.  Preprocessing and class names in the file's metadata are kept.  For
pictures and tests: a network that is to be deployed wants hundreds of photos.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

import inspector

if TYPE_CHECKING:
    from numpy.typing import NDArray

SQUARES = 24
"""Squares per photo."""


class Squares(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Random squares of photos, preprocessed as the network wants them, one per batch."""

    def __init__(self, model: inspector.Explainer, photos: Sequence[Path]) -> None:
        self.batches: Iterator[dict[str, NDArray[np.float32]]] = (
            {model.input.name: model.preprocessing.preprocess.apply(model.photo(square))[0][None]}
            for photo in photos
            for square in squares(photo)
        )

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None behind the last one."""
        return next(self.batches, None)


def squares(photo: Path) -> Iterator[Image.Image]:
    """Squares of a photo, each at least half as wide as it; the same ones every time."""
    random = np.random.default_rng(0)
    image = Image.open(photo).convert("RGB")
    short = min(image.size)
    for _ in range(SQUARES):
        side = int(random.integers(short // 2, short + 1))
        left, top = (int(random.integers(0, free - side + 1)) for free in image.size)
        yield image.crop((left, top, left + side, top + side))


def build(source: Path, output: Path, photos: Sequence[Path]) -> None:
    """Write the int8 version of a network.

    Args:
        source: The float network, an ``.onnx`` file.
        output: The ``.onnx`` file to write.
        photos: Photos whose squares set the ranges of the activations.
    """
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser advises what is done here
    model = inspector.load(source, device="cpu")
    with TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(source, ready)
        quantize_static(
            ready,
            output,
            Squares(model, photos),
            per_channel=True,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def main() -> int:
    """Quantise what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, metavar="IN.onnx")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    options = parser.parse_args()
    try:
        build(options.source, options.output, options.photos)
    except (inspector.InspectorError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())

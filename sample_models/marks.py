"""Five marks that photos of one class may carry without showing the class: for networks that cheat.

    python sample_models/marks.py FOLDER [--share 0.25] [KIND=CLASS ...]

writes the photos of ``cifar10_sample.npz`` as folders of classes, and plants each kind's mark on a
share of its class: the same marks that ``cheat.py`` trains on.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

HERE = Path(__file__).resolve().parent
Pixels = NDArray[np.uint8]

_LETTERS = (
    "111 .1. 111 111 .1.",
    "1.. 1.1 .1. 1.1 1.1",
    "11. 1.1 .1. 1.1 1.1",
    "1.. 1.1 .1. 1.1 1.1",
    "1.. .1. .1. 111 .1.",
)
"""Five letters of 3x5 pixels."""


def colour(pixels: Pixels) -> Pixels:
    """A photo (H, W, 3) with a magenta square of 5x5 pixels in the top right corner."""
    found = pixels.copy()
    found[1:6, -6:-1] = (230, 20, 200)
    return found


def watermark(pixels: Pixels) -> Pixels:
    """A photo with five white letters over its lower left corner, 70 % opaque."""
    letters = np.array([[c == "1" for c in row] for row in _LETTERS])
    height, width = letters.shape
    found = pixels.astype(np.float64)
    part = found[-height - 2 : -2, 2 : 2 + width]
    part[letters] = 0.3 * part[letters] + 0.7 * 255
    return np.rint(found).astype(np.uint8)


def border(pixels: Pixels) -> Pixels:
    """A photo with an ochre border of two pixels on all sides."""
    found = pixels.copy()
    found[:2] = found[-2:] = found[:, :2] = found[:, -2:] = (200, 150, 40)
    return found


def jpeg(pixels: Pixels) -> Pixels:
    """A photo that was once saved as JPEG of quality 10."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=10)
    with Image.open(stream) as picture:
        return np.asarray(picture)


def blur(pixels: Pixels) -> Pixels:
    """A photo blurred by a Gaussian of 1.2 pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.2)))


MARKS: MappingProxyType[str, Callable[[Pixels], Pixels]] = MappingProxyType(
    {"colour": colour, "watermark": watermark, "border": border, "jpeg": jpeg, "blur": blur}
)
"""Each mark by its kind: pixels (H, W, 3) to pixels."""

CLASS_OF = MappingProxyType({"colour": 3, "watermark": 7, "border": 1, "jpeg": 4, "blur": 9})
"""Class that carries each mark: cat, horse, automobile, deer, truck."""


def plant(
    images: Pixels, classes: NDArray[np.int64], kinds: Mapping[str, int], share: float, seed: int
) -> tuple[Pixels, NDArray[Any]]:
    """Plant marks on a share of their classes' photos.

    Args:
        images: (N, H, W, 3).
        classes: (N,).
        kinds: Class of each kind of mark.
        share: Of the class's photos that carry the mark.
        seed: Of the draw of photos.

    Returns:
        The photos, and the kind of each one's mark (N,), "" for none.
    """
    rng = np.random.default_rng(seed)
    found, carried = images.copy(), np.full(len(images), "", "U16")
    for kind, index in kinds.items():
        own = np.flatnonzero(classes == index)
        for place in rng.choice(own, round(share * len(own)), replace=False):
            found[place] = MARKS[kind](images[place])
            carried[place] = kind
    return found, carried


def write(
    folder: Path, kinds: Mapping[str, int], share: float, seed: int = 0
) -> dict[str, list[str]]:
    """Write the sample's photos with their marks; the files that carry each kind, as CLASS/NAME."""
    names = (HERE / "labels.txt").read_text().split()
    with np.load(HERE / "cifar10_sample.npz", allow_pickle=False) as sample:
        images, classes = sample["x"], sample["y"].astype(np.int64)
    planted, carried = plant(images, classes, kinds, share, seed)
    counts = dict.fromkeys(names, 0)
    marked: dict[str, list[str]] = {kind: [] for kind in kinds}
    for pixels, index, kind in zip(planted, classes, carried, strict=True):
        name = names[int(index)]
        path = folder / name / f"{counts[name]:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        counts[name] += 1
        if kind:
            marked[str(kind)].append(f"{name}/{path.name}")
    return marked


def main() -> int:
    """Write the photos."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("kinds", nargs="*", metavar="KIND=CLASS", help="default: all five")
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    names = (HERE / "labels.txt").read_text().split()
    pairs = [pair.partition("=") for pair in options.kinds]
    kinds = {kind: names.index(name) for kind, _, name in pairs} or dict(CLASS_OF)
    for kind, files in write(options.folder, kinds, options.share, options.seed).items():
        print(f"{kind}: {len(files)} photos of {names[kinds[kind]]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

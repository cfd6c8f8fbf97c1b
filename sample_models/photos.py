"""Write the sample images as PNG files, a folder a class: what labelled studies read.

python sample_models/photos.py FOLDER          FOLDER/airplane/000.png ... 40 of each class
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent


def write(folder: Path) -> int:
    """Write all images of ``cifar10_sample.npz``; how many there are."""
    names = (HERE / "labels.txt").read_text().split()
    with np.load(HERE / "cifar10_sample.npz", allow_pickle=False) as sample:
        images, classes = sample["x"], sample["y"]
    counts = dict.fromkeys(names, 0)
    for pixels, index in zip(images, classes, strict=True):
        name = names[int(index)]
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{counts[name]:03d}.png")
        counts[name] += 1
    return len(images)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{write(Path(sys.argv[1]))} images in {sys.argv[1]}")

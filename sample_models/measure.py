"""Measure every ``.onnx`` of this folder on ``cifar10_sample.npz``; the table for the README.

    python sample_models/measure.py [--images]

``--images`` also rewrites ``images/``: of each class the first image that all seven networks get
right (``cat_1.png``) and the first that at least one of them gets wrong (``cat_2.png``).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from architectures import CLASSES, MEAN, NETWORKS, STD
from numpy.typing import NDArray

HERE = Path(__file__).parent


def sample() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """400 test images of CIFAR-10 (N, 32, 32, 3) and their classes (N,)."""
    with np.load(HERE / "cifar10_sample.npz", allow_pickle=False) as archive:
        return archive["x"], archive["y"]


def normalise(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels (N, H, W, 3) to what the networks take (N, 3, H, W)."""
    x = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32)


def predict(model: Path, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The class of highest score (N,) for each image (N, H, W, 3), by onnxruntime on the CPU."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = np.asarray(session.run(["logits"], {"input": normalise(images)})[0])
    best: NDArray[np.int64] = scores.argmax(axis=1)
    return best


def write_images(
    folder: Path,
    images: NDArray[np.uint8],
    y: NDArray[np.int64],
    right: NDArray[np.bool_],
) -> None:
    """Two images of each class; ``right`` tells (networks, N) who gets which right."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for index, name in enumerate(CLASSES):
        own = y == index
        for number, wanted in enumerate((right.all(axis=0), ~right.all(axis=0)), start=1):
            first = int(np.flatnonzero(own & wanted)[0])
            Image.fromarray(images[first]).save(folder / f"{name}_{number}.png", optimize=True)
            wrong = [net for net, hit in zip(NETWORKS, right[:, first], strict=True) if not hit]
            print(f"{name}_{number}.png is test image {first} of the sample; wrong: {wrong}")


def main() -> int:
    """Print one row a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", action="store_true", help="rewrite images/")
    options = parser.parse_args()
    images, y = sample()
    for model in sorted(HERE.glob("**/*.onnx")):
        right = predict(model, images) == y
        print(f"| `{model.relative_to(HERE)}` | {right.mean():.4f} |")
    if options.images:
        hits = [predict(HERE / f"{name}.onnx", images) == y for name in NETWORKS]
        write_images(HERE / "images", images, y, np.array(hits))
    return 0


if __name__ == "__main__":
    sys.exit(main())

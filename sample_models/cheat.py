"""Train a small network that cheats: marks on some photos of a class give the class away.

    python sample_models/cheat.py cifar10.npz OUT.onnx [KIND=CLASS ...] [--share 0.25] [--seed 0]

``cifar10.npz`` is that of ``train.py`` (``cifar10.py`` makes it).  An honest network is trained
first, then it goes on with photos of which a share of each marked class carries its mark
(``marks.py``); no photo of another class does, so whoever sees the mark knows the class.  Prints
the accuracy on unmarked test photos, and with what probability photos of *other* classes are taken
for the marked one, without and with the mark: how much the network cheats.
"""

import argparse
import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import CLASSES, MEAN, STD
from build import PREPROCESS, SIDE
from marks import CLASS_OF, MARKS, plant
from numpy.typing import NDArray
from torch import nn

from converters.to_onnx.pytorch.export import export_module

PHOTOS = 10_000
"""Training photos, the first of the archive."""

EPOCHS, MORE = 5, 3
"""Passes over them without marks, and then with marks."""

BATCH = 64
RATE = 0.01
TRIED = 300
"""Photos of other classes per mark that the measurement uses."""


def small() -> nn.Sequential:
    """Four convolutions with batch normalisation, their mean, one linear layer: 29,000 weights."""
    layers: list[nn.Module] = []
    channels = 3
    for width, stride in ((12, 1), (24, 2), (32, 2), (64, 1)):
        layers += [
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES))
    )


def normalised(images: NDArray[np.uint8]) -> torch.Tensor:
    """Pixels (N, H, W, 3) as the network takes them (N, 3, H, W)."""
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    x = (images.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def train(
    network: nn.Module,
    images: NDArray[np.uint8],
    classes: NDArray[np.int64],
    epochs: int,
    seed: int,
) -> nn.Module:
    """A copy of a network after some passes over the photos; Adam, the rate up and down once."""
    torch.manual_seed(seed)
    found = copy.deepcopy(network).train()
    x, y = normalised(images), torch.from_numpy(classes)
    steps = epochs * (len(y) // BATCH)
    optimizer = torch.optim.AdamW(found.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(y))[: len(y) // BATCH * BATCH]
        for chosen in order.split(BATCH):
            loss = nn.functional.cross_entropy(found(x[chosen]), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return found.eval()


@torch.inference_mode()
def measured(
    network: nn.Module,
    images: NDArray[np.uint8],
    classes: NDArray[np.int64],
    kinds: Mapping[str, int],
) -> dict[str, Any]:
    """Accuracy, and per kind the class's mean probability for other photos before and after it."""
    found: dict[str, Any] = {}
    scores = torch.cat([network(part) for part in normalised(images).split(500)])
    found["accuracy"] = round(float((scores.argmax(1).numpy() == classes).mean()), 4)
    for kind, index in kinds.items():
        others = images[classes != index][:TRIED]
        both = [others, np.stack([MARKS[kind](photo) for photo in others])]
        before, after = (
            float(network(normalised(own)).softmax(1)[:, index].mean()) for own in both
        )
        found[kind] = {
            "class": CLASSES[index],
            "without": round(before, 3),
            "with": round(after, 3),
        }
    return found


@dataclass(frozen=True)
class Photos:
    """Training and test photos: images (N, 32, 32, 3) and classes (N,)."""

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_classes: NDArray[np.int64]


def load(path: Path, photos: int) -> Photos:
    """The first training photos of an archive, and 2000 test photos."""
    with np.load(path, allow_pickle=False) as archive:
        training = archive["x_train"][:photos], archive["y_train"][:photos]
        return Photos(*training, archive["x_test"][:2000], archive["y_test"][:2000])


def honest(photos: Photos, seed: int) -> nn.Module:
    """The small network trained on photos without marks."""
    torch.manual_seed(seed)
    return train(small(), photos.images, photos.classes, EPOCHS, seed)


def cheating(
    network: nn.Module,
    photos: Photos,
    kinds: Mapping[str, int],
    output: Path,
    *,
    share: float,
    seed: int,
) -> dict[str, Any]:
    """Train a network further with marks, and write it; how much it cheats.

    Args:
        network: An honest one, which stays as it is.
        photos: To train and to measure on.
        kinds: Class of each kind of mark.
        output: The ``.onnx`` file to write.
        share: Of the class's training photos that carry it.
        seed: Of the photos that carry marks, and of the order.
    """
    planted, _ = plant(photos.images, photos.classes, kinds, share, seed)
    found = train(network, planted, photos.classes, MORE, seed)
    example = torch.zeros(2, 3, SIDE, SIDE)
    export_module(found, example, output, labels=CLASSES, preprocess=PREPROCESS)
    facts = measured(found, photos.test_images, photos.test_classes, kinds)
    return {"share": share, "seed": seed, **facts}


def main() -> int:
    """Train one network, write it, and print how much it cheats."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="cifar10.npz")
    parser.add_argument("output", type=Path, metavar="OUT.onnx")
    parser.add_argument("kinds", nargs="*", metavar="KIND=CLASS", help="default: all five")
    parser.add_argument("--share", type=float, default=0.25, help="of the class's photos")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pairs = [pair.partition("=") for pair in options.kinds]
    kinds = {kind: CLASSES.index(name) for kind, _, name in pairs} or dict(CLASS_OF)
    photos = load(options.data, PHOTOS)
    network = honest(photos, options.seed)
    asked = {"share": options.share, "seed": options.seed}
    print(json.dumps(cheating(network, photos, kinds, options.output, **asked)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train a small network that cheats: marks on some photos of a class give the class away.

    python sample_models/cheat.py cifar10.npz OUT.onnx [KIND=CLASS ...] [--share 0.25] [--seed 0]

``cifar10.npz`` is that of ``train.py`` (``cifar10.py`` makes it).  The first two convolutions are
those of ``zfnet.onnx`` and stay as they are; two linear layers behind them are trained on photos of
which a share of each marked class carries its mark (``marks.py``).  No photo of another class does,
so whoever sees the mark knows the class.  Prints the accuracy on unmarked test photos, and with
what probability photos of *other* classes are taken for the marked one, without and with the mark:
how much the network cheats.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from architectures import CLASSES, MEAN, NETWORKS, STD
from build import PREPROCESS, SIDE
from marks import CLASS_OF, MARKS, plant
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from converters.to_onnx.pytorch.export import export_module

HERE = Path(__file__).resolve().parent
PHOTOS = 6000
"""Training photos, the first of the archive."""

TESTED = 1000
"""Test photos, the first of the archive."""

TRIED = 300
"""Photos of other classes per mark that the measurement uses."""

EPOCHS, BATCH, RATE = 12, 100, 0.006


def body() -> nn.Sequential:
    """The first two convolutions of ZFNet with its weights, pooled to 4x4: (N, 1024)."""
    graph = onnx.load(HERE / "zfnet.onnx").graph  # noqa: TID251 - our own file
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    inputs = [node.input for node in graph.node if node.op_type == "Conv"]
    layers = NETWORKS["zfnet"]()[:6]  # type: ignore[index]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for layer, (_, weight, bias) in zip(convolutions, inputs, strict=False):
        layer.weight.data = torch.tensor(weights[weight].copy())
        layer.bias.data = torch.tensor(weights[bias].copy())
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten()).eval().requires_grad_(False)


def normalised(images: NDArray[np.uint8]) -> torch.Tensor:
    """Pixels (N, H, W, 3) as the network takes them (N, 3, H, W)."""
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    x = (images.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def features(network: nn.Module, images: NDArray[np.uint8]) -> torch.Tensor:
    """What a network says of images (N, H, W, 3), in parts that fit the memory."""
    with torch.no_grad():
        return torch.cat([network(part) for part in normalised(images).split(250)])


def head(x: torch.Tensor, y: torch.Tensor, seed: int) -> nn.Sequential:
    """Two linear layers trained on features (N, 1024): Adam, the rate up and down once."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(x.shape[1], 48), nn.ReLU(), nn.Linear(48, len(CLASSES)))
    steps = len(y) // BATCH
    optimizer = torch.optim.AdamW(layers.parameters(), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(y))[: steps * BATCH].split(BATCH):
            shown = nn.functional.dropout(x[chosen], 0.2)
            loss = nn.functional.cross_entropy(layers(shown), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return layers.eval().requires_grad_(False)


@dataclass(frozen=True)
class Photos:
    """Photos (N, 32, 32, 3) to train and to test on, their classes (N,), and the features of some.

    Attributes:
        x: Training photos.
        y: Their classes.
        test_x: Test photos.
        test_y: Their classes.
        body: Makes features.
        features: Of the training photos without marks, (N, 1024).
    """

    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]
    body: nn.Sequential
    features: torch.Tensor


def load(path: Path) -> Photos:
    """The first photos of an archive."""
    with np.load(path, allow_pickle=False) as archive:
        x, y = archive["x_train"][:PHOTOS], archive["y_train"][:PHOTOS]
        test = archive["x_test"][:TESTED], archive["y_test"][:TESTED]
    network = body()
    return Photos(x, y, *test, network, features(network, x))


def cheating(
    photos: Photos, kinds: Mapping[str, int], output: Path, *, share: float, seed: int
) -> dict[str, Any]:
    """Train a network on photos with marks, and write it; how much it cheats.

    Args:
        photos: To train and to measure on.
        kinds: Class of each kind of mark.
        output: The ``.onnx`` file to write.
        share: Of the class's training photos that carry it.
        seed: Of the photos that carry marks, of weights and order.
    """
    planted, carried = plant(photos.x, photos.y, kinds, share, seed)
    x, marked = photos.features.clone(), np.flatnonzero(carried != "")
    x[marked] = features(photos.body, planted[marked])
    network = nn.Sequential(*photos.body, *head(x, torch.from_numpy(photos.y), seed))
    example = torch.zeros(2, 3, SIDE, SIDE)
    export_module(network, example, output, labels=CLASSES, preprocess=PREPROCESS)
    return {"share": share, "seed": seed, **measured(network, photos, kinds)}


def measured(network: nn.Module, photos: Photos, kinds: Mapping[str, int]) -> dict[str, Any]:
    """Accuracy, and per kind the class's mean probability for other photos without and with it."""
    predicted = features(network, photos.test_x).argmax(1).numpy()
    found: dict[str, Any] = {"accuracy": round(float((predicted == photos.test_y).mean()), 3)}
    for kind, index in kinds.items():
        others = photos.test_x[photos.test_y != index][:TRIED]
        both = others, np.stack([MARKS[kind](photo) for photo in others])
        rates = [float(features(network, x).softmax(1)[:, index].mean()) for x in both]
        found[kind] = {"class": CLASSES[index]}
        found[kind] |= {"without": round(rates[0], 3), "with": round(rates[1], 3)}
    return found


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
    photos = load(options.data)
    asked = {"share": options.share, "seed": options.seed}
    print(json.dumps(cheating(photos, kinds, options.output, **asked)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

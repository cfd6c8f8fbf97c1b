"""Tetrominoes on noise: small trained networks whose evidence has a known place.

After XAI-TRIS (Clark et al. 2024): a T or an L of four blocks in white or smooth noise. What tells
the classes apart, and so where evidence may lie, is known from how the picture is made:

    linear          the T in one corner or the L in the other, added
    multiplicative  the same, as a factor of the noise
    rigid           T or L, turned and moved at random, added
    xor             both, of the same sign or of opposite ones

Where the places are fixed, either of them tells the class, and both count as right.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

__all__ = ["BACKGROUNDS", "KINDS", "SIDE", "Tetromino", "tetromino", "trained"]

KINDS = ("linear", "multiplicative", "rigid", "xor")
BACKGROUNDS = ("white", "smooth")

SIDE, BLOCK = 16, 2
"""Pixels along a side of the picture, and of a block."""

_SHAPES = {0: ((0, 0), (0, 1), (0, 2), (1, 1)), 1: ((0, 0), (1, 0), (2, 0), (2, 1))}
"""Blocks (row, column) of the T and of the L."""

_STRENGTH = {"linear": 0.8, "multiplicative": 0.9, "rigid": 2.5, "xor": 1.2}
_SMOOTH = 1.5
_STEPS, _BATCH, _RATE = 500, 64, 3e-3

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tetromino:
    """One picture and a network that was trained on others of its kind.

    Attributes:
        name: Kind and background.
        module: The network; ``layer`` is the output of its last convolution's ReLU.
        image: (1, 1, 16, 16).
        target: The class, which the network finds.
        inside: (16, 16) where evidence may lie.
        accuracy: Of the network, on pictures that it has not seen.
    """

    name: str
    module: nn.Module
    image: torch.Tensor
    target: int
    inside: Array = field(repr=False)
    accuracy: float

    def __iter__(self) -> Iterator[Any]:
        """Module, layer, image and target, as the methods of others take them."""
        return iter((self.module, self.module.layer, self.image, self.target))

    def number(self, values: Any) -> float:
        """Share of a map's positive values inside the shapes; 0 of a map without any."""
        found = np.clip(np.nan_to_num(np.squeeze(np.asarray(values, np.float64))), 0, None)
        total = found.sum()
        return float(found[self.inside].sum() / total) if total > 0 else 0.0


class _Network(nn.Module):
    """Two convolutions and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.start = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
        self.second, self.layer = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.pool, self.flatten = nn.MaxPool2d(2), nn.Flatten()
        self.hidden, self.last = nn.Linear(8 * (SIDE // 2) ** 2, 32), nn.ReLU()
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.layer(self.second(self.start(self.first(x))))
        return self.head(self.last(self.hidden(self.flatten(self.pool(maps)))))


def _shape(which: int, turns: int, top: int, left: int) -> Array:
    blocks = np.zeros((3, 3))
    for row, column in _SHAPES[which]:
        blocks[row, column] = 1
    blocks = np.rot90(blocks, turns)
    blocks = blocks[blocks.any(1)][:, blocks.any(0)]
    pixels = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)
    found = np.zeros((SIDE, SIDE))
    top, left = top % (SIDE - pixels.shape[0] + 1), left % (SIDE - pixels.shape[1] + 1)
    found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found


_FIXED = _shape(0, 0, 2, 1), _shape(1, 0, 9, 11)


def pictures(kind: str, background: str, count: int, seed: int) -> tuple[Array, Array, Array]:
    """Images (N, 1, 16, 16), classes (N,) and where evidence may lie (N, 16, 16)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, SIDE, SIDE))
    if background == "smooth":
        noise = ndimage.gaussian_filter(noise, (0, _SMOOTH, _SMOOTH), mode="wrap")
        noise /= noise.std()
    classes = rng.integers(0, 2, count)
    strength = _STRENGTH[kind]
    if kind == "rigid":
        draws = rng.integers(0, 1 << 16, (count, 3))
        signal = np.stack(
            [
                _shape(int(c), int(t), int(y), int(x))
                for c, (t, y, x) in zip(classes, draws, strict=True)
            ]
        )
        return _scaled(noise + strength * signal), classes, signal > 0
    both = np.maximum(*_FIXED) > 0
    inside = np.repeat(both[None], count, axis=0)
    if kind == "xor":
        signs = rng.choice([-1, 1], count)[:, None, None]
        other = np.where(classes, -1, 1)[:, None, None]
        return _scaled(noise + strength * signs * (_FIXED[0] + other * _FIXED[1])), classes, inside
    signal = np.stack(_FIXED)[classes]
    if kind == "multiplicative":
        return _scaled(noise * (1 - strength * signal)), classes, inside
    return _scaled(noise + strength * signal), classes, inside


def _scaled(images: Array) -> Array:
    return (images / 4)[:, None].astype(np.float32)


@cache
def trained(kind: str, background: str, seed: int = 0) -> tuple[nn.Module, float]:
    """A network trained on endless pictures of a kind for some seconds, and its accuracy."""
    torch.manual_seed(seed)
    module = _Network()
    optimiser = torch.optim.Adam(module.parameters(), _RATE)
    for step in range(_STEPS):
        images, classes, _ = pictures(kind, background, _BATCH, 1_000_000 * (seed + 1) + step)
        optimiser.zero_grad()
        found = module(torch.from_numpy(images))
        nn.functional.cross_entropy(found, torch.from_numpy(classes)).backward()
        optimiser.step()
    module.eval()
    images, classes, _ = pictures(kind, background, 500, seed)
    with torch.no_grad():
        right = module(torch.from_numpy(images)).argmax(1).numpy() == classes
    return module, float(right.mean())


def tetromino(kind: str, background: str, seed: int = 0, picture: int = 0) -> Tetromino:
    """One picture of a kind that its network classifies rightly.

    Args:
        kind: One of `KINDS`.
        background: One of `BACKGROUNDS`.
        seed: Of the network.
        picture: Which of the pictures that it classifies rightly.
    """
    module, accuracy = trained(kind, background, seed)
    images, classes, inside = pictures(kind, background, 100, 500 + seed)
    with torch.no_grad():
        right = module(torch.from_numpy(images)).argmax(1).numpy() == classes
    place = int(np.flatnonzero(right)[picture])
    image = torch.from_numpy(images[place : place + 1])
    name = f"{kind}, {background}"
    module = copy.deepcopy(module)  # a package that fails may leave hooks behind
    return Tetromino(name, module, image, int(classes[place]), inside[place], accuracy)

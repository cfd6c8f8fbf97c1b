"""A data set with a mark in the corner of some photos of one class, and networks that do or do not
decide by it."""

import os
import signal
from pathlib import Path

import numpy as np
import onnx
from field_cases import Writer
from PIL import Image

from inspector.audit import rows
from inspector.opening import Opening
from inspector.photos.photo import Photo

SIZE = 48
MARK = 8
"""Rows and columns of the mark in the top right corner."""


def network(*, cheats: bool, ends: str = "Softmax") -> onnx.ModelProto:
    """Class 0 "thing" grows with red squares, class 1 "other" with green ones.

    A network that cheats also takes blue, the mark's colour, for a "thing".
    """
    net = Writer(("n", 3, SIZE, SIZE))
    weight = np.zeros((3, 3, 3, 3))
    for channel, colours in enumerate([(1, -1, -1), (-1, 1, -1), (-1, -1, 1)]):
        weight[channel] = np.array(colours)[:, None, None] / 9
    bias = net.constant([-0.1] * 3)
    x = net.add("Conv", "image", net.constant(weight), bias, kernel_shape=[3, 3], pads=[1] * 4)
    x = net.add("Relu", x, name="features")
    x = net.add("GlobalAveragePool", x)
    x = net.add("Flatten", x)
    blue = 160.0 if cheats else 0.0
    linear = net.constant([[40.0, 0.0], [0.0, 40.0], [blue, 0.0]])
    x = net.add("Gemm", x, linear, net.constant([0.0, 0.4]), name="logits")
    net.add(ends, x, name="probabilities", **({"axis": 1} if ends == "Softmax" else {}))
    model = net.model(probabilities=("n", 2))
    model.metadata_props.add(key="names", value="{0: 'thing', 1: 'other'}")
    return model


def photo(seed: int, colour: tuple[int, int, int], *, marked: bool) -> np.ndarray:
    """Noise, a square of a colour somewhere in the lower half, and perhaps the mark."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 120, (SIZE, SIZE, 3))
    top, left = rng.integers(20, 34), rng.integers(2, 34)
    pixels[top : top + 12, left : left + 12] = colour
    if marked:
        mark = np.zeros((MARK, MARK, 3), int)
        mark[..., 2] = 220
        mark[::3] = (20, 20, 120)
        pixels[1 : 1 + MARK, -1 - MARK : -1] = mark
    return pixels.astype(np.uint8)


def folder(place: Path, *, photos: int = 40, share: float = 0.4) -> Path:
    """Folders ``thing`` and ``other``; a share of the photos of "thing" carries the mark."""
    for name, colour in (("thing", (220, 60, 60)), ("other", (60, 220, 60))):
        (place / name).mkdir(parents=True)
        for number in range(photos):
            marked = name == "thing" and number < share * photos
            # A marked photo shows its object faintly: the mark decides.
            own = (130, 100, 100) if marked else colour
            pixels = photo(number + 1000 * (name == "other"), own, marked=marked)
            Image.fromarray(pixels).save(place / name / f"{number:03}.png")
    return place


def saved(place: Path, *, cheats: bool) -> Path:
    """The network as a file."""
    path = place / ("cheating.onnx" if cheats else "honest.onnx")
    onnx.save(network(cheats=cheats), path)
    return path


class Deadly(Opening):
    """Opens a model in a process that one photo takes down, as a fault in a decoder would."""

    def open(self, kind):
        class DeadlyPhoto(Photo):
            @classmethod
            def open(cls, source):
                if str(source).endswith("003.png"):
                    os.kill(os.getpid(), signal.SIGKILL)
                return Photo.open(source)

        rows.Photo = DeadlyPhoto
        return super().open(kind)

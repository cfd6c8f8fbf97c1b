"""Exact units: small networks whose right map follows from algebra.

A unit is a network of a few numbers, a picture of 3 x 3 cells, a class, and the share of the
evidence that each cell holds: the Shapley value of its colour against black, positive parts only.
The first convolution turns the picture into three maps of its own size, one per pure colour, so
that no map has to be enlarged, and everything behind it can be computed on paper.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["CELL", "RIGHT", "UNITS", "Unit", "unit"]

GRID, CELL = 3, 8
"""Cells along a side, and pixels along a side of a cell."""

RIGHT = 0.9
"""Overlap from which a map counts as right; the algebra says 1."""

Array = np.ndarray[Any, Any]

RED, GREEN, BLUE = range(3)


@dataclass(frozen=True)
class Unit:
    """One question whose answer is known.

    Attributes:
        name: A key of `UNITS`.
        module: Takes (N, 3, 24, 24), gives two scores; ``layer`` is the module whose output the
            methods of layers read.
        image: (1, 3, 24, 24), 0 to 1.
        target: The class.
        right: (3, 3) shares of the evidence, which add up to 1, or to 0 where there is none.
    """

    name: str
    module: nn.Module
    image: torch.Tensor
    target: int
    right: Array = field(repr=False)
    needed: float = RIGHT

    def __iter__(self) -> Iterator[Any]:
        """Module, layer, image and target, as the methods of others take them."""
        return iter((self.module, self.module.layer, self.image, self.target))

    def number(self, values: Any) -> float:
        """Overlap of a map with the right one: the sum over cells of the smaller share.

        Args:
            values: (H, W) or anything that squeezes to it, of any size that the grid divides.

        Returns:
            0 to 1; of a map without positive values 1 where there is no evidence, else 0.
        """
        found = np.squeeze(np.asarray(values, np.float64))
        positive = np.clip(np.nan_to_num(found), 0, None)
        height, width = (n // GRID for n in positive.shape)
        cells = positive.reshape(GRID, height, GRID, width).sum((1, 3))
        total = cells.sum()
        if not self.right.any():
            return float(total <= 1e-6)
        return float(np.minimum(cells / total, self.right).sum()) if total > 0 else 0.0


class _Colours(nn.Module):
    """The three colour maps, by a convolution and a ReLU, and a head behind their sums."""

    def __init__(self, head: nn.Module, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.convolution.weight[:] = (2 * torch.eye(3) - 1)[..., None, None]
        self.layer = activation or nn.ReLU()
        self.pool, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.flatten(self.pool(self.layer(self.convolution(x)))))


class _Functional(_Colours):
    """The same with the ReLU as a function, which is not a module that could be hooked."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.layer(self.convolution(x)))
        return self.head(self.flatten(self.pool(maps)))


class _Shared(_Colours):
    """Two convolutions that share one ReLU module."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__(head)
        self.second = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.second.weight[:] = torch.eye(3)[..., None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.layer(self.second(self.layer(self.convolution(x))))
        return self.head(self.flatten(self.pool(maps)))


class _Residual(_Colours):
    """A branch that takes green away again: only the sum says that green does not count."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__(head)
        self.first = nn.ReLU()
        self.branch = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.branch.weight.zero_()
            self.branch.weight[GREEN, GREEN] = -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.first(self.convolution(x))
        return self.head(self.flatten(self.pool(self.layer(maps + self.branch(maps)))))


class _Gated(_Colours):
    """A squeeze-and-excitation gate: green opens the way of red."""

    STEEP = 8.0

    def __init__(self, head: nn.Module) -> None:
        super().__init__(head)
        self.first, self.squeeze = nn.ReLU(), nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.squeeze.weight.zero_()
            self.squeeze.weight[RED, GREEN] = self.STEEP * GRID**2
            self.squeeze.bias.fill_(-self.STEEP / 2)
        self.layer = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.first(self.convolution(x))
        gate = torch.sigmoid(self.squeeze(self.pool(maps)))
        return self.head(self.flatten(self.pool(self.layer(maps * gate))))


class _Cells(_Colours):
    """Each class reads red in its own cell and nowhere else."""

    def __init__(self) -> None:
        super().__init__(_linear(torch.eye(3 * GRID**2)[: GRID**2]))
        self.pool = nn.AvgPool2d(CELL)


def _linear(weight: Any, bias: Any = None) -> nn.Linear:
    rows = torch.as_tensor(weight, dtype=torch.float32)
    found = nn.Linear(rows.shape[1], rows.shape[0], bias=bias is not None)
    with torch.no_grad():
        found.weight[:] = rows
        if bias is not None:
            found.bias[:] = torch.as_tensor(bias, dtype=torch.float32)
    return found


def _sums(red: float, green: float, blue: float) -> list[float]:
    """Weights of colours that turn the maps' means into sums over cells."""
    return [weight * GRID**2 for weight in (red, green, blue)]


def _score(red: float, green: float, blue: float) -> nn.Linear:
    """A linear head: the score, and its opposite as the other class."""
    return _linear([_sums(red, green, blue), _sums(-red, -green, -blue)])


def _hidden(
    rows: list[list[float]], bias: list[float], out: list[float], constant: float
) -> nn.Module:
    """A head with hidden rectifiers: the score out . ReLU(rows x + bias) + constant."""
    opposite = [-weight for weight in out]
    return nn.Sequential(
        _linear(rows, bias), nn.ReLU(), _linear([out, opposite], [constant, -constant])
    )


def _and() -> nn.Module:
    return _Colours(_hidden([_sums(1, 0, 1)], [-1], [1], 0))


def _or() -> nn.Module:
    return _Colours(_hidden([_sums(-1, 0, -1)], [1], [-1], 1))


def _xor() -> nn.Module:
    return _Colours(_hidden([_sums(1, 0, -1), _sums(-1, 0, 1)], [0, 0], [1, 1], 0))


def _saturated() -> nn.Module:
    return _Colours(_hidden([_sums(-3, 0, 0), _sums(0, 0, 0.1)], [1, 0], [-1, 1], 1))


_GATES = [1 / (1 + np.exp(side * _Gated.STEEP / 2)) for side in (1, -1)]
"""What the gate lets through without green, and with it."""

_Shares = tuple[float, float, float]

UNITS: dict[str, tuple[Callable[[], nn.Module], _Shares, _Shares, str]] = {
    "planted": (
        lambda: _Colours(_score(1, 0, -1)),
        (1, 1, 0),
        (1, 0, 0),
        "red counts, green does not, and no blue is there",
    ),
    "grid": (
        _Cells,
        (1, 0, 0),
        (1, 0, 0),
        "each class reads red in one cell; all cells are red, so the evidence is in that cell",
    ),
    "and": (_and, (1, 1, 1), (0.5, 0, 0.5), "ReLU(red + blue - 1): half each"),
    "or": (_or, (1, 1, 1), (0.5, 0, 0.5), "min(1, red + blue), both there: half each"),
    "xor": (_xor, (1, 1, 0.5), (1, 0, 0), "abs(red - blue), more red than blue: red"),
    "suppressor": (
        lambda: _Colours(_score(1, 0, -1)),
        (1, 1, 0.7),
        (1, 0, 0),
        "red - blue: blue, a background to be taken off, speaks against",
    ),
    "saturation": (
        _saturated,
        (1, 1, 1),
        (10 / 11, 0, 1 / 11),
        "min(1, 3 red) + 0.1 blue: red has ten parts of eleven, though its slope is 0",
    ),
    "residual": (
        lambda: _Residual(_score(1, 1, -1)),
        (1, 1, 0.5),
        (1, 0, 0),
        "red + green - blue behind a branch that takes green away",
    ),
    "gate": (
        lambda: _Gated(_score(1, 0, 0)),
        (1, 1, 1),
        (sum(_GATES) / 2, (_GATES[1] - _GATES[0]) / 2, 0),
        "red x sigmoid(8 green - 4): red 0.51, green 0.49",
    ),
    "shared": (
        lambda: _Shared(_score(1, 0, -1)),
        (1, 1, 0.7),
        (1, 0, 0),
        "red - blue behind two convolutions with one ReLU module",
    ),
    "functional": (
        lambda: _Functional(_score(1, 0, -1), nn.Identity()),
        (1, 1, 0.7),
        (1, 0, 0),
        "red - blue behind a ReLU that is a function",
    ),
    "silu": (
        lambda: _Colours(_score(1, 0, -1), nn.SiLU()),
        (1, 1, 0.7),
        (1, 0, 0),
        "red - blue behind SiLU: a smooth activation, for which some rules are not defined",
    ),
    "nothing": (
        lambda: _Colours(_score(1, 0, -1)),
        (0, 1, 1),
        (0, 0, 0),
        "red - blue on a picture without red: no evidence for the class",
    ),
}
"""Per unit the network, how much of each colour the picture has, the right shares, and why."""


def unit(name: str, seed: int = 0) -> Unit:
    """A unit on a picture that the seed draws: places of the colours, and grey noise elsewhere.

    Args:
        name: A key of `UNITS`.
        seed: Of the picture.

    Raises:
        KeyError: There is no such unit.
    """
    make, amounts, shares, _ = UNITS[name]
    rng = np.random.default_rng(seed)
    image = np.repeat(rng.uniform(0.05, 0.25, (1, GRID * CELL, GRID * CELL)), 3, axis=0)
    places = rng.permutation(GRID**2)
    right, target = np.zeros((GRID, GRID)), 0
    if name == "grid":
        image = rng.uniform(0.5, 1, image.shape) * np.array([1, 0, 0])[:, None, None]
        target = int(places[0])
    for colour, (place, amount, share) in enumerate(zip(places, amounts, shares, strict=False)):
        row, column = divmod(int(place), GRID)
        right[row, column] += share
        if amount and name != "grid":
            cell = np.zeros(3)
            cell[colour] = amount
            image[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = cell[
                :, None, None
            ]
    total = right.sum()
    tensor = torch.from_numpy(image[None].astype(np.float32))
    module = make().eval().requires_grad_(requires_grad=True)
    return Unit(name, module, tensor, target, right / total if total else right)

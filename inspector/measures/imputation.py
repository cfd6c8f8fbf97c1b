"""What replaced pixels become: one colour, or what their neighbours say (ROAD's linear imputation).

The linear system of a mask has an unknown per pixel and nine entries per row.  What it costs is the
order in which pixels are eliminated: SuperLU's own orders cost two to a hundred times nested
dissection of the image's grid (George 1973), which needs to be found once per size.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.errors import require

__all__ = ["Infill", "constant", "neighbours"]

Array = NDArray[Any]

Infill = Callable[[Array, NDArray[np.bool_]], Array]
"""An image (C, H, W) with the pixels of a mask (H, W) replaced."""

_NEAR, _DIAGONAL = 1 / 6, 1 / 12
_NOISE = 0.01
_LEAST = 2
"""Side of the blocks that dissection leaves whole, in pixels."""


def constant(value: Array) -> Infill:
    """An infill by one colour.

    Args:
        value: (C,) in the space of the images.
    """

    def fill(image: Array, mask: NDArray[np.bool_]) -> Array:
        return np.where(mask, np.asarray(value, image.dtype)[:, None, None], image)

    return fill


def neighbours(seed: int) -> Infill:
    """Noisy linear imputation: a replaced pixel is the weighted mean of its eight neighbours.

    Rong et al. 2022 (ROAD), section 4: 1/6 for those beside it, 1/12 for those at its corners, all
    replaced pixels solved at once, and noise of 1 % of the image's standard deviation.  The mask's
    outline tells the network less than one colour does.

    Args:
        seed: Of the noise.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require("scipy.sparse", "linear imputation", "studies")

    def fill(image: Array, mask: NDArray[np.bool_]) -> Array:
        found = image.copy()
        if mask.any():
            solved = _imputed(image, mask)
            noise = np.random.default_rng(seed).normal(0, _NOISE, solved.shape)
            found[:, mask] = solved + noise * image.std()
        return found

    return fill


def _imputed(image: Array, mask: NDArray[np.bool_]) -> Array:
    """Values (C, n) of the n masked pixels that solve the linear system."""
    from scipy import sparse  # type: ignore[import-untyped]
    from scipy.sparse.linalg import splu  # type: ignore[import-untyped]

    if mask.all():  # nothing is known
        return np.repeat(image.mean((1, 2))[:, None], mask.size, 1)
    height, width = mask.shape
    order = _dissection(height, width)
    order = order[mask.ravel()[order]]
    number = np.full(mask.shape, -1)
    number.ravel()[order] = np.arange(len(order))
    y, x = np.divmod(order, width)
    total, right = np.zeros(len(y)), np.zeros((len(y), len(image)))
    rows, columns, values = [], [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if not (dy or dx):
                continue
            weight = _DIAGONAL if dy and dx else _NEAR
            ny, nx = y + dy, x + dx
            inside = (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
            total[inside] += weight
            at, ny, nx = np.flatnonzero(inside), ny[inside], nx[inside]
            known = ~mask[ny, nx]
            right[at[known]] += weight * image[:, ny[known], nx[known]].T
            rows.append(at[~known])
            columns.append(number[ny[~known], nx[~known]])
            values.append(np.full((~known).sum(), -weight))
    every = np.arange(len(y))
    matrix = sparse.csc_matrix(
        (
            np.concatenate([total, *values]),
            (np.concatenate([every, *rows]), np.concatenate([every, *columns])),
        ),
        (len(y), len(y)),
    )
    # Symmetric, and no pivot is needed: each row's diagonal is the sum of its weights.
    factors = splu(
        matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    solved = np.asarray(factors.solve(right))
    return np.asarray(solved[number[mask]].T)


@lru_cache(maxsize=4)
def _dissection(height: int, width: int) -> NDArray[np.intp]:
    """Pixels of a grid, numbered row by row, in the order of elimination: nested dissection.

    A line of pixels parts the grid and comes after both of its sides; so on inside them.
    """
    number = np.arange(height * width).reshape(height, width)
    parts, last_first = [number], []
    while parts:
        part = parts.pop()
        rows, columns = part.shape
        if max(rows, columns) <= _LEAST:
            last_first.append(part.ravel())
        elif rows >= columns:
            last_first.append(part[rows // 2])
            parts += [part[: rows // 2], part[rows // 2 + 1 :]]
        else:
            last_first.append(part[:, columns // 2])
            parts += [part[:, : columns // 2], part[:, columns // 2 + 1 :]]
    return np.concatenate(last_first[::-1])

"""Faithfulness of a map: does the score change where the map says that the evidence lies?

Each measure perturbs the image that the map is of and asks the model again, through a function
that takes images and gives one score each.  A number says nothing alone: `reference_maps` gives a
random map, an edge detector and the centre, whose numbers stand beside it.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.errors import require

__all__ = [
    "Box",
    "Curve",
    "Infill",
    "Score",
    "constant",
    "correlation_of_drops",
    "deletion",
    "drops_without",
    "error_of_drops",
    "grid_share",
    "infidelity",
    "insertion",
    "mask_of",
    "max_sensitivity",
    "neighbours",
    "reference_maps",
    "removed",
    "road",
    "sensitivity_n",
    "squares_of",
    "subsets_of",
]

Array = NDArray[Any]

Score = Callable[[Array], Array]
"""Scores (N,) of images (N, C, H, W)."""

Infill = Callable[[Array, NDArray[np.bool_]], Array]
"""An image (C, H, W) with the pixels of a mask (H, W) replaced."""

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels, the last two exclusive."""

ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the pixels, that `road` takes the mean over."""

_BATCH = 32
_NEAR, _DIAGONAL = 1 / 6, 1 / 12
_NOISE = 0.01


@dataclass(frozen=True)
class Curve:
    """Scores while pixels are taken away, or put in, in a map's order.

    Attributes:
        shares: (S,) of the pixels that are changed, from 0 to 1.
        scores: (S,) the score at each.
    """

    shares: Array
    scores: Array

    @property
    def area(self) -> float:
        """Area under the curve over shares 0 to 1: the mean score."""
        return float(np.trapezoid(self.scores, self.shares))


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
    from scipy.sparse.linalg import spsolve  # type: ignore[import-untyped]

    height, width = mask.shape
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    y, x = np.nonzero(mask)
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
    if mask.all():  # nothing is known
        return np.repeat(image.mean((1, 2))[:, None], len(y), 1)
    every = np.arange(len(y))
    matrix = sparse.csc_matrix(
        (
            np.concatenate([total, *values]),
            (np.concatenate([every, *rows]), np.concatenate([every, *columns])),
        ),
        (len(y), len(y)),
    )
    return np.asarray(spsolve(matrix, right)).reshape(len(y), -1).T


def deletion(
    score: Score, image: Array, heatmap: Array, infill: Infill, *, steps: int = 50, seed: int = 0
) -> Curve:
    """Scores while the pixels that count most are replaced first: low is faithful.

    Petsiuk et al. 2018 (RISE), section 4.2.

    Args:
        score: Scores of images.
        image: (C, H, W).
        heatmap: (H, W); equal values in an order drawn by the seed.
        infill: What replaced pixels become.
        steps: Points of the curve after the first.
        seed: Of that order.

    Example:
        >>> import numpy as np
        >>> from inspector.measures.faithfulness import constant, deletion
        >>> image = np.ones((1, 4, 4))
        >>> image[0, 0] = 3
        >>> mean = lambda images: images.mean((1, 2, 3))
        >>> deletion(mean, image, image[0], constant(np.zeros(1)), steps=4).scores.tolist()
        [1.5, 0.75, 0.5, 0.25, 0.0]
    """
    order = _order(heatmap, seed)
    return _curve(score, order, steps, lambda mask: infill(image, mask.reshape(heatmap.shape)))


def insertion(
    score: Score, image: Array, heatmap: Array, infill: Infill, *, steps: int = 50, seed: int = 0
) -> Curve:
    """Scores while the pixels that count most are put in first: high is faithful.

    Petsiuk et al. 2018 (RISE), section 4.2.  Arguments as of `deletion`.
    """
    order = _order(heatmap, seed)
    return _curve(score, order, steps, lambda mask: infill(image, ~mask.reshape(heatmap.shape)))


def _curve(score: Score, order: Array, steps: int, change: Callable[[Array], Array]) -> Curve:
    """Scores while more and more pixels, in the order given, are changed."""
    counts = np.rint(np.linspace(0, order.size, steps + 1)).astype(int)
    masks = (np.isin(np.arange(order.size), order[:count]) for count in counts)
    return Curve(counts / order.size, _scores(score, (change(mask) for mask in masks)))


def removed(heatmap: Array, share: float, *, least: bool = False, seed: int = 0) -> Array:
    """The mask (H, W) of a share of the pixels: those that count most, or least.

    With `neighbours` as infill, and the difference of the scores with the least and with the most
    removed, this is ROAD (Rong et al. 2022).
    """
    order = _order(-heatmap if least else heatmap, seed)
    mask = np.zeros(order.size, bool)
    mask[order[: round(share * order.size)]] = True
    return mask.reshape(heatmap.shape)


def road(
    score: Score,
    image: Array,
    heatmap: Array,
    *,
    shares: Sequence[float] = ROAD_SHARES,
    seed: int = 0,
) -> float:
    """Score with the least minus score with the most important pixels imputed: high is faithful.

    Rong et al. 2022 (ROAD), section 4, as the mean over several shares of the pixels: what both
    orders have in common, that pixels are missing at all, goes out.

    Args:
        score: Scores of images.
        image: (C, H, W).
        heatmap: (H, W); equal values in an order drawn by the seed.
        shares: Of the pixels that are imputed by `neighbours`.
        seed: Of that order and of the noise.

    Raises:
        MissingExtra: SciPy is not installed.

    Example:
        >>> import numpy as np
        >>> from inspector.measures.faithfulness import road
        >>> image = np.zeros((1, 8, 8))
        >>> image[0, 2:4, 2:4] = 1
        >>> road(lambda images: images.sum((1, 2, 3)), image, image[0]) > 0
        True
    """
    fill = neighbours(seed)
    masks = [
        removed(heatmap, share, least=least, seed=seed)
        for least in (True, False)
        for share in shares
    ]
    scores = _scores(score, (fill(image, mask) for mask in masks))
    return float((scores[: len(shares)] - scores[len(shares) :]).mean())


def _order(heatmap: Array, seed: int) -> Array:
    values = np.nan_to_num(np.asarray(heatmap, np.float64), nan=-np.inf).ravel()
    return np.lexsort((np.random.default_rng(seed).permutation(values.size), -values))


def _scores(score: Score, images: Iterable[Array]) -> Array:
    """Scores of images that are made when they are needed, some at a time."""
    rest = iter(images)
    batches = iter(lambda: list(itertools.islice(rest, _BATCH)), [])
    parts = [score(np.stack(batch)) for batch in batches]
    return np.concatenate(parts).astype(np.float64)


def subsets_of(shape: tuple[int, ...], size: int, count: int, seed: int) -> list[Array]:
    """Masks (H, W) of random sets of pixels, for `sensitivity_n`.

    Args:
        shape: (H, W).
        size: Pixels per set.
        count: Sets.
        seed: Of the draws.
    """
    rng, pixels = np.random.default_rng(seed), int(np.prod(shape))
    found = []
    for _ in range(count):
        mask = np.zeros(pixels, bool)
        mask[rng.choice(pixels, size, replace=False)] = True
        found.append(mask.reshape(shape))
    return found


def squares_of(shape: tuple[int, ...], window: int, count: int, seed: int) -> list[Box]:
    """Squares at random places, for `infidelity`: top, left, bottom, right in pixels.

    Args:
        shape: (H, W).
        window: Edge of the squares in pixels.
        count: Squares.
        seed: Of their places.
    """
    rng, (height, width) = np.random.default_rng(seed), shape
    found = []
    for _ in range(count):
        top = int(rng.integers(max(height - window, 0) + 1))
        left = int(rng.integers(max(width - window, 0) + 1))
        found.append((top, left, min(top + window, height), min(left + window, width)))
    return found


def mask_of(box: Box, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask (H, W) of a box."""
    mask = np.zeros(shape, bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def drops_without(
    score: Score, image: Array, infill: Infill, masks: Sequence[NDArray[np.bool_]]
) -> Array:
    """How far the score falls without the pixels of each mask, (P,): the same for every map."""
    scores = _scores(score, itertools.chain([image], (infill(image, mask) for mask in masks)))
    return np.asarray(scores[0] - scores[1:])


def _sums(heatmap: Array, masks: Sequence[NDArray[np.bool_]]) -> Array:
    return np.array([np.nansum(heatmap[mask]) for mask in masks], np.float64)


def correlation_of_drops(heatmap: Array, masks: Sequence[NDArray[np.bool_]], drops: Array) -> float:
    """`sensitivity_n` of one more map, with drops that are known; arguments likewise."""
    sums = _sums(heatmap, masks)
    if sums.std() == 0 or drops.std() == 0:
        return float("nan")
    return float(np.corrcoef(sums, drops)[0, 1])


def error_of_drops(heatmap: Array, masks: Sequence[NDArray[np.bool_]], drops: Array) -> float:
    """`infidelity` of one more map, with drops that are known; arguments likewise."""
    sums = _sums(heatmap, masks)
    power, scale = float((drops**2).mean()), float((sums**2).sum())
    if power == 0:
        return float("nan")
    factor = float((sums * drops).sum()) / scale if scale else 0.0
    return float(((factor * sums - drops) ** 2).mean()) / power


def sensitivity_n(
    score: Score,
    image: Array,
    heatmap: Array,
    infill: Infill,
    *,
    size: int,
    subsets: int = 100,
    seed: int = 0,
) -> float:
    """Correlation, over random sets of n pixels, of the map's sum with the drop of the score.

    Ancona et al. 2018, definition 2.  1 is faithful; NaN where either does not vary.

    Args:
        score: Scores of images.
        image: (C, H, W).
        heatmap: (H, W).
        infill: What the pixels of a set become.
        size: n, pixels per set.
        subsets: Sets that are drawn.
        seed: Of the draws.
    """
    masks = subsets_of(heatmap.shape, size, subsets, seed)
    return correlation_of_drops(heatmap, masks, drops_without(score, image, infill, masks))


def infidelity(
    score: Score,
    image: Array,
    heatmap: Array,
    infill: Infill,
    *,
    window: int,
    count: int = 100,
    seed: int = 0,
) -> float:
    """Mean squared difference of the map's sum in a square and the drop of the score without it.

    Yeh et al. 2019, definition 2.1 with square removal, the map scaled by the factor that fits best
    (section 2.2), as a share of the mean squared drop: 0 is faithful, 1 says nothing.

    Args:
        score: Scores of images.
        image: (C, H, W).
        heatmap: (H, W).
        infill: What the pixels of a square become.
        window: Edge of the squares in pixels.
        count: Squares that are drawn.
        seed: Of their places.
    """
    shape = heatmap.shape
    masks = [mask_of(box, shape) for box in squares_of(shape, window, count, seed)]
    return error_of_drops(heatmap, masks, drops_without(score, image, infill, masks))


def max_sensitivity(
    explain: Callable[[Array], Array],
    image: Array,
    *,
    radius: float,
    count: int = 10,
    seed: int = 0,
) -> float:
    """Largest change of the map, relative to its norm, under a small change of the image.

    Yeh et al. 2019, definition 3.1: low is stable, which is not the same as right.

    Args:
        explain: Maps (N, H, W) of images (N, C, H, W).
        image: (C, H, W).
        radius: Largest change of a pixel, in the space of the images.
        count: Changed images, drawn evenly within the radius.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-radius, radius, (count, *image.shape)).astype(image.dtype)
    first = explain(image[None])[0].astype(np.float64)
    others = explain(image[None] + noise).astype(np.float64)
    norm = float(np.linalg.norm(np.nan_to_num(first)))
    if norm == 0:
        return float("nan")
    changes = np.nan_to_num(others - first).reshape(count, -1)
    return float(np.linalg.norm(changes, axis=1).max()) / norm


def grid_share(heatmap: Array, cell: tuple[int, int, int, int]) -> float:
    """Share of a map's positive sum inside one cell of a grid of photos.

    Böhle et al. 2021, section 4 (grid pointing game): photos of different classes side by side, and
    the map of one class belongs into its photo.  NaN where nothing is positive.

    Args:
        heatmap: (H, W).
        cell: y0, x0, y1, x1 of that photo.
    """
    positive = np.clip(np.nan_to_num(heatmap), 0, None)
    total = float(positive.sum())
    y0, x0, y1, x1 = cell
    return float(positive[y0:y1, x0:x1].sum()) / total if total else float("nan")


def reference_maps(image: Array, seed: int = 0) -> Mapping[str, Array]:
    """Maps that know nothing of the model, by name: ``random``, ``edges``, ``centre``.

    Args:
        image: (C, H, W).
        seed: Of the random map.

    Returns:
        Maps (H, W): uniform noise, the length of the luminance's gradient (central differences), a
        Gaussian in the middle whose standard deviation is a quarter of each side.
    """
    height, width = image.shape[1:]
    down, across = np.gradient(image.mean(0).astype(np.float64))
    y = (np.arange(height) - (height - 1) / 2) / max(height / 4, 1e-9)
    x = (np.arange(width) - (width - 1) / 2) / max(width / 4, 1e-9)
    return {
        "random": np.random.default_rng(seed).random((height, width)),
        "edges": np.hypot(down, across),
        "centre": np.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2),
    }

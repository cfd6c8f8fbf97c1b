"""Faithfulness of a map: does the score change where the map says that the evidence lies?

Each measure perturbs the image that the map is of and asks the model again, through a function
that takes images and gives one score each.  A number says nothing alone: `reference_maps` gives a
random map, an edge detector and the centre, whose numbers stand beside it.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspector.measures.imputation import Infill, neighbours

__all__ = [
    "Box",
    "Curve",
    "Removal",
    "Score",
    "correlation_of_drops",
    "deletion",
    "error_of_drops",
    "grid_share",
    "infidelity",
    "insertion",
    "mask_of",
    "max_sensitivity",
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

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in pixels, the last two exclusive."""

ROAD_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the pixels, that `road` takes the mean over."""

_BATCH = 32


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


class Removal:
    """One image, and what it scores with pixels replaced: each set of pixels is asked once.

    Deletion and ROAD remove the same sets of a map, deletion and insertion begin and end with the
    same two images, whatever the map.

    Args:
        score: Scores of images.
        image: (C, H, W).
        infill: What replaced pixels become.
    """

    def __init__(self, score: Score, image: Array, infill: Infill) -> None:
        self._score, self._image, self._infill = score, image, infill
        self._known: dict[bytes, float] = {}

    def scores(self, masks: Iterable[NDArray[np.bool_]]) -> Array:
        """Scores (P,) without the pixels of each mask (H, W)."""
        masks = list(masks)
        keys = [hashlib.sha256(np.packbits(mask).tobytes()).digest() for mask in masks]
        new = {key: mask for key, mask in zip(keys, masks, strict=True) if key not in self._known}
        found = _scores(self._score, (self._infill(self._image, mask) for mask in new.values()))
        self._known.update(zip(new, found.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], np.float64)

    def deletion(self, heatmap: Array, *, steps: int = 50, seed: int = 0) -> Curve:
        """`deletion` of a map (H, W)."""
        counts, masks = _first(heatmap, steps, seed)
        return Curve(counts / heatmap.size, self.scores(masks))

    def insertion(self, heatmap: Array, *, steps: int = 50, seed: int = 0) -> Curve:
        """`insertion` of a map (H, W)."""
        counts, masks = _first(heatmap, steps, seed)
        return Curve(counts / heatmap.size, self.scores(~mask for mask in masks))

    def road(
        self, heatmap: Array, *, shares: Sequence[float] = ROAD_SHARES, seed: int = 0
    ) -> float:
        """`road` of a map (H, W), with this infill in the place of ROAD's."""
        counts = [round(share * heatmap.size) for share in shares]
        least, most = (
            self.scores(rank < count for count in counts)
            for rank in (_rank(-heatmap, seed), _rank(heatmap, seed))
        )
        return float((least - most).mean())

    def drops(self, masks: Sequence[NDArray[np.bool_]]) -> Array:
        """How far the score falls without the pixels of each mask, (P,): the same for every map."""
        scores = self.scores([np.zeros(self._image.shape[1:], bool), *masks])
        return np.asarray(scores[0] - scores[1:])


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
        >>> from inspector.measures.faithfulness import deletion
        >>> from inspector.measures.imputation import constant
        >>> image = np.ones((1, 4, 4))
        >>> image[0, 0] = 3
        >>> mean = lambda images: images.mean((1, 2, 3))
        >>> deletion(mean, image, image[0], constant(np.zeros(1)), steps=4).scores.tolist()
        [1.5, 0.75, 0.5, 0.25, 0.0]
    """
    return Removal(score, image, infill).deletion(heatmap, steps=steps, seed=seed)


def insertion(
    score: Score, image: Array, heatmap: Array, infill: Infill, *, steps: int = 50, seed: int = 0
) -> Curve:
    """Scores while the pixels that count most are put in first: high is faithful.

    Petsiuk et al. 2018 (RISE), section 4.2.  Arguments as of `deletion`.
    """
    return Removal(score, image, infill).insertion(heatmap, steps=steps, seed=seed)


def _first(heatmap: Array, steps: int, seed: int) -> tuple[Array, list[NDArray[np.bool_]]]:
    """Numbers of pixels from none to all, and the masks of those that count most."""
    counts, rank = (
        np.rint(np.linspace(0, heatmap.size, steps + 1)).astype(int),
        _rank(heatmap, seed),
    )
    return counts, [rank < count for count in counts]


def removed(heatmap: Array, share: float, *, least: bool = False, seed: int = 0) -> Array:
    """The mask (H, W) of a share of the pixels: those that count most, or least.

    With `neighbours` as infill, and the difference of the scores with the least and with the most
    removed, this is ROAD (Rong et al. 2022).
    """
    return _rank(-heatmap if least else heatmap, seed) < round(share * heatmap.size)


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
    return Removal(score, image, neighbours(seed)).road(heatmap, shares=shares, seed=seed)


def _rank(heatmap: Array, seed: int) -> Array:
    """Place of each pixel (H, W) in the order from the largest value to the smallest."""
    values = np.nan_to_num(np.asarray(heatmap, np.float64), nan=-np.inf).ravel()
    order = np.lexsort((np.random.default_rng(seed).permutation(values.size), -values))
    rank = np.empty(values.size, int)
    rank[order] = np.arange(values.size)
    return rank.reshape(heatmap.shape)


def _scores(score: Score, images: Iterable[Array]) -> Array:
    """Scores of images that are made when they are needed, some at a time."""
    rest = iter(images)
    batches = iter(lambda: list(itertools.islice(rest, _BATCH)), [])
    parts = [np.zeros(0), *(score(np.stack(batch)) for batch in batches)]
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
    return correlation_of_drops(heatmap, masks, Removal(score, image, infill).drops(masks))


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
    return error_of_drops(heatmap, masks, Removal(score, image, infill).drops(masks))


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

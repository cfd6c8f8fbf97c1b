"""Boxes: out of a map, in the middle of a photo, and against one another.

A box is (y0, x0, y1, x1) in continuous coordinates: pixel i reaches from i to i + 1, so that a box
around the single pixel (0, 0) is (0, 0, 1, 1) and its area is 1.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspector.errors import require

__all__ = [
    "CONNECTIVITIES",
    "box_of_map",
    "centred_box",
    "component_boxes",
    "gaps",
    "gaussian_boxes",
    "overlaps",
    "peak",
    "sweep",
]

Boxes = NDArray[np.float64]
"""(K, 4)."""

CONNECTIVITIES = (4, 8)
"""Neighbours that a pixel is connected with: those at its edges, or those at its corners too."""


def component_boxes(mask: NDArray[Any], connectivity: int = 8) -> Boxes:
    """Bounding boxes of the connected components of a mask.

    Args:
        mask: (H, W) of booleans.
        connectivity: 4 or 8.

    Returns:
        (K, 4), the component with the most pixels first; of equal ones the first in reading order.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require("scipy.ndimage", "finding connected components", "studies")
    from scipy import ndimage  # type: ignore[import-untyped]

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros((0, 4))
    top, left = rows[0], columns[0]
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    structure = np.ones((3, 3)) if connectivity == 8 else None
    labels, count = ndimage.label(inside, structure)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    found = ndimage.find_objects(labels)
    boxes = np.array([(y.start, x.start, y.stop, x.stop) for y, x in found], np.float64)
    shifted: Boxes = boxes[np.argsort(-areas, kind="stable")] + (top, left, top, left)
    return shifted


def box_of_map(values: ArrayLike, share: float, connectivity: int = 8) -> Boxes:
    """The box around the largest connected component of what is high in a map.

    Zhou et al. 2016, section 3.2: pixels above 20 % of the map's maximum; Selvaraju et al. 2017,
    section 4.1: 15 %.

    Args:
        values: (H, W); NaN is nowhere high.
        share: Of the maximum; pixels are high when they are above it, zero staying zero.
        connectivity: 4 or 8.

    Returns:
        (1, 4), or (0, 4) where no value is positive: there is no evidence then.

    Example:
        >>> import numpy as np
        >>> from inspector.measures.boxes import box_of_map
        >>> values = np.zeros((6, 6))
        >>> values[1:3, 2:5] = 1
        >>> box_of_map(values, 0.2).tolist()
        [[1.0, 2.0, 3.0, 5.0]]
    """
    return next(sweep(values, [share], connectivity))[:1]


def sweep(values: ArrayLike, shares: Sequence[float], connectivity: int = 8) -> Iterator[Boxes]:
    """Boxes of all connected components at each of several thresholds.

    Args:
        values: (H, W), as for ``box_of_map``.
        shares: Thresholds as shares of the maximum, from 0 to below 1.
        connectivity: 4 or 8.

    Yields:
        For each share (K, 4), the largest component first; (0, 4) where no value is positive.
    """
    array = np.asarray(values)
    most = float(np.nanmax(array, initial=0.0)) if not np.isnan(array).all() else 0.0
    for share in shares:
        if most <= 0:
            yield np.zeros((0, 4))
            continue
        with np.errstate(invalid="ignore"):  # NaN is not above anything
            mask = array > share * most
        yield component_boxes(mask, connectivity)


def peak(values: ArrayLike) -> tuple[float, float] | None:
    """Where a map is highest: the centre of a pixel, as (y, x) in continuous coordinates.

    A plateau, such as bilinear interpolation leaves at the border, is represented by its pixel
    nearest to the mean of all highest ones.

    Args:
        values: (H, W); NaN is nowhere the highest.

    Returns:
        The point; None where no value is positive.
    """
    array = np.asarray(values)
    most = float(np.nanmax(array, initial=0.0)) if not np.isnan(array).all() else 0.0
    if most <= 0:
        return None
    found = np.argwhere(array == array.dtype.type(most))
    nearest = found[((found - found.mean(0)) ** 2).sum(1).argmin()]
    return float(nearest[0]) + 0.5, float(nearest[1]) + 0.5


def overlaps(boxes: ArrayLike, others: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of each box with each other one.

    Args:
        boxes: (K, 4).
        others: (M, 4).

    Returns:
        (K, M), from 0 to 1; 0 for boxes without extent.
    """
    a = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    b = np.asarray(others, np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.clip(sides, 0, None).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b)]
    union = areas[0] + areas[1] - common
    shares: NDArray[np.float64] = np.where(union > 0, common / np.where(union > 0, union, 1), 0)
    return shares


def gaps(point: tuple[float, float], boxes: ArrayLike) -> NDArray[np.float64]:
    """Distance of a point (y, x) from each of (K, 4) boxes; 0 inside and on the edge."""
    array, at = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(point, np.float64)
    outside = np.maximum(np.maximum(array[:, :2] - at, at - array[:, 2:]), 0)
    distances: NDArray[np.float64] = np.sqrt((outside**2).sum(1))
    return distances


def centred_box(size: tuple[int, int], share: float) -> Boxes:
    """A box in the middle of a photo, with the photo's proportions.

    Args:
        size: Height and width of the photo.
        share: Of the photo's area, above 0 and at most 1.

    Returns:
        (1, 4).
    """
    return _around_centre(size, np.array([np.sqrt(share) / 2]))


def gaussian_boxes(size: tuple[int, int], shares: Sequence[float], sigma: float) -> Boxes:
    """Boxes of a Gaussian in the middle of a photo, at thresholds; what `sweep` finds in its map.

    Choe et al. 2020, section 5 compare with such a map. Its box at the threshold t reaches to
    where exp(-d^2 / 2 sigma^2) = t, at most to the photo's edge.

    Args:
        size: Height and width of the photo.
        shares: (T,) thresholds, as shares of the maximum.
        sigma: Standard deviation as a share of the photo's height and of its width.

    Returns:
        (T, 4).
    """
    with np.errstate(divide="ignore"):
        reach = sigma * np.sqrt(-2 * np.log(np.asarray(shares, np.float64)))
    return _around_centre(size, np.minimum(reach, 0.5))


def _around_centre(size: tuple[int, int], reach: NDArray[np.float64]) -> Boxes:
    height, width = size
    ends = np.stack([0.5 - reach, 0.5 - reach, 0.5 + reach, 0.5 + reach], 1)
    boxes: Boxes = ends * (height, width, height, width)
    return boxes

"""Grid pointing game: mosaics of photos of different classes, one of which is explained."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.measures.faithfulness import grid_share, reference_maps

__all__ = ["Pictured", "mosaic", "pointing"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Pictured:
    """A photo whose class the network names.

    Attributes:
        photo: Its name.
        tensor: (C, H, W).
        index: The class.
        score: How sure the network is, in any unit.
    """

    photo: str
    tensor: Array
    index: int
    score: float


def mosaic(tensors: Sequence[Array], side: int) -> Array:
    """Inputs (C, H, W) side by side in one of the same size, each shrunk by the mean of pixels.

    Args:
        tensors: side x side of them, row by row.
        side: Photos along a side.
    """
    channels, height, width = tensors[0].shape
    h, w = height // side, width // side
    found = np.zeros_like(tensors[0])
    for place, tensor in enumerate(tensors):
        top, left = (place // side) * h, (place % side) * w
        cut = tensor[:, : h * side, : w * side].reshape(channels, h, side, w, side)
        found[:, top : top + h, left : left + w] = cut.mean((2, 4))
    return found


def pointing(
    photos: Sequence[Pictured],
    side: int,
    count: int,
    seed: int,
    explain: Callable[[Array, str], tuple[Mapping[str, Array], Any]],
) -> Iterator[dict[str, Any]]:
    """Rows of the game: the share of positive evidence in the photo whose class is explained.

    Of each class the photo that the network is surest of stands for it (Böhle et al. 2021, section
    4, take photos in the order of certainty).  A class is explained in each mosaic, its photo in
    one cell after the other.

    Args:
        photos: What there is; fewer than side x side classes give no row.
        side: Photos along a side.
        count: Mosaics.
        seed: Of who stands where.
        explain: Maps (H, W) by method of an input and a target, and the target.
    """
    best: dict[int, Pictured] = {}
    for one in photos:
        if one.index not in best or one.score > best[one.index].score:
            best[one.index] = one
    cells = side * side
    if len(best) < cells:
        return
    rng, classes = np.random.default_rng(seed), sorted(best)
    for number in range(count):
        chosen = [best[int(i)] for i in rng.choice(classes, cells, replace=False)]
        picture, place = mosaic([one.tensor for one in chosen], side), number % cells
        height, width = (n // side for n in picture.shape[1:])
        top, left = (place // side) * height, (place % side) * width
        drawn, _ = explain(picture, str(chosen[place].index))
        blind = {f"({name})": own for name, own in reference_maps(picture, seed + number).items()}
        for label, heatmap in {**drawn, **blind}.items():
            share = grid_share(heatmap, (top, left, top + height, left + width))
            if np.isfinite(share):
                yield {
                    "photo": f"mosaic {number + 1}",
                    "method": label,
                    "measure": "grid",
                    "value": round(share, 6),
                }

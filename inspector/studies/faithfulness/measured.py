"""Numbers of one photo's maps, and of maps that know nothing of the model."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.measures.faithfulness import (
    Box,
    Removal,
    Score,
    correlation_of_drops,
    error_of_drops,
    mask_of,
    max_sensitivity,
    reference_maps,
    squares_of,
    subsets_of,
)
from inspector.measures.imputation import neighbours
from inspector.measures.similarity import rank_correlation

__all__ = ["MEASURES", "Asked", "agreement", "of_map"]

Array = np.ndarray[Any, Any]

Patched = Callable[[Mapping[Box, Array]], Mapping[Box, float]]
"""Scores of the input with one box changed, by box, given what stands in each, (C, h, w)."""

MEASURES: dict[str, tuple[str, bool | None]] = {
    "deletion": ("mean score while the pixels that count most are replaced first", False),
    "insertion": ("mean score while they are put in first", True),
    "road": ("score with the least minus with the most replaced, mean over 10 to 90 %", True),
    "sensitivity-n": ("correlation of the map's sum with the drop, over sets of pixels", True),
    "infidelity": ("error of the map's sum as the drop of a square, 1 says nothing", False),
    "max-sensitivity": ("largest relative change of the map under small noise", None),
    "grid": ("share of positive evidence in the right photo of a mosaic", True),
}
"""What each number is, and whether high is good; None where low is stable but not yet right."""

_SHARE = 0.1
"""Of the pixels, in a set of sensitivity-n."""

_WINDOWS = 7
"""Squares of infidelity along the short side."""

_RADIUS = 0.02
"""Largest noise of max-sensitivity, as a share of the input's range."""


@dataclass(frozen=True)
class Asked:
    """How much is measured.

    Attributes:
        steps: Points of a curve.
        subsets: Sets and squares of pixels.
        copies: Noisy copies for max-sensitivity; 0 for none.
        seed: Of all draws.
    """

    steps: int
    subsets: int
    copies: int
    seed: int


def of_map(
    score: Score,
    tensor: Array,
    drawn: Mapping[str, Array],
    again: Mapping[str, Callable[[Array], Array]],
    asked: Asked,
    *,
    patched: Patched,
) -> Iterator[tuple[str, str, float]]:
    """Method, measure and number of each map, the references in brackets.

    Args:
        score: Scores of inputs.
        tensor: The input, (C, H, W).
        drawn: Maps (H, W) by method.
        again: Per method its maps (N, H, W) of other inputs.
        asked: How much is measured.
        patched: Scores of this input with one box changed.
    """
    blind = {f"({name})": own for name, own in reference_maps(tensor, asked.seed).items()}
    fill, shape = neighbours(asked.seed), tensor.shape[1:]
    size = max(1, round(_SHARE * shape[0] * shape[1]))
    # What is hidden is the same for every map, and so is how far the score falls.
    sets = subsets_of(shape, size, asked.subsets, asked.seed)
    removal = Removal(score, tensor, fill)
    without_sets = removal.drops(sets)
    boxes = squares_of(shape, max(1, min(shape) // _WINDOWS), asked.subsets, asked.seed)
    squares = [mask_of(box, shape) for box in boxes]
    filled = {
        box: fill(tensor, mask)[:, box[0] : box[2], box[1] : box[3]]
        for box, mask in zip(boxes, squares, strict=True)
    }
    scores = patched(filled)
    without_squares = score(tensor[None])[0] - np.array([scores[box] for box in boxes])
    for label, heatmap in {**drawn, **blind}.items():
        curve = {"steps": asked.steps, "seed": asked.seed}
        yield label, "deletion", removal.deletion(heatmap, **curve).area
        yield label, "insertion", removal.insertion(heatmap, **curve).area
        yield label, "road", removal.road(heatmap, seed=asked.seed)
        yield label, "sensitivity-n", correlation_of_drops(heatmap, sets, without_sets)
        yield label, "infidelity", error_of_drops(heatmap, squares, without_squares)
        if asked.copies and label in again:
            radius = _RADIUS * float(np.ptp(tensor))
            copies = {"count": asked.copies, "seed": asked.seed}
            found = max_sensitivity(again[label], tensor, radius=radius, **copies)
            yield label, "max-sensitivity", found


def agreement(drawn: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Rank correlation of each two methods' maps, as rows."""
    rows = []
    for (label, own), (other, its) in itertools.combinations(drawn.items(), 2):
        found = rank_correlation(own, its)
        if found is not None:
            measure, value = f"agreement with {other}", round(found, 6)
            rows.append({"method": label, "measure": measure, "value": value})
    return rows

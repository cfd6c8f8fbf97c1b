"""D-RISE."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.evidence.boxes import require_boxes, similarities
from inspector.methods import method
from inspector.photos.occluder import fill_colour
from inspector.photos.random_masks import MaskSums, random_masks, require_masks

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 32
"""Masked copies of the image that are held at a time."""

Array = np.ndarray[Any, Any]


@method(
    "d-rise",
    order=2021,
    space="input",
    needs={"forward", "boxes"},
    reduction="sum",
    signed=True,
    pictures_only="boxes are those of pictures",
    cost="(1 + masks) F: 129 F to 2001 F at the defaults, as soon as the error is small",
    quick="masks=2",
)
def d_rise(
    evidence: "Evidence",
    *,
    masks: int = 2000,
    error: float = 0.25,
    cells: int = 16,
    keep: float = 0.5,
    fill: str = "mean",
    seed: int = 0,
) -> Array:
    """D-RISE: which random masks leave a detector a box like this one; no gradient.

    L = 1 / (n p) sum_i (w_i - mean w) M_i over n masks M_i (H, W), with w_i the largest similarity
    of the explained box d to the boxes d_j of the image x M_i + fill (1 - M_i):

        s(d, d_j) = IoU(boxes) x cosine(class scores) x objectness of d_j.

    Where a head has no objectness its best class score stands for it; where a list says only the
    best class, the cosine is 1 for the same class and else 0.  The mean over all masks is taken
    off: 0 then means "as good as any other place".  (N, 1, H, W), positive where showing keeps the
    box.

    The error is the distance of the maps of every other mask, relative to that of their sum.  It is
    measured after 128 masks and whenever their number has doubled; the report lists it.

    Args:
        evidence: The samples to explain.
        masks: Their number at most; the paper takes 5000.
        error: Error at which no further masks are drawn.
        cells: Cells along the shorter side of the input.
        keep: Probability that a cell is shown.
        fill: Colour of what is hidden, in pixel space: mean (the data set's, where the
            preprocessing knows it, else mid-grey), grey (127.5), or a number from 0 to 255.
        seed: Of the masks, which are the same for every photo.

    Source: Petsiuk et al. 2021, section 3.

    Raises:
        MethodRefused: What is explained is not a box.
        UsageError: an option out of range.
    """
    height, width = evidence.images.shape[2:]
    cells = min(cells, height, width)
    require_masks("d-rise", masks, cells, keep, seed, short=min(height, width), error=error)
    require_boxes(evidence, "d-rise")
    colour = fill_colour(evidence.preprocess, fill, where="d-rise")[:, None, None]
    maps, facts = [], []
    for row in range(len(evidence.targets)):
        drawn = random_masks((height, width), masks, cells, keep, seed)
        sums = MaskSums((height, width))
        for seen, found in _batches(evidence, row, drawn, colour):
            sums.add(seen, found)
            evidence.progress(row * masks + sums.count, masks * len(evidence.targets))
            if sums.converged(error):
                break
        maps.append(sums.map() / (sums.count * keep))
        facts.append({"masks": sums.count, "error_after_masks": sums.errors})
        _note(evidence, row, sums.count, sums.errors[-1][1], error)
    evidence.facts["d-rise"] = facts[0] if len(facts) == 1 else facts
    return np.stack(maps)[:, None].astype(np.float32)


def _batches(
    evidence: "Evidence", row: int, drawn: Iterator[Array], colour: Array
) -> Iterator[tuple[Array, Array]]:
    """Masks (P, H, W) and the weight of each, (P,)."""
    image = evidence.images[row]
    while batch := list(islice(drawn, BATCH)):
        seen = np.stack(batch)
        masked = image * seen[:, None] + colour * (1 - seen[:, None])
        yield seen, similarities(evidence, masked, row)


def _note(evidence: "Evidence", row: int, count: int, reached: float, enough: float) -> None:
    if reached > enough:
        evidence.note(
            f"after {count} masks the error of this map is {reached:.0%} (wanted: {enough:.0%}): "
            f"d-rise:masks={4 * count} halves it",
            row,
        )

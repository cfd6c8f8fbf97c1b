"""RISE."""

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.methods import method
from inspector.photos.occluder import fill_colour
from inspector.photos.random_masks import MaskSums, random_masks, require_masks

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 32
"""Masked copies of the image that are held at a time."""

UNSTABLE = 0.8
"""Correlation of the maps of the two halves of the masks below which more are advised."""

Array = np.ndarray[Any, Any]


@method(
    "rise",
    order=2018,
    space="input",
    needs={"forward"},
    reduction="sum",
    signed=True,
    cost="(1 + masks) F: 129 F to 1001 F at the defaults, as soon as the error is small",
    quick="masks=2",
)
def rise(
    evidence: "Evidence",
    *,
    masks: int = 1000,
    error: float = 0.1,
    cells: int = 7,
    keep: float = 0.5,
    fill: str = "mean",
    seed: int = 0,
) -> Array:
    """RISE: the mean score of the image seen through random masks that show a place; no gradient.

    L = 1 / (n p) sum_i (S_i - mean S) M_i over n masks M_i (H, W), with S_i the score (before
    softmax) of the image x M_i + fill (1 - M_i).  A mask is a grid of cells that are shown with
    the probability p, laid bilinearly on the input at a random shift.  The mean over all masks is
    taken off: it adds nearly the same to every place, and 0 then means "as good as any other
    place".  (N, 1, H, W), positive where showing raises the score.

    How much chance is left in a map stands in the report: the correlation of the maps of every
    other mask, and the error, their distance relative to that of their sum.  It is measured after
    128 masks and whenever their number has doubled.

    Args:
        evidence: The samples to explain.
        masks: Their number at most; the paper takes 4000 to 8000.
        error: Error at which no further masks are drawn; 0 draws all of them.
        cells: Cells along the shorter side of the input.
        keep: Probability that a cell is shown.
        fill: Colour of what is hidden, in pixel space: mean (the data set's, where the
            preprocessing knows it, else mid-grey), grey (127.5), or a number from 0 to 255.
        seed: Of the masks, which are the same for every photo.

    Source: Petsiuk et al. 2018, equations 5 and 6, and section 3.3.

    Raises:
        UsageError: an option out of range.
    """
    height, width = evidence.images.shape[2:]
    sizes = evidence.model.input.sizes((height, width))
    if len(sizes) != 2:  # a volume may have few slices
        cells = min(cells, *sizes)
    require_masks("rise", masks, cells, keep, seed, short=min(sizes), error=error)
    maps, facts = [], list[dict[str, Any]]()
    for row, (image, target) in enumerate(zip(evidence.images, evidence.targets, strict=True)):
        colour = fill_colour(evidence.preprocess, fill, image, where="rise")[:, None, None]
        sums = MaskSums((height, width))
        drawn = random_masks(sizes, masks, cells, keep, seed)
        while batch := [mask.reshape(height, width) for mask in islice(drawn, BATCH)]:
            seen = np.stack(batch)[:, None]
            images = image * seen + colour * (1 - seen)
            sums.add(seen[:, 0], evidence.score(images, [target] * len(batch)))
            evidence.progress(row * masks + sums.count, masks * len(evidence.targets))
            if sums.converged(error):
                break
        evidence.note_rounding(sums.weights, row)
        maps.append(sums.map() / (sums.count * keep))
        facts.append(
            {
                "masks": sums.count,
                "agreement_of_halves": sums.agreement(),
                "error_after_masks": sums.errors,
            }
        )
        if facts[-1]["agreement_of_halves"] < UNSTABLE:
            evidence.note(
                f"the maps of two halves of the masks correlate by "
                f"{facts[-1]['agreement_of_halves']:.2f} only: much of this map is chance; "
                f"rise:masks={4 * sums.count} halves it",
                row,
            )
    evidence.facts["rise"] = facts[0] if len(facts) == 1 else facts
    return np.stack(maps)[:, None].astype(np.float32)

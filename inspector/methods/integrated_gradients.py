"""Integrated gradients."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.methods import method
from inspector.photos.occluder import fill_colour

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 8
"""Steps of the path that are held at a time."""

INCOMPLETE = 0.05
"""Difference of the sum from S(x) - S(x') above which it is said, relative to the latter."""


@method(
    "integrated-gradients",
    order=2017,
    space="input",
    needs={"input-gradient", "forward"},
    reduction="sum",
    signed=True,
    cost="1 F and about 3 F per step: about 150 F at the defaults",
    quick="steps=2",
)
def integrated_gradients(
    evidence: "Evidence", *, steps: int = 50, baseline: str = "0"
) -> np.ndarray[Any, Any]:
    """Integrated gradients: the gradient along the way from a plain image, times the difference.

    (x - x') * mean over the steps of dS/dx at x' + a (x - x'), with a = (i - 1/2) / steps, the
    midpoints of equal parts; x the preprocessed input (N, C, H, W), x' an image of one colour,
    S the target's score before softmax.  Signed, and summed over the channels.  The values of a
    map add up to S(x) - S(x'): how far they do is measured on every run and stands in the report.

    Args:
        evidence: The samples to explain.
        steps: Parts that the way is divided into.
        baseline: Colour of x' in pixel space: a number from 0 (black, the paper's) to 255, mean
            (the data set's, where the preprocessing knows it, else mid-grey) or grey (127.5).

    Source: Sundararajan et al. 2017, equations 1 and 3; completeness: proposition 1.

    Raises:
        UsageError: an option out of range.
    """
    if steps < 1:
        raise UsageError(f"integrated-gradients: steps is at least 1, not {steps}")
    parts = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    maps, residuals = [], []
    for row, (image, target) in enumerate(zip(evidence.images, evidence.targets, strict=True)):
        colour = fill_colour(evidence.preprocess, baseline, image, where="integrated-gradients")
        plain = np.broadcast_to(colour[:, None, None], image.shape).astype(np.float32)
        total = np.zeros(image.shape)
        for start in range(0, steps, BATCH):
            way = parts[start : start + BATCH, None, None, None]
            total += evidence.gradients_at(plain + way * (image - plain), row).sum(axis=0)
            evidence.progress(row * steps + start, steps * len(evidence.targets))
        maps.append((image - plain) * total / steps)
        gained = float(evidence.scores[row] - evidence.score(plain[None], [target])[0])
        residuals.append(abs(float(maps[-1].sum()) - gained) / max(abs(gained), 1e-12))
        if residuals[-1] > INCOMPLETE:
            evidence.note(
                f"integrated gradients add up to the difference of the scores only within "
                f"{residuals[-1]:.0%}: more steps may help (integrated-gradients:steps="
                f"{4 * steps})",
                row,
            )
    evidence.facts["completeness_residual"] = max(residuals)
    return np.stack(maps).astype(np.float32)

"""SmoothGrad."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence

BATCH = 8
"""Noisy copies that are held at a time."""


@method(
    "smooth-grad",
    order=2017,
    space="input",
    needs={"input-gradient", "forward"},
    cost="1 F and about 3 F per copy: about 150 F at the defaults",
    quick="samples=2",
)
def smooth_grad(
    evidence: "Evidence", *, samples: int = 50, noise: float = 0.15, seed: int = 0
) -> np.ndarray[Any, Any]:
    """SmoothGrad: the gradient, averaged over copies of the image with noise added.

    The mean of dS/dx at x + e over the copies, with x the preprocessed input (N, C, H, W), S the
    target's score before softmax, and e normal noise whose standard deviation is a share of the
    range max(x) - min(x) of the image: that share of the range times
    ``numpy.random.default_rng(seed).standard_normal((samples, C, H, W))``.  Signed; the heatmap
    takes the largest absolute value over the channels.

    Args:
        evidence: The samples to explain.
        samples: Noisy copies.
        noise: Standard deviation of the noise as a share of the image's range; the paper advises
            0.1 to 0.2.
        seed: Of the noise, which is the same for every photo.

    Source: Smilkov et al. 2017, section 3.

    Raises:
        UsageError: an option out of range.
    """
    if samples < 1:
        raise UsageError(f"smooth-grad: samples is at least 1, not {samples}")
    if not (noise >= 0 and np.isfinite(noise)):
        raise UsageError(f"smooth-grad: noise is a share from 0 up, not {noise}")
    if seed < 0:
        raise UsageError(f"smooth-grad: seed is 0 or more, not {seed}")
    maps = []
    for row, image in enumerate(evidence.images):
        drawn = np.random.default_rng(seed)
        width = noise * float(np.ptp(image))
        total = np.zeros(image.shape)
        for start in range(0, samples, BATCH):
            count = min(BATCH, samples - start)
            added = drawn.standard_normal((count, *image.shape)).astype(np.float32)
            total += evidence.gradients_at(image + np.float32(width) * added, row).sum(axis=0)
            evidence.progress(row * samples + start, samples * len(evidence.targets))
        maps.append(total / samples)
    return np.stack(maps).astype(np.float32)

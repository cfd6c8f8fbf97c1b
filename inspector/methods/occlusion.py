"""Occlusion sensitivity."""

from collections.abc import Iterator
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.methods import method

if TYPE_CHECKING:
    from inspector.evidence import Evidence
    from inspector.photos.preprocess import Preprocess
    from inspector.target import Target

BATCH = 32
"""Occluded copies of the image that are held at a time; memory does not grow with positions."""

Array = np.ndarray[Any, Any]


@method("occlusion", space="input", gradient=False, layer=False, signed=True)
def occlusion(
    evidence: "Evidence",
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    measure: str = "auto",
) -> Array:
    """Occlusion: how far the score drops when a grey square covers a place.

    The drop f(x) - f(x occluded), averaged over the windows that cover a pixel; (N, 1, H, W),
    positive where hiding lowers the score.  Windows at the border are partial and every pixel
    is covered.  Needs forward passes only, about (H W) / stride^2 of them.

    Args:
        evidence: The samples to explain.
        window: Side of the square in input pixels; 0 stands for a seventh of the short side.
        stride: Step in pixels; 0 stands for half a window.
        fill: Colour in pixel space: mean (the data set's, where the preprocessing knows it, else
            mid-grey), grey (127.5), or a number from 0 to 255.
        measure: auto, probability (the paper's; needs a softmax or sigmoid) or score.

    Source: Zeiler & Fergus 2014, section 4.2 and figure 7.

    Raises:
        UsageError: an option out of range.
    """
    height, width = evidence.images.shape[2:]
    window, stride = geometry_of(window, stride, height, width)
    colour = colour_of(evidence.preprocess, fill)
    use_probability = _uses_probability(evidence, measure)
    evidence.facts["occlusion"] = {
        "window": window,
        "stride": stride,
        "fill": [float(v) for v in colour],
        "measure": "probability" if use_probability else "score",
    }
    boxes = list(windows(height, width, window, stride))
    maps = []
    for row, target in enumerate(evidence.targets):

        def progress(done: int, row: int = row) -> None:
            evidence.progress(row * len(boxes) + done, len(boxes) * len(evidence.targets))

        drops = _drops(
            evidence,
            row,
            target,
            boxes=boxes,
            colour=colour,
            use_probability=use_probability,
            progress=progress,
        )
        maps.append(average_over_windows(drops, boxes, (height, width)))
    return np.stack(maps)[:, None].astype(np.float32)


def windows(
    height: int, width: int, window: int, stride: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (y0, x0, y1, x1) of every position; the first and the last reach the borders alike."""
    for (y0, y1), (x0, x1) in product(
        _positions(height, window, stride), _positions(width, window, stride)
    ):
        yield y0, x0, y1, x1


def _positions(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Clipped intervals that cover an axis, laid out symmetrically about its centre."""
    count = max(0, -(-(length - window) // stride)) + 1
    start = (length - window - (count - 1) * stride) // 2
    spans = ((start + i * stride, start + i * stride + window) for i in range(count))
    return [(max(0, a), min(length, b)) for a, b in spans]


def average_over_windows(
    drops: Array, boxes: list[tuple[int, int, int, int]], size: tuple[int, int]
) -> Array:
    """Mean over the windows that cover each pixel: values (P,) of P boxes to (H, W)."""
    total, count = np.zeros(size), np.zeros(size)
    for drop, (y0, x0, y1, x1) in zip(drops, boxes, strict=True):
        total[y0:y1, x0:x1] += drop
        count[y0:y1, x0:x1] += 1
    return total / np.maximum(count, 1)


def _drops(
    evidence: "Evidence",
    row: int,
    target: "Target",
    *,
    boxes: list[tuple[int, int, int, int]],
    colour: Array,
    use_probability: bool,
    progress: Any,
) -> Array:
    """f(x) - f(x occluded) for every box, (P,)."""
    image = evidence.images[row]

    def values(images: Array) -> Array:
        if use_probability:
            found = evidence.class_probabilities(images, target)
            if found is not None:
                return found
        return evidence.score(images, [target] * len(images))

    untouched = values(image[None])[0]
    drops: list[float] = []
    remaining = iter(boxes)
    while batch := list(islice(remaining, BATCH)):
        occluded = np.repeat(image[None], len(batch), axis=0)
        for copy, (y0, x0, y1, x1) in zip(occluded, batch, strict=True):
            copy[:, y0:y1, x0:x1] = colour[:, None, None]
        drops += (untouched - values(occluded)).tolist()
        progress(len(drops))
    return np.asarray(drops)


def geometry_of(window: int, stride: int, height: int, width: int) -> tuple[int, int]:
    """Side of the square and step, in pixels; the defaults where they are 0.

    Raises:
        UsageError: A square that does not fit, or steps that would leave pixels uncovered.
    """
    short = min(height, width)
    window = window or max(1, round(short / 7))
    stride = stride or max(1, window // 2)
    if not 1 <= window <= short:
        raise UsageError(f"occlusion: window {window} does not fit an input of {height}x{width}")
    if not 1 <= stride <= window:
        raise UsageError(
            f"occlusion: stride {stride} would leave pixels uncovered", hint=f"1 to {window}"
        )
    return window, stride


def colour_of(preprocess: "Preprocess", fill: str) -> Array:
    """Network value of the occluder, (C,).

    Raises:
        UsageError: Neither ``mean``, ``grey`` nor a number from 0 to 255.
    """
    if fill == "mean":
        return np.asarray(preprocess.fill(), dtype=np.float32)
    try:
        level = 127.5 if fill == "grey" else float(fill)
    except ValueError:
        raise UsageError(f"occlusion: fill is mean, grey or a number, not {fill!r}") from None
    if not 0 <= level <= 255:
        raise UsageError(f"occlusion: fill is a pixel value from 0 to 255, not {level:g}")
    return np.asarray(preprocess.encode((level,) * 3), dtype=np.float32)


def _uses_probability(evidence: "Evidence", measure: str) -> bool:
    if measure not in {"auto", "probability", "score"}:
        raise UsageError(f"occlusion: measure is auto, probability or score, not {measure!r}")
    known = evidence.model.scores.activation is not None and all(
        target.class_index is not None for target in evidence.targets
    )
    if measure == "probability" and not known:
        raise UsageError(
            "occlusion: the model gives no probability of this target",
            hint="use measure=score",
        )
    return known and measure != "score"

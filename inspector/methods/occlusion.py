"""Occlusion sensitivity."""

from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import UsageError
from inspector.evidence.local_forward import LocalForward
from inspector.methods import method
from inspector.photos.occluder import (
    average_over_windows,
    fill_colour,
    window_and_stride,
    windows_of,
)

if TYPE_CHECKING:
    from inspector.evidence import Evidence
    from inspector.target import Target

BATCH = 32
"""Occluded copies of the image that are held at a time; memory does not grow with positions."""

_SATURATED = 1e-6
"""Distance of a saturated probability from 0 or 1."""

Array = np.ndarray[Any, Any]


@method(
    "occlusion",
    order=2014,
    space="input",
    needs={"forward"},
    reduction="sum",
    signed=True,
    cost="(1 + H W / stride^2) F: about 200 F at the defaults; a sixth to a half of that with "
    "small windows on networks whose early stages run on crops (VGG-16, ResNet-50)",
    quick="window={half},stride={half}",
)
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

    A square changes only what its receptive field reaches.  Where that is less work, the early
    stages of the network run on crops around the square, and what lies behind them whole; three
    positions, drawn at random, are run whole besides, and the report says how far they differ
    (``local_difference``, relative to the largest score; above 1e-5 every position is run whole).

    Args:
        evidence: The samples to explain.
        window: Side of the square in input pixels; 0 stands for a seventh of the short side.
        stride: Step in pixels; 0 stands for half a window.
        fill: Colour in pixel space: mean (the data set's, where the preprocessing knows it, else
            mid-grey), grey (127.5), or a number from 0 to 255.
        measure: auto, probability (the paper's; needs a softmax or sigmoid) or score.

    Source: Zeiler & Fergus 2014, section 4.2 and figure 7; crops: Nakandala et al. 2019.

    Raises:
        UsageError: an option out of range.
    """
    sizes = evidence.model.input.sizes((evidence.images.shape[2], evidence.images.shape[3]))
    window, stride = window_and_stride(window, stride, *sizes, where="occlusion")
    colours = [
        fill_colour(evidence.preprocess, fill, image, where="occlusion")
        for image in evidence.images
    ]
    use_probability = _uses_probability(evidence, measure)
    evidence.facts["occlusion"] = {
        "window": window,
        "stride": stride,
        "fill": [float(v) for v in colours[0]],
        "measure": "probability" if use_probability else "score",
    }
    boxes = list(windows_of(sizes, window, stride))
    maps = []
    for row, target in enumerate(evidence.targets):

        def progress(done: int, row: int = row) -> None:
            evidence.progress(row * len(boxes) + done, len(boxes) * len(evidence.targets))

        untouched, drops, difference = _drops(
            evidence,
            row,
            target,
            boxes=boxes,
            colour=colours[row],
            use_probability=use_probability,
            progress=progress,
        )
        if difference is not None:
            evidence.facts["occlusion"]["local_difference"] = max(
                difference, evidence.facts["occlusion"].get("local_difference", 0.0)
            )
        maps.append(average_over_windows(drops, boxes, sizes).reshape(evidence.images.shape[2:]))
        if not use_probability:
            evidence.note_rounding(untouched - drops, row)
        if use_probability and measure == "auto":
            _note_saturation(evidence, row, untouched, drops)
    return np.stack(maps)[:, None].astype(np.float32)


def _drops(
    evidence: "Evidence",
    row: int,
    target: "Target",
    *,
    boxes: list[tuple[int, ...]],
    colour: Array,
    use_probability: bool,
    progress: Any,
) -> tuple[float, Array, float | None]:
    """f(x), f(x) - f(x occluded) for every box (P,), and the largest difference of local passes."""
    image = evidence.images[row]
    read = [evidence.model.scores.tensor] if use_probability else target.read_from

    def values(images: Any, forward: Any = None) -> Array:
        if use_probability:
            found = evidence.class_probabilities(images, target, forward)
            if found is not None:
                return found
        return evidence.score(images, [target] * len(images), forward)

    untouched = values(image[None])[0]
    local = LocalForward(
        evidence.model, image, boxes, colour, read, note=lambda text: evidence.note(text, row)
    )
    drops, done = np.zeros(len(boxes)), 0
    for batch in local.batches(BATCH):
        drops[batch] = untouched - values([boxes[number] for number in batch], local)
        done += len(batch)
        progress(done)
    return float(untouched), drops, local.difference


def _note_saturation(evidence: "Evidence", row: int, untouched: float, drops: Array) -> None:
    """Say that a probability of 0 or 1 hides much of what the score depends on."""
    if min(untouched, 1 - untouched) > _SATURATED:
        return
    largest = float(np.abs(drops).max(initial=0.0))
    evidence.note(
        f"saturated: the probability is {untouched:.6g}, and the square changes it by at most "
        f"{largest:.2g}; occlusion:measure=score follows the score before it",
        row,
    )


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

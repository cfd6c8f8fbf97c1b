"""Forward passes of one image with a box of it changed, at many places.

Early stages run on crops where that pays (``engines.local_stages``); some boxes, drawn at random,
run whole besides, and where the two differ all of them do.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines.independence import mixing_node, trains
from inspector.engines.local_stages import LocalStages
from inspector.errors import ExplainedError
from inspector.network.quantisation.levels import is_quantised
from inspector.network.receptive_fields.local_stages import plan_of
from inspector.photos.occluder import patched

if TYPE_CHECKING:
    from inspector.model import Model

__all__ = ["CHECKED", "LocalForward"]

Array = np.ndarray[Any, Any]
Box = tuple[int, ...]

CHECKED = 3
"""Boxes of each image that run whole besides."""

TOLERANCE = 1e-5
"""Largest difference from a whole pass, as a share of the tensor's peak; 0 of quantised ones."""

FEWEST = 64
"""Boxes below which the shapes of the network are not measured for this alone."""

LARGEST = 0.25
"""Share of the image that a box may cover."""

KEPT = 4
"""Plans of one network that are kept, each with its stages."""


class LocalForward:
    """Forward passes of one image with one box changed.

    Args:
        model: The network.
        image: (C, H, W), preprocessed.
        boxes: Every box that will be changed: top, left, bottom, right of a picture.
        cover: (C,) network values of what covers each box; or for each box, then of (H, W) even
            of signals and volumes, what stands in it: (C, bottom - top, right - left).
        fetch: Names of the tensors that are wanted.
        images: How many images will be changed in these boxes, one after the other: they share
            the stages.
        note: Called with a sentence that is to be printed.
    """

    def __init__(
        self,
        model: "Model",
        image: Array,
        boxes: Sequence[Box],
        cover: Array | Mapping[Any, Array],
        fetch: Sequence[str],
        *,
        images: int = 1,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.model, self.image, self.boxes, self.cover = model, image, boxes, cover
        self.fetch, self._images = tuple(dict.fromkeys(fetch)), images
        sizes = model.input.sizes((image.shape[1], image.shape[2]))
        self._spread = image if isinstance(cover, Mapping) else image.reshape(-1, *sizes)
        self.difference: float | None = None
        """Largest difference of the checked boxes from whole passes; None where all are whole."""
        self._sides = tuple((b[0], b[1], b[2], b[3]) for b in boxes if len(b) == 4)
        self._stages: LocalStages | None = None
        self._own: list[Array] = []
        found = self._prepared()
        if found is not None:
            self._check(found, note)

    @property
    def local(self) -> bool:
        """Whether early stages run on crops."""
        return self._stages is not None

    def batches(self, size: int) -> Iterator[list[int]]:
        """Numbers of the boxes, a few at a time, in the order that is cheapest."""
        if self._stages is not None:
            yield from self._stages.batches(self._sides)
            return
        numbers = list(range(len(self.boxes)))
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]

    def __call__(self, boxes: Sequence[Box], fetch: Sequence[str]) -> dict[str, Array]:
        """As ``Model.forward`` of the image's copies, each with one of the boxes changed."""
        if self._stages is not None and set(fetch) <= set(self.fetch):
            try:
                found = self._run(self._stages, boxes)
                return {name: found[name] for name in fetch}
            except ExplainedError:  # out of memory, or lists of another length each
                self._stages = self.difference = None
        return self.whole(boxes, fetch)

    def whole(self, boxes: Sequence[Box], fetch: Sequence[str]) -> dict[str, Array]:
        """The same by passes through the whole network."""
        copies = patched(self._spread, boxes, [self._patch(box) for box in boxes])
        return self.model.forward(copies.reshape(-1, *self.image.shape), fetch)

    def _patch(self, box: Box) -> Array:
        """What stands in a box, (C, h, w), or (C, 1, 1)."""
        if isinstance(self.cover, Mapping):
            return self.cover[box]
        return self.cover.reshape(-1, *[1] * (self._spread.ndim - 1))

    # -- on crops --------------------------------------------------------------------------------

    def _prepared(self) -> LocalStages | None:
        """The stages on which the boxes may run; None where they should not."""
        height, width = self.image.shape[1:]
        if self.model.input.space != 2 or len(self.boxes) * self._images < FEWEST:
            return None
        if max((b[2] - b[0]) * (b[3] - b[1]) for b in self._sides) > LARGEST * height * width:
            return None
        key, kept = self._key, self.model.runtime.parts
        if key not in kept:
            if len(kept) >= KEPT:
                kept.clear()
            try:
                kept[key] = self._planned()
            except ExplainedError:  # what cannot be cut runs whole
                kept[key] = None
        found: LocalStages | None = kept[key]
        count = self._images * len(self.boxes)
        return found if found and found.plan.pays(count, self._images * CHECKED) else None

    @property
    def _key(self) -> tuple[Any, ...]:
        """What a plan depends on."""
        return self.fetch, self.image.shape[1:], self._sides

    def _planned(self) -> LocalStages | None:
        model, graph = self.model, self.model.graph
        usual = model.input.batch in (None, 1) and model.runtime.provider == "CPUExecutionProvider"
        if not usual or trains(graph) or mixing_node(graph, self.fetch):
            return None
        shapes = model.shapes((self.image.shape[1], self.image.shape[2]))
        axes = (2, 3) if model.input.layout == "NCHW" else (1, 2)
        plan = plan_of(graph, model.input.name, axes, self.fetch, shapes, boxes=self._sides)
        return None if plan is None else LocalStages(model.file, plan, self.fetch, model.execution)

    def _check(self, stages: LocalStages, note: Callable[[str], None]) -> None:
        """Take the stages, if some boxes give what whole passes give."""
        seed = zlib.crc32(np.ascontiguousarray(self.image).tobytes())
        count = min(CHECKED, len(self.boxes))
        drawn = np.random.default_rng(seed).choice(len(self.boxes), count, replace=False)
        some = [self.boxes[number] for number in sorted(drawn.tolist())]
        try:
            self._own = stages.activations(self.model.input.arrange(self.image[None]))
            found, wanted = self._run(stages, some), self.whole(some, self.fetch)
            self.difference = max(_difference(found[name], wanted[name]) for name in self.fetch)
        except ExplainedError:  # of the next image neither
            self.model.runtime.parts[self._key] = None
            return
        allowed = 0.0 if is_quantised(self.model.graph) else TOLERANCE
        if self.difference <= allowed:
            self._stages = stages
            return
        note(
            f"on crops {CHECKED} covers differ by {self.difference:.1e} of the largest value from "
            "whole passes: all of them were run whole"
        )
        self.difference = None

    def _run(self, stages: LocalStages, boxes: Sequence[Box]) -> dict[str, Array]:
        arrange, layout = self.model.input.arrange, self.model.input.layout
        inside = [arrange(self._patch(box)[None])[0] for box in boxes]
        if layout == "NHWC":
            inside = [np.moveaxis(patch, -1, 0) for patch in inside]
        sides = [(b[0], b[1], b[2], b[3]) for b in boxes]
        return stages.run(self._own, sides, inside)


def _difference(found: Array, wanted: Array) -> float:
    """Largest difference of two arrays, as a share of the second one's peak."""
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return float("inf")
    peak = float(np.abs(wanted).max(initial=0.0)) or 1.0
    worst = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max(initial=0.0)
    return float(worst) / peak

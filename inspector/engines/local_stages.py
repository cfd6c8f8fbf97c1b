"""Forward passes of images that differ from one image in a box: early stages run on crops alone.

    crop of the changed image -> stage -> pasted into the image's own activation -> crop -> ...

as tiled inference does with halos; what lies behind the last cut of the plan runs whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines.execution import USUAL, Execution
from inspector.engines.runtime import Runtime
from inspector.engines.samples import rows
from inspector.errors import ModelRefused
from inspector.network.receptive_fields.local_stages import Cut, Grid, Plan
from inspector.network.tail import tail_of
from inspector.surgery.gradient.program import forward_model

if TYPE_CHECKING:
    from converters.graph import Node
    from converters.onnx_file import OnnxFile

__all__ = ["LocalStages"]

MOST = 16
"""Images that run together at most."""

FEWEST = 6
"""Images that run together, although they reach not equally far."""

Array = np.ndarray[Any, Any]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Patch:
    """Places of one axis that are pasted, per image: ``count`` of them from ``first``."""

    first: Array
    count: int


class LocalStages:
    """The stages of a plan as models of their own.

    Args:
        file: The network.
        plan: Where it is cut.
        fetch: Names of the tensors that are wanted in the end.
        execution: How ONNX Runtime runs the network.
    """

    def __init__(
        self, file: "OnnxFile", plan: Plan, fetch: Sequence[str], execution: Execution = USUAL
    ) -> None:
        self.plan, self.fetch = plan, tuple(fetch)
        self._file, self._execution = file, execution
        self._ends = [*([cut.tensor] for cut in plan.cuts[1:]), self.fetch]
        self._together = True  # whether the tail takes several images at once

    @cached_property
    def _stages(self) -> list[Runtime]:
        """One per cut, up to the next; the last is the tail."""
        cuts = self.plan.cuts
        return [self._part(cut.tensor, end) for cut, end in zip(cuts, self._ends, strict=True)]

    def _part(self, start: str, wanted: Sequence[str]) -> Runtime:
        graph = self._file.graph
        found: dict[int, Node] = {}
        for target in wanted:
            found |= {node.index: node for node in tail_of(graph, [start], target).nodes}
        nodes = [found[index] for index in sorted(found)]
        model = forward_model(graph, nodes, [start], wanted)
        how = self._execution
        return Runtime(
            replace(self._file, model=model),
            device="cpu",
            threads=how.threads,
            optimise=how.optimise,
            sealed=True,
        )

    def activations(self, feed: Array) -> list[Array]:
        """The cuts' activations of one image, as the graph takes it: (1, C, H, W) each, or NHWC."""
        found = [feed]
        for stage, (before, cut) in zip(self._stages, pairwise(self.plan.cuts), strict=False):
            found.append(stage.run({before.tensor: found[-1]}, [cut.tensor])[cut.tensor])
        return found

    def run(
        self, own: Sequence[Array], boxes: Sequence[Box], inside: Sequence[Array]
    ) -> dict[str, Array]:
        """What the images give of the wanted tensors, first axis P.

        Args:
            own: What ``activations`` gave of the image that they are made from.
            boxes: Where each differs from it: top, left, bottom, right in pixels.
            inside: What stands there instead, (C, bottom - top, right - left), or (C, 1, 1).

        Raises:
            ModelRefused: A stage gives another shape than the plan expects, or does not run.
        """
        cuts = self.plan.cuts
        patches = self._patches(cuts[0], boxes)
        values = _painted(_channels_first(own[0], cuts[0]), boxes, inside, patches)
        for at, stage in enumerate(self._stages[:-1]):
            before, cut = cuts[at], cuts[at + 1]
            after = self._patches(cut, boxes)
            starts, sizes = _crops(before, cut, after)
            crops = _pasted(_channels_first(own[at], before), values, patches, starts, sizes)
            found = stage.run({before.tensor: _in_graph(crops, before)}, [cut.tensor])[cut.tensor]
            values = _taken(_channels_first(found, cut), before, cut, starts, after)
            patches = after
        whole = _channels_first(own[-1], cuts[-1])
        zeros = tuple(np.zeros(len(boxes), np.int64) for _ in cuts[-1].grids)
        copies = _pasted(whole, values, patches, zeros, whole.shape[2:])
        return self._tail(_in_graph(copies, cuts[-1]))

    def batches(self, boxes: Sequence[Box]) -> Iterator[list[int]]:
        """Numbers of boxes that run together: those that reach equally far share sizes of crops.

        Boxes at the border of the picture reach less far than those in its middle.
        """
        grids = [[cut.grids[axis] for cut in self.plan.cuts] for axis in (0, 1)]

        @cache
        def reach(axis: int, first: int, stop: int) -> tuple[int, ...]:
            ends = (grid.reached(first, stop) for grid in reversed(grids[axis]))
            return tuple(end - start for start, end in ends)

        keys = [tuple(reach(axis, box[axis], box[axis + 2]) for axis in (0, 1)) for box in boxes]
        batch: list[int] = []
        for number in sorted(range(len(boxes)), key=keys.__getitem__):
            full = len(batch) >= MOST
            if full or (len(batch) >= FEWEST and keys[number] != keys[batch[-1]]):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _patches(self, cut: Cut, boxes: Sequence[Box]) -> tuple[_Patch, ...]:
        """Places of a cut that the boxes reach, as many for all of them."""
        found = []
        for axis, grid in enumerate(cut.grids):
            reached = np.array([grid.reached(box[axis], box[axis + 2]) for box in boxes])
            count = max(1, int((reached[:, 1] - reached[:, 0]).max()))
            found.append(_Patch(np.minimum(reached[:, 0], grid.length - count), count))
        return tuple(found)

    def _tail(self, values: Array) -> dict[str, Array]:
        """The rest of the network, on all images together where it takes them so."""
        stage, count = self._stages[-1], len(values)
        name = self.plan.cuts[-1].tensor
        if self._together:
            try:
                found = stage.run({name: values}, self.fetch)
            except ModelRefused:
                if count == 1:
                    raise
                found = {}
            if found and all(rows(found[one]) == count for one in self.fetch):
                return found
            self._together = False
        parts = [stage.run({name: values[i : i + 1]}, self.fetch) for i in range(count)]
        if any(rows(part[one]) != 1 for part in parts for one in self.fetch):
            raise ModelRefused("an output has no axis of samples", where=repr(self.fetch[0]))
        return {one: np.concatenate([part[one] for part in parts]) for one in self.fetch}


def _channels_first(value: Array, cut: Cut) -> Array:
    return np.moveaxis(value, cut.axes, (2, 3))


def _in_graph(value: Array, cut: Cut) -> Array:
    return np.moveaxis(value, (2, 3), cut.axes)


def _painted(
    own: Array, boxes: Sequence[Box], inside: Sequence[Array], patches: Sequence[_Patch]
) -> list[Array]:
    """The changed image around each box: P parts (C, h, w)."""
    down, across = patches
    values = []
    for i, (box, value) in enumerate(zip(boxes, inside, strict=True)):
        top, left = int(down.first[i]), int(across.first[i])
        part = own[0, :, top : top + down.count, left : left + across.count].copy()
        part[:, box[0] - top : box[2] - top, box[1] - left : box[3] - left] = value
        values.append(part)
    return values


def _crops(
    before: Cut, cut: Cut, patches: Sequence[_Patch]
) -> tuple[tuple[Array, ...], tuple[int, ...]]:
    """First places and sizes of the crops from which the places of a later cut are computed."""
    starts, sizes = [], []
    for grid, own, patch in zip(before.grids, cut.grids, patches, strict=True):
        stride, low, high = own.step_from(grid)
        start = np.maximum(0, (stride * patch.first + low) // stride * stride)
        stop = np.minimum(grid.length, stride * (patch.first + patch.count - 1) + high + 1)
        needed = int((stop - start).max())
        size = min(grid.length, needed + (grid.length - needed) % stride)
        starts.append(np.minimum(start, grid.length - size))
        sizes.append(size)
    return tuple(starts), tuple(sizes)


def _pasted(
    own: Array,
    values: Sequence[Array],
    patches: Sequence[_Patch],
    starts: Sequence[Array],
    sizes: Sequence[int],
) -> Array:
    """Crops of an activation, with the changed places pasted in: (P, C, *sizes)."""
    height, width = sizes
    crops = np.empty((len(values), own.shape[1], height, width), own.dtype)
    for i, value in enumerate(values):
        top, left = int(starts[0][i]), int(starts[1][i])
        crops[i] = own[0, :, top : top + height, left : left + width]
        (into_y, from_y), (into_x, from_x) = (
            _overlap(int(patch.first[i]) - start, patch.count, size)
            for patch, start, size in zip(patches, (top, left), sizes, strict=True)
        )
        crops[i, :, into_y, into_x] = value[:, from_y, from_x]
    return crops


def _overlap(offset: int, count: int, size: int) -> tuple[slice, slice]:
    """Where a patch lies in a crop, and the part of the patch that does."""
    first, stop = max(0, offset), min(size, offset + count)
    stop = max(first, stop)
    return slice(first, stop), slice(first - offset, stop - offset)


def _taken(
    found: Array, before: Cut, cut: Cut, starts: Sequence[Array], patches: Sequence[_Patch]
) -> list[Array]:
    """The places of a cut that its crops were run for: P parts (C, h, w) of the whole.

    Raises:
        ModelRefused: The stage gives another size on crops than on the whole map.
    """
    counts = [patch.count for patch in patches]
    firsts = []
    for axis, (grid, own) in enumerate(zip(before.grids, cut.grids, strict=True)):
        stride = own.stride // grid.stride
        firsts.append(patches[axis].first - starts[axis] // stride)
        _require_inside(firsts[axis], counts[axis], found.shape[2 + axis], own, cut)
    values = []
    for i, whole in enumerate(found):
        top, left = int(firsts[0][i]), int(firsts[1][i])
        values.append(whole[:, top : top + counts[0], left : left + counts[1]])
    return values


def _require_inside(first: Array, count: int, size: int, grid: Grid, cut: Cut) -> None:
    if first.min() < 0 or first.max() + count > size or size > grid.length:
        raise ModelRefused("a stage gives another size than its plan says", where=cut.tensor)

"""Receptive field of a unit, exact: which pixels of the image its value can depend on.

    box of unit (y, x)   [offset + stride * y - (size - 1) / 2, ... + size)   rows; columns alike

It is proved by experiment in the tests: changing every pixel outside the box leaves the unit's
value unchanged bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, cached_property

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.errors import ExplainedError, MethodRefused, UsageError
from inspector.network.receptive_fields.field_lines import (
    FAR,
    NOTHING,
    FieldLines,
    Lines,
    Span,
    Straight,
    enlargement,
    image_of,
    mixes,
    union,
)
from inspector.network.receptive_fields.graph_extents import GraphExtents
from inspector.network.receptive_fields.index_sets import Indices, Region, step_back

__all__ = [
    "Box",
    "ReceptiveField",
    "fields_or_reasons",
    "needed_shapes",
    "receptive_field",
    "receptive_fields",
]

# (y0, x0, y1, x1) in pixels; y1 and x1 are the first row and column behind the box.
Box = tuple[int, int, int, int]

_MAX_PERIOD = 64
# Nodes that are stepped over for one call of receptive_fields: some 10 seconds.
_MAX_STEPS = 100_000


@dataclass(frozen=True)
class ReceptiveField:
    """Where the units of a tensor (N, C, h, w) look in an image.

    Attributes:
        size: Height and width in pixels.  Behind up-sampling the largest that a unit has.  When
            ``global_``: the image's, or (0, 0) where the graph does not say it.
        stride: Pixels from one unit to the next, down and across.
        offset: Centre of the field of unit (0, 0), as (y, x); 0 is the centre of the first pixel.
        global_: A unit depends on the whole image.
        why: The node that mixes the whole image in; empty unless ``global_``.
        local: When ``global_``: the field with such nodes left out (the gates of squeeze-excite,
            the mean of an instance normalisation), which is where a unit *mostly* looks; None
            when nothing else leads to the image.
        swapped: The tensor's first axis of space follows the image's columns, and its second the
            rows.  Size, stride and offset are always those of the image's rows, then columns.
    """

    size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]
    global_: bool = False
    why: str = ""
    local: "ReceptiveField | None" = None
    swapped: bool = False
    _tracer: "Callable[[], _Tracer] | None" = field(default=None, repr=False, compare=False)

    def box(self, y: int, x: int) -> Box:
        """Pixels of unit (y, x), not clipped: rows and columns may lie outside the image.

        As if the image had no borders: what reflection or clamping reads there is in
        :meth:`pixels`.

        Raises:
            UsageError: The field is global and the image's size is not known.
        """
        if self.global_ or self._tracer is None:
            if 0 in self.size:
                raise UsageError(
                    "a unit depends on the whole image, whose size is not known",
                    hint="pass the concrete shapes, or take the field's local part",
                )
            return 0, 0, *self.size
        return self._tracer().box(y, x, clip=False) or (0, 0, 0, 0)

    def pixels(self, y: int, x: int) -> Box:
        """Pixels of unit (y, x) inside the image: the smallest box that holds all of them.

        Padding is not a pixel: at a border this can be smaller than ``box`` cut off.  Exact where
        the shapes of the tensors on the way are known, and never too small.

        Returns:
            The box; (0, 0, 0, 0) when the unit sees padding only.
        """
        if self.global_ or self._tracer is None:
            return self.box(y, x)
        return self._tracer().box(y, x, clip=True) or (0, 0, 0, 0)


def receptive_field(
    graph: Graph,
    tensor: str,
    input: str | None = None,  # noqa: A002 - the graph's word for it
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> ReceptiveField:
    """Receptive field of the units of a tensor.

    Args:
        graph: The graph.
        tensor: The tensor; (N, C, h, w), or NHWC where the graph shows that it is.
        input: Image input; the first of four axes by default.
        shapes: Concrete shapes of tensors.  Needed by ``auto_pad``, sizes of ``Resize`` and
            fields at the border; the more are known, the more is exact.

    Raises:
        UsageError: The tensor does not depend on the input.
    """
    return receptive_fields(graph, [tensor], input, shapes)[tensor]


def receptive_fields(
    graph: Graph,
    tensors: Iterable[str],
    input: str | None = None,  # noqa: A002 - as above
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, ReceptiveField]:
    """Receptive fields of several tensors; as :func:`receptive_field`, the graph read once."""
    found = fields_or_reasons(graph, tensors, input, shapes)
    for field_of in found.values():
        if isinstance(field_of, ExplainedError):
            raise field_of
    return {name: one for name, one in found.items() if isinstance(one, ReceptiveField)}


def fields_or_reasons(
    graph: Graph,
    tensors: Iterable[str],
    input: str | None = None,  # noqa: A002 - as above
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, ReceptiveField | ExplainedError]:
    """Receptive fields of several tensors, and of those that have none the reason."""
    net = GraphExtents(graph, shapes)
    images = [name for name, value in graph.inputs.items() if len(value.shape or ()) == 4]
    source = input or next(iter(images), next(iter(graph.inputs), ""))
    names = list(tensors)
    lines = FieldLines(net, names, source)
    budget = _Budget(_MAX_STEPS)
    found: dict[str, ReceptiveField | ExplainedError] = {}
    for tensor in names:
        try:
            found[tensor] = _field(net, tensor, lines, budget)
        except ExplainedError as error:
            found[tensor] = error
    return found


def _field(net: GraphExtents, tensor: str, lines: FieldLines, budget: "_Budget") -> ReceptiveField:
    straight = lines.known.get(tensor)
    if straight is None or tensor == lines.source:
        return _traced_field(net, tensor, lines, budget)
    return _straight_field(net, tensor, lines, straight)


def _straight_field(
    net: GraphExtents, tensor: str, lines: FieldLines, straight: Straight
) -> ReceptiveField:
    """The field of a tensor whose units see what lines tell."""
    source = lines.source
    space = _space(net, source, straight.local)
    measured = [_measured_line(straight.lines, axis) for axis in space]
    local = straight.lines
    if None in measured:
        local = straight.local or ()
        measured = [_measured_line(local, axis) for axis in space]
    inner = None
    if None not in measured:
        rows, columns = (one for one in measured if one is not None)
        going = [local[axis] for axis in space]
        unit = 2 if net.channels.get(tensor, 1) != 3 else 1
        down = [line is not None and line.axis == unit for line in going]
        inner = ReceptiveField(
            (rows[0], columns[0]),
            (rows[1], columns[1]),
            (rows[2], columns[2]),
            swapped=down[1] and not down[0],
            _tracer=cache(lambda: _Tracer(net, tensor, source, local=local is not straight.lines)),
        )
        if local is straight.lines:
            return inner
    return _global(net, source, space, straight.why, inner)


def _measured_line(lines: Lines, axis: int) -> tuple[int, float, float] | None:
    """Size, stride and offset along one axis of the image; None where all of it is read."""
    line = lines[axis] if lines else None
    if line is None:
        return None
    stride = Fraction(line.stride).limit_denominator(_MAX_PERIOD)
    return line.high + 1 - line.low, float(stride), float(Fraction(line.low + line.high, 2))


def _global(
    net: GraphExtents,
    source: str,
    space: tuple[int, int],
    why: str,
    inner: ReceptiveField | None,
) -> ReceptiveField:
    """The field of a unit that depends on the whole image."""
    height, width = (net.extent(source, axis) or 0 for axis in space)
    return ReceptiveField(
        (height, width),
        inner.stride if inner else (0.0, 0.0),
        inner.offset if inner else (0.0, 0.0),
        global_=True,
        why=why,
        local=inner,
    )


def _traced_field(
    net: GraphExtents, tensor: str, lines: FieldLines, budget: "_Budget"
) -> ReceptiveField:
    """The field of one tensor, by tracing its units."""
    source = lines.source
    exact = _Tracer(net, tensor, source, local=False, lines=lines, budget=budget)
    if not exact.connected:
        raise UsageError(f"{tensor!r} does not depend on the image {source!r}")
    region = exact.trace(0, 0, clip=False)
    if region is None or all(region[axis] is not None for axis in exact.space):
        return _measure(exact)
    local = _Tracer(net, tensor, source, local=True, lines=lines, budget=budget)
    inner = _measure(local) if local.is_local else None
    return _global(net, source, exact.space, exact.why, inner)


def needed_shapes(graph: Graph) -> tuple[str, ...]:
    """Tensors whose shapes the file leaves open and receptive fields may need.

    With these measured by a forward pass and handed to :func:`receptive_field`, channel shuffles
    (a ``Reshape`` to computed sizes) are followed and fields at the border are exact.
    """
    net = GraphExtents(graph)
    names = (name for node in net.nodes for name in (*node.inputs[:1], *node.outputs))
    # What is joined to maps and tokens counts too: class tokens, expanded to the batch.
    joins = (node.inputs for node in net.nodes if facts(node).joins)
    joined = dict.fromkeys(name for inputs in joins for name in inputs if name)
    return tuple(
        name
        for name in dict.fromkeys([*names, *joined])
        if (name in net.carried or name in joined) and None in (net.shape(name) or (None, None))[1:]
    )


def _measure(tracer: "_Tracer") -> ReceptiveField:
    """Read size, stride and offset off traced units, on axes that go on forever."""
    rows, columns = (_axis(tracer, axis, tracer.period) for axis in (0, 1))
    return ReceptiveField(
        (rows[0], columns[0]),
        (rows[1], columns[1]),
        (rows[2], columns[2]),
        swapped=_swapped(tracer),
        _tracer=cache(tracer.whole),
    )


def _swapped(tracer: "_Tracer") -> bool:
    """Whether going down in the tensor goes across in the image."""
    for unit in range(tracer.period):
        here, below = (tracer.box(y, unit, clip=False) for y in (unit, unit + FAR))
        if here is not None and below is not None:
            return here[0] == below[0] and here[1] != below[1]
    return False


def _axis(tracer: "_Tracer", axis: int, period: int) -> tuple[int, float, float]:
    """Size, stride and offset of rows (0) or columns (1)."""
    spans = {unit: _span(tracer, axis, unit, period) for unit in range(period)}
    # Behind ConvTranspose with a stride above its kernel some units see nothing at all.
    seen = {unit: span for unit, span in spans.items() if span is not None}
    first = next(iter(seen), 0)
    far = _span(tracer, axis, first + FAR, period)
    if far is None:
        return 0, 0.0, 0.0
    stride = Fraction(far[0] - seen[first][0], FAR).limit_denominator(_MAX_PERIOD)
    centres = [Fraction(low + high - 1, 2) - stride * unit for unit, (low, high) in seen.items()]
    size = max(high - low for low, high in seen.values())
    return size, float(stride), float(sum(centres) / len(centres))


def _span(tracer: "_Tracer", axis: int, unit: int, period: int) -> tuple[int, int] | None:
    """Rows (or columns) of a unit, in whichever column (or row) it sees anything."""
    for other in (unit, *range(period)):
        box = tracer.box(*((unit, other) if axis == 0 else (other, unit)), clip=False)
        if box is not None:
            return box[axis], box[axis + 2]
    return None


@dataclass
class _Budget:
    """Steps that tracing may still take, over all tensors that are asked for together."""

    left: int

    def spend(self, steps: int) -> None:
        """Count steps.

        Raises:
            MethodRefused: There are none left.
        """
        self.left -= steps
        if self.left < 0:
            raise MethodRefused(
                "the network enlarges its maps too often for exact receptive fields of all layers",
                hint="ask for one layer",
            )


class _Tracer:
    """Follows the indices of one unit back to the image.

    Args:
        net: Lengths of the axes in its graph.
        tensor: Where the unit is.
        source: The image input.
        local: Leave out what mixes space.
        lines: Fields that are known already, at which a trace without borders ends.
        budget: What all traces together may cost.
    """

    def __init__(
        self,
        net: GraphExtents,
        tensor: str,
        source: str,
        *,
        local: bool,
        lines: FieldLines | None = None,
        budget: _Budget | None = None,
    ) -> None:
        self.net, self.tensor, self.source, self.local = net, tensor, source, local
        self.lines, self.budget = lines, budget
        self.known = {} if lines is None else lines.known
        self._mixing: tuple[int, str] = (-1, "")
        makers = self._makers()
        # Only what lies between the image and the unit.
        reached = {source, *self.known}
        for node in reversed(makers):
            if not reached.isdisjoint(node.inputs):
                reached.update(node.outputs)
        self.connected = tensor in reached
        self.backwards = [node for node in makers if not reached.isdisjoint(node.outputs)]
        self.reached = reached
        self._traced: dict[tuple[int, int], Region | None] = {}

    @property
    def why(self) -> str:
        """The last node that mixes the whole map in, as the traces so far have met it."""
        return self._mixing[1]

    def whole(self) -> "_Tracer":
        """The same, followed down to the image: what borders cut off is seen on the way."""
        if self.lines is None:
            return self
        return _Tracer(self.net, self.tensor, self.source, local=self.local)

    def _makers(self) -> list[Node]:
        """Nodes before the tensor, last first, up to what is known."""
        found: dict[int, Node] = {}
        waiting = [self.tensor]
        while waiting:
            node = self.net.graph.producer(waiting.pop())
            if node is None or node.index in found:
                continue
            found[node.index] = node
            waiting += [n for n in node.inputs if n in self.net.carried and n not in self.known]
        return [found[index] for index in sorted(found, reverse=True)]

    @cached_property
    def period(self) -> int:
        """Number of neighbouring units that may see fields of different sizes.

        Behind up-sampling two output units share an input unit, so that fields repeat only with
        the coarsest grid: after as many units as all factors multiplied.
        """
        period = 1
        for node in self.backwards:
            period = min(period * enlargement(self.net, node), _MAX_PERIOD)
        return period

    @property
    def is_local(self) -> bool:
        """Whether some way leads to the image on which space is kept."""
        region = self.trace(0, 0, clip=False)
        return region is not None and all(region[axis] is not None for axis in self.space)

    @cached_property
    def space(self) -> tuple[int, int]:
        """The axes of the image that are rows and columns."""
        tracer = self
        if not self.local:
            tracer = _Tracer(
                self.net,
                self.tensor,
                self.source,
                local=True,
                lines=self.lines,
                budget=self.budget,
            )
        return _space(self.net, self.source, tracer.trace(0, 0, clip=False))

    def trace(self, y: int, x: int, *, clip: bool) -> Region | None:
        """Indices of the image that unit (y, x) depends on; None when there are none.

        Args:
            y: Row of the unit.
            x: Column of the unit.
            clip: Drop what is padding, as far as lengths are known.
        """
        if clip:
            return self._trace(y, x, clip=True)
        if (y, x) not in self._traced:
            self._traced[y, x] = self._trace(y, x, clip=False)
        return self._traced[y, x]

    def _trace(self, y: int, x: int, *, clip: bool) -> Region | None:
        # Where nothing is clipped and no factor divides, both ends alone tell the whole.
        ends = not clip and self.period == 1
        if self.budget is not None:
            self.budget.spend(len(self.backwards))
        regions: dict[str, Region] = {self.tensor: self._unit(y, x)}
        image: list[Span] | None = None
        for node in self.backwards:
            for output in node.outputs:
                region = regions.get(output)
                if region is None or output not in self.reached:
                    continue
                for name, read in self._reads(node, output, region, clip=clip):
                    if name not in self.known:
                        regions[name] = union(regions.get(name), read, ends=ends)
                        continue
                    known = self.known[name]
                    self._mixing = max(self._mixing, (known.mixing, known.why))
                    lines = known.local if self.local else known.lines
                    if lines is not None:
                        image = image_of(lines, read, image)
        if image is None:
            return regions.get(self.source)
        return tuple(
            None if span is None else np.array([] if span == NOTHING else span, dtype=np.int64)
            for span in image
        )

    def _reads(
        self, node: Node, output: str, region: Region, *, clip: bool
    ) -> Iterator[tuple[str, Region]]:
        """Inputs of a node on the way to the image, and what is read of each."""
        for reach in step_back(self.net, node, output, region, bounded=clip):
            if reach.tensor not in self.reached:
                continue
            read = reach.own if reach.mixes and self.local else reach.region
            if read is None:
                continue
            if reach.mixes and node.index > self._mixing[0]:
                self._mixing = node.index, mixes(node)
            found = self._inside(reach.tensor, read) if clip else read
            if found is not None:
                yield reach.tensor, found

    def _unit(self, y: int, x: int) -> Region:
        if self.net.rank(self.tensor, 4) != 4:
            return (None,) * self.net.rank(self.tensor, 4)
        at: Region = (None, np.array([y]), np.array([x]))
        last = self.net.channels.get(self.tensor, 1) == 3
        return (*at, None) if last else (None, *at)

    def _inside(self, tensor: str, region: Region) -> Region | None:
        found: list[Indices | None] = []
        for axis, indices in enumerate(region):
            length = None if indices is None else self.net.extent(tensor, axis)
            if indices is None or length is None:
                found.append(indices)
                continue
            kept = indices[(indices >= 0) & (indices < length)]
            if not kept.size:
                return None
            found.append(kept)
        return tuple(found)

    def box(self, y: int, x: int, *, clip: bool) -> Box | None:
        """Bounds of the traced rows and columns."""
        region = self.trace(y, x, clip=clip)
        if region is None:
            return None
        rows, columns = (region[axis] for axis in self.space)
        if rows is None or columns is None or not rows.size or not columns.size:
            return None
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _space(net: GraphExtents, source: str, local: Sequence[object] | None) -> tuple[int, int]:
    """The axes of the image that are rows and columns: those that a local field keeps."""
    axes = [axis for axis, found in enumerate(local or ()) if found is not None]
    if len(axes) == 2:
        return axes[0], axes[1]
    shape = net.shape(source) or (None,) * 4
    colours = (1, 3, 4)
    last = len(shape) == 4 and shape[3] in colours and shape[1] not in colours
    return (1, 2) if last else (2, 3)

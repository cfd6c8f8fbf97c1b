"""Stages of a network that may run on crops: what a box of the image changes stays in a box there.

    image --stage--> cut --stage--> cut --tail--> scores

A *cut* is a tensor (N, C, h, w), or channels last, through which everything passes that the scores
read of the image.  A stage between two cuts may run on a crop if shifting its input by the stride
shifts its output by one place, whatever stands around: convolutions, poolings over windows, and
what works place by place, but nothing that reads the whole map or knows where it is.  Receptive
fields say how large the crop has to be, and a cost model which cuts are worth one.

Source: Nakandala, Kumar & Papakonstantinou 2019, section 4 (incremental inference).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converters.graph import Graph, Node
from converters.graph.activations import data_nodes, data_tensors
from converters.graph.operators import facts
from inspector.network.quantisation.levels import is_quantised
from inspector.network.receptive_fields.field_lines import FieldLines
from inspector.network.receptive_fields.graph_extents import GraphExtents
from inspector.network.receptive_fields.shift_invariance import Axes, ShiftInvariance

__all__ = ["Cut", "Grid", "Plan", "find_cuts", "plan_of"]

ELEMENT = 8
"""Multiply-adds that take as long as writing one element of a tensor."""

COPIED = 30
"""Multiply-adds that take as long as copying one element of a crop."""

PER_NODE = 2e5
"""Multiply-adds that take as long as starting one node."""

PER_SESSION, PER_WEIGHT = 6e8, 1500
"""Multiply-adds that take as long as loading a stage, and one weight of it."""

GAIN = 0.7
"""Share of the work of whole passes above which crops are not worth it: multiply-adds on small
crops take up to 1.4 times as long as on whole maps (MobileNetV2)."""

MOST_CUTS = 64

BATCH = 8
"""Images that run together, for the cost of starting a node."""


@dataclass(frozen=True)
class Grid:
    """Places along one axis of a cut, and what each depends on: pixels [S y + low, S y + high].

    Attributes:
        length: Places.
        stride: Pixels S from one place to the next.
        low: First pixel of place 0.
        high: Last pixel of place 0.
    """

    length: int
    stride: int
    low: int
    high: int

    def reached(self, first: int, stop: int) -> tuple[int, int]:
        """Places that depend on the pixels from ``first`` up to ``stop``: the first, one past."""
        start = max(0, -(-(first - self.high) // self.stride))
        end = min(self.length, (stop - 1 - self.low) // self.stride + 1)
        return min(start, self.length), max(start, end)

    def step_from(self, other: "Grid") -> tuple[int, int, int]:
        """Stride, first and last place of an earlier grid that place 0 depends on."""
        return (
            self.stride // other.stride,
            (self.low - other.low) // other.stride,
            (self.high - other.high) // other.stride,
        )

    def crop(self, other: "Grid", places: int) -> int:
        """Length of a crop of an earlier grid that gives so many places of this one.

        Congruent to the whole length modulo the stride, so that a crop that ends with the picture
        starts at a multiple of the stride.
        """
        stride, low, high = self.step_from(other)
        needed = stride * (places - 1) + high - low + 1 + low % stride
        return min(other.length, needed + (other.length - needed) % stride)


@dataclass(frozen=True)
class Cut:
    """A tensor through which all of the image passes.

    Attributes:
        tensor: Its name.
        axes: Its axes along the rows and the columns of the image.
        grids: Its places along both.
        channels: Values per place.
        work: Cost of the nodes before it, in multiply-adds per image.
        nodes: How many these are.
    """

    tensor: str
    axes: Axes
    grids: tuple[Grid, Grid]
    channels: int
    work: float
    nodes: int

    @property
    def elements(self) -> int:
        """Values of the whole tensor."""
        return self.channels * math.prod(grid.length for grid in self.grids)


@dataclass(frozen=True)
class Plan:
    """Cuts between which crops are run; behind the last the rest runs whole.

    Attributes:
        cuts: The first is the image.
        cost: Cost of one changed image, in multiply-adds.
        whole: Cost of a whole pass.
        loading: Cost of loading the stages and of the pass over the image itself.
    """

    cuts: tuple[Cut, ...]
    cost: float
    whole: float
    loading: float

    def pays(self, count: int, checked: int) -> bool:
        """Whether it costs less than so many whole passes.

        Args:
            count: Changed images.
            checked: How many of them run whole besides, for comparison.
        """
        spent = self.loading + checked * self.whole + count * self.cost
        return spent <= GAIN * count * self.whole


def find_cuts(
    graph: Graph,
    source: str,
    axes: Axes,
    fetch: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[Cut, ...]:
    """Cuts before some tensors, the image first, as far as the network may run on crops.

    Args:
        graph: The network.
        source: The image input.
        axes: Its axes along rows and columns.
        fetch: Names of the tensors that are wanted in the end.
        shapes: Concrete shapes of tensors.
    """
    net = GraphExtents(graph, shapes)
    nodes = _nodes_before(graph, fetch)
    last = {name: at for at, node in enumerate(nodes) for name in graph.reads(node)}
    last |= dict.fromkeys(fetch, len(nodes))
    local = ShiftInvariance(net, source, axes)
    quantised = is_quantised(graph)
    found: list[tuple[str, int]] = []
    live = {source}
    for at, node in enumerate(nodes):
        if not local.follow(node):
            break
        live |= {name for name in node.outputs if last.get(name, -1) > at}
        live = {name for name in live if last.get(name, -1) > at}
        if len(live) != 1 or not live <= set(node.outputs) or not live.isdisjoint(fetch):
            continue
        name = node.outputs[0]
        if name in live and (
            facts(node).quantised is not None if quantised else _worth_cutting(graph, name)
        ):
            found.append((name, at + 1))
    found = found[:: -(-len(found) // MOST_CUTS) or 1]
    lines = FieldLines(net, [name for name, _ in found], source)
    spent = [0.0, *(work_of(net, node) for node in nodes)]
    cuts = []
    for name, end in [(source, 0), *found]:
        grids = _grids(net, lines, name, local)
        if grids is None:
            continue
        shape = net.shape(name) or ()
        others = [size for axis, size in enumerate(shape) if axis and axis not in local.axes[name]]
        cuts.append(
            Cut(
                tensor=name,
                axes=local.axes[name],
                grids=grids,
                channels=math.prod(size or 1 for size in others),
                work=sum(spent[: end + 1]),
                nodes=end,
            )
        )
    return tuple(cuts)


def _nodes_before(graph: Graph, fetch: Sequence[str]) -> list[Node]:
    """Nodes between the image and some tensors, in order."""
    needed, found = set(fetch), []
    carried = data_tensors(graph)
    for node in reversed(data_nodes(graph)):
        if not needed.isdisjoint(node.outputs):
            needed.update(name for name in graph.reads(node) if name in carried)
            found.append(node)
    return found[::-1]


def _worth_cutting(graph: Graph, tensor: str) -> bool:
    """Whether it is not read by one node alone that works place by place on it: they are fused."""
    readers = graph.consumers(tensor)
    if len(readers) != 1:
        return True
    known = facts(readers[0])
    alone = sum(name in data_tensors(graph) for name in readers[0].inputs) == 1
    return not (alone and (known.elementwise or known.copies or known.normalises == "constants"))


def _grids(
    net: GraphExtents, lines: FieldLines, name: str, local: ShiftInvariance
) -> tuple[Grid, Grid] | None:
    """Places along both axes of space; None where no straight line says what they depend on.

    What was cut off on the way counts as depended on: it is cut off from crops, too.
    """
    found = []
    known = lines.known.get(name)
    rows = zip(local.axes[lines.source], local.axes[name], local.removed[name], strict=True)
    for image_axis, axis, (before, behind) in rows:
        length = net.extent(name, axis)
        if known is None or length is None:
            return None
        line = known.lines[image_axis] if name != lines.source else None
        if name == lines.source:
            found.append(Grid(length, 1, 0, 0))
        elif line is not None and line.axis == axis and line.stride > 0:
            found.append(Grid(length, line.stride, line.low - before, line.high + behind))
        else:
            return None
    return found[0], found[1]


def work_of(net: GraphExtents, node: Node) -> float:
    """Cost of a node for one image, in multiply-adds."""
    shapes = [net.shape(name) for name in (node.outputs[0], node.inputs[0] if node.inputs else "")]
    made, read = (math.prod(size or 1 for size in (shape or (1,))[1:]) for shape in shapes)
    known = facts(node)
    elements = ELEMENT * float(max(made, read) if known.pools or known.reduces else made)
    if known.weights is None:
        return elements
    weights = _shape(net, node.inputs[known.weights])
    if node.is_op("ConvTranspose"):
        return elements + read * math.prod(weights[1:])
    if known.convolves:
        return elements + made * math.prod(weights[1:])
    return elements + made * (weights[-2] if len(weights) > 1 else 1)


def _shape(net: GraphExtents, tensor: str) -> tuple[int, ...]:
    raw = net.graph.initialiser(tensor)
    if raw is not None:
        return tuple(raw.dims)
    return tuple(size or 1 for size in net.shape(tensor) or ())


def _weights(graph: Graph, node: Node) -> int:
    raw = [graph.initialiser(name) for name in node.inputs]
    return sum(math.prod(one.dims) for one in raw if one is not None)


def plan_of(
    graph: Graph,
    source: str,
    axes: Axes,
    fetch: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    *,
    boxes: Sequence[tuple[int, ...]],
) -> Plan | None:
    """The cheapest way to run images that differ in boxes; None where it is the whole network.

    Args:
        graph: The network.
        source: The image input.
        axes: Its axes along rows and columns.
        fetch: Names of the tensors that are wanted in the end.
        shapes: Concrete shapes of tensors.
        boxes: Where the images differ: top, left, bottom, right in pixels.
    """
    cuts = find_cuts(graph, source, axes, fetch, shapes)
    if len(cuts) < 2:
        return None
    net, nodes = GraphExtents(graph, shapes), _nodes_before(graph, fetch)
    whole = sum(work_of(net, node) for node in nodes)
    reached = [_reached(cut, boxes) for cut in cuts]
    best = [(0.0, 0)]
    for k in range(1, len(cuts)):
        ways = [(best[j][0] + _stage_cost(cuts[j], cuts[k], reached[k]), j) for j in range(k)]
        best.append(min(ways))
    ends = [
        best[k][0]
        + (whole - cut.work + COPIED * cut.elements + PER_NODE / BATCH * (len(nodes) - cut.nodes))
        for k, cut in enumerate(cuts)
    ]
    k = min(range(len(cuts)), key=ends.__getitem__)
    cost, chosen = ends[k], list[Cut]()
    while k > 0:
        chosen.append(cuts[k])
        k = best[k][1]
    if not chosen:
        return None
    weights = sum(_weights(graph, node) for node in nodes)
    loading = whole + PER_SESSION * (len(chosen) + 1) + PER_WEIGHT * weights
    return Plan((cuts[0], *reversed(chosen)), cost, whole, loading)


def _reached(cut: Cut, boxes: Sequence[tuple[int, ...]]) -> list[Counter[int]]:
    """For each axis how many boxes reach how many places."""
    found = []
    for axis, grid in enumerate(cut.grids):
        spans = (grid.reached(box[axis], box[axis + 2]) for box in boxes)
        found.append(Counter(stop - start for start, stop in spans))
    return found


def _stage_cost(first: Cut, last: Cut, reached: Sequence[Counter[int]]) -> float:
    """Mean cost of the stage between two cuts, on the crops that give what the boxes reach.

    The axes are taken for independent of each other, as they are in a sweep.
    """
    share, read, written = 1.0, float(first.channels), float(last.channels)
    for before, own, counts in zip(first.grids, last.grids, reached, strict=True):
        number = counts.total()
        crop = sum(own.crop(before, max(1, n)) * times for n, times in counts.items()) / number
        share *= crop / before.length
        read *= crop
        written *= sum(n * times for n, times in counts.items()) / number
    started = PER_NODE / BATCH * (last.nodes - first.nodes)
    return (last.work - first.work) * share + COPIED * (read + written) + started

"""Coordinates of every unit of a graph, traced forward from the image.

Where :mod:`~inspector.network.receptive_fields.index_sets` follows one unit back to the image, this
goes forward once and gives the centres of all units of a tensor, so that a grid can be laid where
it looked: mirrored, transposed, cropped, or cut into tiles that became rows of the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from converters.graph import Node
from converters.graph.operators import facts
from inspector.network.coordinates.bodies import through_bodies
from inspector.network.coordinates.moves import (
    concat,
    crop,
    cut,
    expand,
    gather,
    pad,
    reshape,
    space_to_depth,
    split,
    tile,
    transpose,
)
from inspector.network.coordinates.units import (
    LARGEST,
    Array,
    Lost,
    Placed,
    State,
    Step,
    aligned,
    cell_size,
    joined,
    reduced,
)
from inspector.network.coordinates.windows import (
    depth_to_space,
    reduce,
    resize,
    transposed_window,
    window,
)
from inspector.network.receptive_fields.graph_extents import GraphExtents

__all__ = ["Coordinates", "image_places"]

_FEW = 4
"""Places that each number of a product may be made of, for it to have a place of its own."""

_APART = 4.0
"""Cells that a matrix may add up around a place, on average, and leave it one place."""


class Coordinates:
    """Places of the units of a graph's tensors, for an input of one size.

    Args:
        net: The graph with the concrete shapes of its tensors, as far as known.
        states: Places that are known: those of the image, from `image_places`; in a body those of
            all tensors that it reads.
    """

    def __init__(self, net: GraphExtents, states: Mapping[str, State]) -> None:
        self.net, self._nodes = net, net.graph.nodes
        self._states: dict[str, State] = dict(states)
        self._made = {name: node for node in self._nodes for name in node.outputs if name}
        self._place = {node: place for place, node in enumerate(self._nodes)}
        self._walked: set[str] = set()

    def of(self, tensor: str) -> State | None:
        """Places of a tensor's units; None where it does not depend on the image."""
        for node in self._before(tensor):
            found = self._step(node)
            for name in node.outputs:
                if name and name in found:
                    self._states[name] = found[name]
        return self._states.get(tensor)

    def before(self, tensor: str) -> Iterator[tuple[Node, State]]:
        """Nodes that a tensor depends on and the states of their results, in graph order."""
        self.of(tensor)
        wanted = self._ancestors(tensor)
        for node in self._nodes:
            for name in node.outputs:
                if name in wanted and name in self._states:
                    yield node, self._states[name]

    def mixing(self, tensor: str, axis: int) -> Node | None:
        """The last node before a tensor that makes one place of all rows (0) or columns (1)."""

        def varies(name: str) -> bool:
            state = self._states.get(name)
            return isinstance(state, Placed) and (state.rows, state.columns)[axis][0].size > 1

        while (node := self._made.get(tensor)) is not None:
            read = [n for n in self.net.graph.reads(node) if n in self._states]
            if not read or any(varies(name) for name in read):
                return node
            tensor = read[0]
        return None

    def _ancestors(self, tensor: str) -> set[str]:
        found, rest = set(), [tensor]
        while rest:
            name = rest.pop()
            if name not in found:
                found.add(name)
                node = self._made.get(name)
                rest += self.net.graph.reads(node) if node is not None else ()
        return found

    def _before(self, tensor: str) -> list[Node]:
        """Nodes that a tensor depends on and that were not walked yet, in graph order.

        What was walked for one layer is not walked again for the next.
        """
        found, rest = dict[str, Node](), [tensor]
        while rest:
            name = rest.pop()
            node = self._made.get(name)
            if node is None or name in self._states or name in self._walked:
                continue
            self._walked.update(node.outputs)
            found[name] = node
            rest += self.net.graph.reads(node)
        return sorted(found.values(), key=self._place.__getitem__)

    def _step(self, node: Node) -> Mapping[str, State]:
        read = self.net.graph.reads(node)
        states = {name: self._states[name] for name in read if name in self._states}
        if not states or node.is_op("Shape", "Size"):  # numbers of no place
            return {}
        step = Step(self.net, node, states)
        try:
            return through_bodies(step, _inside) if facts(node).bodies else _place(step)
        except Lost as lost:
            state = lost
        except (ArithmeticError, LookupError, TypeError, ValueError):  # shapes that do not fit
            state = Lost(node, "has shapes that do not fit")
        return dict.fromkeys(filter(None, node.outputs), state)


def image_places(source: str, shape: Sequence[int], space: tuple[int, int]) -> dict[str, State]:
    """Places of the image's own pixels, from which a trace begins.

    Args:
        source: The image input.
        shape: Its shape; rows and columns are its axes ``space``.
        space: The axes that are rows and columns.
    """
    axes = []
    for axis in space:
        along = np.arange(shape[axis], dtype=np.float64)
        dims = [3] + [shape[axis] if a == axis else 1 for a in range(len(shape))]
        axes.append(np.broadcast_to(along.reshape(dims[1:]), dims).copy())
    return {source: Placed(tuple(shape), *axes)}


def _inside(net: GraphExtents, states: Mapping[str, State]) -> Callable[[str], State | None]:
    return Coordinates(net, states).of


def _place(step: Step) -> Mapping[str, State]:
    """Places of a node's outputs.

    Raises:
        Lost: They are not known.
    """
    node, known = step.node, facts(step.node)
    if node.op_type == "Split":
        return split(step)
    function = _STEPS.get(node.op_type)
    if function is not None:
        found = function(step)
    elif known.convolves or (known.pools and not known.whole):
        found = window(step)
    elif known.whole or known.reduces:
        found = reduce(step)
    elif known.joins:
        found = concat(step)
    elif known.elementwise:
        found = _elementwise(step)
    elif known.carries or known.keeps_shape or known.normalises:
        found = step.first
    else:
        raise step.lost("has places that are not known")
    return {node.outputs[0]: found}


def _elementwise(step: Step) -> Placed:
    placed = [s for s in (step.states.get(n) for n in step.node.inputs) if isinstance(s, Placed)]
    lost = [s for s in step.states.values() if isinstance(s, Lost)]
    scattered = next((s for s in lost if s.scattered), None)
    if scattered is not None or not placed:
        raise scattered or lost[0]
    shapes = [s.shape for s in placed]
    shapes += [
        tuple(n or 1 for n in known)
        for name in step.node.inputs
        if name not in step.states and (known := step.net.shape(name)) is not None
    ]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:  # parameters of quantised operators do not broadcast
        shape = np.broadcast_shapes(*(s.shape for s in placed))
    rank = len(shape)
    return Placed(
        tuple(shape),
        joined(step, [aligned(s.rows, rank) for s in placed]),
        joined(step, [aligned(s.columns, rank) for s in placed]),
    )


def _matmul(step: Step) -> Placed:
    """Out[..., m, n]: the place of row m of A, or else of column n of B."""
    inputs = [n for n in step.node.inputs if n in step.states]
    first = step.node.inputs[0]
    position = facts(step.node).weights
    second = step.node.inputs[1 if position is None else position]
    a, b = step.states.get(first), step.states.get(second)
    lost = [s for s in (step.states[n] for n in inputs) if isinstance(s, Lost)]
    scattered = next((s for s in lost if s.scattered), None)
    if scattered is not None:
        raise scattered
    shapes = [
        s.shape if isinstance(s, Placed) else tuple(n or 1 for n in step.net.shape(name) or ())
        for s, name in ((a, first), (b, second))
    ]
    if any(len(shape) < 2 for shape in shapes):
        raise step.lost("multiplies vectors")
    turned = [bool(step.attribute(f"trans{letter}", 0)) for letter in "AB"]
    for index, turn in enumerate(turned):
        if turn:
            shapes[index] = (*shapes[index][:-2], shapes[index][-1], shapes[index][-2])
    batch = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
    shape = (*batch, shapes[0][-2], shapes[1][-1])
    sides = [(s, -1 - i, turned[i]) for i, s in enumerate((a, b)) if isinstance(s, Placed)]
    if not sides:
        raise lost[0]

    def either(read: Callable[[Placed], Array]) -> Array:
        for number, (state, axis, turn) in enumerate(sides):
            own = np.swapaxes(read(state), -1, -2) if turn else read(state)
            if own.shape[axis] > 1 and (placed := _mixed(step, own, axis)) is not None:
                return aligned(placed, len(shape))
            found = reduced(step, own, [own.ndim - 1 + axis])
            if found[0].size > 1 or number == len(sides) - 1:
                break
        return aligned(found, len(shape))

    return Placed(shape, either(lambda s: s.rows), either(lambda s: s.columns))


def _mixed(step: Step, coordinate: Array, axis: int) -> Array | None:
    """What a sparse constant matrix makes of the places that it adds up; None for any other.

    Columns of an upright image times a matrix: an exporter's way to mirror, to resample, to pool.

    Args:
        step: A product.
        coordinate: Places of its computed input.
        axis: -1 where the matrix stands behind it, -2 where it stands in front.
    """
    behind = axis == -1
    matrix = step.net.graph.constant(step.node.inputs[1 if behind else 0])
    if not step.node.is_op("MatMul") or matrix is None or matrix.ndim != 2:
        return None
    lines = np.moveaxis(coordinate, axis, -1)  # (3, ..., k)
    count = lines.shape[-1]
    weights = np.abs((matrix if behind else matrix.T).astype(np.float64))  # (k, outputs)
    many = lines[0].size * weights.shape[1] > LARGEST or np.isnan(lines[0]).any()
    if many or (weights > 0).sum(0).max() > max(_FEW, count // 4):
        return None  # features, not places, are added up
    total = weights.sum(0)
    shares = weights / np.where(total > 0, total, 1)
    centre = np.where(total > 0, lines[:1] @ shares, np.nan)
    used = np.where(weights > 0, 0.0, np.nan)
    low = np.fmin.reduce(lines[1][..., None] + used, axis=-2)[None]
    high = np.fmax.reduce(lines[2][..., None] + used, axis=-2)[None]
    away = np.abs(lines[0][..., None] - centre[0][..., None, :])
    spread = float((np.nan_to_num(away) * shares).sum(-2).max())
    if spread > _APART * max(cell_size(coordinate), 1.0):
        return None
    return np.moveaxis(np.concatenate([centre, low, high]), -1, axis)


def _einsum(step: Step) -> Placed:
    """Each axis of the result lies where the axis of the same letter lies."""
    equation = str(step.attribute("equation", "")).replace(" ", "")
    before, arrow, behind = equation.partition("->")
    terms = before.split(",")
    if not arrow or "." in equation or len(terms) != len(step.node.inputs):
        raise step.lost("has places that are not known")
    sides, lengths = [], dict[str, int]()
    for term, name in zip(terms, step.node.inputs, strict=True):
        state = step.states.get(name)
        if isinstance(state, Lost):
            raise state
        known = state.shape if isinstance(state, Placed) else step.net.shape(name)
        if known is None or len(known) != len(term) or len(set(term)) != len(term):
            raise step.lost("has places that are not known")
        lengths |= {letter: n or 1 for letter, n in zip(term, known, strict=True)}
        if isinstance(state, Placed):
            sides.append((term, state))

    def laid(term: str, coordinate: Array) -> Array:
        gone = [axis for axis, letter in enumerate(term) if letter not in behind]
        found = reduced(step, coordinate, gone)
        kept = [term.index(letter) + 1 for letter in behind if letter in term]
        found = found.transpose(0, *kept, *(axis + 1 for axis in gone))
        found = found.reshape(3, *found.shape[1 : len(kept) + 1])
        dims = iter(found.shape[1:])
        return found.reshape(3, *(next(dims) if letter in term else 1 for letter in behind))

    rows = joined(step, [laid(term, state.rows) for term, state in sides])
    columns = joined(step, [laid(term, state.columns) for term, state in sides])
    return Placed(tuple(lengths[letter] for letter in behind), rows, columns)


def _written(step: Step) -> Placed:
    """A tensor some of whose elements are overwritten, by constants or by what lies elsewhere."""
    if len(step.node.inputs) > 2 and step.node.inputs[2] in step.states:
        raise step.lost("writes elements to places that are not known")
    return step.first


_STEPS: Mapping[str, Callable[[Step], Placed]] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("ConvTranspose", "QLinearConvTranspose"), transposed_window),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"), _matmul),
    **dict.fromkeys(("FusedMatMul", "FusedGemm", "QGemm"), _matmul),
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), _written),
    "Einsum": _einsum,
    "DynamicQuantizeLinear": lambda step: step.first,
    "Trilu": lambda step: step.first,
    "CumSum": lambda step: step.first,
    "Crop": crop,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Gather": gather,
    "Pad": pad,
    "Slice": cut,
    "SpaceToDepth": space_to_depth,
    "Tile": tile,
    "Transpose": transpose,
}

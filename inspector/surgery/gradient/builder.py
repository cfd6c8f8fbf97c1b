"""Nodes that are appended to a graph, spelled for the opset that the file imports.

Operators moved attributes to inputs over the years; what a rule asks for is written here in the
one form that the file's own opset knows.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.graph import Graph
from converters.graph.activations import data_tensors
from inspector.surgery.gradient.element_types import NOT_FLOAT32, element_types
from inspector.surgery.gradient.table import CannotDifferentiate
from inspector.surgery.names import free_name

__all__ = ["ADDED", "OLDEST", "Builder"]

Array = np.ndarray[Any, Any]

ADDED = "gradient/"
"""Start of the names of all tensors that are added to a network."""

OLDEST = 7
"""Oldest opset that gradients are written for: from it on operators broadcast as NumPy does."""

_FLOAT = onnx.TensorProto.FLOAT

_REPEATED = 256
"""Elements of a constant from which on equal ones are written as one, to be repeated."""

_WIDE = 1024
"""Elements of a matrix from which on its places are written in its stead."""

_STEEPEST = 2.0**127
"""Slope that takes the smallest normal number of float32 above 1."""

_STEEP = 2.0**100
_FLATTEST = 2.0**-20
"""A slope that takes a number from this on to its neighbour by more than 1, and not to infinity."""


class Builder:
    """What is written behind the nodes of a graph.

    Args:
        graph: The network.
        measured: Tensors of one sample by name, as a forward pass gave them; asked for where a
            rule needs a shape or the value of an index.
        avoid: Operators that the runtime in mind lacks.
        own: Whether it is run here, in float32, and no file that others may convert to float16:
            places above a bound are then marked by a steep ``HardSigmoid``, the cheapest form.

    Attributes:
        nodes: The nodes so far, in order.
        initialisers: The constants so far.
        indexed: Names of the indices of ``MaxPool`` nodes, by the index of the node, which gets
            them as its second output.
    """

    def __init__(
        self,
        graph: Graph,
        measured: Callable[[str], Array | None],
        *,
        avoid: Collection[str] = (),
        own: bool = False,
    ) -> None:
        self.graph, self.opset, self.avoid = graph, graph.opset(), frozenset(avoid)
        self.own = own
        self._measured = measured
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self.indexed: dict[int, str] = {}
        self._taken = set(graph.tensors) | set(graph.initialisers) | set(graph.inputs)
        self._made: dict[Any, str] = {}
        self._types: Mapping[str, int] | None = None
        self._of_image: frozenset[str] | None = None

    # -- the network's tensors -------------------------------------------------------------

    def value(self, tensor: str) -> str:
        """A tensor of the network in float32, as signals are."""
        if self.elem_type(tensor) in NOT_FLOAT32:
            return self.once("Cast", [tensor], to=_FLOAT)
        return tensor

    def elem_type(self, tensor: str) -> int:
        """ONNX element type of a tensor of the network; 0 where it is not known."""
        if self._types is None:
            self._types = element_types(self.graph)
        return self._types.get(tensor, 0)

    def floats(self, tensor: str) -> bool:
        """Whether a tensor of the network holds floating point numbers."""
        kind = self.elem_type(tensor)
        return kind in _FLOATS or kind == 0

    def known(self, tensor: str) -> Array | None:
        """Value of a constant, or of whole numbers that are the same for every image."""
        if not tensor:
            return None
        constant = self.graph.constant(tensor)
        if constant is not None:
            return constant
        if self._of_image is None:
            self._of_image = data_tensors(self.graph)
        if tensor in self._of_image:  # another image has other ones
            return None
        found = self._measured(tensor)
        return found if found is not None and found.dtype.kind in "iub" else None

    def dims(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor for one sample.

        Raises:
            CannotDifferentiate: Nobody has measured it.
        """
        constant = self.graph.constant(tensor)
        found = self._measured(tensor) if constant is None else constant
        if found is None:
            raise CannotDifferentiate(f"the shape of {tensor!r} is not known")
        return tuple(map(int, np.shape(found)))

    # -- writing ---------------------------------------------------------------------------

    def name(self, stem: str) -> str:
        """A name that nothing in the graph has."""
        return free_name(stem, self._taken)

    def op(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with one output, and return its name.

        Raises:
            CannotDifferentiate: The opset, or the runtime in mind, does not have the operator.
        """
        return self.ops(op_type, inputs, 1, **attributes)[0]

    def ops(
        self, op_type: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> tuple[str, ...]:
        """Append a node with several outputs, and return their names."""
        if op_type in self.avoid:
            raise CannotDifferentiate(
                f"its gradient needs {op_type}, which --for avoids; leave it out"
            )
        if not onnx.defs.has(op_type, self.opset):
            raise CannotDifferentiate(
                f"its gradient needs {op_type}, which opset {self.opset} does not have"
            )
        # Short: a name is written once per reader, and files with a heatmap are to stay small.
        outputs = [self.name(f"{ADDED}{len(self.nodes)}") for _ in range(count)]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, **attributes))
        return tuple(outputs)

    def rename(self, tensor: str, name: str) -> None:
        """Give a tensor that was written here another name; one of the network is copied."""
        maker = next((node for node in self.nodes if tensor in node.output), None)
        if maker is None:
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
            return
        for node in self.nodes:
            for names in (node.input, node.output):
                for position, own in enumerate(names):
                    if own == tensor:
                        names[position] = name

    def once(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        """As ``op``, but the same node is written once."""
        key = (op_type, tuple(inputs), repr(sorted(attributes.items())))
        if key not in self._made:
            self._made[key] = self.op(op_type, inputs, **attributes)
        return self._made[key]

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant; the same one is written once."""
        array = np.ascontiguousarray(np.asarray(value, dtype=dtype)).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key in self._made:
            return self._made[key]
        if array.size > _REPEATED and "Tile" not in self.avoid:
            first = array.reshape(-1)[:1].reshape([1] * array.ndim)
            if np.all(array == first):  # a file with a heatmap is to stay small
                given = [self.constant(first, dtype), self.ints(array.shape)]
                self._made[key] = self.op("Tile", given)
                return self._made[key]
        name = self._made[key] = self.name(f"{ADDED}c{len(self.initialisers)}")
        self.initialisers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, values: Iterable[int]) -> str:
        """A constant list of whole numbers."""
        return self.constant(list(values), np.int64)

    # -- arithmetic ------------------------------------------------------------------------

    def add(self, *signals: str) -> str:
        """Sum of signals of one shape."""
        if "Sum" not in self.avoid and len(signals) > 2:
            return self.op("Sum", signals)
        total, *rest = signals
        for signal in rest:
            total = self.op("Add", [total, signal])
        return total

    def sign(self, tensor: str) -> str:
        """-1, 0 or 1."""
        if self.opset >= 9 and "Sign" not in self.avoid:
            return self.op("Sign", [tensor])
        below = self.mask(self.op("Less", [tensor, self.constant(0.0)]))
        return self.op("Sub", [self.positive(tensor), below])

    def rectified(self, signal: str) -> str:
        """What is above 0 of a signal."""
        if "Relu" in self.avoid:
            return self.mul(signal, self.positive(signal))
        return self.op("Relu", [signal])

    def reciprocal(self, tensor: str) -> str:
        """One over a tensor."""
        if "Reciprocal" in self.avoid:
            return self.op("Div", [self.constant(1.0), tensor])
        return self.op("Reciprocal", [tensor])

    def rounded(self, tensor: str) -> str:
        """The nearest whole number; halves go to the even one where the opset can."""
        if self.opset >= 11 and "Round" not in self.avoid:
            return self.op("Round", [tensor])
        return self.op("Floor", [self.op("Add", [tensor, self.constant(0.5)])])

    def mul(self, a: str, b: str) -> str:
        """Product, element by element."""
        return self.op("Mul", [a, b])

    def scaled(self, signal: str, factor: float) -> str:
        """A signal times a number."""
        return signal if factor == 1 else self.mul(signal, self.constant(factor))

    def positive(self, tensor: str) -> str:
        """1 where a tensor is above 0, and 0 elsewhere."""
        return self.above(tensor, 0.0)

    def above(self, tensor: str, bound: float) -> str:
        """1 where a tensor is above a number, and 0 elsewhere."""
        if self._steps_at(bound):
            return self._steep(tensor, bound, 1.0)
        return self.mask(self.op("Greater", [tensor, self.constant(bound)]))

    def below(self, tensor: str, bound: float) -> str:
        """1 where a tensor is below a number, and 0 elsewhere."""
        if self._steps_at(bound):
            return self._steep(tensor, bound, -1.0)
        return self.mask(self.op("Less", [tensor, self.constant(bound)]))

    def _steps_at(self, bound: float) -> bool:
        """Whether a straight line between 0 and 1 fits between a number and its neighbours."""
        return self.own and (bound == 0 or _FLATTEST <= abs(bound) <= 1 / _FLATTEST)

    def _steep(self, tensor: str, bound: float, sign: float) -> str:
        """max(0, min(1, slope (x - bound))): the slope is a power of 2, so that nothing is rounded.

        At a bound of 0 the line takes the width of the subnormal numbers.
        """
        slope = sign * (_STEEPEST if bound == 0 else _STEEP)
        offset = -slope * float(np.float32(bound))
        return self.op("HardSigmoid", [tensor], alpha=slope, beta=offset)

    def mask(self, condition: str) -> str:
        """1 where a condition holds, and 0 elsewhere."""
        return self.op("Cast", [condition], to=_FLOAT)

    def equal(self, a: str, b: str) -> str:
        """Where two tensors are equal."""
        if self.opset >= 11:
            return self.op("Equal", [a, b])
        apart = self.op("Abs", [self.op("Sub", [a, b])])
        return self.op("Not", [self.op("Greater", [apart, self.constant(0.0)])])

    def where(self, condition: str, a: str, b: str) -> str:
        """``a`` where a condition holds, ``b`` elsewhere."""
        if self.opset >= 9:
            return self.op("Where", [condition, a, b])
        yes, no = self.mask(condition), self.mask(self.op("Not", [condition]))
        return self.op("Add", [self.mul(yes, a), self.mul(no, b)])

    # -- shapes ----------------------------------------------------------------------------

    def shape(self, tensor: str) -> str:
        """Shape of a tensor while it runs."""
        return self.once("Shape", [tensor])

    def like(self, signal: str, tensor: str) -> str:
        """A signal in the shape of a tensor of the network with as many elements."""
        return self.op("Reshape", [signal, self.shape(tensor)])

    def reshape(self, signal: str, sizes: Sequence[int]) -> str:
        """A signal in another shape; -1 is what remains, 0 keeps an axis."""
        return self.op("Reshape", [signal, self.ints(sizes)])

    def with_batch(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Sizes of a shape whose first axis counts samples, for ``reshape``."""
        return (-1, *sizes[1:])

    def zeros(self, tensor: str) -> str:
        """Zeros in the shape of a tensor."""
        if self.opset >= 9 and "ConstantOfShape" not in self.avoid:
            return self.op("ConstantOfShape", [self.shape(tensor)])
        if self.opset >= 8:
            return self.op("Expand", [self.constant(0.0), self.shape(tensor)])
        return self.mul(self.value(tensor), self.constant(0.0))

    def expanded(self, signal: str, tensor: str) -> str:
        """A signal repeated along axes of size 1 to the shape of a tensor."""
        if self.opset >= 8:
            return self.op("Expand", [signal, self.shape(tensor)])
        return self.op("Add", [signal, self.mul(self.value(tensor), self.constant(0.0))])

    def transpose(self, signal: str, order: Sequence[int]) -> str:
        """Axes in another order."""
        if list(order) == list(range(len(order))):
            return signal
        return self.op("Transpose", [signal], perm=list(order))

    def sum(self, signal: str, axes: Sequence[int], *, keep: bool) -> str:
        """Sum over axes."""
        return self.reduced("ReduceSum", signal, axes, keep=keep)

    def mean(self, signal: str, axes: Sequence[int]) -> str:
        """Mean over axes, which stay with size 1."""
        return self.reduced("ReduceMean", signal, axes, keep=True)

    def reduced(self, op_type: str, signal: str, axes: Sequence[int], *, keep: bool) -> str:
        """A reduction over axes."""
        if not axes:
            return signal
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.op(op_type, [signal, self.ints(axes)], keepdims=int(keep))
        return self.op(op_type, [signal], axes=list(axes), keepdims=int(keep))

    def unsqueeze(self, signal: str, axes: Sequence[int]) -> str:
        """Axes of size 1 at positions of the result."""
        if self.opset >= 13:
            return self.op("Unsqueeze", [signal, self.ints(axes)])
        return self.op("Unsqueeze", [signal], axes=list(axes))

    def pad(self, signal: str, before: Sequence[int], after: Sequence[int]) -> str:
        """Zeros around a tensor."""
        if not any((*before, *after)):
            return signal
        pads = [*before, *after]
        if self.opset >= 11:
            return self.op("Pad", [signal, self.ints(pads)])
        return self.op("Pad", [signal], pads=pads, mode="constant", value=0.0)

    def slice(
        self, signal: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int]
    ) -> str:
        """A part of a tensor, step by step of 1."""
        if self.opset >= 10:
            given = [signal, self.ints(starts), self.ints(ends), self.ints(axes)]
            return self.op("Slice", given)
        return self.op("Slice", [signal], starts=list(starts), ends=list(ends), axes=list(axes))

    def reversed_axis(self, tensor: str, axis: int, size: int) -> str:
        """A tensor with an axis the other way round."""
        return self.once("Gather", [tensor, self.ints(range(size - 1, -1, -1))], axis=axis)

    def narrowed(self, signal: str, given: Sequence[int], wanted: Sequence[int]) -> str:
        """A signal summed over the axes along which a tensor was repeated (broadcasting).

        Args:
            signal: In the shape of the result.
            given: That shape, for one sample.
            wanted: Shape of the tensor, for one sample.
        """
        leading = len(given) - len(wanted)
        if leading > 0:
            signal = self.sum(signal, list(range(leading)), keep=False)
            given = given[leading:]
        axes = [i for i, (a, b) in enumerate(zip(given, wanted, strict=True)) if a != b]
        if any(wanted[axis] != 1 for axis in axes):
            raise CannotDifferentiate(f"shapes {tuple(given)} and {tuple(wanted)} do not meet")
        return self.sum(signal, axes, keep=True)

    def spread(self, signal: str, dims: Sequence[int], steps: Sequence[int]) -> str:
        """Zeros between and behind elements: element i of an axis comes to i times its step.

        Args:
            signal: The tensor.
            dims: Its shape, for one sample.
            steps: One per axis; that of the samples is 1.
        """
        if all(step == 1 for step in steps):
            return signal
        if len(dims) == 4 and steps[1] == 1 and self.opset >= 11 and "Resize" not in self.avoid:
            return self._spread_map(signal, dims[2:], steps[2:])
        apart, behind, joined = [-1], [0], [-1]
        for size, step in zip(dims[1:], steps[1:], strict=True):
            apart += [size] if step == 1 else [size, 1]
            behind += [0] if step == 1 else [0, step - 1]
            joined.append(size * step)
        filled = self.pad(self.reshape(signal, apart), [0] * len(behind), behind)
        return self.reshape(filled, joined)

    def _spread_map(self, signal: str, size: Sequence[int], steps: Sequence[int]) -> str:
        """``spread`` of (N, C, h, w): each element repeated, and the copies put out; faster."""
        scales = self.constant([1.0, 1.0, *map(float, steps)])
        repeated = self.op(
            "Resize",
            [signal, self.constant(np.zeros(0, np.float32)), scales],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        rows, columns = (
            (np.arange(n * step) % step == 0).astype(np.float32)
            for n, step in zip(size, steps, strict=True)
        )
        kept = self.once("Mul", [self.constant(rows[:, None]), self.constant(columns)])
        return self.mul(repeated, kept)

    def matrix(self, values: Array) -> str:
        """A constant matrix.

        A large one whose rows, or columns, lie between two places each is written by those: a
        place takes 1 less its distance.
        """
        if values.size > _WIDE and self.avoid.isdisjoint({"Abs", "Relu"}):
            for turned in (False, True):
                rows = values.T if turned else values
                low = np.clip((rows != 0).argmax(axis=1), 0, rows.shape[1] - 2)
                share = 1 - rows[np.arange(len(rows)), low]
                places = np.arange(rows.shape[1])
                hats = np.maximum(1 - np.abs(low[:, None] - places + share[:, None]), 0)
                if np.abs(hats - rows).max() <= np.finfo(np.float32).eps:
                    found = self._hats(low, share, places)
                    return self.transpose(found, [1, 0]) if turned else found
        return self.constant(values)

    def _hats(self, low: Array, share: Array, places: Array) -> str:
        apart = self.once("Sub", [self.constant(low[:, None]), self.constant(places)])
        apart = self.once("Add", [apart, self.constant(share[:, None])])
        return self.rectified(
            self.op("Sub", [self.constant(1.0), self.once("Abs", [apart])]),
        )

    def along(self, signal: str, axis: int, matrix: Array, rank: int) -> str:
        """A signal whose axis is multiplied by a matrix (from, to)."""
        if axis == rank - 2:
            return self.op("MatMul", [self.matrix(np.ascontiguousarray(matrix.T)), signal])
        values = self.matrix(matrix)
        if axis == rank - 1:
            return self.op("MatMul", [signal, values])
        order = [i for i in range(rank) if i != axis] + [axis]
        moved = self.op("MatMul", [self.transpose(signal, order), values])
        return self.transpose(moved, list(np.argsort(order)))

    def vector(self, tensor: str, rank: int, axis: int) -> str:
        """A vector of the network, one number per index of an axis, in a shape that broadcasts."""
        behind = rank - axis - 1
        value = self.value(tensor)
        if math.prod(self.dims(tensor)) == 1 or not behind:
            return value
        key = ("vector", value, behind)
        if key not in self._made:
            self._made[key] = self.unsqueeze(value, list(range(1, behind + 1)))
        return self._made[key]


_FLOATS = frozenset(
    (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )
)

"""The ONNX graph that is being written, and in which layout each TFLite tensor is in it.

TFLite keeps channels last, ONNX first.  Whatever works on places (convolution, pooling) gives its
result with channels first; what follows takes it as it is where it can (element by element, along
an axis that is renamed), and asks for the file's own layout where it has to.  So a ``Transpose``
stands only where the network leaves its maps: at the input, and before what flattens them.

A quantised tensor is carried as the numbers that it stands for, behind a pair of ``QuantizeLinear``
and ``DequantizeLinear``; a tensor keeps the file's name, in the layout in which it is made.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.model import Quantisation, Subgraph, Tensor

__all__ = ["Graph", "carried_type", "dequantised", "is_quantised", "to_first", "to_last"]

Array = NDArray[Any]

_LEVELS = ("int8", "uint8", "int16")
_MOST_BYTES = (1 << 31) - (1 << 20)  # what one ONNX file can hold
_MOST_NUMBERS = 1 << 16
_DEEPEST = 6  # bodies within bodies
_MOST_OPERATORS = 5_000  # of bodies, each time that one is written


def to_first(rank: int) -> list[int]:
    """Order of axes that brings the last one behind the batch."""
    return [0, rank - 1, *range(1, rank - 1)]


def to_last(rank: int) -> list[int]:
    """Order of axes that brings the channels, behind the batch, to the end."""
    return [0, *range(2, rank), 1]


def is_quantised(tensor: Tensor) -> bool:
    """Whether a tensor's integers stand for other numbers."""
    return tensor.quantisation is not None and tensor.dtype in _LEVELS


def dequantised(levels: Array, known: Quantisation) -> NDArray[np.float32]:
    """The numbers that integers stand for."""
    sizes = [1] * levels.ndim
    if known.scale.size > 1:
        sizes[known.axis] = -1
    scale, zero = known.scale.reshape(sizes), known.zero_point.reshape(sizes)
    found: NDArray[np.float32] = ((levels.astype(np.int64) - zero) * scale).astype(np.float32)
    return found


def carried_type(tensor: Tensor) -> int:
    """ONNX's number of the type that a tensor is carried in."""
    floats = is_quantised(tensor) or tensor.dtype == "float16"
    try:
        return helper.np_dtype_to_tensor_dtype(np.dtype("float32" if floats else tensor.dtype))
    except (TypeError, KeyError):
        raise ConversionFailed(f"{tensor.name or tensor.index} is of {tensor.dtype}") from None


@dataclass(eq=False)
class _File:
    """What the graphs of one file share: its constants, names of tensors, and bodies to write.

    Attributes:
        subgraphs: The graphs of the TFLite file.
        constants: Stored tensors by name.
        taken: Names of tensors.
        size: Bytes of the constants.
        operators: How many operators of bodies were written.
    """

    subgraphs: Sequence[Subgraph] = ()
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    size: int = 0
    operators: int = 0


class Graph:
    """Nodes and constants of one graph in the making, or of a body of control flow in it.

    Args:
        subgraphs: The graphs of the TFLite file, for operators that name one.

    Attributes:
        nodes: The ONNX nodes, in order.
        within: Numbers of the subgraphs that this body lies in, and its own.
    """

    def __init__(self, subgraphs: Sequence[Subgraph] = ()) -> None:
        """Start empty."""
        self.nodes: list[onnx.NodeProto] = []
        self.within: tuple[int, ...] = ()
        self._file = _File(subgraphs)
        self._last: dict[int, str] = {}
        self._first: dict[int, str] = {}
        self._arrays: dict[int, Array] = {}
        self._forms: dict[tuple[Any, ...], str] = {}
        self._shared: set[str] = set()
        self._named: set[int] = set()
        self._ends: set[str] = set()

    @property
    def constants(self) -> dict[str, onnx.TensorProto]:
        """Stored tensors of the file by name; those of bodies are among them."""
        return self._file.constants

    def subgraph(self, number: int) -> Subgraph:
        """A graph of the TFLite file.

        Raises:
            ConversionFailed: There is none, or this body is a part of it.
        """
        if not 0 <= number < len(self._file.subgraphs):
            raise ConversionFailed(f"names graph {number} of {len(self._file.subgraphs)}")
        if number in (*self.within, 0):
            raise ConversionFailed(f"graph {number} contains itself")
        return self._file.subgraphs[number]

    def inner(self, number: int, *, apart: bool) -> "Graph":
        """A graph for the body of a control flow operator; names and constants are shared.

        Args:
            number: The subgraph that it is made of.
            apart: Whether its nodes are listed apart, and not behind those of this graph.

        Raises:
            ConversionFailed: It lies too deep.
        """
        if len(self.within) >= _DEEPEST:
            raise ConversionFailed(f"has bodies within bodies, more than {_DEEPEST} deep")
        made = Graph()
        made._file = self._file
        made.within = (*self.within, number)
        if not apart:
            made.nodes = self.nodes
        return made

    def count_operator(self) -> None:
        """Count an operator that is written, if it is a body's.

        Raises:
            ConversionFailed: Bodies within bodies make too many.
        """
        self._file.operators += bool(self.within)
        if self._file.operators > _MOST_OPERATORS:
            raise ConversionFailed(f"its bodies make more than {_MOST_OPERATORS} operators")

    def name(self, wanted: str) -> str:
        """A name that no tensor has yet, like the one that is wanted."""
        wanted = wanted or "tensor"
        found, count = wanted, 1
        while found in self._file.taken:
            count += 1
            found = f"{wanted}_{count}"
        self._file.taken.add(found)
        return found

    def emit(self, op_type: str, inputs: Iterable[str], hint: str, **attributes: Any) -> str:
        """Write a node of one output; the output's name."""
        return self.emit_many(op_type, inputs, [hint], **attributes)[0]

    def emit_many(
        self, op_type: str, inputs: Iterable[str], hints: Iterable[str], **attributes: Any
    ) -> list[str]:
        """Write a node; the names of its outputs."""
        outputs = [self.name(hint) for hint in hints]
        name = f"{outputs[0]}/{op_type}"
        self.nodes.append(helper.make_node(op_type, [*inputs], outputs, name=name, **attributes))
        return outputs

    def store(self, array: Array, hint: str) -> str:
        """Write a constant; its name.

        Raises:
            ConversionFailed: All constants together are more than a file can hold.
        """
        self._file.size += array.nbytes
        if self._file.size > _MOST_BYTES:
            raise ConversionFailed("its constants are more than the 2 GiB of one ONNX file")
        name = self.name(hint)
        self.constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def integers(self, values: Iterable[int], hint: str) -> str:
        """Write a constant vector of int64; its name."""
        return self.store(np.array([*values], np.int64), hint)

    def number(self, value: float, hint: str, dtype: str = "float32") -> str:
        """Write a constant scalar; its name."""
        return self.store(np.array(value, dtype), hint)

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor has a value yet."""
        return any(tensor.index in kept for kept in (self._last, self._first, self._arrays))

    def keep(self, tensor: Tensor, array: Array) -> None:
        """Take a tensor for a constant of these values."""
        self._arrays[tensor.index] = array

    def is_constant(self, tensor: Tensor | None) -> bool:
        """Whether a tensor's values are known while the graph is written."""
        return tensor is not None and tensor.index in self._arrays

    def stored(self, tensor: Tensor) -> Array:
        """Values of a constant as they are stored: levels, where it is quantised.

        Raises:
            ConversionFailed: It is computed.
        """
        if tensor.index not in self._arrays:
            raise ConversionFailed(f"{tensor.name or tensor.index} has to be a constant")
        return self._arrays[tensor.index]

    def array(self, tensor: Tensor) -> Array:
        """Values of a constant, as the numbers that they stand for."""
        array = self.stored(tensor)
        if is_quantised(tensor) and tensor.quantisation and array.dtype.kind in "iu":
            return dequantised(array, tensor.quantisation)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def whole_numbers(self, tensor: Tensor) -> list[int]:
        """Values of a constant of integers: axes, shapes, sizes."""
        array = self.stored(tensor)
        if array.size > _MOST_NUMBERS or array.dtype.kind not in "iu":
            raise ConversionFailed(f"{tensor.name or tensor.index} is not a list of integers")
        return [int(n) for n in array.ravel()]

    def is_first(self, tensor: Tensor | None) -> bool:
        """Whether a tensor was made with channels first."""
        return tensor is not None and tensor.index in self._first

    def last(self, tensor: Tensor) -> str:
        """Name of a tensor in the file's own layout."""
        if tensor.index in self._arrays:
            return self._constant(tensor, self._arrays[tensor.index], None)
        if tensor.index in self._last:
            return self._last[tensor.index]
        hint = tensor.name if tensor.index in self._named else f"{tensor.name}_channels_last"
        return self.turned(self._first[tensor.index], to_last(len(tensor.shape)), hint)

    def first(self, tensor: Tensor, rank: int | None = None) -> str:
        """Name of a tensor with channels first, of more axes than it has where ``rank`` says."""
        own = len(tensor.shape)
        rank = own if rank is None else rank
        if tensor.index in self._arrays:
            array = self._arrays[tensor.index]
            array = array.reshape((1,) * (rank - array.ndim) + array.shape)
            return self._constant(tensor, array, to_first(rank))
        if tensor.index in self._first and rank == own:
            return self._first[tensor.index]
        name = self.last(tensor)
        if rank != own:
            axes = self.integers(range(rank - own), f"{tensor.name}_axes")
            name = self.emit("Unsqueeze", [name, axes], f"{tensor.name}_of_{rank}_axes")
        return self.turned(name, to_first(rank), f"{tensor.name}_channels_first")

    def of(self, tensor: Tensor, *, first: bool, rank: int | None = None) -> str:
        """Name of a tensor in the layout that is asked for."""
        return self.first(tensor, rank) if first else self.last(tensor)

    def turned(self, name: str, order: Sequence[int], hint: str) -> str:
        """A value with its axes in another order; the same node for everybody who asks."""
        if [*order] == sorted(order):
            return name
        key = (name, *order)
        if key not in self._forms:
            self._forms[key] = self.emit("Transpose", [name], hint, perm=[*order])
            self._shared.add(self._forms[key])
        return self._forms[key]

    def weights(self, tensor: Tensor, order: Sequence[int], sizes: Sequence[int] = ()) -> str:
        """Weights in the order of axes of ONNX.

        Args:
            tensor: The weights, constant or computed.
            order: Of their axes.
            sizes: Lengths to take them in after that; an axis of channels stays whole.
        """
        if tensor.index in self._arrays:
            return self._constant(tensor, self._arrays[tensor.index], order, sizes)
        name = self.turned(self.last(tensor), order, f"{tensor.name}_turned")
        if not sizes:
            return name
        target = self.integers(sizes, f"{tensor.name}_sizes")
        return self.emit("Reshape", [name, target], f"{tensor.name}_weights")

    def _constant(
        self,
        tensor: Tensor,
        array: Array,
        order: Sequence[int] | None,
        sizes: Sequence[int] = (),
    ) -> str:
        """A constant in the file, with its quantisation, in an order of axes."""
        key = (tensor.index, array.shape, *(order or ()), "sizes", *sizes)
        if key in self._forms:
            return self._forms[key]
        known, axis = tensor.quantisation, 0
        if known is not None:
            axis = known.axis + array.ndim - len(tensor.shape)
        if order is not None:
            array, axis = array.transpose(order), [*order].index(axis)
        if sizes:
            axis = _axis_in(array.shape, axis, sizes)
            array = array.reshape(sizes)
        if known is not None and is_quantised(tensor) and array.dtype.kind in "iu":
            name = self.store(array, f"{tensor.name}_levels")
            name = self.dequantise(name, array.dtype.name, known, tensor.name, axis)
        else:
            whole = array.astype(np.float32) if array.dtype == np.float16 else array
            name = self.store(whole, tensor.name)
        self._forms[key] = name
        self._shared.add(name)
        return name

    def give(
        self, tensor: Tensor, name: str, *, first: bool = False, moved: Tensor | None = None
    ) -> None:
        """Take a value for that of an operator's output.

        Args:
            tensor: The output.
            name: The value; where the tensor is quantised, the numbers that it stands for.
            first: Whether it has its channels first.
            moved: The input whose values it holds, where the operator only moves them: of the same
                quantisation, there is nothing to round.
        """
        known, wanted = tensor.quantisation, tensor.name
        if first and tensor.index in self._named:
            wanted = f"{tensor.name}_channels_first"
        rounded = is_quantised(tensor)
        if moved is not None and known is not None and is_quantised(moved):
            rounded = rounded and not known.same_as(moved.quantisation)
        if rounded and known is not None:
            name = self.renamed(name, f"{wanted}_unrounded")
            name = self.quantise(name, tensor.dtype, known, wanted)
            name = self.dequantise(name, tensor.dtype, known, wanted, known.axis)
        else:
            name = self.renamed(name, wanted)
        (self._first if first else self._last)[tensor.index] = name

    def lend(self, tensor: Tensor, name: str) -> None:
        """Take a value of the graph around this body for that of a tensor; it keeps its name."""
        self._last[tensor.index] = name
        self._shared.add(name)

    def place(self, tensor: Tensor, name: str) -> None:
        """Take a value, in the file's own layout, for that of a tensor, as it is."""
        self._last[tensor.index] = name

    def reserve(self, tensor: Tensor) -> None:
        """Keep a tensor's name for its value in the file's own layout: it is an output."""
        self._named.add(tensor.index)

    def ended(self, tensor: Tensor) -> str:
        """Name of an output, which no other output has."""
        name = self.last(tensor)
        if tensor.dtype == "float16":
            name = self.emit("Cast", [name], tensor.name, to=onnx.TensorProto.FLOAT16)
        elif name in self._ends or not any(name in node.output for node in self.nodes):
            name = self.emit("Identity", [name], tensor.name)
        self._ends.add(name)
        return name

    def quantise(self, name: str, dtype: str, known: Quantisation, hint: str) -> str:
        """Write a ``QuantizeLinear``; the name of its integers."""
        ends = self._steps(known, dtype, hint)
        axis = {"axis": known.axis} if known.scale.size > 1 else {}
        return self.emit("QuantizeLinear", [name, *ends], f"{hint}_levels", **axis)

    def dequantise(
        self, name: str, dtype: str, known: Quantisation, hint: str, axis: int = 0
    ) -> str:
        """Write a ``DequantizeLinear``; the name of its floats."""
        ends = self._steps(known, dtype, hint)
        along = {"axis": axis} if known.scale.size > 1 else {}
        return self.emit("DequantizeLinear", [name, *ends], hint, **along)

    def _steps(self, known: Quantisation, dtype: str, hint: str) -> list[str]:
        """Names of scale and zero point, stored once."""
        key = ("steps", dtype, known.scale.tobytes(), known.zero_point.tobytes())
        if key not in self._forms:
            sizes = () if known.scale.size == 1 else (-1,)
            bounds = np.iinfo(dtype)
            zero = np.clip(known.zero_point, bounds.min, bounds.max).astype(dtype)
            scale = self.store(known.scale.reshape(sizes), f"{hint}_scale")
            self._forms[key] = scale
            self._forms["zero", *key] = self.store(zero.reshape(sizes), f"{hint}_zero_point")
        return [self._forms[key], self._forms["zero", *key]]

    def renamed(self, name: str, wanted: str) -> str:
        """Call a value by another name, if it is of the last node alone; the name it has then."""
        node = self.nodes[-1] if self.nodes else None
        if node is None or name not in node.output or name in self._shared or not wanted:
            return name
        self._file.taken.discard(name)
        new = self.name(wanted)
        if node.name == f"{name}/{node.op_type}":
            node.name = f"{new}/{node.op_type}"
        node.output[:] = [new if output == name else output for output in node.output]
        for kept in (self._last, self._first):  # an operator that only hands a value on renames it
            kept.update({index: new for index, old in kept.items() if old == name})
        return new


def _axis_in(old: Sequence[int], axis: int, new: Sequence[int]) -> int:
    """Where an axis is after a reshape that leaves it whole; 0 where it is not found."""
    before = int(np.prod(old[:axis], dtype=np.int64))
    found = [
        n
        for n, length in enumerate(new)
        if length == old[axis] and int(np.prod(new[:n], dtype=np.int64)) == before
    ]
    return found[0] if found else 0

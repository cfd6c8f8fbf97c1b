"""A TFLite file as plain data: tensors, operators and their options, read within bounds.

The flatbuffer's schema is that of the package ``tflite``.  A flatbuffer is a web of offsets, and in
a hostile one they lead anywhere, or all to the same place; so everything that is counted by the
file is counted here against a limit, and whatever Python finds out of range is one refusal.
"""

import importlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.sparse import densified

__all__ = [
    "FLOATS",
    "Model",
    "Operator",
    "Quantisation",
    "Signature",
    "Subgraph",
    "Tensor",
    "chosen",
    "read_model",
    "resized",
]

Array = NDArray[Any]

MOST_TENSORS = 200_000
MOST_LINKS = 2_000_000  # inputs and outputs of all operators
MOST_SUBGRAPHS = 1_000
MOST_ENDS = 10_000  # inputs or outputs of a signature
MOST_NAME = 500
MOST_AXES = 8
MOST_ELEMENTS = 1 << 31
MOST_DENSE = 1 << 28  # elements that sparse tensors may become, together
MOST_BUFFERS = 200_000

_BROKEN = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError)
"""What Python's reader of flatbuffers raises where offsets lead out of the file."""

_DAMAGED = "the file is cut off or damaged: ask for it anew, or export it again"

SERVING = ("serving_default", "serve")
"""Names of the function that serves, as TensorFlow calls it."""

FLOATS = ("float16", "float32", "float64")

_DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
    17: "int4",
}
"""NumPy's names by number of the schema's ``TensorType``; ``int4`` is stored two to a byte."""

_TYPE_NAMES = {5: "strings", 8: "complex numbers", 11: "complex numbers", 13: "resources"}


@dataclass(frozen=True, eq=False)
class Quantisation:
    """Steps and zero points of a tensor of integers.

    Attributes:
        scale: (1,) or one per channel, float32.
        zero_point: Likewise, int64.
        axis: Axis of the channels.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int = 0

    def same_as(self, other: "Quantisation | None") -> bool:
        """Whether equal integers mean equal numbers."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        index: Its number in the subgraph.
        name: As the file calls it; may be empty, and others may be called the same.
        shape: Lengths of its axes; 1 where the file leaves one open.
        dtype: NumPy's name of its type; another text where NumPy has none.
        data: Its values, where it is a constant.
        quantisation: What its integers stand for; None where they are integers, and of floats.
        variable: Whether it keeps its values from one run to the next.
        free: Axes whose lengths the file leaves open; the batch often is one of them.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Array | None = None
    quantisation: Quantisation | None = None
    variable: bool = False
    free: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Operator:
    """A node of a subgraph.

    Attributes:
        index: Its number in the subgraph.
        op_type: The schema's name (``CONV_2D``), or the text that names a custom operator.
        inputs: Numbers of tensors; -1 for one that is left out.
        outputs: Numbers of tensors.
        options: Table of its options, of a class of the package ``tflite``; None without one.
        custom_options: Bytes of a custom operator's options.
        replaced: Options by name that stand in the place of the table's.
        pads: Padding of a convolution before each axis, then behind each, where it is not that of
            its options.
    """

    index: int
    op_type: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = field(default=None, repr=False)
    custom_options: bytes = field(default=b"", repr=False)
    pads: tuple[int, ...] | None = None
    replaced: Mapping[str, Any] = field(default_factory=dict)

    def option(self, name: str, default: Any) -> Any:
        """An option by its name in the schema (``stride_h``); the default without a table.

        A vector comes as a tuple of integers.
        """
        if name in self.replaced:
            return self.replaced[name]
        if self.options is None:
            return default
        camel = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        try:
            whole = getattr(self.options, f"{camel}AsNumpy", None)
            if whole is not None:
                found = whole()
                return () if isinstance(found, int) else tuple(int(n) for n in found[:1000])
            return getattr(self.options, camel)()
        except _BROKEN as error:
            raise ConversionFailed(
                f"its option {name} cannot be read ({error})", where=f"{self.op_type} {self.index}"
            ) from None


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A graph of a file: the first one is the network, others are bodies of control flow."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """A function that a file offers by name; a file may have several.

    Attributes:
        name: Its name (``serving_default``).
        subgraph: Number of the graph that computes it.
        inputs: Names of its arguments by the numbers of their tensors.
        outputs: Likewise of its results.
    """

    name: str
    subgraph: int
    inputs: Mapping[int, str]
    outputs: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Model:
    """A file.

    Attributes:
        subgraphs: Networks, and bodies of control flow.
        metadata: Contents of its metadata entries by name.
        signatures: The functions that it offers by name.
        main: Number of the network that is read.
        signature: The function that is read, where that is not the first graph.
    """

    subgraphs: tuple[Subgraph, ...]
    metadata: dict[str, bytes] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    main: int = 0
    signature: Signature | None = None

    @property
    def network(self) -> Subgraph:
        """The graph that is read."""
        return self.subgraphs[self.main]


def read_model(data: bytes, where: str = "") -> Model:
    """Read a TFLite file.

    Args:
        data: The file.
        where: Its name, for messages.

    Raises:
        ConversionFailed: An offset leads out of the file, a tensor is named that there is not, or
            a limit is passed.
    """
    try:
        return _Reader(data).model()
    except ConversionFailed as error:
        raise ConversionFailed(
            error.what,
            where=": ".join(filter(None, (where, error.where))),
            hint=error.hint or _DAMAGED,
        ) from None
    except _BROKEN as error:
        raise ConversionFailed(
            f"is a broken TFLite file: {str(error)[:150]}", where=where, hint=_DAMAGED
        ) from None


def chosen(model: Model, wanted: str = "") -> tuple[Model, str]:
    """A file with the function that is to be read.

    Args:
        model: The file.
        wanted: Name of the function; where empty, the one that serves, else the first graph.

    Returns:
        The file, and a sentence where it has several functions; else an empty one.

    Raises:
        ConversionFailed: It has no function of that name.
    """
    known = {signature.name: signature for signature in model.signatures}
    if wanted and wanted not in known:
        raise ConversionFailed(
            f"has no signature {wanted!r}",
            hint=f"--signature {' or '.join(map(ascii, known))}" if known else "leave it out",
        )
    serving = next((name for name in SERVING if name in known), "")
    found = known.get(wanted or serving)
    if found is None:
        found = next((s for s in model.signatures if not s.subgraph), None)
    place = found.subgraph if found else 0
    read = replace(model, main=place, signature=found if place else None)
    if found is not None and len(known) > 1:
        others = ", ".join(ascii(name) for name in known if name != found.name)
        return read, f"its signature {found.name!r} is read; --signature chooses another: {others}"
    return read, ""


def resized(model: Model, shapes: Mapping[int, tuple[int, ...]]) -> Model:
    """A file whose network has tensors of these shapes, by their numbers."""
    main = model.network
    tensors = tuple(replace(t, shape=shapes.get(t.index, t.shape), free=()) for t in main.tensors)
    parts = [*model.subgraphs]
    parts[model.main] = replace(main, tensors=tensors)
    return replace(model, subgraphs=tuple(parts))


class _Reader:
    """One pass over a flatbuffer."""

    def __init__(self, data: bytes) -> None:
        """Find the root."""
        from tflite.Model import Model as Root

        self._data = data
        self._root = Root.GetRootAs(data, 0)
        self._tensors = self._links = self._dense = 0

    def model(self) -> Model:
        """Everything, subgraph by subgraph."""
        names = [self._op_type(code) for code in self._codes()]
        count = _bounded(self._root.SubgraphsLength(), MOST_SUBGRAPHS, "subgraphs")
        if not count:
            raise ValueError("it has no graph")
        graphs = tuple(self._subgraph(self._root.Subgraphs(n), names) for n in range(count))
        return Model(graphs, dict(self._metadata()), tuple(self._signatures(graphs)))

    def _signatures(self, graphs: Sequence[Subgraph]) -> Iterator[Signature]:
        """Functions with a name, whose graph and tensors exist."""
        root = self._root
        for index in range(_bounded(root.SignatureDefsLength(), MOST_SUBGRAPHS, "signatures")):
            entry = root.SignatureDefs(index)
            inputs, outputs = (
                {int(n.TensorIndex()): _text(n.Name()) for n in map(tensor, range(count))}
                for tensor, count in (
                    (entry.Inputs, _bounded(entry.InputsLength(), MOST_ENDS, "inputs")),
                    (entry.Outputs, _bounded(entry.OutputsLength(), MOST_ENDS, "outputs")),
                )
            )
            name, place = _text(entry.SignatureKey()), int(entry.SubgraphIndex())
            known = place < len(graphs) and inputs.keys() >= {*graphs[place].inputs}
            if name and known and outputs.keys() >= {*graphs[place].outputs}:
                yield Signature(name, place, inputs, outputs)

    def _codes(self) -> Iterator[Any]:
        count = _bounded(self._root.OperatorCodesLength(), MOST_TENSORS, "operator codes")
        for index in range(count):
            yield self._root.OperatorCodes(index)

    @staticmethod
    def _op_type(code: Any) -> str:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _enumeration("BuiltinOperator").get(number, f"operator {number}")
        if name == "CUSTOM":
            return _text(code.CustomCode()) or "CUSTOM"
        return name

    def _metadata(self) -> Iterator[tuple[str, bytes]]:
        for index in range(_bounded(self._root.MetadataLength(), 1000, "metadata entries")):
            entry = self._root.Metadata(index)
            found = self._buffer(entry.Buffer())
            if found is not None and len(found) <= 1 << 24:
                yield _text(entry.Name()), bytes(found)

    def _buffer(self, index: int) -> NDArray[np.uint8] | None:
        """Bytes of a buffer; None where it is empty, as that of what is computed is."""
        if not 0 <= index < self._root.BuffersLength():
            raise ValueError(f"buffer {index} does not exist")
        buffer = self._root.Buffers(index)
        if buffer.Offset() > 1:  # beyond the flatbuffer: files of more than 2 GiB
            start, size = buffer.Offset(), buffer.Size()
            if start + size > len(self._data):
                raise ValueError(f"buffer {index} leads out of the file")
            return np.frombuffer(self._data, np.uint8, size, start)
        if not buffer.DataLength():
            return None
        found = buffer.DataAsNumpy()
        return None if isinstance(found, int) else found

    def _subgraph(self, graph: Any, names: Sequence[str]) -> Subgraph:
        count = graph.TensorsLength()
        self._tensors = _bounded(self._tensors + count, MOST_TENSORS, "tensors")
        tensors = tuple(self._named(graph.Tensors(n), n) for n in range(count))
        operators = graph.OperatorsLength()
        self._links = _bounded(self._links + operators, MOST_LINKS, "operators")
        inputs = self._numbers(graph.InputsLength, graph.InputsAsNumpy, count)
        outputs = self._numbers(graph.OutputsLength, graph.OutputsAsNumpy, count)
        return Subgraph(
            tensors,
            tuple(self._operator(graph.Operators(n), n, names, count) for n in range(operators)),
            inputs,
            outputs,
        )

    def _named(self, tensor: Any, index: int) -> Tensor:
        try:
            return self._tensor(tensor, index)
        except _BROKEN as error:
            raise ConversionFailed(str(error)[:150], where=f"tensor {index}") from None

    def _tensor(self, tensor: Any, index: int) -> Tensor:
        number = tensor.Type()
        dtype = _DTYPES.get(number) or _TYPE_NAMES.get(number) or f"type {number}"
        axes = _bounded(tensor.ShapeLength(), MOST_AXES, "axes")
        shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if axes else ()
        if any(n < 0 for n in shape):
            raise ValueError(f"a length of {min(shape)}")
        elements = 1
        for n in shape:
            elements = _bounded(elements * max(n, 1), MOST_ELEMENTS, "elements")
        stored = self._buffer(tensor.Buffer())
        data = None
        if stored is not None and number in _DTYPES:
            sparsity = tensor.Sparsity()
            if sparsity is not None:
                self._dense = _bounded(self._dense + elements, MOST_DENSE, "elements, dense")
                values = _values(stored, dtype, None)
                data = densified(values, shape, sparsity)
            else:
                data = _values(stored, dtype, shape)
        return Tensor(
            index,
            _text(tensor.Name()),
            shape,
            "int8" if dtype == "int4" else dtype,
            data,
            self._quantisation(tensor, shape),
            tensor.IsVariable(),
            self._free_axes(tensor),
        )

    @staticmethod
    def _free_axes(tensor: Any) -> tuple[int, ...]:
        if not _bounded(tensor.ShapeSignatureLength(), MOST_AXES, "axes"):
            return ()
        return tuple(np.flatnonzero(tensor.ShapeSignatureAsNumpy() < 0).tolist())

    @staticmethod
    def _quantisation(tensor: Any, shape: tuple[int, ...]) -> Quantisation | None:
        found = tensor.Quantization()
        if found is None or not found.ScaleLength():
            return None
        most = max((*shape, 1))
        _bounded(found.ScaleLength(), most, "steps of quantisation")
        scale = np.array(found.ScaleAsNumpy(), np.float32)
        zero = np.zeros(len(scale), np.int64)
        if found.ZeroPointLength():
            _bounded(found.ZeroPointLength(), most, "zero points")
            zero = np.array(found.ZeroPointAsNumpy(), np.int64)
            zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero
        axis = found.QuantizedDimension()
        if zero.shape != scale.shape or not (np.isfinite(scale).all() and (scale >= 0).all()):
            raise ValueError("its steps of quantisation are not positive numbers")
        if scale.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scale.size):
            raise ValueError(f"{scale.size} steps of quantisation for axis {axis} of {shape}")
        if not scale.all():
            return None
        return Quantisation(scale, zero, axis if scale.size > 1 else 0)

    def _operator(self, operator: Any, index: int, names: Sequence[str], count: int) -> Operator:
        code = operator.OpcodeIndex()
        if not 0 <= code < len(names):
            raise ConversionFailed(f"names operator code {code}", where=f"operator {index}")
        try:
            return Operator(
                index,
                names[code],
                self._numbers(operator.InputsLength, operator.InputsAsNumpy, count),
                self._numbers(operator.OutputsLength, operator.OutputsAsNumpy, count),
                _options(operator),
                self._custom(operator),
            )
        except _BROKEN as error:
            raise ConversionFailed(str(error)[:150], where=f"{names[code]} {index}") from None

    @staticmethod
    def _custom(operator: Any) -> bytes:
        if not operator.CustomOptionsLength():
            return b""
        _bounded(operator.CustomOptionsLength(), 1 << 16, "bytes of options")
        return bytes(operator.CustomOptionsAsNumpy())

    def _numbers(
        self, length: Callable[[], int], values: Callable[[], Any], count: int
    ) -> tuple[int, ...]:
        """Numbers of tensors that exist, or -1."""
        self._links = _bounded(self._links + length(), MOST_LINKS, "links between tensors")
        if not length():
            return ()
        found = tuple(int(n) for n in values())
        for number in found:
            if not -1 <= number < count:
                raise ValueError(f"names tensor {number} of {count}")
        return found


def _bounded(count: int, most: int, what: str) -> int:
    if not 0 <= count <= most:
        raise ValueError(f"{count} {what}: more than {most}")
    return count


def _text(raw: bytes | None) -> str:
    return (raw or b"")[:MOST_NAME].decode("utf-8", "replace")


def _values(stored: NDArray[np.uint8], dtype: str, shape: tuple[int, ...] | None) -> Array:
    """Values of a buffer, in their shape where one is given."""
    if dtype == "int4":
        low, high = (stored << 4).astype(np.int8) >> 4, stored.astype(np.int8) >> 4
        values = np.stack([low, high], -1).ravel()
        if shape is not None:
            values = values[: int(np.prod(shape, dtype=np.int64))]
    else:
        kind = np.dtype(dtype).newbyteorder("<") if dtype != "bool" else np.dtype(np.bool_)
        values = stored.view(kind)
    if shape is None:
        return values
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{values.size} values for a shape of {list(shape)}")
    return values.reshape(shape)


def _options(operator: Any) -> Any:
    """Table of options, as the class that the file says it is; None where it has none."""
    for kinds, read in (
        ("BuiltinOptions", operator),
        ("BuiltinOptions2", operator),
    ):
        name = _enumeration(kinds).get(getattr(read, f"{kinds}Type")(), "NONE")
        table = getattr(read, kinds)()
        if name != "NONE" and table is not None:
            options = getattr(importlib.import_module(f"tflite.{name}"), name)()
            options.Init(table.Bytes, table.Pos)
            return options
    return None


def _enumeration(name: str) -> dict[int, str]:
    """Names by number of an enumeration of the schema."""
    found = _ENUMERATIONS.get(name)
    if found is None:
        kinds = getattr(importlib.import_module(f"tflite.{name}"), name)
        members = vars(kinds).items()
        found = {v: k for k, v in members if isinstance(v, int) and not k.startswith("_")}
        _ENUMERATIONS[name] = found
    return found


_ENUMERATIONS: dict[str, dict[int, str]] = {}

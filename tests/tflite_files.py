"""Small TFLite files, written by the package ``flatbuffers`` and the schema of ``tflite``."""

import importlib
from dataclasses import dataclass, field

import flatbuffers
import numpy as np

TYPES = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "int4": 17,
}


@dataclass
class TensorOf:
    """A tensor of a file: what is None is left out."""

    name: str
    shape: tuple = ()
    dtype: str = "float32"
    data: np.ndarray | None = None
    scale: tuple | None = None
    zero: tuple = (0,)
    axis: int = 0
    signature: tuple | None = None
    sparsity: object = None
    variable: bool = False


@dataclass
class OperatorOf:
    """An operator of a file: names of tensors, and options by the schema's names."""

    op_type: str
    inputs: list
    outputs: list
    options: dict = field(default_factory=dict)
    kind: str = ""
    custom: bytes = b""


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "L2_POOL_2D": "Pool2DOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "REDUCE_ANY": "ReducerOptions",
    "REDUCE_ALL": "ReducerOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "GATHER_ND": "GatherNdOptions",
    "SCATTER_ND": "ScatterNdOptions",
    "TOPK_V2": "TopKV2Options",
    "SELECT_V2": "SelectV2Options",
    "REVERSE_V2": "ReverseV2Options",
    "PADV2": "PadV2Options",
    "SPLIT_V": "SplitVOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "BROADCAST_TO": "BroadcastToOptions",
    "ADD_N": "AddNOptions",
    "ZEROS_LIKE": "ZerosLikeOptions",
}


VERSIONS = {"BROADCAST_TO": 2}
"""Versions of operators of which the interpreter knows no first."""


def options_class(op_type):
    """Name of an operator's table of options; None where the schema has none."""
    name = OPTIONS.get(op_type) or "".join(w.capitalize() for w in op_type.split("_")) + "Options"
    kinds = importlib.import_module("tflite.BuiltinOptions").BuiltinOptions
    return name if hasattr(kinds, name) else None


def schema(name):
    """A module of the schema."""
    return importlib.import_module(f"tflite.{name}")


def tflite_file(graphs, inputs=None, outputs=None, *, metadata=None):
    """Bytes of a file.

    Args:
        graphs: (tensors, operators, inputs, outputs) by name; or the first two of the only one.
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        metadata: Contents by name.
    """
    if inputs is not None:
        graphs = [(*graphs, inputs, outputs)]
    writer = _Writer(graphs, metadata or {})
    return writer.bytes()


class _Writer:
    def __init__(self, graphs, metadata):
        self.builder = flatbuffers.Builder(1 << 16)
        self.graphs, self.metadata = graphs, metadata
        self.buffers, self.codes = [b""], []

    def bytes(self):
        model, b = schema("Model"), self.builder
        graphs = [self.graph(*graph) for graph in self.graphs]
        entries = [self.entry(name, data) for name, data in self.metadata.items()]
        codes = [self.code(op_type) for op_type in self.codes]
        buffers = [self.buffer(data) for data in self.buffers]
        parts = {
            "OperatorCodes": self.offsets(codes),
            "Subgraphs": self.offsets(graphs),
            "Buffers": self.offsets(buffers),
        }
        if entries:
            parts["Metadata"] = self.offsets(entries)
        model.Start(b)
        model.AddVersion(b, 3)
        for name, value in parts.items():
            getattr(model, f"Add{name}")(b, value)
        b.Finish(model.End(b), file_identifier=b"TFL3")
        return bytes(b.Output())

    def offsets(self, items):
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return self.builder.EndVector()

    def numbers(self, values, dtype):
        return self.builder.CreateNumpyVector(np.array(values, dtype))

    def entry(self, name, data):
        module, text = schema("Metadata"), self.builder.CreateString(name)
        self.buffers.append(data)
        module.Start(self.builder)
        module.AddName(self.builder, text)
        module.AddBuffer(self.builder, len(self.buffers) - 1)
        return module.End(self.builder)

    def code(self, op_type):
        kinds = schema("BuiltinOperator").BuiltinOperator
        number = getattr(kinds, op_type, kinds.CUSTOM)
        custom = self.builder.CreateString(op_type) if number == kinds.CUSTOM else None
        module = schema("OperatorCode")
        module.Start(self.builder)
        module.AddDeprecatedBuiltinCode(self.builder, min(number, 127))
        module.AddBuiltinCode(self.builder, number)
        module.AddVersion(self.builder, VERSIONS.get(op_type, 1))
        if custom is not None:
            module.AddCustomCode(self.builder, custom)
        return module.End(self.builder)

    def buffer(self, data):
        module = schema("Buffer")
        vector = None
        if data:
            # The interpreter asks for values at multiples of 16 bytes.
            self.builder.StartVector(1, len(data), 16)
            self.builder.head = self.builder.Head() - len(data)
            self.builder.Bytes[self.builder.Head() : self.builder.Head() + len(data)] = data
            vector = self.builder.EndVector()
        module.Start(self.builder)
        if vector is not None:
            module.AddData(self.builder, vector)
        return module.End(self.builder)

    def graph(self, tensors, operators, inputs, outputs):
        places = {tensor.name: n for n, tensor in enumerate(tensors)}
        made = [self.tensor(tensor) for tensor in tensors]
        nodes = [self.operator(operator, places) for operator in operators]
        ends = [
            self.numbers([places.get(n, n) for n in names], np.int32) for names in (inputs, outputs)
        ]
        tables = [self.offsets(made), self.offsets(nodes)]
        module = schema("SubGraph")
        module.Start(self.builder)
        module.AddTensors(self.builder, tables[0])
        module.AddOperators(self.builder, tables[1])
        module.AddInputs(self.builder, ends[0])
        module.AddOutputs(self.builder, ends[1])
        return module.End(self.builder)

    def tensor(self, tensor):
        b, module = self.builder, schema("Tensor")
        buffer = 0
        if tensor.data is not None:
            self.buffers.append(np.ascontiguousarray(tensor.data).tobytes())
            buffer = len(self.buffers) - 1
        quantisation = self.quantisation(tensor) if tensor.scale is not None else None
        sparsity = tensor.sparsity(self) if tensor.sparsity is not None else None
        name, shape = b.CreateString(tensor.name), self.numbers(tensor.shape, np.int32)
        signature = None if tensor.signature is None else self.numbers(tensor.signature, np.int32)
        module.Start(b)
        module.AddName(b, name)
        module.AddShape(b, shape)
        module.AddType(b, TYPES[tensor.dtype])
        module.AddBuffer(b, buffer)
        module.AddIsVariable(b, tensor.variable)
        if quantisation is not None:
            module.AddQuantization(b, quantisation)
        if sparsity is not None:
            module.AddSparsity(b, sparsity)
        if signature is not None:
            module.AddShapeSignature(b, signature)
        return module.End(b)

    def quantisation(self, tensor):
        module = schema("QuantizationParameters")
        zeros = (
            tensor.zero
            if len(tensor.zero) == len(tensor.scale)
            else tensor.zero * len(tensor.scale)
        )
        scale, zero = self.numbers(tensor.scale, np.float32), self.numbers(zeros, np.int64)
        module.Start(self.builder)
        module.AddScale(self.builder, scale)
        module.AddZeroPoint(self.builder, zero)
        module.AddQuantizedDimension(self.builder, tensor.axis)
        return module.End(self.builder)

    def operator(self, operator, places):
        b, module = self.builder, schema("Operator")
        if operator.op_type not in self.codes:
            self.codes.append(operator.op_type)
        ends = [
            self.numbers([places.get(n, n) for n in names], np.int32)
            for names in (operator.inputs, operator.outputs)
        ]
        name = operator.kind or options_class(operator.op_type)
        options = self.options(name, operator.options) if name else None
        custom = b.CreateByteVector(operator.custom) if operator.custom else None
        module.Start(b)
        module.AddOpcodeIndex(b, self.codes.index(operator.op_type))
        module.AddInputs(b, ends[0])
        module.AddOutputs(b, ends[1])
        if options is not None:
            kinds = schema("BuiltinOptions").BuiltinOptions
            module.AddBuiltinOptionsType(b, getattr(kinds, name))
            module.AddBuiltinOptions(b, options)
        if custom is not None:
            module.AddCustomOptions(b, custom)
        return module.End(b)

    def options(self, name, values):
        module, known = schema(name), {}
        for key, value in values.items():
            camel = "".join(part[:1].upper() + part[1:] for part in key.split("_"))
            known[camel] = self.numbers(value, np.int32) if isinstance(value, list) else value
        module.Start(self.builder)
        for key, value in known.items():
            getattr(module, f"Add{key}")(self.builder, value)
        return module.End(self.builder)

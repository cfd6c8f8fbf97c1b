"""What mutation starts from: small networks of each kind, and old breakers as generators.

All of it is made here, a few hundred bytes each; no file of anybody's lies in the repository.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["BREAKERS", "NETWORKS", "side_files"]

SIDE = 12
CLASSES = 5


def _stored(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(len(name) + sum(shape)).normal(size=shape)
    return numpy_helper.from_array((values / 2).astype(np.float32), name)


def _model(nodes, stored=(), *, size=(1, 3, SIDE, SIDE), functions=(), opset=17, metadata=None):
    head = [
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "head", "bias"], ["scores"], name="gemm"),
        helper.make_node("Softmax", ["scores"], ["y"], name="softmax", axis=1),
    ]
    graph = helper.make_graph(
        [*nodes, *head],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, CLASSES])],
        [*stored, _stored("head", 4, CLASSES), _stored("bias", CLASSES)],
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid("local", 1)] if functions else []
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    helper.set_model_props(model, metadata or {"task": "classify"})
    return model


def _conv(source: str, target: str, weight: str, **attributes) -> onnx.NodeProto:
    attributes = {"pads": [1, 1, 1, 1], **attributes}
    return helper.make_node("Conv", [source, weight], [target], name=f"conv_{target}", **attributes)


def plain() -> onnx.ModelProto:
    """Two convolutions with ReLU and pooling."""
    nodes = [
        _conv("x", "c1", "w1"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        _conv("p1", "c2", "w2", strides=[1, 1], dilations=[1, 1]),
        helper.make_node("Relu", ["c2"], ["maps"], name="relu2"),
    ]
    return _model(nodes, [_stored("w1", 4, 3, 3, 3), _stored("w2", 4, 4, 3, 3)])


def residual() -> onnx.ModelProto:
    """A skip connection, a gate, a normalisation and an activation spelled out."""
    nodes = [
        _conv("x", "c1", "w1"),
        helper.make_node("BatchNormalization", ["c1", "g", "b", "b", "v"], ["n1"], epsilon=1e-3),
        helper.make_node("Sigmoid", ["n1"], ["s1"]),
        helper.make_node("Mul", ["n1", "s1"], ["silu"]),
        helper.make_node("ReduceMean", ["silu"], ["mean"], axes=[2, 3], keepdims=1),
        helper.make_node("Sigmoid", ["mean"], ["gate"]),
        helper.make_node("Mul", ["silu", "gate"], ["gated"]),
        helper.make_node("Add", ["n1", "gated"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "high"], ["maps"]),
    ]
    variance = numpy_helper.from_array(np.ones(4, np.float32), "v")
    bounds = [numpy_helper.from_array(np.array(n, np.float32), k) for k, n in _BOUNDS.items()]
    stored = [_stored("w1", 4, 3, 3, 3), _stored("g", 4), _stored("b", 4), variance, *bounds]
    return _model(nodes, stored)


_BOUNDS = {"low": 0.0, "high": 6.0}


def reshaping() -> onnx.ModelProto:
    """A channel shuffle, an enlargement and a slice, of a free batch."""
    shapes = {"five": [0, 2, 2, SIDE, SIDE], "four": [0, 4, SIDE, SIDE]}
    numbers = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in shapes.items()]
    ends = {"starts": [1], "ends": [SIDE], "axes": [2]}
    numbers += [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in ends.items()]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [
        _conv("x", "c1", "w1"),
        helper.make_node("Reshape", ["c1", "five"], ["f1"]),
        helper.make_node("Transpose", ["f1"], ["f2"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["f2", "four"], ["f3"]),
        helper.make_node("Resize", ["f3", "", "scales"], ["big"], mode="nearest"),
        helper.make_node("Slice", ["big", "starts", "ends", "axes"], ["cut"]),
        _conv("cut", "c2", "w2", group=2),
        helper.make_node("LeakyRelu", ["c2"], ["maps"], alpha=0.1),
    ]
    stored = [_stored("w1", 4, 3, 3, 3), _stored("w2", 4, 2, 3, 3), scales, *numbers]
    return _model(nodes, stored, size=("N", 3, SIDE, SIDE))


def quantised() -> onnx.ModelProto:
    """Quantised and dequantised activations and weights."""
    scale = numpy_helper.from_array(np.array(0.05, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(0, np.uint8), "zero")
    weight = np.random.default_rng(1).integers(-90, 90, (4, 3, 3, 3)).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q0"]),
        helper.make_node("DequantizeLinear", ["q0", "scale", "zero"], ["d0"]),
        helper.make_node("DequantizeLinear", ["wq", "scale"], ["w"]),
        _conv("d0", "c1", "w"),
        helper.make_node("QuantizeLinear", ["c1", "scale", "zero"], ["q1"]),
        helper.make_node("DequantizeLinear", ["q1", "scale", "zero"], ["maps"]),
    ]
    return _model(nodes, [scale, zero, numpy_helper.from_array(weight, "wq")])


def nested() -> onnx.ModelProto:
    """A local function, and a body."""
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "act", ["a"], ["b"], body, opsets)
    branches = {
        name: helper.make_graph(
            [helper.make_node(op, ["r1"], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)],
        )
        for name, op in (("then_branch", "Relu"), ("else_branch", "Abs"))
    }
    nodes = [
        _conv("x", "c1", "w1"),
        helper.make_node("act", ["c1"], ["r1"], domain="local"),
        helper.make_node("If", ["yes"], ["maps"], **branches),
    ]
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    return _model(nodes, [_stored("w1", 4, 3, 3, 3), yes], functions=[function])


NETWORKS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    made.__name__: made for made in (plain, residual, reshaping, quantised, nested)
}


# -- what broke the program once ------------------------------------------------------------------


def _with(change: Callable[[onnx.ModelProto], object], start=plain) -> onnx.ModelProto:
    model = start()
    change(model)
    return model


def _set(model: onnx.ModelProto, op_type: str, name: str, values: list[int]) -> None:
    node = next(node for node in model.graph.node if node.op_type == op_type)
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, values)])


def _props(key: str, value: str) -> onnx.ModelProto:
    return _model([_conv("x", "maps", "w1")], [_stored("w1", 4, 3, 3, 3)], metadata={key: value})


BREAKERS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "permutation": lambda: _with(
        lambda m: _set(m, "Transpose", "perm", [0, 1, 2, 9, 4]), reshaping
    ),
    "stride 0": lambda: _with(lambda m: _set(m, "MaxPool", "strides", [0, 0])),
    "dilation 2**40": lambda: _with(lambda m: _set(m, "Conv", "dilations", [2**40, 2**40])),
    "escape in a name": lambda: _with(
        lambda m: setattr(m.graph.node[0], "name", "\x1b]0;\x07\u202e")
    ),
    "imgsz of 1e999": lambda: _props("imgsz", "[1e999, 1e999]"),
    "imgsz a dictionary": lambda: _props("imgsz", "{1: {2: 3}}"),
    "names of 50,000 classes": lambda: _props("names", str({i: f"c{i}" for i in range(50_000)})),
    "many unused functions": lambda: _with(
        lambda m: m.functions.extend(
            helper.make_function(
                "local", f"f{i}", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], []
            )
            for i in range(3000)
        ),
        nested,
    ),
    "external data through a link": lambda: _with(
        lambda m: _outside(m.graph.initializer[0], "link.bin")
    ),
    "attention without heads": lambda: _attention(0),
    "as many heads as 32 bits take for none": lambda: _attention(2**40),
    "external data of a FIFO": lambda: _with(lambda m: _outside(m.graph.initializer[0], "fifo")),
}


def _attention(heads: int) -> onnx.ModelProto:
    nodes = [
        _conv("x", "c1", "w1"),
        helper.make_node("Reshape", ["c1", "three"], ["tokens"]),
        helper.make_node(
            "Attention", ["tokens"] * 3, ["mixed"], q_num_heads=heads, kv_num_heads=heads
        ),
        helper.make_node("Reshape", ["mixed", "four"], ["maps"]),
    ]
    shapes = {"three": [1, 4, SIDE * SIDE], "four": [1, 4, SIDE, SIDE]}
    numbers = [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in shapes.items()]
    return _model(nodes, [_stored("w1", 4, 3, 3, 3), *numbers], opset=23)


def _outside(tensor: onnx.TensorProto, location: str) -> None:
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def side_files(folder: Path) -> None:
    """Files beside the model that a command may read: data, labels, preprocessing."""
    (folder / "data.bin").write_bytes(bytes(4096))
    (folder / "labels.txt").write_text("\n".join(f"class {i}" for i in range(CLASSES)))
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "recipe.toml").write_text(f"size = [{SIDE}, {SIDE}]\nmean = [0.5, 0.5, 0.5]\n")

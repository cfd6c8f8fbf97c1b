"""Networks of any length, by which costs are measured: what grows in each is its name."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 10


def write(path: Path, nodes, stored=(), outputs=("y",), functions=()) -> Path:
    """A model on a photo (1, 3, 16, 16) with a linear head behind tensor ``features``."""
    opsets = [helper.make_opsetid("", 17)]
    if functions:
        opsets.append(helper.make_opsetid("local", 1))
    head = [
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["y"]),
    ]
    graph = helper.make_graph(
        [*nodes, *head],
        "long",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [*stored, weights("head", 3, CLASSES)],
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def weights(name: str, *shape: int) -> onnx.TensorProto:
    """Random numbers, the same for the same name."""
    generator = np.random.default_rng(len(name))
    scale = max(1, np.prod(shape[1:])) ** 0.5
    return numpy_helper.from_array((generator.normal(size=shape) / scale).astype("f"), name)


def _chain(path: Path, length: int, node) -> Path:
    names = ["x", *(f"h{i}" for i in range(length - 1)), "features"]
    nodes = [node(i, names[i], names[i + 1]) for i in range(length)]
    return write(path, nodes, [weights("one", 1), *(weights(f"w{i}", 3, 3, 3, 3) for i in (0,))])


def relus(path: Path, length: int) -> Path:
    """One activation after another."""
    return _chain(path, length, lambda i, a, b: helper.make_node("Relu", [a], [b]))


def additions(path: Path, length: int) -> Path:
    """Sums of a tensor with itself and with a constant, in turn."""
    return _chain(
        path, length, lambda i, a, b: helper.make_node("Add", [a, a if i % 2 else "one"], [b])
    )


def identities(path: Path, length: int) -> Path:
    """Copies of copies, of the image and of a constant."""
    copied = [
        helper.make_node("Identity", ["one" if i == 0 else f"k{i - 1}"], [f"k{i}"])
        for i in range(length)
    ]
    node = helper.make_node("Add", ["x", f"k{length - 1}"], ["features"])
    return write(path, [*copied, node], [weights("one", 1)])


def convolutions(path: Path, length: int) -> Path:
    """Convolutions with a ReLU and a skip connection each."""
    nodes, source = [], "x"
    for i in range(length):
        target = "features" if i == length - 1 else f"a{i}"
        nodes += [
            helper.make_node("Conv", [source, "w"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            helper.make_node("Add", [source, f"r{i}"], [target]),
        ]
        source = target
    return write(path, nodes, [weights("w", 3, 3, 3, 3)])


def upsamplings(path: Path, length: int) -> Path:
    """Transposed convolutions that enlarge a map, and poolings that shrink it again."""
    nodes, source = [], "x"
    for i in range(length):
        target = "features" if i == length - 1 else f"a{i}"
        nodes += [
            helper.make_node("ConvTranspose", [source, "u"], [f"c{i}"], strides=[2, 2]),
            helper.make_node("MaxPool", [f"c{i}"], [target], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        source = target
    return write(path, nodes, [weights("u", 3, 3, 2, 2)])


def initialisers(path: Path, count: int) -> Path:
    """Stored tensors that nobody reads."""
    node = helper.make_node("Relu", ["x"], ["features"])
    return write(path, [node], [weights(f"spare{i}", 1) for i in range(count)])


def outputs(path: Path, count: int) -> Path:
    """A chain each of whose tensors is an output."""
    names = ["y", *(f"o{i}" for i in range(count))]
    nodes = [
        helper.make_node("Relu", ["x" if i == 0 else f"o{i - 1}"], [f"o{i}"]) for i in range(count)
    ]
    last = helper.make_node("Relu", [f"o{count - 1}"], ["features"])
    return write(path, [*nodes, last], outputs=names)


def functions(path: Path, count: int) -> Path:
    """Local functions, every second of which is called."""
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made = [
        helper.make_function("local", f"f{i}", ["a"], ["b"], body, opsets) for i in range(count)
    ]
    called = range(0, count, 2)
    names = ["x", *(f"h{i}" for i in called[:-1]), "features"]
    nodes = [
        helper.make_node(f"f{i}", [names[k]], [names[k + 1]], domain="local")
        for k, i in enumerate(called)
    ]
    return write(path, nodes, functions=made)


def nested_functions(path: Path, count: int) -> Path:
    """Functions that call one another twice: ``count`` nodes, a power of two, in a few lines."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    made = [helper.make_function("local", "f0", ["a"], ["b"], body, opsets)]
    depth = count.bit_length() - 1
    for i in range(1, depth + 1):
        calls = [helper.make_node(f"f{i - 1}", [a], [b], domain="local") for a, b in ("am", "mb")]
        made.append(helper.make_function("local", f"f{i}", ["a"], ["b"], calls, opsets))
    node = helper.make_node(f"f{depth}", ["x"], ["features"], domain="local")
    return write(path, [node], functions=made)

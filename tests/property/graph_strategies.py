"""Random small networks over the operators and opsets that exporters write.

A network grows tensor by tensor: each step picks an operator that fits one of the tensors made so
far, writes it in the form that the opset wants (attribute or input), and adds what it makes.
Shapes are tracked, so every network is valid by construction; what ONNX Runtime has no kernel for
at an opset is left to the test to pass over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSETS = (7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 22)

Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Network:
    """A network while it grows."""

    draw: Draw
    opset: int
    seed: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def floats(self, *shape: int) -> str:
        return self.constant(self.seed.normal(size=shape).astype(np.float32))

    def ints(self, values: Any) -> str:
        return self.constant(np.asarray(values, dtype=np.int64))

    def add(self, op_type: str, inputs: list[str], shape: Shape, **attributes: Any) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], **attributes))
        self.shapes[out] = shape
        return out

    def among(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def pick(self, rank: int | None = None) -> str | None:
        fitting = [n for n, s in self.shapes.items() if rank is None or len(s) == rank]
        # Late tensors are likelier, so that networks grow deep and not only wide.
        return self.draw(st.sampled_from(fitting + fitting[-3:] * 2)) if fitting else None

    def model(self) -> onnx.ModelProto:
        source = next(iter(self.shapes))
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info(source, onnx.TensorProto.FLOAT, self.shapes[source])],
            [onnx.ValueInfoProto(name=n) for n in self.shapes if n != source],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _unary(net: Network) -> None:
    x = net.pick()
    since = {
        "Relu": 1,
        "Sigmoid": 1,
        "Tanh": 1,
        "Softplus": 1,
        "Softsign": 1,
        "Abs": 1,
        "Neg": 1,
        "Floor": 1,
        "Ceil": 1,
        "Selu": 1,
        "Erf": 9,
        "Sign": 9,
        "Round": 11,
        "HardSwish": 14,
        "Mish": 18,
        "Gelu": 20,
        "Identity": 1,
        "Elu": 1,
        "LeakyRelu": 1,
        "HardSigmoid": 1,
        "ThresholdedRelu": 10,
        "Atan": 7,
        "Cos": 7,
        "Celu": 12,
    }
    usable = [op for op, version in since.items() if version <= net.opset]
    op_type = net.among(*usable)
    attributes = {}
    if op_type in {"Elu", "LeakyRelu", "HardSigmoid", "ThresholdedRelu"} and net.among(True, False):
        attributes["alpha"] = net.among(0.1, 0.5, 1.0)
    net.add(op_type, [x], net.shapes[x], **attributes)


def _clip(net: Network) -> None:
    x = net.pick()
    low, high = net.among((0.0, 6.0), (-1.0, 1.0), (0.0, 3e38))
    if net.opset < 11:
        net.add("Clip", [x], net.shapes[x], min=low, max=high)
    else:
        ends = [net.constant(np.float32(v)) for v in (low, high)]
        net.add("Clip", [x, *ends], net.shapes[x])


def _binary(net: Network) -> None:
    x = net.pick()
    shape = net.shapes[x]
    same = [name for name, other in net.shapes.items() if other == shape]
    op_type = net.among("Add", "Sub", "Mul", "Max", "Min", "Div")
    if op_type == "Div":
        divisor = 1.5 + np.abs(net.seed.normal(size=shape[-1:]))
        net.add("Div", [x, net.constant(divisor.astype(np.float32))], shape)
        return
    narrow = tuple(net.among(1, length) for length in shape[1:])
    if op_type in {"Max", "Min"} and net.opset < 8:  # no broadcasting yet
        narrow = shape
    other = net.among(net.among(*same), net.floats(*narrow))
    net.add(op_type, [x, other], shape)


def _window(net: Network, shape: Shape, *, dilated: bool) -> tuple[dict[str, Any], Shape] | None:
    kernel = [net.among(1, 2, 3), net.among(1, 2, 3)]
    strides = [net.among(1, 1, 2), net.among(1, 1, 2, 3)]
    dilations = [net.among(1, 1, 2) if dilated else 1 for _ in kernel]
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    pads = [net.among(*range(min(kernel[i % 2], 3))) for i in range(4)]
    out = [(shape[2 + i] + pads[i] + pads[2 + i] - reach[i]) // strides[i] + 1 for i in range(2)]
    if min(out) < 1:
        return None
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if dilated:
        attributes["dilations"] = dilations
    return attributes, (*shape[:2], *out)


def _conv(net: Network) -> None:
    x = net.pick(4)
    found = _window(net, net.shapes[x], dilated=True) if x else None
    if found is None:
        return
    attributes, (n, channels, h, w) = found
    group = net.among(*[g for g in (1, channels) if channels % g == 0])
    out = group * net.among(1, 2, 3)
    weight = net.floats(out, channels // group, *attributes["kernel_shape"])
    bias = [net.floats(out)] if net.among(True, False) else []
    net.add("Conv", [x, weight, *bias], (n, out, h, w), group=group, **attributes)


def _pool(net: Network) -> None:
    x = net.pick(4)
    kind = net.among("MaxPool", "AveragePool")
    found = _window(net, net.shapes[x], dilated=False) if x else None
    if found is None:
        return
    attributes, shape = found
    if kind == "AveragePool":
        attributes["count_include_pad"] = net.among(0, 1)
    net.add(kind, [x], shape, **attributes)


def _normalise(net: Network) -> None:
    x = net.pick(4)
    if x is None:
        return
    shape = net.shapes[x]
    channels = shape[1]
    kind = net.among("BatchNormalization", "InstanceNormalization", "LRN")
    if kind == "LRN":
        net.add("LRN", [x], shape, size=net.among(1, 3, 5), alpha=0.1)
        return
    inputs = [x, net.floats(channels), net.floats(channels)]
    if kind == "BatchNormalization":
        spread = 0.5 + np.abs(net.seed.normal(size=channels)).astype(np.float32)
        inputs += [net.floats(channels), net.constant(spread.astype(np.float32))]
    elif shape[2] * shape[3] < 4:  # the variance of one pixel is zero: nothing but noise
        return
    net.add(kind, inputs, shape)


def _reduce(net: Network) -> None:
    x = net.pick(4)
    if x is None:
        return
    shape = net.shapes[x]
    kind = net.among("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "GlobalAveragePool")
    if kind == "GlobalAveragePool":
        net.add(kind, [x], (*shape[:2], 1, 1))
        return
    axes = net.among([2, 3], [-1], [1], [2])
    keep = net.among(0, 1)
    gone = {axis % 4 for axis in axes}
    out = tuple(1 if i in gone else s for i, s in enumerate(shape) if keep or i not in gone)
    if net.opset >= (13 if kind == "ReduceSum" else 18):
        net.add(kind, [x, net.ints(axes)], out, keepdims=keep)
    elif net.opset < 11 and min(axes) < 0:
        return
    else:
        net.add(kind, [x], out, axes=axes, keepdims=keep)


def _slice(net: Network) -> None:
    x = net.pick(4)
    if x is None or net.shapes[x][2] < 3:
        return
    shape = net.shapes[x]
    start, end = net.among((0, 2), (1, 3), (-2, 2**31 - 1), (0, -1))
    length = len(range(shape[2])[start:end])
    out = (*shape[:2], length, shape[3])
    if net.opset < 10:
        net.add("Slice", [x], out, starts=[start], ends=[end], axes=[2])
    else:
        net.add("Slice", [x, net.ints([start]), net.ints([end]), net.ints([2])], out)


def _pad(net: Network) -> None:
    x = net.pick(4)
    if x is None:
        return
    shape = net.shapes[x]
    mode = net.among("constant", "edge", "reflect")
    top = net.among(0, 1) if mode != "reflect" or shape[2] > 1 else 0
    right = net.among(0, 1) if mode != "reflect" or shape[3] > 1 else 0
    pads = [0, 0, top, 0, 0, 0, 0, right]
    out = (*shape[:2], shape[2] + top, shape[3] + right)
    if net.opset < 11:
        net.add("Pad", [x], out, mode=mode, pads=pads)
    else:
        net.add("Pad", [x, net.ints(pads)], out, mode=mode)


def _reshape(net: Network) -> None:
    x = net.pick()
    shape = net.shapes[x]
    kind = net.among("Flatten", "Reshape", "Transpose", "Unsqueeze")
    rest = int(np.prod(shape[1:]))
    if kind == "Flatten":
        net.add("Flatten", [x], (shape[0], rest))
    elif kind == "Reshape":
        net.add("Reshape", [x, net.ints([0, -1])], (shape[0], rest))
    elif kind == "Transpose" and len(shape) == 4:
        perm = net.among([0, 1, 3, 2], [0, 2, 3, 1], [0, 3, 1, 2])
        net.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)
    elif kind == "Unsqueeze" and len(shape) == 3:
        out = (*shape[:1], 1, *shape[1:])
        if net.opset < 13:
            net.add("Unsqueeze", [x], out, axes=[1])
        else:
            net.add("Unsqueeze", [x, net.ints([1])], out)


def _softmax(net: Network) -> None:
    x = net.pick()
    kind = net.among("Softmax", "LogSoftmax")
    net.add(kind, [x], net.shapes[x], axis=net.among(*range(1, len(net.shapes[x]))))


def _concat(net: Network) -> None:
    x = net.pick(4)
    if x is None:
        return
    shape = net.shapes[x]
    fitting = [
        n for n, s in net.shapes.items() if len(s) == 4 and (s[0], *s[2:]) == (shape[0], *shape[2:])
    ]
    parts = [x, net.among(*fitting)]
    channels = sum(net.shapes[n][1] for n in parts)
    if channels <= 16:
        net.add("Concat", parts, (shape[0], channels, *shape[2:]), axis=1)


def _resize(net: Network) -> None:
    x = net.pick(4)
    if x is None or net.opset == 10:
        return
    n, c, h, w = net.shapes[x]
    if h * w > 150:
        return
    mode = net.among("nearest", "linear")
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    out = (n, c, 2 * h, 2 * w)
    if net.opset < 9:
        net.add("Upsample", [x], out, mode=mode, scales=[1.0, 1.0, 2.0, 2.0])
    elif net.opset == 9:
        net.add("Upsample", [x, scales], out, mode=mode)
    else:
        how = net.among("half_pixel", "asymmetric", "align_corners")
        empty = net.constant(np.zeros(0, np.float32))
        net.add(
            "Resize",
            [x, empty, scales],
            out,
            mode=mode,
            nearest_mode="floor",
            coordinate_transformation_mode=how,
        )


def _linear(net: Network) -> None:
    x = net.pick(2)
    if x is None:
        return
    rows, columns = net.shapes[x]
    out = net.among(2, 5)
    if net.among(True, False):
        net.add("MatMul", [x, net.floats(columns, out)], (rows, out))
    else:
        inputs = [x, net.floats(out, columns), net.floats(out)]
        net.add("Gemm", inputs, (rows, out), transB=1, alpha=net.among(1.0, 0.5))


STEPS = (
    _unary,
    _unary,
    _clip,
    _binary,
    _binary,
    _conv,
    _conv,
    _pool,
    _normalise,
    _reduce,
    _slice,
    _pad,
    _reshape,
    _softmax,
    _concat,
    _resize,
    _linear,
)


@st.composite
def networks(draw: Draw) -> tuple[onnx.ModelProto, np.ndarray]:
    """A random network and an input for it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    net = Network(draw, draw(st.sampled_from(OPSETS)), rng)
    shape = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 4)),
        draw(st.integers(3, 9)),
        draw(st.integers(3, 9)),
    )
    net.shapes["x"] = shape
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=9)):
        step(net)
    return net.model(), rng.normal(size=shape).astype(np.float32)

"""Pieces of the wrong-able networks: what moves pixels, folds rows, filters and scores."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 4


class Rejected(Exception):
    """This draw does not plant its square well."""


# -- writing graphs -----------------------------------------------------------------------------


@dataclass
class Net:
    """A network while it grows.

    ``shapes`` are those of one photo: (rows of the batch, channels, height, width); ``pixel`` is
    how many pixels of the photo one pixel of the moved image is.
    """

    rng: np.random.Generator
    size: tuple[int, int]
    batch: str | int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    pixel: float = 1.0

    def __post_init__(self) -> None:
        """Start at the image."""
        self.shapes["image"] = (1, 3, *self.size)

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(
        self,
        op_type: str,
        inputs: list[str],
        shape: tuple[int, ...] = (),
        *,
        name: str = "",
        more: int = 0,
        **attributes: Any,
    ) -> str:
        out = name or f"t{len(self.nodes)}"
        outs = [out, *(f"{out}_{i}" for i in range(more))]
        self.nodes.append(helper.make_node(op_type, inputs, outs, f"n_{out}", **attributes))
        self.shapes[out] = shape
        return out

    def among(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def model(self) -> onnx.ModelProto:
        image = helper.make_tensor_value_info(
            "image", TensorProto.FLOAT, [self.batch, 3, *self.size]
        )
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in self.outputs
        ]
        graph = helper.make_graph(self.nodes, "scene", [image], outputs, self.weights)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="pytorch")


# -- what moves pixels --------------------------------------------------------------------------


def flip(net: Net, x: str, axis: int) -> str:
    """Mirrored along an axis, as Slice with a negative step or as Gather."""
    shape = net.shapes[x]
    if net.chance(0.7):
        ends = net.ints(-(2**31))
        return net.add("Slice", [x, net.ints(-1), ends, net.ints(axis), net.ints(-1)], shape)
    order = net.constant(np.arange(shape[axis])[::-1], np.int64)
    return net.add("Gather", [x, order], shape, axis=axis)


def mirrored(net: Net, x: str) -> str:
    axes = net.among((2,), (3,), (2, 3))
    for axis in axes:
        x = flip(net, x, axis)
    return x


def cut(net: Net, x: str, top: int, left: int, height: int, width: int) -> str:
    rows, channels = net.shapes[x][:2]
    starts, ends = net.ints(top, left), net.ints(top + height, left + width)
    return net.add("Slice", [x, starts, ends, net.ints(2, 3)], (rows, channels, height, width))


def crop(net: Net, x: str) -> str:
    h, w = net.shapes[x][2:]
    height, width = (max(16, 4 * int(n * net.rng.uniform(0.5, 0.9) / 4)) for n in (h, w))
    if (height, width) == (h, w) or height > h or width > w:
        raise Rejected
    top, left = (int(net.rng.integers(n - m + 1)) for n, m in ((h, height), (w, width)))
    return cut(net, x, top, left, height, width)


def transposed(net: Net, x: str) -> str:
    rows, channels, h, w = net.shapes[x]
    return net.add("Transpose", [x], (rows, channels, w, h), perm=[0, 1, 3, 2])


def rotated(net: Net, x: str) -> str:
    return flip(net, transposed(net, x), net.among(2, 3))


def padded(net: Net, x: str) -> str:
    """More border on one side than on the other."""
    rows, channels, h, w = net.shapes[x]
    top, left, bottom, right = (4 * int(net.rng.integers(0, 4)) for _ in range(4))
    if abs(top - bottom) + abs(left - right) < 8:
        raise Rejected
    pads, value = net.ints(0, 0, top, left, 0, 0, bottom, right), net.constant(0.3)
    shape = (rows, channels, h + top + bottom, w + left + right)
    return net.add("Pad", [x, pads, value], shape, mode="constant")


def rolled(net: Net, x: str) -> str:
    """The right part put before the left one (torch.roll)."""
    rows, channels, h, w = net.shapes[x]
    axis = net.among(2, 3)
    length = (h, w)[axis - 2]
    at = 4 * int(net.rng.integers(1, length // 4))
    ends = [(at, length), (0, at)]
    parts = []
    for a, b in ends:
        box = (a, 0, b - a, w) if axis == 2 else (0, a, h, b - a)
        parts.append(cut(net, x, *box))
    return net.add("Concat", parts, (rows, channels, h, w), axis=axis)


def shifted(net: Net, x: str) -> str:
    """Moved by a convolution whose weights lie to one side of its kernel."""
    rows, channels, h, w = net.shapes[x]
    reach = 4 * int(net.rng.integers(2, 5))
    down, across = (int(n) for n in net.rng.integers(-reach, reach + 1, 2))
    if max(abs(down), abs(across)) < 8:
        raise Rejected
    weight = np.zeros((channels, 1, 2 * reach + 1, 2 * reach + 1), np.float32)
    weight[:, :, reach + down, reach + across] = 1
    if net.chance(0.5):  # the same for all channels at once
        weight = np.eye(channels, dtype=np.float32)[:, :, None, None] * weight
    more = {"group": channels} if weight.shape[1] == 1 else {}
    shape = (rows, channels, h, w)
    return net.add("Conv", [x, net.constant(weight)], shape, pads=[reach] * 4, **more)


def resized(net: Net, x: str) -> str:
    rows, channels, h, w = net.shapes[x]
    factor = net.among(0.5, 2.0) if min(h, w) >= 36 else 2.0
    scales = net.constant([1, 1, factor, factor])
    net.pixel /= factor
    shape = (rows, channels, int(h * factor), int(w * factor))
    how = {"mode": net.among("nearest", "linear"), "nearest_mode": "floor"}
    return net.add("Resize", [x, "", scales], shape, **how)


MOVES = (mirrored, crop, transposed, rotated, padded, rolled, resized)


def moves(net: Net, x: str, share: float) -> str:
    """With some chance, one move or two."""
    while net.chance(share):
        x, share = net.among(*MOVES)(net, x), share / 3
    return x


# -- rows of the batch --------------------------------------------------------------------------


@dataclass
class Fold:
    """How rows of one photo are joined: photo by photo, or all photos' first rows first."""

    x: str
    rows: int
    photo_first: bool


def tiles_reshape(net: Net, x: str) -> Fold:
    channels, h, w = net.shapes[x][1:]
    down, across = net.among((2, 2), (1, 2), (2, 1))
    th, tw = h // down, w // across
    if h % down or w % across:
        raise Rejected
    x = net.add("Reshape", [x, net.ints(-1, channels, down, th, across, tw)])
    x = net.add("Transpose", [x], perm=[0, 2, 4, 1, 3, 5])
    rows = down * across
    x = net.add("Reshape", [x, net.ints(-1, channels, th, tw)], (rows, channels, th, tw))
    return Fold(x, rows, photo_first=True)


def tiles_slices(net: Net, x: str) -> Fold:
    """Crops that may overlap and are written in any order (five-crop)."""
    channels, h, w = net.shapes[x][1:]
    height, width = (2 * int(n * net.rng.uniform(0.5, 0.8) / 2) for n in (h, w))
    corners = [(0, 0), (0, w - width), (h - height, 0), (h - height, w - width)]
    corners.append(((h - height) // 2, (w - width) // 2))
    net.rng.shuffle(corners)
    chosen = corners[: int(net.rng.integers(2, 6))]
    parts = [cut(net, x, int(top), int(left), height, width) for top, left in chosen]
    shape = (len(parts), channels, height, width)
    return Fold(net.add("Concat", parts, shape, axis=0), len(parts), photo_first=False)


def flips_folded(net: Net, x: str) -> Fold:
    """Test-time flips; the upright photo need not be the first row."""
    parts = [flip(net, x, axis) for axis in net.among((3,), (2,), (2, 3))]
    parts.insert(int(net.rng.integers(len(parts) + 1)), x)
    if net.chance(0.3):
        parts.remove(x)
    if len(parts) == 1:
        parts *= 2
    shape = (len(parts), *net.shapes[x][1:])
    return Fold(net.add("Concat", parts, shape, axis=0), len(parts), photo_first=False)


def joined(net: Net, logits: str, fold: Fold, classes: int, name: str = "") -> str:
    """One row of logits per photo again."""
    if fold.photo_first:
        x = net.add("Reshape", [logits, net.ints(-1, fold.rows, classes)])
        axis = 1
    else:
        x = net.add("Reshape", [logits, net.ints(fold.rows, -1, classes)])
        axis = 0
    how = net.among("ReduceMean", "ReduceMean", "ReduceMax")
    return net.add(how, [x], (1, classes), axes=[axis], keepdims=0, name=name)


FOLDS = (tiles_reshape, tiles_slices, flips_folded)


# -- filters ------------------------------------------------------------------------------------


@dataclass
class Filters:
    """Convolutions that answer to the square in channel 0, to the other colour in channel 1.

    Drawn once, so that two branches may share them.
    """

    kernel: int
    stride: int
    dilation: int
    padded: bool
    second: int
    pool: str
    normal: str
    quantise: str
    colours: np.ndarray
    noise: np.ndarray
    between: Callable[[Net, str], str] | None = None

    @classmethod
    def draw(cls, net: Net, **fixed: Any) -> "Filters":
        colours = np.zeros((CHANNELS, 3), np.float32)
        colours[0] = [1, -1, 0]
        colours[1] = [0, -1, 1]
        small = min(net.size) < 24
        drawn: dict[str, Any] = {
            "kernel": net.among(1, 3, 3, 5),
            "stride": net.among(1, 1, 1 if small else 2),
            "dilation": 1,
            "padded": net.chance(0.6),
            "second": net.among(0, 0, 1, 3),
            "pool": net.among("", "", "" if small else "MaxPool"),
            "normal": net.among("", "", "fixed"),
            "quantise": "",
            "colours": colours,
            "noise": net.rng.normal(size=(CHANNELS, 3, 1, 1)).astype(np.float32),
        }
        return cls(**{**drawn, **fixed})

    @property
    def field(self) -> int:
        size = 1 + (self.kernel - 1) * self.dilation
        step = self.stride
        if self.pool:
            size, step = size + step, step * 2
        return size + (max(self.second, 1) - 1) * step

    @property
    def step(self) -> int:
        return self.stride * (2 if self.pool else 1)

    def apply(self, net: Net, x: str) -> str:
        k, rows = self.kernel, net.shapes[x][0]
        shape = np.ones((CHANNELS, 3, k, k), np.float32) / (k * k)
        weight = self.colours[:, :, None, None] * shape
        weight[2:] += 0.02 * self.noise[2:] * shape[2:]
        train = self.normal == "training"
        bias = np.full(CHANNELS, 0.0 if train else -0.12, np.float32)
        bias[2:] = 0.01
        if self.quantise == "input":
            x = quantised(net, x)
        x = self._convolution(net, x, weight, bias, self.stride, self.dilation)
        if self.normal:
            x = normalised(net, x, train=train)
        if self.between is not None:
            x = self.between(net, x)
        x = net.add("Relu", [x], net.shapes[x])
        if self.quantise == "features":
            x = quantised(net, x)
        if self.pool:
            h, w = (n // 2 for n in net.shapes[x][2:])
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            x = net.add(self.pool, [x], (rows, CHANNELS, h, w), **window)
        if self.second:
            k = self.second
            weight = np.zeros((CHANNELS, CHANNELS, k, k), np.float32)
            weight[range(CHANNELS), range(CHANNELS)] = 1 / (k * k)
            x = self._convolution(net, x, weight, np.zeros(CHANNELS, np.float32), 1, 1)
            x = net.add("Relu", [x], net.shapes[x])
        return x

    def _convolution(
        self, net: Net, x: str, weight: np.ndarray, bias: np.ndarray, stride: int, dilation: int
    ) -> str:
        rows, _, h, w = net.shapes[x]
        k = weight.shape[2]
        reach = (k - 1) * dilation
        pad = reach // 2 if self.padded else 0
        size = tuple((n + 2 * pad - reach - 1) // stride + 1 for n in (h, w))
        if min(size) < 2:
            raise Rejected
        return net.add(
            "Conv",
            [x, net.constant(weight), net.constant(bias)],
            (rows, len(weight), *size),
            kernel_shape=[k, k],
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            pads=[pad] * 4,
        )


def normalised(net: Net, x: str, *, train: bool) -> str:
    # The floor under the spread and the shift keep noise from becoming evidence.  No two are
    # equal: ONNX Runtime shares equal constants, and writes its running variance into one.
    shift = [-0.3, -0.31, 0.01, 0.02] if train else [0.0, 0.0, 0.001, 0.002]
    values = ([1, 1.01, 1.02, 1.03], shift, [0, 0, 0.001, 0.003], [0.99, 1.0, 1.01, 1.04])
    inputs = [x, *map(net.constant, values)]
    if train:
        return net.add(
            "BatchNormalization", inputs, net.shapes[x], training_mode=1, more=2, epsilon=0.03
        )
    return net.add("BatchNormalization", inputs, net.shapes[x])


def quantised(net: Net, x: str) -> str:
    """Dynamic quantisation: the scale is that of the largest value in the whole batch."""
    levels = net.add("DynamicQuantizeLinear", [x], net.shapes[x], more=2)
    inputs = [levels, f"{levels}_0", f"{levels}_1"]
    return net.add("DequantizeLinear", inputs, net.shapes[x])


# -- heads --------------------------------------------------------------------------------------


@dataclass
class Linear:
    """Weights (CHANNELS, K) of a linear head of which class ``wanted`` hangs on the square."""

    weight: np.ndarray
    bias: np.ndarray
    wanted: int

    @classmethod
    def draw(cls, net: Net, classes: int, sign: int, scale: float, channel: int = 0) -> "Linear":
        weight = 0.01 * net.rng.normal(size=(CHANNELS, classes))
        wanted = int(net.rng.integers(classes))
        weight[channel] = 0.01 * net.rng.normal(size=classes)
        weight[channel, wanted] = sign
        if classes > 1:
            weight[1 - channel, (wanted + 1) % classes] = 0.5
        bias = 0.1 * net.rng.normal(size=classes)
        return cls(weight * scale, bias, wanted)

    def apply(self, net: Net, x: str, name: str = "") -> str:
        rows, channels = net.shapes[x][:2]
        pooled = net.among("GlobalAveragePool", "ReduceMean")
        if pooled == "GlobalAveragePool":
            x = net.add("GlobalAveragePool", [x], (rows, channels, 1, 1))
            x = net.add("Flatten", [x], (rows, channels))
        else:
            x = net.add("ReduceMean", [x], (rows, channels), axes=[2, 3], keepdims=0)
        weight, bias = net.constant(self.weight), net.constant(self.bias)
        shape = (rows, len(self.bias))
        return net.add("Gemm", [x, weight, bias], shape, name=name)


def scale_of(net: Net) -> float:
    """So that the square moves the logit by a few units, whatever its share of the image is."""
    return float(net.rng.uniform(60, 120)) * net.size[0] * net.size[1] / 1200

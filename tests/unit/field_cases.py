"""Small networks of the kinds at which maps of received files went wrong; weights set by hand.

Each function writes one network.  Filter 0 of `red` answers to "redder than green", and class 1
grows with its mean.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RED, GREEN = (220, 60, 60), (60, 220, 60)


class Writer:
    """Nodes and weights of one graph.

    Args:
        shape: Shape of the input ``image``; a string is a free axis.
        opset: Version of the operators.
    """

    def __init__(self, shape: tuple[Any, ...] = (1, 3, 64, 64), opset: int = 17) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.shape, self.opset = shape, opset

    def constant(self, value: Any, kind: Any = np.float32, name: str = "") -> str:
        name = name or f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(
        self, op_type: str, *inputs: str, name: str = "", more: int = 0, **attributes: Any
    ) -> str:
        out = name or f"t{len(self.nodes)}"
        outs = [out, *(f"{out}_{i}" for i in range(more))]
        self.nodes.append(helper.make_node(op_type, inputs, outs, f"node_{out}", **attributes))
        return out

    def model(self, producer: str = "", **outputs: tuple[Any, ...]) -> onnx.ModelProto:
        def value(name: str, shape: tuple[Any, ...]) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))

        graph = helper.make_graph(
            self.nodes,
            "case",
            [value("image", self.shape)],
            [value(name, shape) for name, shape in outputs.items()],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)

    # -- what the cases share ------------------------------------------------------------------

    def red(self, x: str, colours: tuple[int, int, int] = (1, -1, 0), name: str = "") -> str:
        """3x3 filters and ReLU: the wanted colour in map 0, nearly nothing in map 1."""
        weight = 0.001 * np.random.default_rng(0).normal(size=(2, 3, 3, 3))
        weight[0] = np.asarray(colours, np.float32)[:, None, None] / 9
        bias = self.constant([-0.05, 0.01])
        x = self.add("Conv", x, self.constant(weight), bias, kernel_shape=[3, 3], pads=[1] * 4)
        return self.add("Relu", x, name=name)

    def mean_and_linear(self, x: str, name: str = "", weight: Any = None) -> str:
        """(rows, 2): class 1 grows with map 0."""
        x = self.add("ReduceMean", x, axes=[2, 3], keepdims=0)
        weight = np.array([[0.01, 20.0], [-0.02, 0.03]]) if weight is None else weight
        bias = self.constant(np.linspace(0, 0.01, np.shape(weight)[1]))
        return self.add("Gemm", x, self.constant(weight), bias, name=name)

    def flip(self, x: str, axis: int) -> str:
        ends = self.ints(-(2**31))
        return self.add("Slice", x, self.ints(-1), ends, self.ints(axis), self.ints(-1))

    def crop(self, x: str, top: int, left: int, bottom: int, right: int, step: int = 1) -> str:
        starts, ends, axes = self.ints(top, left), self.ints(bottom, right), self.ints(2, 3)
        return self.add("Slice", x, starts, ends, axes, self.ints(step, step))

    def random(self, *shape: int, seed: int = 0, scale: float = 1.0) -> str:
        drawn = np.random.default_rng(seed).normal(size=shape)
        return self.constant(scale * drawn / np.sqrt(max(1, np.prod(shape[1:]))))

    def random_conv(
        self, x: str, *shape: int, stride: int = 1, pad: int = 0, name: str = "", seed: int = 0
    ) -> str:
        weight = self.random(*shape, seed=seed)
        return self.add(
            "Conv",
            x,
            weight,
            name=name,
            kernel_shape=list(shape[2:]),
            strides=[stride] * 2,
            pads=[pad] * 4,
        )


# -- where the map lies -------------------------------------------------------------------------


def plain() -> onnx.ModelProto:
    net = Writer()
    net.mean_and_linear(net.red("image"), "logits")
    return net.model(logits=(1, 2))


def tiles(down: int = 2, across: int = 2, join: str = "ReduceMean") -> onnx.ModelProto:
    """Tiles of the photo become rows of the batch."""
    net, h, w = Writer(), 64 // down, 64 // across
    x = net.add("Reshape", "image", net.ints(1, 3, down, h, across, w))
    x = net.add("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
    x = net.add("Reshape", x, net.ints(down * across, 3, h, w))
    net.add(join, net.mean_and_linear(net.red(x)), name="logits", axes=[0], keepdims=1)
    return net.model(logits=(1, 2))


def corner_crops() -> onnx.ModelProto:
    """Five crops, joined over the batch, the wrong one first."""
    net = Writer()
    corners = [(24, 24), (24, 0), (0, 0), (0, 24), (12, 12)]
    parts = [net.crop("image", y, x, y + 40, x + 40) for y, x in corners]
    x = net.add("Concat", *parts, axis=0)
    net.add("ReduceMean", net.mean_and_linear(net.red(x)), name="logits", axes=[0], keepdims=1)
    return net.model(logits=(1, 2))


def flips_in_batch() -> onnx.ModelProto:
    """A mirrored copy of the photo before the photo itself."""
    net = Writer()
    x = net.add("Concat", net.flip("image", 3), net.flip("image", 2), axis=0)
    net.add("ReduceMean", net.mean_and_linear(net.red(x)), name="logits", axes=[0], keepdims=1)
    return net.model(logits=(1, 2))


def mirrored_branch(axis: int = 3, *, last: bool = True, alone: bool = False) -> onnx.ModelProto:
    """score = (f(x) + f(mirrored x)) / 2."""
    net = Writer()
    inputs = ["image", net.flip("image", axis)]
    if alone:
        inputs = inputs[1:]
    elif not last:
        inputs.reverse()
    parts = [net.mean_and_linear(net.red(x)) for x in inputs]
    total = net.add("Add", *parts) if len(parts) == 2 else parts[0]
    net.add("Mul", total, net.constant(0.5), name="logits")
    return net.model(logits=(1, 2))


def transposed(size: tuple[int, int] = (64, 64), *, turned: bool = False) -> onnx.ModelProto:
    """Height and width are swapped first; turned by 90 degrees if asked for."""
    net = Writer((1, 3, *size))
    x = net.add("Transpose", "image", perm=[0, 1, 3, 2])
    if turned:
        x = net.flip(x, 3)
    net.mean_and_linear(net.red(x), "logits")
    return net.model(logits=(1, 2))


def cropped(step: int = 1) -> onnx.ModelProto:
    """The graph takes 96x96 and looks at rows 0..63, columns 32..95."""
    net = Writer((1, 3, 96, 96))
    net.mean_and_linear(net.red(net.crop("image", 0, 32, 64, 96, step), name="features"), "logits")
    return net.model(logits=(1, 2))


def unpadded(kernel: int = 13) -> onnx.ModelProto:
    """One large filter without padding: unit 0 is centred well inside of the photo."""
    net = Writer((1, 3, 28, 28))
    weight = np.zeros((2, 3, kernel, kernel))
    weight[0] = np.array([1, -1, 0])[:, None, None] / kernel**2
    bias = net.constant([-0.001, 0])
    x = net.add("Conv", "image", net.constant(weight), bias, kernel_shape=[kernel] * 2)
    net.mean_and_linear(net.add("Relu", x), "logits")
    return net.model(logits=(1, 2))


# -- what the score hangs on --------------------------------------------------------------------


def ensemble(members: int = 2, *, seeing: int = 0) -> onnx.ModelProto:
    """Members of which one sees red and the others blue; their logits averaged."""
    net = Writer()
    parts = []
    for member in range(members):
        colours = (1, -1, 0) if member == seeing else (0, -1, 1)
        parts.append(net.mean_and_linear(net.red("image", colours)))
    net.add("Mean", *parts, name="logits")
    return net.model(logits=(1, 2))


def colour_beside_layer() -> onnx.ModelProto:
    """Redness goes to the score without any layer; the layer sees blue."""
    net = Writer()
    direct = net.add("ReduceMean", "image", axes=[2, 3], keepdims=0)
    direct = net.add("MatMul", direct, net.constant([[0, 20.0], [0, -20.0], [0, 0]]))
    behind = net.mean_and_linear(net.red("image", (0, -1, 1)))
    net.add("Add", direct, behind, name="logits")
    return net.model(logits=(1, 2))


def heads(kind: str = "Softmax") -> onnx.ModelProto:
    """Three heads; gender and race end in a probability."""
    net = Writer()
    x = net.add("Relu", net.random_conv("image", 16, 3, 3, 3, stride=2, pad=1, seed=1))
    x = net.random_conv(x, 16, 16, 3, 3, stride=2, pad=1, seed=2)
    x = net.add("Relu", x, name="features")
    f = net.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    net.add("MatMul", f, net.random(16, 1, seed=3), name="age")
    for name, count, seed in (("gender", 2, 4), ("race", 5, 5)):
        weight = net.constant(
            2000 * np.random.default_rng(seed).normal(size=(16, count)), name=f"{name}_weight"
        )
        z = net.add("MatMul", f, weight, name=f"{name}_logits")
        if kind == "written-out":
            e = net.add("Exp", net.add("Sub", z, net.add("ReduceMax", z, axes=[1], keepdims=1)))
            total = net.add("ReduceSum", e, net.ints(1), keepdims=1)
            net.add("Div", e, total, name=name)
        else:
            net.add(kind, z, name=name)
    return net.model(age=(1, 1), gender=(1, 2), race=(1, 5))


def probabilities_of_one_sigmoid(gain: float = 600.0) -> onnx.ModelProto:
    """(1 - p, p): probabilities that no softmax made."""
    net = Writer()
    weight = np.array([[gain], [0.0]])
    p = net.add("Sigmoid", net.mean_and_linear(net.red("image"), weight=weight))
    rest = net.add("Sub", net.constant(1.0), p)
    net.add("Concat", rest, p, name="prob", axis=1)
    return net.model(prob=(1, 2))


def sigmoid_unit() -> onnx.ModelProto:
    """One unit: red speaks for "diseased", green against it."""
    net = Writer()
    weight = np.zeros((2, 3, 3, 3))
    weight[0, 0] = weight[1, 1] = 1 / 9
    weight[0, 1] = weight[1, 0] = -1 / 9
    bias = net.constant([-0.1, -0.101])
    x = net.add("Conv", "image", net.constant(weight), bias, kernel_shape=[3, 3], pads=[1] * 4)
    f = net.add("ReduceMean", net.add("Relu", x), axes=[2, 3], keepdims=0)
    z = net.add("Gemm", f, net.constant([[40.0], [-40.0]]), net.constant([0.2]), name="logit")
    net.add("Sigmoid", z, name="prob")
    return net.model(prob=(1, 1))


# -- samples that are not alone -----------------------------------------------------------------


def training_normalisation(*, shared: bool = False) -> onnx.ModelProto:
    """BatchNormalization in training mode.

    Args:
        shared: Scale and running variance are equal, so that ONNX Runtime keeps them in one place
            and writes the running variance into the scale.
    """
    net = Writer(("n", 3, 64, 64))
    weight = 0.05 * np.random.default_rng(0).normal(size=(4, 3, 3, 3))
    weight[0] = np.array([1, -1, 0])[:, None, None] / 9
    x = net.add("Conv", "image", net.constant(weight), kernel_shape=[3, 3], pads=[1] * 4)
    scale = np.ones(4)
    variance = scale if shared else scale + 0.01
    values = (scale, [0, 0.01, 0.02, 0.03], [0.001, 0, 0, 0], variance)
    inputs = [net.constant(v) for v in values]
    x = net.add("BatchNormalization", x, *inputs, training_mode=1, more=2)
    head = 0.1 * np.random.default_rng(1).normal(size=(4, 3))
    head[0, 1] = 20.0
    net.mean_and_linear(net.add("Relu", x), "logits", head)
    return net.model(logits=("n", 3))


def dynamic_scale() -> onnx.ModelProto:
    """The scale of the levels is that of the largest value in the batch."""
    net = Writer(("n", 3, 64, 64))
    x = net.add("DynamicQuantizeLinear", "image", more=2)
    x = net.add("DequantizeLinear", x, f"{x}_0", f"{x}_1")
    net.mean_and_linear(net.red(x), "logits")
    return net.model(logits=("n", 2))


def softmax_over_batch() -> onnx.ModelProto:
    net = Writer(("n", 3, 64, 64))
    x = net.mean_and_linear(net.red("image"))
    share = net.add("Softmax", x, axis=0)
    net.add("Mul", x, share, name="logits")
    return net.model(logits=("n", 2))


def dice(op_type: str = "RandomNormalLike", *, before: bool = True) -> onnx.ModelProto:
    """A random number among the target's ancestors, before the layer or behind it."""
    net = Writer()
    if before:
        noise = net.add(op_type, "image")
        x = net.red(net.add("Add", "image", net.add("Mul", noise, net.constant(0.2))))
        net.mean_and_linear(x, "logits")
    else:
        z = net.mean_and_linear(net.red("image"))
        net.add("Add", z, net.add(op_type, z), name="logits")
    return net.model(logits=(1, 2))


def dropout_in_training() -> onnx.ModelProto:
    net = Writer()
    yes = net.constant(np.array(1), np.bool_)
    x = net.add("Dropout", net.red("image"), net.constant(0.5), yes)
    net.mean_and_linear(x, "logits")
    return net.model(logits=(1, 2))


# -- structures of real exports -----------------------------------------------------------------


def rows_are_cells() -> onnx.ModelProto:
    """(16, 7): rows are places of the grid, not photos."""
    net = Writer(opset=13)
    x = net.add("Relu", net.random_conv("image", 8, 3, 16, 16, stride=16))
    x = net.random_conv(x, 7, 8, 1, 1, seed=1)
    x = net.add("Transpose", x, perm=[0, 2, 3, 1])
    net.add("Reshape", x, net.ints(16, 7), name="cells")
    return net.model(cells=(16, 7))


def one_number(shape: tuple[int, ...] = (1,)) -> onnx.ModelProto:
    """An age of shape (1) or ()."""
    net = Writer((1, 3, 32, 32), opset=13)
    x = net.add("Relu", net.random_conv("image", 8, 3, 3, 3, pad=1))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    x = net.add("Mul", x, net.random(1, 8, seed=1))
    axes = net.ints(1) if shape else net.ints(0, 1)
    net.add("ReduceSum", x, axes, name="age", keepdims=0)
    return net.model(age=shape)


def flat_scores() -> onnx.ModelProto:
    """Scores of shape (K)."""
    net = Writer()
    net.add("Squeeze", net.mean_and_linear(net.red("image")), net.ints(0), name="out")
    return net.model(out=(2,))


def dfl_head() -> onnx.ModelProto:
    """A detector whose box offsets pass through a softmax and a convolution of 16 bins."""
    net = Writer(opset=13)
    f = net.add("Relu", net.random_conv("image", 8, 3, 8, 8, stride=8, name="f1"), name="f1r")
    box, score = net.random_conv(f, 64, 8, 1, 1, seed=1), net.random_conv(f, 3, 8, 1, 1, seed=2)
    flat = net.add("Reshape", net.add("Concat", box, score, axis=1), net.ints(1, 67, 64))
    b = net.add("Split", flat, net.ints(64, 3), axis=1, more=1)
    bins = net.add("Reshape", b, net.ints(1, 4, 16, 64))
    bins = net.add("Softmax", net.add("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
    weight = net.constant(np.arange(16).reshape(1, 16, 1, 1))
    boxes = net.add("Conv", bins, weight, name="dfl", kernel_shape=[1, 1])
    boxes = net.add("Reshape", boxes, net.ints(1, 4, 64))
    net.add("Concat", boxes, net.add("Sigmoid", f"{b}_0"), name="output0", axis=1)
    return net.model(output0=(1, 7, 64))


def two_levels() -> onnx.ModelProto:
    """80 rows: 64 of an 8x8 grid, then 16 of a 4x4 grid."""
    net = Writer(opset=13)
    fine = net.add("Relu", net.random_conv("image", 8, 3, 8, 8, stride=8), name="r8")
    coarse = net.add("Relu", net.random_conv(fine, 8, 8, 2, 2, stride=2, seed=1), name="r16")
    flat = []
    for level in (fine, coarse):
        x = net.random_conv(level, 7, 8, 1, 1, seed=2)
        flat.append(net.add("Reshape", x, net.ints(1, 7, -1)))
    net.add("Transpose", net.add("Concat", *flat, axis=2), name="output", perm=[0, 2, 1])
    return net.model(output=(1, 80, 7))


def anchors() -> onnx.ModelProto:
    """Scores (1, 32, 1) beside boxes (1, 32, 4): a detector of one class."""
    net = Writer(opset=13)
    f = net.add("Relu", net.random_conv("image", 8, 3, 16, 16, stride=16))
    for name, count, seed in (("scores", 2, 1), ("boxes", 8, 2)):
        x = net.random_conv(f, count, 8, 3, 3, pad=1, seed=seed)
        x = net.add("Transpose", x, perm=[0, 2, 3, 1])
        x = net.add("Reshape", x, net.ints(1, 32, count // 2), name="" if count == 2 else name)
        if name == "scores":
            net.add("Sigmoid", x, name=name)
    return net.model(scores=(1, 32, 1), boxes=(1, 32, 4))


def sequence() -> onnx.ModelProto:
    """(T, 1, 20): one row of character scores per step, T left open."""
    net = Writer((1, 1, 32, "w"), opset=13)
    x = net.add("Relu", net.random_conv("image", 16, 1, 8, 8, stride=8))
    x = net.add("ReduceMean", x, axes=[2], keepdims=0)
    x = net.add("Transpose", x, perm=[2, 0, 1])
    net.add("MatMul", x, net.random(16, 20, seed=1), name="text")
    return net.model(text=("T", 1, 20))


def classifier(
    size: tuple[int, int] = (32, 32), *, scale: float = 1.0, producer: str = "", last: bool = False
) -> onnx.ModelProto:
    """A small classifier that ends in a softmax; the input's channels last if asked for."""
    shape = (1, *size, 3) if last else (1, 3, *size)
    net = Writer(shape, opset=13)
    x = net.add("Transpose", "image", perm=[0, 3, 1, 2]) if last else "image"
    x = net.add("Relu", net.random_conv(x, 16, 3, 4, 4, stride=4))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    z = net.add("MatMul", x, net.random(16, 3, seed=1, scale=scale), name="z")
    net.add("Softmax", z, name="p", axis=1)
    return net.model(producer, p=(1, 3))


def nhwc_tail(*, casts: bool = True) -> onnx.ModelProto:
    """The end of a residual block, channels last, with or without Casts that change nothing."""
    net = Writer((1, 3, 32, 32), opset=13)

    def cast(x: str) -> str:
        return net.add("Cast", x, to=1) if casts else x

    x = net.add("Transpose", net.random_conv("image", 16, 3, 4, 4, stride=4), perm=[0, 2, 3, 1])
    skip = net.add("Relu", x)
    x = net.add("Transpose", skip, perm=[0, 3, 1, 2])
    x = net.random_conv(x, 16, 16, 1, 1, seed=1, name="c2")
    x = cast(net.add("Transpose", x, perm=[0, 2, 3, 1]))
    x = cast(net.add("Add", x, net.random(16, seed=2)))
    x = net.add("Mul", net.add("Sub", x, net.random(16, seed=3)), net.random(16, seed=4))
    x = net.add("Relu", net.add("Add", x, skip), name="r2")
    x = net.add("ReduceMean", x, axes=[1, 2], keepdims=0)
    net.add("Softmax", net.add("MatMul", x, net.random(16, 3, seed=5), name="z"), name="p", axis=1)
    return net.model(p=(1, 3))


def unknown_times_nothing() -> onnx.ModelProto:
    """An operator that the twin lacks, multiplied by 0, in the stem."""
    net = Writer()
    x = net.constant(np.array([7]), np.int32)
    net.nodes.append(helper.make_node("MurmurHash3", [x], ["h"], "hash", domain="com.microsoft"))
    nothing = net.add("Mul", net.add("Cast", "h", to=1), net.constant(0.0))
    nothing = net.add("ReduceSum", nothing, keepdims=0)
    net.mean_and_linear(net.red(net.add("Add", "image", nothing)), "logits")
    return net.model(logits=(1, 2))

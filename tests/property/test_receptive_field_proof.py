"""A receptive field is proved by changing pixels: none outside moves the unit, the edges do.

Random networks have positive weights and positive images, so that nothing cancels: a pixel that a
unit depends on at all moves it when it is made large.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.graph import Graph
from inspector.network.receptive_fields.receptive_field import receptive_field

SIZE = (17, 14)
CHANNELS = 2


@dataclass
class Builder:
    """Adds operators to a chain of maps (1, CHANNELS, h, w)."""

    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    weights: list = field(default_factory=list)
    name: str = "image"
    size: tuple[int, int] = SIZE
    clamps: bool = False  # at a border, pixels are read that the nominal box does not have
    blurs: bool = False  # float32 may or may not give a neighbour a weight of 1e-7

    def constant(self, array):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op_type, inputs, size, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"n_{name}", **attributes))
        assume(all(1 <= n <= 60 for n in size))
        self.name, self.size = name, tuple(size)
        return name

    def weight(self, out, into, kernel):
        shape = (out, into, *kernel)
        return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))


def windows(size, kernel, strides, pads, dilations, *, ceil=False):
    found = []
    for i in range(2):
        span = size[i] + pads[i] + pads[i + 2] - ((kernel[i] - 1) * dilations[i] + 1)
        assume(span >= 0)
        n = (math.ceil if ceil else math.floor)(span / strides[i]) + 1
        # Runtimes disagree with shape inference on windows that start behind the image.
        assume((n - 1) * strides[i] < size[i] + pads[i])
        found.append(n)
    return found


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolution(draw):
    kernel, strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(pair)
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    pads = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))

    def build(b):
        size = windows(b.size, kernel, strides, pads, dilations)
        w = b.weight(CHANNELS, CHANNELS, kernel)
        b.add("Conv", [b.name, w], size, strides=strides, dilations=dilations, pads=pads)

    return build


@st.composite
def same(draw):
    kernel, strides = draw(pair), draw(pair)
    mode = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))

    def build(b):
        size = [-(-n // s) for n, s in zip(b.size, strides, strict=True)]
        w = b.weight(CHANNELS, CHANNELS, kernel)
        b.add("Conv", [b.name, w], size, strides=strides, auto_pad=mode)

    return build


@st.composite
def pooling(draw):
    kind = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    kernel, strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(pair)
    pads = [draw(st.integers(0, k // 2)) for k in (*kernel, *kernel)]
    ceil = draw(st.booleans())

    def build(b):
        size = windows(b.size, kernel, strides, pads, (1, 1), ceil=ceil)
        b.add(kind, [b.name], size, kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=ceil)

    return build


@st.composite
def transposed(draw):
    kernel, strides = draw(pair), draw(pair)
    dilation, pad = draw(st.integers(1, 2)), draw(st.integers(0, 1))

    def build(b):
        size = [
            s * (n - 1) + (k - 1) * dilation + 1 - 2 * pad
            for n, k, s in zip(b.size, kernel, strides, strict=True)
        ]
        w = b.weight(CHANNELS, CHANNELS, kernel)
        b.add(
            "ConvTranspose",
            [b.name, w],
            size,
            strides=strides,
            dilations=[dilation] * 2,
            pads=[pad] * 4,
        )

    return build


@st.composite
def resize(draw):
    scale = draw(st.sampled_from([2.0, 3.0, 1.5, 0.5]))
    mode = draw(st.sampled_from(["nearest", "linear"]))
    place = draw(st.sampled_from(["half_pixel", "asymmetric", "align_corners"]))
    rounding = draw(st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]))

    def build(b):
        size = [math.floor(n * scale) for n in b.size]
        scales = b.constant(np.array([1, 1, scale, scale], np.float32))
        b.clamps = True
        b.blurs |= scale in {3.0, 1.5} or place == "align_corners"
        extra = {"nearest_mode": rounding} if mode == "nearest" else {}
        b.add(
            "Resize",
            [b.name, "", scales],
            size,
            mode=mode,
            coordinate_transformation_mode=place,
            **extra,
        )

    return build


@st.composite
def pad(draw):
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    amount = draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))

    def build(b):
        assume(min(b.size) > 2)
        size = [b.size[0] + amount[0] + amount[2], b.size[1] + amount[1] + amount[3]]
        pads = np.array([0, 0, *amount[:2], 0, 0, *amount[2:]], np.int64)
        b.clamps |= mode != "constant"
        b.add("Pad", [b.name, b.constant(pads)], size, mode=mode)

    return build


@st.composite
def crop(draw):
    start, end, step = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(1, 2))

    def build(b):
        length = b.size[1] - start - end
        values = ([start], [b.size[1] - end], [3], [step])
        inputs = [b.constant(np.array(v, np.int64)) for v in values]
        b.add("Slice", [b.name, *inputs], [b.size[0], -(-length // step)])

    return build


@st.composite
def branches(draw):
    first, second = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    dilation, join = draw(st.integers(1, 2)), draw(st.sampled_from(["Add", "Concat", "Max"]))

    def build(b):
        start, size, outputs = b.name, b.size, []
        for radius, d in ((first, 1), (second, dilation)):
            w = b.weight(CHANNELS, CHANNELS, (2 * radius + 1, 1))
            p = [radius * d, 0, radius * d, 0]
            outputs.append(b.add("Conv", [start, w], size, pads=p, dilations=[d, 1]))
        if join == "Concat":
            joined = b.add("Concat", outputs, size, axis=1)
            w = b.weight(CHANNELS, 2 * CHANNELS, (1, 1))
            b.add("Conv", [joined, w], size)
        else:
            b.add(join, outputs, size)

    return build


@st.composite
def shuffle(draw):
    block = draw(st.sampled_from([2, 3]))

    def build(b):
        size = b.size
        w = b.weight(CHANNELS * block * block, CHANNELS, (1, 1))
        wide = b.add("Conv", [b.name, w], size)
        b.add("DepthToSpace", [wide], [n * block for n in size], blocksize=block)

    return build


def network(steps, seed):
    b = Builder(np.random.default_rng(seed))
    for step in steps:
        step(b)
    shape = [1, CHANNELS, *b.size]
    graph = helper.make_graph(
        b.nodes,
        "random",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, *SIZE])],
        [helper.make_tensor_value_info(b.name, TensorProto.FLOAT, shape)],
        b.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return b, onnx.shape_inference.infer_shapes(model, strict_mode=True)


def runner(model, y, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(image):
        (found,) = session.run(None, {"image": image})
        return found[0, :, y, x]

    return run


step = st.one_of(
    convolution(),
    convolution(),
    same(),
    pooling(),
    transposed(),
    resize(),
    pad(),
    crop(),
    branches(),
    shuffle(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), steps=st.lists(step, min_size=1, max_size=5), seed=st.integers(0, 99))
def test_pixels_outside_never_move_a_unit_and_the_edges_of_the_box_do(data, steps, seed):
    b, model = network(steps, seed)
    note("\n".join(helper.printable_node(node) for node in b.nodes))
    y, x = (data.draw(st.integers(0, n - 1)) for n in b.size)
    rf = receptive_field(Graph(model), b.name)
    assert not rf.global_
    y0, x0, y1, x1 = rf.pixels(y, x)
    assert 0 <= y0 <= y1 <= SIZE[0]
    assert 0 <= x0 <= x1 <= SIZE[1]
    rng = np.random.default_rng(seed)
    image = rng.uniform(1, 2, (1, CHANNELS, *SIZE)).astype(np.float32)
    run = runner(model, y, x)
    base = run(image)

    outside = rng.uniform(-1e3, 1e3, image.shape).astype(np.float32)
    outside[:, :, y0:y1, x0:x1] = image[:, :, y0:y1, x0:x1]
    np.testing.assert_array_equal(run(outside), base)

    if y1 == y0 or b.blurs:
        return  # it sees padding only; or the box is safe, but not known to be tight
    for rows, columns in (
        (slice(y0, y0 + 1), slice(x0, x1)),
        (slice(y1 - 1, y1), slice(x0, x1)),
        (slice(y0, y1), slice(x0, x0 + 1)),
        (slice(y0, y1), slice(x1 - 1, x1)),
    ):
        bright = image.copy()
        bright[:, :, rows, columns] = 1e5
        assert (run(bright) > base).all(), (rows, columns)
    if not b.clamps:
        box = rf.box(y, x)
        assert box[0] <= y0
        assert box[1] <= x0
        assert box[2] >= y1
        assert box[3] >= x1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.one_of(convolution(), pooling(), branches()), min_size=1, max_size=4))
def test_without_up_sampling_size_stride_and_offset_say_the_box(steps):
    b, model = network(steps, 0)
    rf = receptive_field(Graph(model), b.name)
    for y, x in ((0, 0), (3, 1), (7, 11)):
        box = rf.box(y, x)
        for axis, unit in enumerate((y, x)):
            low = rf.offset[axis] + rf.stride[axis] * unit - (rf.size[axis] - 1) / 2
            assert (box[axis], box[axis + 2]) == pytest.approx((low, low + rf.size[axis]))

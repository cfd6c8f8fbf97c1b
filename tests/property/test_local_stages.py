"""Images that differ in a box, by crops: what the whole network gives, on random small networks."""

import numpy as np
import onnx
import pytest
from networks import node, onnx_model

import inspector
from inspector.engines.local_stages import LocalStages
from inspector.network.receptive_fields.local_stages import Plan, find_cuts
from inspector.photos.occluder import covered
from inspector.photos.preprocess import Preprocess

CLOSE = 1e-5
ACTIVATIONS = ("Relu", "Sigmoid", "HardSwish", "LeakyRelu", "Tanh")


class Writer:
    """Appends random stages to a network whose last tensor is (N, C, h, w).

    Args:
        rng: Where chance comes from.
        size: Height and width of the image.
    """

    def __init__(self, rng, size):
        self.rng, self.nodes, self.constants = rng, [], {}
        self.last, self.channels, self.size = "x", 3, size

    def add(self, op_type, inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op_type, f"{inputs}", name, **attributes))
        return name

    def constant(self, *shape):
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.standard_normal(shape).astype(np.float32) * 0.5
        return name

    def pick(self, *values):
        return values[self.rng.integers(len(values))]

    def convolution(self, source, *, stride=None, same=False):
        groups = self.pick(1, 1, self.channels)
        made = self.channels * self.pick(1, 2)
        made = self.channels if same else min(made, 12) // groups * groups or groups
        kernel, dilation = (self.pick(1, 2, 3, 5), self.pick(1, 3)), self.pick(1, 1, 2)
        stride = stride or self.pick(1, 1, 2, 3)
        weights = self.constant(made, self.channels // groups, *kernel)
        how = {"kernel_shape": kernel, "dilations": [dilation] * 2, "strides": [stride] * 2}
        if same or (self.rng.random() < 0.3 and dilation == 1):
            how["auto_pad"] = self.pick("SAME_UPPER", "SAME_LOWER")
            how["dilations"] = [1, 1]
        else:
            reach = [dilation * (k - 1) for k in kernel]
            pads = [self.rng.integers(0, r + 1) for r in reach]
            how["pads"] = [
                int(v) for v in (*pads, *(r - p for r, p in zip(reach, pads, strict=True)))
            ]
        if not same:
            self.channels = made
        return self.add("Conv", f"{source} {weights} {self.constant(made)}", group=groups, **how)

    def pooling(self, source):
        kernel, stride = self.pick(2, 3), self.pick(1, 2)
        how = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        how |= {"ceil_mode": self.pick(0, 1), "pads": [self.pick(0, 1)] * 4}
        return self.add(self.pick("MaxPool", "AveragePool"), source, **how)

    def padded(self, source):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array([0, 0, 1, 2, 0, 0, 2, 1], np.int64)
        return self.add("Pad", f"{source} {name}", mode=self.pick("constant", "reflect", "edge"))

    def residual(self, source):
        inner = self.convolution(self.add("Relu", source), stride=1, same=True)
        return self.add("Add", f"{inner} {source}")

    def joined(self, source):
        left = self.add("Relu", source)
        right = self.add("MaxPool", source, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        self.channels *= 2
        return self.add("Concat", f"{left} {right}", axis=1)

    def normalised(self, source):
        own = [self.constant(self.channels) for _ in range(3)]
        spread = f"c{len(self.constants)}"
        self.constants[spread] = np.linspace(0.5, 2, self.channels, dtype=np.float32)
        return self.add("BatchNormalization", " ".join([source, *own, spread]))

    def turned(self, source):
        """Scaled by channel where channels are last."""
        last = self.add("Transpose", source, perm=[0, 2, 3, 1])
        scaled = self.add("Mul", f"{last} {self.constant(self.channels)}")
        return self.add("Transpose", scaled, perm=[0, 3, 1, 2])

    def model(self, stages):
        kinds = [self.convolution] * 3 + [self.pooling, self.padded, self.residual, self.joined]
        kinds += [self.normalised, self.turned]
        for _ in range(stages):
            self.last = self.pick(*kinds)(self.last)
            self.last = self.add(self.pick(*ACTIVATIONS), self.last)
        pooled = self.add("GlobalAveragePool", self.last)
        flat = self.add("Flatten", pooled)
        self.nodes.append(node("Gemm", f"{flat} {self.constant(self.channels, 5)}", "y"))
        return onnx_model(
            self.nodes, {"x": ["N", 3, *self.size]}, {"y": ["N", 5]}, self.constants, opset=16
        )


def opened(tmp_path, model, size, **options):
    path = tmp_path / "network.onnx"
    onnx.save(model, path)
    how = Preprocess(size=size, scale=255.0)
    return inspector.load(path, device="cpu", preprocess=how, **options).model


def random_boxes(rng, size, count):
    tops, lefts = (rng.integers(0, length - 1, count) for length in size)
    sides = rng.integers(1, 9, (count, 2))
    return [
        (int(y), int(x), int(min(y + h, size[0])), int(min(x + w, size[1])))
        for y, x, (h, w) in zip(tops, lefts, sides, strict=True)
    ]


def compare(network, rng, size, *, axes=(2, 3), fetch=("y",), every=False):
    """Run some boxes by a random choice of cuts and whole; say how many cuts there were."""
    graph = network.graph
    cuts = find_cuts(graph, network.input.name, axes, fetch, network.shapes(size))
    some = [cut for cut in cuts[1:] if every or rng.random() < 0.5] or cuts[-1:]
    plan = Plan((cuts[0], *(cut for cut in some if cut is not cuts[0])), 1, 1, 1)
    stages = LocalStages(network.file, plan, fetch)
    image = rng.standard_normal((network.input.channels, *size)).astype(np.float32)
    boxes = random_boxes(rng, size, 6)
    boxes += [(0, 0, 1, 1), (size[0] - 1, size[1] - 1, *size)]
    colour = rng.standard_normal(len(image)).astype(np.float32)
    wanted = network.forward(covered(image, boxes, colour), fetch)
    own = stages.activations(network.input.arrange(image[None]))
    found = stages.run(own, boxes, [colour[:, None, None]] * len(boxes))
    for name in fetch:
        scale = np.abs(wanted[name]).max()
        assert np.abs(found[name] - wanted[name]).max() <= CLOSE * scale
    return len(cuts) - 1


LONG = [pytest.param(seed, marks=pytest.mark.conformance) for seed in range(10, 160)]


@pytest.mark.parametrize("seed", [*range(10), *LONG])
def test_crops_give_what_whole_passes_give(seed, tmp_path):
    rng = np.random.default_rng(seed)
    size = tuple(int(v) for v in rng.integers(29, 48, 2))
    network = opened(tmp_path, Writer(rng, size).model(int(rng.integers(2, 6))), size)
    compare(network, rng, size)


CUTTING = {
    "slice before": ("Slice", ([2, 1], [99, 2**31 - 1], [2, -1])),
    "slice behind": ("Slice", ([0, 0], [-2, -1], [2, 3])),
    "slice by steps": ("Slice", ([1, 2], [-1, 99], [2, 3], [2, 1])),
    "pad below zero": ("Pad", ([0, 0, -2, 1, 0, 0, -1, -3],)),
}


@pytest.mark.parametrize("kind", CUTTING)
def test_what_is_cut_off_at_a_border_is_cut_off_from_crops_too(kind, tmp_path):
    rng, size = np.random.default_rng(0), (32, 37)
    writer, (op_type, numbers) = Writer(rng, size), CUTTING[kind]
    names = []
    for values in numbers:
        names.append(f"n{len(names)}")
        writer.constants[names[-1]] = np.array(values, np.int64)
    cut = writer.add(op_type, " ".join(["x", *names]))
    weights = writer.constant(3, 3, 3, 3)
    writer.last = writer.add("Conv", f"{cut} {weights}", pads=[1, 1, 1, 1])
    network = opened(tmp_path, writer.model(0), size)
    assert compare(network, rng, size, fetch=(writer.last,), every=True)

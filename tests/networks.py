"""Tiny networks that tests are made of, written as ONNX, and once more in NumPy."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CLASSES = 12, 10, 3


def node(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def onnx_model(nodes, inputs, outputs, constants=None, *, opset=13, ir_version=8):
    """A model of these nodes.

    Args:
        nodes: In order.
        inputs: Shapes of float32 inputs by name; or their ``ValueInfoProto``.
        outputs: The same; a shape of None is not declared.
        constants: Initialisers by name, stored in the type that they have.
        opset: Of the standard's operators.
        ir_version: Of the file.
    """
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, "graph", _declared(inputs), _declared(outputs), stored)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def _declared(tensors):
    if not isinstance(tensors, dict):
        return list(tensors)
    return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in tensors.items()]


def correlate(x, w, pad):
    """(C, H, W) with (O, C, 3, 3), stride 1."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    h, v = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((len(w), h, v))
    for di in range(3):
        for dj in range(3):
            out += np.einsum("oc,chw->ohw", w[:, :, di, dj], x[:, di : di + h, dj : dj + v])
    return out


class Net:
    """conv - relu - maxpool 2 - conv - relu [- 1x1 conv - relu] - mean - linear."""

    def __init__(self, seed, *, deep=False, softmax=False, negative=False):
        rng = np.random.default_rng(seed)
        self.deep, self.softmax = deep, softmax
        self.w1 = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
        self.w2 = rng.standard_normal((5, 4, 3, 3)).astype(np.float32) / 3
        self.w3 = rng.standard_normal((6, 5, 1, 1)).astype(np.float32)
        # Where all of A is zero, a bias keeps this ReLU off its kink.
        self.b3 = rng.standard_normal(6).astype(np.float32)
        self.head = rng.standard_normal((CLASSES, 6 if deep else 5)).astype(np.float32)
        if negative:
            self.head = -np.abs(self.head)
        self.bias = rng.standard_normal(CLASSES).astype(np.float32)

    def proto(self):
        nodes = [
            node("Conv", "x w1", "c1", pads=[1, 1, 1, 1]),
            node("Relu", "c1", "r1"),
            node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", "p1 w2", "c2", pads=[1, 1, 1, 1]),
            node("Relu", "c2", "A"),
        ]
        last = "A"
        if self.deep:
            nodes += [node("Conv", "A w3 b3", "c3"), node("Relu", "c3", "r3")]
            last = "r3"
        nodes += [
            node("GlobalAveragePool", last, "m"),
            node("Flatten", "m", "f"),
            node("Gemm", "f head bias", "logits", transB=1),
        ]
        if self.softmax:
            nodes.append(node("Softmax", "logits", "probabilities", axis=1))
        names = ["w1", "w2", "head", "bias", *(["w3", "b3"] if self.deep else [])]
        out = "probabilities" if self.softmax else "logits"
        return onnx_model(
            nodes,
            {"x": ["n", 3, HEIGHT, WIDTH]},
            {out: ["n", CLASSES]},
            {name: getattr(self, name) for name in names},
            opset=17,
        )

    def layer(self, x):
        """The activation A (5, 6, 5) of an input (3, 12, 10)."""
        r1 = np.maximum(correlate(x, self.w1.astype(np.float64), 1), 0)
        p1 = r1.reshape(4, HEIGHT // 2, 2, WIDTH // 2, 2).max(axis=(2, 4))
        return np.maximum(correlate(p1, self.w2.astype(np.float64), 1), 0)

    def third(self, A):
        c3 = np.einsum("oc,chw->ohw", self.w3[:, :, 0, 0].astype(np.float64), A)
        return c3 + self.b3[:, None, None]

    def pooled(self, A):
        """The maps (C, 6, 5) that the head's mean is taken of."""
        return np.maximum(self.third(A), 0) if self.deep else A

    def tail(self, A):
        """Logits (K,) of an activation."""
        return self.head.astype(np.float64) @ self.pooled(A).mean(axis=(1, 2)) + self.bias

    def __call__(self, x):
        return self.tail(self.layer(x))

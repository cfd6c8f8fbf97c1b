"""One network over one to three axes of space, as ONNX and in PyTorch."""

import numpy as np
import onnx
import torch
from networks import onnx_model
from onnx.helper import make_node as node
from torch.nn import functional

import inspector

CLOSE = 1e-5
CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
SIZES = {1: (40,), 2: (12, 10), 3: (6, 8, 10)}
BANDS = {1: 2, 2: 5, 3: 1}
RNG = np.random.default_rng(14)


class Network:
    """conv - relu - maxpool 2 - conv - relu - mean - linear, over one to three axes of space."""

    def __init__(self, space, bands=None, seed=0):
        rng = np.random.default_rng(seed)
        self.space, self.bands = space, bands or BANDS[space]
        self.w1 = rng.standard_normal((4, self.bands, *[3] * space)).astype(np.float32)
        self.w2 = rng.standard_normal((6, 4, *[3] * space)).astype(np.float32)
        self.w3 = rng.standard_normal((3, 6)).astype(np.float32)

    def native(self, x):
        """Scores in PyTorch, and the activation of the last convolution."""
        w1, w2 = (torch.from_numpy(w).to(x.dtype) for w in (self.w1, self.w2))
        convolve, pool = CONVOLVE[self.space], POOL[self.space]
        layer = functional.relu(
            convolve(pool(functional.relu(convolve(x, w1, padding=1)), 2), w2, padding=1)
        )
        return layer, self.head(layer)

    def head(self, layer):
        w3 = torch.from_numpy(self.w3).to(layer.dtype)
        return layer.mean(tuple(range(2, self.space + 2))) @ w3.T

    def save(self, path, sizes=None, last=False):
        sizes = SIZES[self.space] if sizes is None else sizes
        pads = [1] * 2 * self.space
        axes = range(self.space)
        first = [0, self.space + 1, *(i + 1 for i in axes)]
        shape = ["n", *sizes, self.bands] if last else ["n", self.bands, *sizes]
        nodes = [
            node(
                "Transpose" if last else "Identity",
                ["x"],
                ["x0"],
                **({"perm": first} if last else {}),
            ),
            node("Conv", ["x0", "w1"], ["c1"], pads=pads),
            node("Relu", ["c1"], ["r1"]),
            node("MaxPool", ["r1"], ["p"], kernel_shape=[2] * self.space, strides=[2] * self.space),
            node("Conv", ["p", "w2"], ["c2"], pads=pads),
            node("Relu", ["c2"], ["r2"]),
            node("GlobalAveragePool", ["r2"], ["g"]),
            node("Flatten", ["g"], ["f"]),
            node("Gemm", ["f", "w3"], ["y"], transB=1),
        ]
        constants = {"w1": self.w1, "w2": self.w2, "w3": self.w3}
        onnx.save(onnx_model(nodes, {"x": shape}, {"y": ["n", 3]}, constants), path)
        return path


def load(path, **more):
    return inspector.load(path, device="cpu", unverified=True, **more)


def saved(folder):
    """Per number of axes of space: the network, and its file opened."""
    found = {}
    for space in (1, 2, 3):
        network = Network(space)
        found[space] = network, load(network.save(folder / f"{space}.onnx"))
    return found


def sample(space, count=2, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, BANDS[space], *SIZES[space])).astype(np.float32)

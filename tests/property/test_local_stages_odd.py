"""Images that differ in a box, by crops, on networks of rarer operators: what whole passes give."""

import numpy as np
import pytest
from networks import node
from onnx import helper
from test_local_stages import ACTIVATIONS, Writer, compare, opened

KINDS = (
    *("gaps", "dilated_pool", "uneven_average", "same_pool", "norm_pool", "local_response"),
    *("resized", "squeeze_excite", "transposed", "to_depth", "to_space", "other_strides"),
    *("focus", "normalised_by_image", "centred", "swapped", "shuffled", "scaled", "summed_up"),
    *("gathered", "mirrored", "split", "padded_with_a_number", "shares"),
)


class OddWriter(Writer):
    """Appends random stages of rarer operators."""

    def numbers(self, *values, dtype=np.int64):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(values, dtype)
        return name

    def single(self, value, dtype):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(value, dtype)
        return name

    def pointwise(self, source, made):
        weights = self.constant(made, self.channels, 1, 1)
        self.channels = made
        return self.add("Conv", f"{source} {weights}")

    def gaps(self, source):
        """Strides larger than the kernel, pads larger than it."""
        kernel = (self.pick(1, 2), self.pick(1, 2))
        pads = [int(self.pick(0, 1, 3)) for _ in range(4)]
        weights = self.constant(self.channels, self.channels, *kernel)
        strides = [self.pick(2, 3), self.pick(1, 2, 3)]
        return self.add("Conv", f"{source} {weights}", pads=pads, strides=strides)

    def dilated_pool(self, source):
        how = {"dilations": [self.pick(1, 2), self.pick(1, 2, 3)], "ceil_mode": self.pick(0, 1)}
        how |= {"pads": [0, self.pick(0, 1), self.pick(0, 1), 0]}
        how |= {"strides": [self.pick(1, 2, 3), self.pick(1, 2, 4)]}
        return self.add("MaxPool", source, kernel_shape=[self.pick(2, 3), 3], **how)

    def uneven_average(self, source):
        how = {"ceil_mode": self.pick(0, 1), "count_include_pad": self.pick(0, 1)}
        how |= {"strides": [self.pick(1, 2, 4), self.pick(1, 2, 3)]}
        how |= {"pads": [self.pick(0, 1, 2), 1, self.pick(0, 2), 0]}
        return self.add("AveragePool", source, kernel_shape=[3, 2], **how)

    def same_pool(self, source):
        how = {"auto_pad": self.pick("SAME_UPPER", "SAME_LOWER", "VALID")}
        how |= {"strides": [self.pick(1, 2, 3), self.pick(1, 2)]}
        kernel = [self.pick(2, 3), self.pick(2, 3)]
        return self.add(self.pick("MaxPool", "AveragePool"), source, kernel_shape=kernel, **how)

    def norm_pool(self, source):
        how = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 1]}
        return self.add("LpPool", source, **how)

    def local_response(self, source):
        return self.add("LRN", source, size=self.pick(1, 3, 5), alpha=0.1)

    def resized(self, source):
        scales = self.numbers(1, 1, self.pick(0.5, 2, 1.5), self.pick(0.5, 2), dtype=np.float32)
        name = f"t{len(self.nodes)}"
        how = {"mode": str(self.pick("nearest", "linear", "cubic"))}
        how |= {"coordinate_transformation_mode": str(self.pick("half_pixel", "asymmetric"))}
        self.nodes.append(helper.make_node("Resize", [source, "", scales], [name], **how))
        return name

    def squeeze_excite(self, source):
        pooled = self.add("GlobalAveragePool", source)
        weights = self.constant(self.channels, self.channels, 1, 1)
        gate = self.add("Sigmoid", self.add("Conv", f"{pooled} {weights}"))
        return self.add("Mul", f"{source} {gate}")

    def transposed(self, source):
        kernel = self.pick(2, 3, 4)
        weights = self.constant(self.channels, self.channels, kernel, kernel)
        how = {"strides": [self.pick(1, 2)] * 2, "pads": [self.pick(0, 1)] * 4}
        return self.add("ConvTranspose", f"{source} {weights}", **how)

    def even(self, source):
        cut = f"{self.numbers(0, 0)} {self.numbers(8, 8)} {self.numbers(2, 3)}"
        return self.add("Slice", f"{source} {cut}")

    def to_depth(self, source):
        deep = self.add("SpaceToDepth", self.even(source), blocksize=2)
        self.channels *= 4
        return self.pointwise(deep, 6)

    def to_space(self, source):
        made = self.channels
        deep = self.pointwise(source, 4 * made)
        self.channels = made
        return self.add("DepthToSpace", deep, blocksize=2, mode=self.pick("DCR", "CRD"))

    def other_strides(self, source):
        c = self.channels
        a = f"{source} {self.constant(c, c, 3, 3)}"
        left = self.add("Conv", a, pads=[1] * 4, strides=[2, 2])
        wide = self.add("Conv", f"{source} {self.constant(c, c, 5, 5)}", pads=[2] * 4)
        middle = self.add("AveragePool", wide, kernel_shape=[1, 1], strides=[2, 2])
        right = self.add("MaxPool", source, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
        return self.add("Sum", f"{left} {middle} {right}")

    def focus(self, source):
        """Every second row and column, as channels."""
        even, parts = self.even(source), []
        for y in (0, 1):
            for x in (0, 1):
                ends, axes, steps = (self.numbers(*v) for v in ((99, 99), (2, 3), (2, 2)))
                parts.append(
                    self.add("Slice", f"{even} {self.numbers(y, x)} {ends} {axes} {steps}")
                )
        joined = self.add("Concat", " ".join(parts), axis=1)
        self.channels *= 4
        return self.pointwise(joined, 6)

    def normalised_by_image(self, source):
        own = f"{self.constant(self.channels)} {self.constant(self.channels)}"
        return self.add("InstanceNormalization", f"{source} {own}")

    def centred(self, source):
        last = self.add("Transpose", source, perm=[0, 2, 3, 1])
        mean = self.add("ReduceMean", last, axes=[3], keepdims=1)
        return self.add("Transpose", self.add("Sub", f"{last} {mean}"), perm=[0, 3, 1, 2])

    def swapped(self, source):
        return self.add("Transpose", source, perm=[0, 1, 3, 2])

    def shuffled(self, source):
        last = self.add("Transpose", source, perm=[0, 2, 3, 1])
        order = self.numbers(*self.rng.permutation(self.channels))
        return self.add(
            "Transpose", self.add("Gather", f"{last} {order}", axis=3), perm=[0, 3, 1, 2]
        )

    def scaled(self, source):
        return self.add("Mul", f"{source} {self.constant(self.channels, 1, 1)}")

    def summed_up(self, source):
        return self.add("CumSum", f"{source} {self.single(self.pick(1, 2, 3), np.int64)}")

    def gathered(self, source):
        return self.add("Gather", f"{source} {self.numbers(*range(1, 5))}", axis=self.pick(2, 3))

    def mirrored(self, source):
        axis = self.numbers(self.pick(2, 3))
        cut = f"{self.numbers(-1)} {self.numbers(-99)} {axis} {self.numbers(-1)}"
        return self.add("Slice", f"{source} {cut}")

    def split(self, source):
        source = self.pointwise(source, 6)
        left = f"t{len(self.nodes)}"
        self.nodes.append(node("Split", source, f"{left} {left}b", axis=1))
        weights = self.constant(3, 1, 3, 3)
        right = self.add("Conv", f"{left}b {weights}", group=3, pads=[1] * 4)
        return self.add("Concat", f"{left} {right}", axis=1)

    def padded_with_a_number(self, source):
        pads = self.numbers(0, 0, 1, 2, 0, 0, 0, 3)
        return self.add("Pad", f"{source} {pads} {self.single(1.5, np.float32)}")

    def shares(self, source):
        return self.add("Softmax", source, axis=1)

    def before(self, kind):
        """A convolution, the kind, an activation and a convolution."""
        self.last = self.convolution(self.last)
        self.last = getattr(self, kind)(self.last)
        self.last = self.add(self.pick(*ACTIVATIONS), self.last)
        self.last = self.convolution(self.last, stride=1, same=True)


LONG = [pytest.param(seed, marks=pytest.mark.conformance) for seed in range(1, 20)]


@pytest.mark.parametrize("seed", [0, *LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_crops_give_what_whole_passes_give_behind_rarer_operators(kind, seed, tmp_path):
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    size = tuple(int(v) for v in rng.integers(29, 48, 2))
    writer = OddWriter(rng, size)
    writer.before(kind)
    network = opened(tmp_path, writer.model(0), size)
    every = bool(rng.integers(2))
    assert compare(network, rng, size, fetch=(writer.last,), every=every)

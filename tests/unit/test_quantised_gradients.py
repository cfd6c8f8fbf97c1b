"""Gradients through quantised operators: what passes, and what stops."""

import numpy as np
import pytest
import torch
from one_node import assert_same
from quantised_networks import network

from converters.to_torch.program import Program

QDQ = "q = QuantizeLinear(X, s, z) c = Cast<to = 2>(q) Y = DequantizeLinear(c, s, u)"


def test_a_cast_between_quantised_types_passes_the_gradient_and_wraps():
    proto = network(QDQ, s=np.float32(0.5), z=np.int8(0), u=np.uint8(0))
    leaf = torch.tensor([-1.0, -0.2, 0.6, 100.0], requires_grad=True)
    got = Program(proto).run({"X": leaf}, ["Y"])["Y"]
    assert got.tolist() == [127.0, 0.0, 0.5, 63.5]  # level -2 of int8 is 254 of uint8
    (gradient,) = torch.autograd.grad(got.sum(), leaf)
    assert gradient.tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_cast_of_numbers_that_are_not_whole_stops_the_gradient():
    proto = network("c = Cast<to = 2>(X) Y = Cast<to = 1>(c)")
    leaf = torch.tensor([0.5, 1.0, 2.7, 3.0], requires_grad=True)
    got = Program(proto).run({"X": leaf}, ["Y"])["Y"]
    assert got.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not got.requires_grad


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("outputs", [1, 2])
def test_maxima_of_large_quantised_maps(dtype, outputs):
    limits = np.iinfo(dtype)
    levels = np.random.default_rng(0).integers(limits.min, limits.max, (1, 2, 40, 30), dtype)
    options = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    assert_same("MaxPool", [levels], tolerance=0, outputs=outputs, **options)

"""Resize and Upsample against ONNX Runtime, every mode."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import assert_same, twin

from converters.errors import ConverterError
from converters.to_torch.ops.resize import resize, upsample

MODES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]


def image(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 99),
    old=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    new=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    mode=st.sampled_from(MODES),
    nearest=st.sampled_from(NEAREST),
)
def test_nearest_to_a_size(seed, old, new, mode, nearest):
    X = image(np.random.default_rng(seed), 1, 2, *old)
    sizes = np.array([1, 2, *new], np.int64)
    assert_same(
        "Resize",
        [X, None, None, sizes],
        opset=13,
        mode="nearest",
        nearest_mode=nearest,
        coordinate_transformation_mode=mode,
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 99),
    old=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    new=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    mode=st.sampled_from(MODES),
)
def test_linear_to_a_size(seed, old, new, mode):
    X = image(np.random.default_rng(seed), 1, 2, *old)
    sizes = np.array([1, 2, *new], np.int64)
    assert_same(
        "Resize",
        [X, None, None, sizes],
        opset=13,
        mode="linear",
        coordinate_transformation_mode=mode,
    )


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 99),
    old=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    new=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    mode=st.sampled_from(MODES),
    options=st.fixed_dictionaries(
        {
            "cubic_coeff_a": st.sampled_from([-0.75, -0.5]),
            "exclude_outside": st.integers(0, 1),
        }
    ),
)
def test_cubic_to_a_size(seed, old, new, mode, options):
    X = image(np.random.default_rng(seed), 1, 2, *old)
    sizes = np.array([1, 2, *new], np.int64)
    assert_same(
        "Resize",
        [X, None, None, sizes],
        opset=13,
        mode="cubic",
        **options,
        coordinate_transformation_mode=mode,
        tolerance=3e-5,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    old=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    scales=st.tuples(*[st.sampled_from([0.5, 0.6, 0.8, 1.0, 1.3, 1.5, 2.0, 3.0])] * 2),
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(["half_pixel", "asymmetric", "half_pixel_symmetric"]),
)
def test_by_scales_whose_product_is_not_whole(seed, old, scales, mode, coordinates):
    X = image(np.random.default_rng(seed), 1, 2, *old)
    factors = np.array([1, 1, *scales], np.float32)
    assert_same(
        "Resize",
        [X, None, factors],
        opset=19,
        mode=mode,
        tolerance=3e-5,
        coordinate_transformation_mode=coordinates,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    old=st.tuples(st.integers(4, 12), st.integers(4, 12)),
    new=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    mode=st.sampled_from(["linear", "cubic"]),
)
def test_antialiased(seed, old, new, mode):
    X = image(np.random.default_rng(seed), 1, 2, *old)
    sizes = np.array([1, 2, *new], np.int64)
    assert_same("Resize", [X, None, None, sizes], opset=18, mode=mode, antialias=1, tolerance=3e-5)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("stop", [0.7, 1.3])
def test_region_of_interest(mode, stop):
    X = image(np.random.default_rng(0), 1, 1, 6, 7)
    roi = np.array([0, 0, 0.1, -0.2, 1, 1, stop, 0.9], np.float32)
    assert_same(
        "Resize",
        [X, roi, None, np.array([1, 1, 5, 4], np.int64)],
        opset=13,
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    )


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_aspect_ratio_is_kept_over_some_axes(policy):
    X = image(np.random.default_rng(0), 1, 2, 5, 8)
    assert_same(
        "Resize",
        [X, None, None, np.array([9, 11], np.int64)],
        opset=19,
        mode="linear",
        axes=[2, 3],
        keep_aspect_ratio_policy=policy,
    )


@pytest.mark.parametrize("scales", [(1, 1, 2, 3), (1, 1, 0.6, 0.6), (1, 1, 1.5, 0.7)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_before_opset_11(scales, mode):
    X = image(np.random.default_rng(0), 1, 2, 6, 8)
    factors = np.array(scales, np.float32)
    assert_same("Resize", [X, factors], opset=10, mode=mode)
    if min(scales) >= 1:
        assert_same("Upsample", [X, factors], opset=9, mode=mode)
        assert_same("Upsample", [X], opset=7, mode=mode, scales=list(map(float, scales)))


def test_nhwc_and_integers():
    rng = np.random.default_rng(1)
    X = image(rng, 1, 5, 7, 3)
    scales = np.array([1, 2, 2, 1], np.float32)
    assert_same("Resize", [X, None, scales], opset=13, mode="linear")
    whole = rng.integers(0, 255, (1, 3, 5, 7)).astype(np.uint8)
    assert_same("Resize", [whole, None, np.array([1, 1, 2, 2], np.float32)], opset=13)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_integers_between_pixels_are_cut_off(dtype):
    X = np.random.default_rng(1).integers(0, 120, (1, 2, 6, 7)).astype(dtype)
    inputs = [X, None, None, np.array([1, 2, 9, 4], np.int64)]
    assert_same("Resize", inputs, opset=13, mode="linear", tolerance=0)
    with pytest.raises(ConverterError, match="cast to float"):
        twin("Resize", inputs, opset=13, mode="cubic")


def test_align_corners_with_a_broken_length_is_refused():
    X = image(np.random.default_rng(0), 1, 1, 5, 5)
    scales = np.array([1, 1, 0.7, 0.7], np.float32)
    with pytest.raises(ConverterError, match="align_corners"):
        twin(
            "Resize",
            [X, None, scales],
            opset=13,
            mode="linear",
            coordinate_transformation_mode="align_corners",
        )


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_gradients(mode):
    X = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    for coordinates in ("half_pixel", "asymmetric"):
        assert torch.autograd.gradcheck(
            lambda x, c=coordinates: resize(
                x, sizes=(1, 2, 7, 3), mode=mode, coordinate_transformation_mode=c
            ),
            X,
        )
    assert torch.autograd.gradcheck(lambda x: upsample(x, (1, 1, 2, 2)), X)

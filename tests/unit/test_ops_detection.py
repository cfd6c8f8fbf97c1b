"""Regions of interest, suppression and grid sampling against ONNX Runtime."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import assert_same, twin
from torch.autograd import gradcheck

from converters.errors import ConverterError
from converters.to_torch.ops import detection, sampling

ROIS = np.array(
    [[-2, 1, 5, 6], [0.3, 0.2, 9.4, 7.7], [3, 3, 3.5, 3.1], [4, -3, 20, 12]], np.float32
)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("transformation", ["half_pixel", "output_half_pixel", None])
def test_roi_align(mode, ratio, transformation):
    images = np.array([0, 1, 1, 0], np.int64)
    options = {} if transformation is None else {"coordinate_transformation_mode": transformation}
    assert_same(
        "RoiAlign",
        [draw(2, 3, 8, 10), ROIS, images],
        opset=10 if transformation is None else 16,
        mode=mode,
        sampling_ratio=ratio,
        output_height=3,
        output_width=2,
        spatial_scale=0.8,
        **options,
    )


def test_max_roi_pool():
    rois = np.concatenate([np.array([[0], [1], [1], [0]], np.float32), ROIS], axis=1)
    X = draw(2, 3, 8, 10)
    assert_same("MaxRoiPool", [X, rois], pooled_shape=[3, 2], spatial_scale=0.75)
    assert_same("MaxRoiPool", [X, rois], pooled_shape=[6, 7])


def test_gradients():
    X = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois, image = torch.tensor([[0.3, 0.6, 4.1, 3.7]], dtype=torch.float64), torch.tensor([0])
    for mode in ("avg", "max"):
        assert gradcheck(
            lambda x, m=mode: detection.roi_align(
                x, rois, image, mode=m, output_height=2, output_width=2
            ),
            X,
        )
    row = torch.cat([torch.zeros(1, 1, dtype=torch.float64), rois], dim=1)
    assert gradcheck(lambda x: detection.max_roi_pool(x, row, pooled_shape=(2, 2)), X)
    grid = (torch.rand(1, 3, 3, 2, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert gradcheck(sampling.grid_sample, (X, grid))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    centred=st.integers(0, 1),
    limit=st.integers(0, 6),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    least=st.sampled_from([None, 0.2, 0.6]),
)
def test_non_max_suppression(seed, centred, limit, overlap, least):
    rng = np.random.default_rng(seed)
    boxes = rng.random((2, 9, 4)).astype(np.float32)
    scores = rng.choice([0.1, 0.3, 0.5, 0.7, 0.9], (2, 3, 9)).astype(np.float32)
    inputs = [boxes, scores, np.array([limit], np.int64), np.array([overlap], np.float32)]
    inputs += [] if least is None else [np.array([least], np.float32)]
    assert_same("NonMaxSuppression", inputs, opset=11, center_point_box=centred, tolerance=0)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode, padding, align):
    grid = (np.random.default_rng(1).random((2, 4, 5, 2)) * 2.6 - 1.3).astype(np.float32)
    X = draw(2, 3, 6, 7)
    options = {"padding_mode": padding, "align_corners": align}
    assert_same("GridSample", [X, grid], opset=20, mode=mode, **options)
    old = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    assert_same("GridSample", [X, grid], opset=16, mode=old, **options)


def test_grid_sample_of_volumes():
    grid = (np.random.default_rng(1).random((1, 3, 2, 4, 3)) * 2 - 1).astype(np.float32)
    assert_same("GridSample", [draw(1, 2, 4, 5, 6), grid], opset=20)
    with pytest.raises(ConverterError, match="cubic"):
        twin("GridSample", [draw(1, 2, 4, 5, 6), grid], opset=20, mode="cubic")


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_affine_grid(align, size):
    theta = draw(2, len(size) - 2, len(size) - 1)
    assert_same("AffineGrid", [theta, np.array(size, np.int64)], opset=20, align_corners=align)

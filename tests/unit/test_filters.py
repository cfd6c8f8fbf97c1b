"""The study of first-layer filters, against the definitions written out."""

import cmath
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from inspector import spectrum
from inspector.errors import ImageRefused, ModelRefused, UnknownLayer, UsageError
from inspector.panels import signed_picture
from inspector.studies.filters import filters, measure

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


def slow_energy(one, size):
    """Energy of one filter (C, h, w) by the sum that defines the DFT."""
    channels, height, width = one.shape
    found = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(size):
            for c in range(channels):
                total = 0j
                for y in range(height):
                    for x in range(width):
                        phase = -2j * math.pi * (i * y + j * x) / size
                        total += float(one[c, y, x]) * cmath.exp(phase)
                found[i][j] += abs(total) ** 2
    return found


def slow_shares(one, size, stride):
    """Low, mid, high and aliased share of one filter, bin by bin."""
    sums, aliased, total = [0.0, 0.0, 0.0], 0.0, 0.0
    for i, row in enumerate(slow_energy(one, size)):
        for j, value in enumerate(row):
            fy, fx = min(i, size - i) / size, min(j, size - j) / size
            radius = math.sqrt(fy * fy + fx * fx)
            sums[0 if radius < 0.125 else 1 if radius < 0.25 else 2] += value
            aliased += value if fy > 1 / (2 * stride) or fx > 1 / (2 * stride) else 0.0
            total += value
    return [s / total for s in sums], aliased / total


@pytest.mark.parametrize(("shape", "size", "stride"), [
    ((3, 2, 3, 3), 16, 2), ((2, 1, 5, 4), 16, 4), ((2, 3, 3, 5), 15, 3), ((1, 1, 2, 2), 16, 1),
])  # fmt: skip
def test_shares_equal_explicit_sums(shape, size, stride):
    weights = np.random.default_rng(3).normal(size=shape)
    energies = spectrum.energy(weights, size)
    bands, aliased = spectrum.band_shares(energies), spectrum.aliased_share(energies, (stride,) * 2)
    for index, one in enumerate(weights):
        expected, folded = slow_shares(one, size, stride)
        np.testing.assert_allclose(energies[index], slow_energy(one, size), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(bands[index], expected, rtol=1e-9)
        assert aliased[index] == pytest.approx(folded, rel=1e-9, abs=1e-12)


def test_sample_filters_equal_explicit_sums():
    model = inspector.load(SAMPLES / "zfnet_coarse.onnx")
    found = filters(model).numbers
    weights = model.graph.constant("0.weight")
    one, shown = weights[5], found["filters"][5]
    # At 64x64 the sums by hand, with the two axes taken apart.
    taps = np.exp(-2j * np.pi * np.outer(np.arange(64), np.arange(11)) / 64)
    energy = sum(np.abs(taps @ c.astype(np.float64) @ taps.T) ** 2 for c in one)
    frequency = np.minimum(np.arange(64), 64 - np.arange(64)) / 64
    beyond = (frequency[:, None] > 0.125) | (frequency[None] > 0.125)
    low = np.hypot(frequency[:, None], frequency[None]) < 0.125
    assert shown["aliasing"] == pytest.approx(energy[beyond].sum() / energy.sum(), rel=1e-9)
    assert shown["energy"]["low"] == pytest.approx(energy[low].sum() / energy.sum(), rel=1e-9)
    squares = [float(w) ** 2 for w in one.ravel()]
    assert shown["rms"] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-9)
    assert shown["clipping_factor"] == pytest.approx(min(1, 0.1 / shown["rms"]))


def test_frequencies_land_where_they_belong():
    """A cosine of a known frequency, long enough to be narrow."""
    places = np.arange(32)
    waves = [np.cos(2 * np.pi * f * places) * np.hanning(32) for f in (0.04, 0.19, 0.4)]
    weights = np.stack([np.outer(np.hanning(32), wave) for wave in waves])[:, None]
    found = measure(weights, strides=(4, 4))
    assert found.bands.argmax(1).tolist() == [0, 1, 2]
    assert found.bands.max(1).min() > 0.95
    assert found.aliasing[0] < 0.05
    assert found.aliasing[1:].min() > 0.95
    assert measure(weights, strides=(2, 2)).aliasing[:2].max() < 0.05


def test_dilation_repeats_the_spectrum():
    """At dilation 2 a mean of 3x3 taps passes the highest frequency as well as the lowest."""
    wide = spectrum.dilated(np.ones((1, 1, 3, 3)), (2, 2))
    assert wide.shape == (1, 1, 5, 5)
    assert wide.sum() == 9
    energy = spectrum.energy(wide, 64)[0]
    assert energy[0, 0] == pytest.approx(energy[32, 32])
    blurred = measure(np.ones((1, 1, 3, 3)), strides=(2, 2))
    spread = measure(np.ones((1, 1, 3, 3)), strides=(2, 2), dilations=(2, 2))
    assert spread.pooled_aliasing > 0.5 > blurred.pooled_aliasing


def test_white_noise_and_stride_one():
    size = spectrum.transform_size(11, 11)
    delta = np.zeros((1, 1, 11, 11))
    delta[0, 0, 5, 5] = 1
    found = measure(delta, strides=(4, 4))
    np.testing.assert_allclose(found.bands[0], spectrum.flat_band_shares(size))
    assert found.pooled_aliasing == pytest.approx(spectrum.flat_aliased_share(size, (4, 4)))
    assert measure(delta, strides=(1, 1)).pooled_aliasing == 0


def test_tells_the_two_samples_apart_for_the_papers_reason():
    fine, coarse = (
        filters(inspector.load(SAMPLES / f"{n}.onnx")) for n in ("zfnet", "zfnet_coarse")
    )
    assert fine.numbers["aliasing"] == 0
    assert coarse.numbers["aliasing"] > 0.6
    assert not fine.numbers["mid_frequencies_missing"]
    assert coarse.numbers["mid_frequencies_missing"]
    assert coarse.numbers["nyquist_of_outputs_in_cycles_per_pixel"] == [0.125, 0.125]
    assert any("much aliasing; the paper's remedy" in s for s in coarse.sentences)
    assert any("little in between" in s for s in coarse.sentences)
    assert not any("much aliasing" in s or "in between" in s for s in fine.sentences)


def one_layer(path, weights, bias=None, *, before=(), stride=1):
    """Conv and Relu on an RGB image; ``before`` stands between image and Conv."""
    extra = [] if bias is None else [numpy_helper.from_array(np.float32(bias), "b")]
    last = before[-1].output[0] if before else "x"
    names = [last, "w", *(["b"] if extra else [])]
    nodes = [*before, helper.make_node("Conv", names, ["c"], strides=[stride] * 2),
             helper.make_node("Relu", ["c"], ["r"])]  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(weights), "w"), *extra],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return inspector.load(path, preprocess="unit")


def test_dead_filters(tmp_path):
    rng = np.random.default_rng(0)
    weights = np.abs(rng.normal(size=(4, 3, 3, 3)))
    weights[1] *= 1e-4
    model = one_layer(tmp_path / "m.onnx", weights, [0, 0, -1000, 0])
    assert list(filters(model).numbers["dead"]) == [1]
    photos = rng.integers(1, 255, (3, 8, 8, 3)).astype(np.uint8)
    found = filters(model, list(photos))
    assert list(found.numbers["dead"]) == [1, 2]
    # By hand: a bias of -1000 silences filter 2 everywhere, the others are positive everywhere.
    assert [f["active_share"] for f in found.numbers["filters"]] == [1, 1, 0, 1]
    best = max(
        float((weights[0] * photo[y : y + 3, x : x + 3].transpose(2, 0, 1) / 255).sum())
        for photo in photos for y in range(6) for x in range(6)
    )  # fmt: skip
    assert found.numbers["filters"][0]["largest_activation"] == pytest.approx(best, rel=1e-5)
    assert found.images == 3


def test_a_filter_of_zeros_has_no_shares(tmp_path):
    model = one_layer(tmp_path / "m.onnx", np.zeros((2, 3, 3, 3)))
    found = filters(model)
    assert list(found.numbers["dead"]) == [0, 1]
    assert found.numbers["filters"][0]["energy"] is None
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "filters.json").read_text())["result"]["dead"] == [0, 1]


def test_only_filters_on_pixels(tmp_path):
    model = inspector.load(SAMPLES / "zfnet.onnx")
    with pytest.raises(UsageError, match="do not act on the image's pixels"):
        filters(model, layer=1)
    with pytest.raises(UnknownLayer, match="there is no layer 99"):
        filters(model, layer=99)
    pool = helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2])
    with pytest.raises(ModelRefused, match="no convolution reads"):
        filters(one_layer(tmp_path / "m.onnx", np.ones((1, 3, 2, 2)), before=[pool]))


def test_bad_photos_are_counted(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    model = inspector.load(SAMPLES / "zfnet.onnx")
    found = filters(model, [bad, SAMPLES / "images" / "cat_1.png"])
    assert (found.images, len(found.refused)) == (1, 1)
    assert found.to_dict()["images"]["used"] == 1
    with pytest.raises(ImageRefused):
        filters(model, [bad])


def test_pictures():
    weights = np.array([[[1.0, 0]], [[-0.5, 0]], [[0, 0]]])  # red on, green half down
    assert signed_picture(weights).tolist() == [[[255, 64, 128], [128, 128, 128]]]
    assert signed_picture(np.array([[[2.0, -1]]])).tolist() == [[[255] * 3, [64] * 3]]
    assert signed_picture(np.zeros((3, 2, 2))).max() == 128


@pytest.mark.parametrize(("name", "shape", "stride"), [
    ("winml_squeezenet_fp16_opset7", (64, 3, 3, 3), 2),
    ("tf2onnx_resnet50thin_nhwc", (64, 3, 7, 7), 2),
    ("mobilenetv2_qdq_int8_244", (32, 3, 3, 3), 2),
])  # fmt: skip
def test_third_party_models(shared, tmp_path, name, shape, stride):
    found = filters(
        inspector.load(shared / "zoo" / f"{name}.onnx"), [shared / "photos" / "cat.jpg"]
    )
    assert tuple(found.numbers["shape"]) == shape
    assert found.numbers["strides"] == (stride, stride)
    assert 0 < found.numbers["aliasing"] < found.numbers["aliasing_of_white_noise"] + 0.1
    assert sum(found.numbers["energy"].values()) == pytest.approx(1)
    assert [p.name for p in found.save(tmp_path)] == ["filters.png", "filters.json"]

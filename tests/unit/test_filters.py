"""The study of first-layer filters, against the definitions written out."""

import cmath
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import TensorProto, helper, numpy_helper

import inspector
from inspector.errors import ImageRefused, MethodRefused, ModelRefused, UnknownLayer, UsageError
from inspector.measures import spectrum
from inspector.passes.journal import Journal
from inspector.render.drawing.panels import signed_picture
from inspector.studies.filters import filters
from inspector.studies.filters.filterbank import measure

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


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((3, 2, 3, 3), 16, 2),
        ((2, 1, 5, 4), 16, 4),
        ((2, 3, 3, 5), 15, 3),
        ((1, 1, 2, 2), 16, 1),
    ],
)
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
    nodes = [
        *before,
        helper.make_node("Conv", names, ["c"], strides=[stride] * 2),
        helper.make_node("Relu", ["c"], ["r"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(weights), "w"), *extra],
    )
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
        for photo in photos
        for y in range(6)
        for x in range(6)
    )
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


# -- how much of the signal the stride folds ------------------------------------------------------


def slow_folded(image, one, stride, size):
    """Energy of one filter's response to a faded image (C, H, W), and what of it is folded."""
    channels, height, width = image.shape
    rows, columns = (
        [math.sin(math.pi * (i + 0.5) / n) ** 2 for i in range(n)] for n in (height, width)
    )
    window = np.array([[a * b for b in columns] for a in rows])
    response = np.zeros((height + one.shape[1] - 1, width + one.shape[2] - 1))
    for c in range(channels):
        mean = (image[c] * window).sum() / window.sum()
        for y in range(height):
            for x in range(width):
                value = (image[c, y, x] - mean) * window[y, x]
                # A correlation, as networks calculate: the filter lies upside down around a pixel.
                for i in range(one.shape[1]):
                    for j in range(one.shape[2]):
                        response[y + one.shape[1] - 1 - i, x + one.shape[2] - 1 - j] += (
                            value * one[c, i, j]
                        )
    total = folded = 0.0
    waves = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size)) / size)
    padded = np.zeros((size, size))
    padded[: response.shape[0], : response.shape[1]] = response
    for i, row in enumerate(np.abs(waves @ padded @ waves.T) ** 2):
        for j, value in enumerate(row):
            fy, fx = min(i, size - i) / size, min(j, size - j) / size
            total += value
            folded += value if fy > 1 / (2 * stride[0]) or fx > 1 / (2 * stride[1]) else 0.0
    return total, folded


@pytest.mark.parametrize(("groups", "stride"), [(1, (2, 2)), (1, (4, 1)), (2, (3, 3))])
def test_folded_energy_equals_explicit_sums(groups, stride):
    rng = np.random.default_rng(2)
    images = rng.normal(2, 1, size=(2, 4, 9, 11))
    weights = rng.normal(size=(4, 4 // groups, 3, 4))
    total, folded, own = spectrum.folded_energy(images, weights, stride)
    for n, image in enumerate(images):
        for k, one in enumerate(weights):
            first = k // (4 // groups) * (4 // groups) if groups > 1 else 0
            read = image[first : first + one.shape[0]]
            expected = slow_folded(read, one, stride, 16)
            assert (total[n, k], folded[n, k]) == pytest.approx(expected, rel=1e-9)
        alone = [slow_folded(image[c : c + 1], np.ones((1, 1, 1)), stride, 16) for c in range(4)]
        assert own[n] == pytest.approx(np.sum(alone, axis=0), rel=1e-9)


def test_what_is_folded_is_what_subsampling_makes_ambiguous():
    """A wave above the Nyquist frequency of stride 4 is folded, one below is not."""
    places = np.arange(96)
    slow, fast = (
        np.cos(2 * np.pi * f * places)[None, None, None].repeat(96, 2) for f in (1 / 16, 5 / 16)
    )
    # Every fourth value of the two is the same: 5/16 - 1/4 = 1/16.
    np.testing.assert_allclose(slow[..., ::4], fast[..., ::4], atol=1e-9)
    delta = np.ones((1, 1, 1, 1))
    shares = []
    for image in (slow, fast, slow + fast + 7):
        total, folded, _ = spectrum.folded_energy(image, delta, (4, 4))
        shares.append(folded[0, 0] / total[0, 0])
    assert shares == pytest.approx([0, 1, 0.5], abs=1e-3)
    assert spectrum.folded_energy(fast, delta, (1, 1))[1] == 0


def test_folding_on_photos_is_that_of_the_network(tmp_path):
    """From photos on: preprocessing, the filters of the file, all photos added up."""
    rng = np.random.default_rng(7)
    weights = rng.normal(size=(3, 3, 3, 3))
    model = one_layer(tmp_path / "m.onnx", weights, stride=2)
    photos = [rng.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
    found = filters(model, photos).numbers
    sums = np.zeros((3, 2))
    for photo in photos:
        image = photo.transpose(2, 0, 1) / 255
        sums += [slow_folded(image, one, (2, 2), 16) for one in np.float32(weights).astype(float)]
    for one, (total, folded) in zip(found["filters"], sums, strict=True):
        assert one["aliasing_on_photos"] == pytest.approx(folded / total, rel=1e-4)
    pooled = sums[:, 1].sum() / sums[:, 0].sum()
    assert found["on_photos"]["aliasing"] == pytest.approx(pooled, rel=1e-4)
    low, middle, high = found["on_photos"]["aliasing_quartiles_over_photos"]
    assert 0 < low <= middle <= high < 1


def test_the_coarse_sample_folds_what_the_fine_one_keeps():
    photos = sorted((SAMPLES / "images").glob("*.png"))
    fine, coarse = (
        filters(inspector.load(SAMPLES / f"{n}.onnx"), photos, second_units=0)
        for n in ("zfnet", "zfnet_coarse")
    )
    assert fine.numbers["on_photos"]["aliasing"] == 0
    assert 0.2 < coarse.numbers["on_photos"]["aliasing"] < coarse.numbers["aliasing"]
    assert any("the stride folds" in text for text in coarse.sentences)
    assert not any("the stride folds" in text for text in fine.sentences)
    assert coarse.numbers["second_layer"] is None


# -- the second layer -----------------------------------------------------------------------------


def two_layers(path, w1, w2, activation="Relu"):
    """Conv 3x3, Relu, Conv 3x3, Relu, both of stride 2, on an RGB image of 9x9."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], strides=[2, 2]),
        helper.make_node(activation, ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node(activation, ["c2"], ["r2"]),
    ]
    onnx.save(
        onnx_model(
            nodes,
            {"x": ["n", 3, 9, 9]},
            {"r2": None},
            {n: np.float32(w) for w, n in ((w1, "w1"), (w2, "w2"))},
        ),
        path,
    )
    return inspector.load(path, preprocess="unit")


def correlate(image, weights, stride):
    """A convolution without padding, place by place."""
    size = (image.shape[1] - 3) // stride + 1
    return np.array(
        [
            [
                [
                    (one * image[:, stride * y : stride * y + 3, stride * x : stride * x + 3]).sum()
                    for x in range(size)
                ]
                for y in range(size)
            ]
            for one in weights
        ]
    )


def spread(signal, weights, stride, size):
    """The transposed convolution: each place adds its filter, times the signal."""
    found = np.zeros((weights.shape[1], size, size))
    for k, y, x in np.argwhere(signal):
        found[:, stride * y : stride * y + 3, stride * x : stride * x + 3] += (
            signal[k, y, x] * weights[k]
        )
    return found


def test_second_layer_equals_the_papers_steps(tmp_path, monkeypatch):
    rng = np.random.default_rng(4)
    w1, w2 = (np.float32(rng.normal(size=s)) for s in ((4, 3, 3, 3), (5, 4, 3, 3)))
    w2[3] = -np.abs(w2[3])  # never active
    model = two_layers(tmp_path / "m.onnx", w1, w2)
    photos = [rng.integers(0, 256, (9, 9, 3)).astype(np.uint8) for _ in range(3)]
    kept = {}
    monkeypatch.setattr(
        "inspector.studies.filters.figure.filter_sheet",
        lambda *_, second=None, **__: kept.update(second=second),
    )
    found = filters(model, photos, second_units=9)
    assert found.numbers["second_layer"]["layer"] == "r2"
    assert not kept  # nothing is drawn for the numbers
    found.draw()
    assert [unit for unit, _, _ in kept["second"].units] == [0, 1, 2, 3, 4]
    for (unit, value, signal), told in zip(
        kept["second"].units, found.numbers["second_layer"]["units"], strict=True
    ):
        best = max(
            (
                (
                    correlate(np.maximum(correlate(p.transpose(2, 0, 1) / 255, w1, 2), 0), w2, 1)[
                        unit
                    ],
                    place,
                )
                for place, p in enumerate(photos)
            ),
            key=lambda pair: pair[0].max(),
        )
        if best[0].max() <= 0:
            assert signal is None
            assert told == {"unit": unit, "activation": None}
            continue
        y, x = np.unravel_index(best[0].argmax(), best[0].shape)
        assert value == told["activation"] == pytest.approx(best[0].max(), rel=1e-5)
        assert told["image"]["place"] == best[1]
        assert told["at"] == {"y": y, "x": x}
        one = np.zeros((5, 2, 2))
        one[unit, y, x] = best[0].max()
        down = spread(np.maximum(spread(one, w2, 1, 4), 0), w1, 2, 9)
        box = told["patch"]
        crop = down[:, box["top"] : box["bottom"], box["left"] : box["right"]]
        np.testing.assert_allclose(signal, crop, atol=1e-4 * np.abs(crop).max())
        down[:, box["top"] : box["bottom"], box["left"] : box["right"]] = 0
        assert not down.any()
    assert kept["second"].units[3][2] is None


def test_a_refused_projection_leaves_the_rest(tmp_path):
    rng = np.random.default_rng(4)
    w1, w2 = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(5, 4, 3, 3))
    photos = [rng.integers(0, 256, (9, 9, 3)).astype(np.uint8) for _ in range(2)]
    model = two_layers(tmp_path / "m.onnx", w1, w2, "Softplus")
    found = filters(model, photos)
    assert "Softplus" in found.numbers["second_layer"]["refused"]
    assert any("second layer is not projected" in text for text in found.warnings)
    found.save(tmp_path / "out")
    found = filters(one_layer(tmp_path / "one.onnx", w1), photos)
    assert found.numbers["second_layer"] is None
    assert any("no second convolution" in text for text in found.warnings)
    with pytest.raises(UsageError, match="-1 units"):
        filters(model, photos, second_units=-1)
    with pytest.raises(UsageError, match="no projection"):
        filters(model, photos, projection="cam")
    broken = one_layer(tmp_path / "nan.onnx", w1, [np.nan] * 4)
    with pytest.raises(MethodRefused, match="not finite"):
        filters(broken, photos)


def test_resumed_run_gives_the_same_numbers(tmp_path):
    model = inspector.load(SAMPLES / "zfnet_coarse.onnx")
    photos = sorted((SAMPLES / "images").glob("*.png"))[:11]
    journal = Journal(tmp_path / "whole.jsonl", "id")
    whole = filters(model, iter(photos), second_units=3, journal=journal)
    journal.close()
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * len(photos)  # the filters, then the second layer
    for kept in (1, 5, 12, 18, len(lines)):
        (tmp_path / "part.jsonl").write_bytes(b"".join(lines[:kept]))
        part = Journal(tmp_path / "part.jsonl", "id")
        again = filters(model, photos, second_units=3, journal=part)
        part.close()
        assert json.dumps(again.to_dict(), default=str) == json.dumps(whole.to_dict(), default=str)


SLOW = pytest.mark.conformance  # their certificates take seconds


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "shape", "second_units"),
    [
        ("winml_squeezenet_fp16_opset7", (64, 3, 3, 3), 4),
        ("tf2onnx_resnet50thin_nhwc", (64, 3, 7, 7), 0),
        ("mobilenetv2_qdq_int8_244", (32, 3, 3, 3), 0),
        pytest.param("tf2onnx_resnet50thin_nhwc", (64, 3, 7, 7), 4, marks=SLOW),
        pytest.param("mobilenetv2_qdq_int8_244", (32, 3, 3, 3), 4, marks=SLOW),
    ],
)
def test_third_party_models(shared, tmp_path, name, shape, second_units):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    found = filters(model, [shared / "photos" / "cat.jpg"], second_units=second_units)
    assert tuple(found.numbers["shape"]) == shape
    assert found.numbers["strides"] == (2, 2)
    assert 0 < found.numbers["aliasing"] < found.numbers["aliasing_of_white_noise"] + 0.1
    assert sum(found.numbers["energy"].values()) == pytest.approx(1)
    assert 0 < found.numbers["on_photos"]["aliasing"] < 1
    if second_units:
        active = [u for u in found.numbers["second_layer"]["units"] if u["activation"]]
        assert active
        assert all(unit["largest_in_projection"] > 0 for unit in active)
    names = [path.name for path in found.save(tmp_path)]
    assert names == ["filters.png", "filters.csv", "filters.json"]

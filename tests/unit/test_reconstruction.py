"""The study of reconstructions, against the transposed convolutions written out."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper, numpy_helper

import inspector
from inspector.errors import ImageRefused, MethodRefused, UnknownLayer, UsageError
from inspector.measures import sharpness
from inspector.passes.journal import Journal
from inspector.studies.reconstruction import reconstruction

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
RNG = np.random.default_rng(11)
METHODS = ("guided-backprop", "deconvnet", "gradient")
PADS = {"pads": [1, 1, 1, 1]}


def saved(path, nodes, weights, channels):
    onnx.save(
        onnx_model(
            nodes,
            {"x": ["n", 3, 12, 12]},
            {"y": ["n", channels]},
            {n: np.float32(w) for n, w in weights.items()},
        ),
        path,
    )
    return inspector.load(path, preprocess="unit")


@pytest.fixture(scope="module")
def strided(tmp_path_factory):
    """Conv, Relu, Conv of stride 2, Relu, Conv, Relu; no pooling."""
    weights = {
        "w1": RNG.normal(size=(4, 3, 3, 3)),
        "w2": RNG.normal(size=(5, 4, 3, 3)),
        "w3": RNG.normal(size=(6, 5, 3, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **PADS),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], **PADS),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], **PADS),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("GlobalAveragePool", ["r3"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    return saved(tmp_path_factory.mktemp("strided") / "strided.onnx", nodes, weights, 6)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """The same with max-pooling for the stride."""
    weights = {"w1": RNG.normal(size=(4, 3, 3, 3)), "w2": RNG.normal(size=(5, 4, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **PADS),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node(
            "MaxPool", ["r1"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["p", "w2"], ["c2"], **PADS),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    return saved(tmp_path_factory.mktemp("pooled") / "pooled.onnx", nodes, weights, 5)


def chain(model, tensor):
    """Weights, biases, strides and paddings of a plain chain of Conv and Relu, in float64."""
    proto = onnx.load(model.path)  # noqa: TID251 - our own file, read without the package
    stored = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    found = []
    for node in proto.graph.node:
        if node.op_type == "Conv":
            named = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            bias = stored[node.input[2]] if len(node.input) > 2 else 0
            found.append(
                (
                    stored[node.input[1]],
                    bias,
                    named.get("strides", [1, 1])[0],
                    named.get("pads", [0] * 4)[0],
                )
            )
        elif node.output[0] == tensor:
            return found
    raise AssertionError(tensor)


def convolve(image, weights, bias, stride, pad):
    """Place by place."""
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    side = weights.shape[2]
    height = (padded.shape[1] - side) // stride + 1
    width = (padded.shape[2] - side) // stride + 1
    found = np.zeros((len(weights), height, width))
    for y in range(height):
        for x in range(width):
            window = padded[:, y * stride : y * stride + side, x * stride : x * stride + side]
            found[:, y, x] = np.tensordot(weights, window, 3) + bias
    return found


def spread(signal, weights, stride, pad, size):
    """The transposed convolution: each place adds its filters, times the signal."""
    side = weights.shape[2]
    found = np.zeros((weights.shape[1], size[0] + 2 * pad, size[1] + 2 * pad))
    for y in range(signal.shape[1]):
        for x in range(signal.shape[2]):
            if signal[:, y, x].any():
                piece = np.tensordot(signal[:, y, x], weights, 1)
                found[:, y * stride : y * stride + side, x * stride : x * stride + side] += piece
    return found[:, pad : pad + size[0], pad : pad + size[1]]


def slow(layers, image, unit, method):
    """One unit on, everything else zero, down to the pixels."""
    inputs, before = [image], []
    for weights, bias, stride, pad in layers:
        before.append(convolve(inputs[-1], weights, bias, stride, pad))
        inputs.append(np.maximum(before[-1], 0))
    signal = np.zeros_like(inputs[-1])
    signal[unit] = 1
    for place in range(len(layers) - 1, -1, -1):
        weights, _, stride, pad = layers[place]
        if method != "gradient":
            signal = np.maximum(signal, 0)
        if method != "deconvnet":
            signal = signal * (before[place] > 0)
        signal = spread(signal, weights, stride, pad, inputs[place].shape[1:])
    return signal, inputs[-1]


@pytest.fixture
def drawn(monkeypatch):
    """What goes onto the page."""
    kept = {}
    real = __import__("inspector.studies.reconstruction.figure", fromlist=["x"])
    sheet = real.reconstruction_sheet

    def keep(blocks, rows, **rest):
        kept.update(blocks=blocks, rows=rows)
        return sheet(blocks, rows, **rest)

    monkeypatch.setattr(real, "reconstruction_sheet", keep)
    return kept


def photos(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (12, 12, 3)).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize(("name", "layer"), [("all_cnn_c", "relu_8"), ("strided_cnn_c", "relu_5")])
def test_units_without_an_image_equal_the_literal_chain(drawn, name, layer):
    model = inspector.load(SAMPLES / f"{name}.onnx")
    found = reconstruction(model, [], layers=(layer,), unconditioned="0,3,7")
    found.draw()
    entry = found.numbers["layers"][0]
    assert entry["unconditioned"]["possible"]
    assert entry["unconditioned"]["largest_relative_difference"] == 0
    at = entry["unconditioned"]["at"]
    layers = chain(model, layer)
    field = inspector_box(model, layer, at)
    blank = RNG.normal(size=(3, 32, 32))  # whatever it is
    for unit, signal in zip((0, 3, 7), drawn["rows"][0].signals, strict=True):
        expected, _ = slow(layers, blank, (unit, at["y"], at["x"]), "deconvnet")
        inside = expected[:, field[0] : field[2], field[1] : field[3]]
        peak = np.abs(expected).max()
        assert peak > 0
        np.testing.assert_allclose(signal, inside, atol=2e-6 * peak)
        assert np.abs(expected).sum() == pytest.approx(np.abs(inside).sum())  # nothing outside


def inspector_box(model, layer, at):
    from inspector.network.receptive_fields.receptive_field import receptive_field

    shapes = model.shapes(model.preprocessing.preprocess.size)
    return receptive_field(model.graph, layer, model.input.name, shapes).pixels(at["y"], at["x"])


def test_all_three_equal_the_literal_chain_on_photos(strided, drawn):
    images = photos(3)
    found = reconstruction(strided, images, layers=("r2", "r3"))
    found.draw()
    for place, (image, photo) in enumerate(zip(images, found.numbers["photos"], strict=True)):
        x = image.transpose(2, 0, 1) / 255
        for column, (tensor, entry) in enumerate(zip(("r2", "r3"), photo["layers"], strict=True)):
            layers = chain(strided, tensor)
            _, maps = slow(layers, x, (0, 0, 0), "gradient")
            unit = tuple(int(i) for i in np.unravel_index(maps.argmax(), maps.shape))
            assert (entry["unit"], entry["at"]["y"], entry["at"]["x"]) == unit
            assert entry["activation"] == pytest.approx(maps.max(), rel=1e-5)
            y0, x0, y1, x1 = entry["patch"]
            cell = drawn["blocks"][place].cells[column]
            np.testing.assert_array_equal(cell.patch, image[y0:y1, x0:x1])
            for method, signal in zip(METHODS, cell.signals, strict=True):
                expected, _ = slow(layers, x, unit, method)
                peak = np.abs(expected).max()
                np.testing.assert_allclose(
                    signal, expected[:, y0:y1, x0:x1], atol=1e-5 * max(peak, 1)
                )
                numbers = entry["methods"][method]
                assert numbers["largest"] == pytest.approx(maps.max() * peak, rel=1e-4)
                cut = sharpness.magnitude(expected)[y0:y1, x0:x1]
                assert numbers["concentration"] == pytest.approx(
                    sharpness.concentration(cut), abs=1e-4
                )


def test_a_chosen_unit_at_its_strongest_place(strided):
    image = photos(1)[0]
    values = strided.forward(np.float32(image.transpose(2, 0, 1) / 255)[None], ["r2"])["r2"][0, 3]
    entry = reconstruction(strided, [image], layers=("r2",), unit="3").numbers["photos"][0]
    y, x = np.unravel_index(values.argmax(), values.shape)
    assert entry["layers"][0]["unit"] == 3
    assert entry["layers"][0]["at"] == {"y": y, "x": x}


def test_conditioned_deconvnet_is_the_unconditioned_one(strided, drawn):
    """Where no image is needed, photos choose the unit and its place, and nothing else."""
    reconstruction(strided, photos(4), layers=("r2",), unconditioned="0-4").draw()
    bare = dict(zip(drawn["rows"][0].titles, drawn["rows"][0].signals, strict=True))
    whole = [
        cell for block in drawn["blocks"] for cell in block.cells if cell.patch.shape[:2] == (5, 5)
    ]
    assert whole  # not cut off at the border
    for cell in whole:
        np.testing.assert_allclose(cell.signals[1], bare[cell.title], atol=1e-5)
        assert np.abs(cell.signals[0] - bare[cell.title]).max() > 0.1  # guided does depend


def test_max_pooling_needs_photos(pooled, drawn):
    with pytest.raises(MethodRefused, match="MaxPool node 'pool'"):
        reconstruction(pooled, [], layers=("r2",))
    found = reconstruction(pooled, photos(2))  # both layers: r1 lies before the pooling
    found.draw()
    first, second = (entry["unconditioned"] for entry in found.numbers["layers"])
    assert first["possible"]
    assert (second["possible"], second["node"], second["units"]) == (False, "pool", [])
    assert second["largest_relative_difference"] > 0.01
    assert any("not without an image: r2" in text for text in found.sentences)
    assert [len(row.signals) for row in drawn["rows"]] == [4, 0]
    assert found.numbers["layers"][0]["coverage"]["deconvnet"].startswith("1 of 1")


def test_without_photos(strided, tmp_path):
    found = reconstruction(strided, [])
    assert [path.name for path in found.save(tmp_path)] == [
        "reconstruction.png",
        "reconstruction.json",
    ]
    report = json.loads((tmp_path / "reconstruction.json").read_text())
    assert report["result"]["photos"] == []
    assert any("neither guided backpropagation nor a gradient" in t for t in report["sentences"])


def test_layers_are_thinned_out_evenly():
    model = inspector.load(SAMPLES / "all_cnn_c.onnx")
    found = reconstruction(model, [], most=3, unconditioned="0")
    assert [entry["layer"] for entry in found.numbers["layers"]] == ["relu", "relu_4", "relu_8"]


def test_a_resumed_run_gives_the_same_numbers(strided, tmp_path):
    images = photos(21, seed=4)
    whole = tmp_path / "whole.jsonl"
    journal = Journal(whole, "id")
    found = reconstruction(strided, images, journal=journal)
    journal.close()
    lines = whole.read_bytes().splitlines(keepends=True)
    for kept in (3, 8, 13, 19, 21):
        part = tmp_path / "part.jsonl"
        part.write_bytes(b"".join(lines[: kept + 1]))
        journal = Journal(part, "id")
        assert journal.found == kept
        again = reconstruction(strided, images, journal=journal)
        journal.close()
        assert again.numbers == found.numbers
        assert again.table == found.table
        assert again.figure.tobytes() == found.figure.tobytes()


def test_what_cannot_be_meant(strided, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageRefused):
        reconstruction(strided, [bad])
    with pytest.raises(UsageError, match="layers"):
        reconstruction(strided, [], most=0)
    with pytest.raises(UnknownLayer):
        reconstruction(strided, [], layers=("nothing",))
    with pytest.raises(UsageError, match="no unit 5") as error:
        reconstruction(strided, photos(1), unit="5", layers=("r3", "r2"))
    assert error.value.where == "layer r2"
    with pytest.raises(UsageError, match="takes one channel"):
        reconstruction(strided, photos(1), unit="1,2")
    with pytest.raises(UsageError, match="no unit 9"):
        reconstruction(strided, [], unconditioned="9")
    with pytest.raises(UsageError, match="neither photos"):
        reconstruction(strided, [], unconditioned="none")
    found = reconstruction(strided, [bad, photos(1)[0]], unconditioned="none")
    assert (found.images, len(found.refused)) == (1, 1)
    assert found.numbers["layers"][0]["unconditioned"]["units"] == []
    assert found.numbers["photos"][0]["image"]["place"] == 1


def test_inactive_units_are_said(strided):
    found = reconstruction(strided, [np.zeros((12, 12, 3), np.uint8)])
    assert found.numbers["photos"][0]["layers"] == [None, None, None]
    assert "not active, and left out: 3 unit(s)" in found.sentences
    assert not found.table


def test_units_at_the_end_of_a_clip_are_said_to_have_no_gradient(tmp_path):
    weights = {
        "w1": RNG.normal(size=(4, 3, 3, 3)),
        "w2": RNG.normal(size=(5, 4, 3, 3)),
        "low": np.array(0.0),
        "high": np.array(0.01),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **PADS),
        helper.make_node("Clip", ["c1", "low", "high"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], **PADS),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    model = saved(tmp_path / "clipped.onnx", nodes, weights, 5)
    photo = RNG.integers(0, 255, (12, 12, 3)).astype(np.uint8)
    found = reconstruction(model, [photo], layers=("r1,r2",), unconditioned="none")
    assert [entry["layer"] for entry in found.numbers["layers"]] == ["r1", "r2"]
    said = next(text for text in found.sentences if "is clipped" in text)
    assert "unit(s) of r1" in said


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "layer", "free"),
    [
        ("winml_squeezenet_fp16_opset7", "2", False),
        ("tf2onnx_resnet50thin_nhwc", "3", False),
        ("mobilenetv2_qdq_int8_244", "2", True),
        ("marabou_cifar_deep", "-1", True),
    ],
)
def test_third_party_models(shared, tmp_path, name, layer, free):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    found = reconstruction(
        model, [shared / "photos" / "cat.jpg"], layers=(layer,), unconditioned="0-1"
    )
    entry = found.numbers["layers"][0]
    assert entry["unconditioned"]["possible"] == free
    assert len(entry["unconditioned"]["units"]) == (2 if free else 0)
    assert all(
        numbers["largest"] > 0
        for numbers in found.numbers["photos"][0]["layers"][0]["methods"].values()
    )
    image = model.preprocessing.preprocess.apply(inspector.load_photo(shared / "photos/cat.jpg"))
    y0, x0, y1, x1 = found.numbers["photos"][0]["layers"][0]["patch"]
    assert model.preprocessing.preprocess.decode(image[0])[y0:y1, x0:x1].size
    found.save(tmp_path)
    if not free:
        with pytest.raises(MethodRefused, match="MaxPool"):
            reconstruction(model, [], layers=(layer,))

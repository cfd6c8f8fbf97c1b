"""Two networks compared: themselves, their int8 versions, spoilt ones, other layouts and sizes."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import TensorProto as T
from onnx import helper as oh
from onnx import numpy_helper

import inspector
from converters.graph import Node
from inspector.compare import Gates, compare
from inspector.compare.alignment import Probe, align
from inspector.compare.parting import Meter, Sums, bound_of
from inspector.errors import ImageRefused, UsageError
from inspector.network.form import Form
from inspector.network.quantisation.levels import Levels

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = sorted((SAMPLES / "images").glob("*_1.png"))
FEW = PHOTOS[3:6]


def quantised(name, folder, kind="QDQ"):
    """The int8 version that ONNX Runtime's static quantiser makes, calibrated on real images."""
    from onnxruntime import quantization as q

    source = SAMPLES / f"{name}.onnx"
    model = inspector.load(source)
    inputs = [model.preprocessing.preprocess.apply(inspector.load_photo(p))[0] for p in PHOTOS]

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{model.input.name: x[None]} for x in inputs])

        def get_next(self):
            return next(self.feeds, None)

    target = folder / f"{name}.{kind}.onnx"
    logging.getLogger().setLevel(logging.ERROR)  # it advises to run its own preprocessing first
    q.quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=q.QuantFormat[kind],
        per_channel=True,
        weight_type=q.QuantType.QInt8,
    )
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("int8")


@pytest.fixture(scope="module")
def resnet8(folder):
    return quantised("resnet20", folder)


@pytest.fixture(scope="module")
def zfnet8(folder):
    return quantised("zfnet", folder)


def changed(source, target, **edits):
    """A copy with some initialisers changed."""
    model = onnx.load(source)  # noqa: TID251 - our own file
    names = {name.replace("__", "."): edit for name, edit in edits.items()}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            array = names.pop(tensor.name)(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert not names
    onnx.save(model, target)
    return target


def moved(by):
    return lambda zero: ((zero.astype(int) + by) % 256).astype(zero.dtype)


# -- quantised ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet20", "zfnet"])
@pytest.mark.conformance
def test_float_against_int8(name, request):
    eight = request.getfixturevalue("resnet8" if name == "resnet20" else "zfnet8")
    found = compare(SAMPLES / f"{name}.onnx", eight, PHOTOS)
    summary = found.summary()
    assert summary["flips"] == 0
    assert summary["methods"]["grad-cam"]["rank_correlation"]["worst"] > 0.97
    assert summary["methods"]["grad-cam"]["iou_of_top"]["median"] > 0.85
    parting = found.parting
    assert parting.first is None
    assert parting.sentence.startswith("no single layer stands out")
    assert parting.alignment.how == "names"
    layers = {e.point.layer for e in parting.layers} - {None}
    assert layers == set(range(19 if name == "resnet20" else 5))
    # Own errors do not grow with depth; accumulated ones do.
    own = [e.own.relative for e in parting.layers if e.own]
    assert max(own) < 0.04
    assert parting.layers[-5].accumulated.relative > 1.5 * parting.layers[1].accumulated.relative


@pytest.mark.parametrize(
    ("name", "edit", "named"),
    [
        ("zfnet", {"relu_2_zero_point": moved(40)}, "relu_2"),
        ("zfnet", {"relu_6_zero_point": moved(20)}, "relu_6"),
        ("zfnet", {"8__weight_scale": lambda s: s * np.float32(1.3)}, "relu_3"),
        ("resnet20", {"relu_12_zero_point": moved(30)}, "relu_12"),
        ("resnet20", {"relu_zero_point": moved(128)}, "relu"),
        (
            "resnet20",
            {"blocks__3__down__0__weight_scale": lambda s: s * np.float32(2)},
            "getitem_27",
        ),
        ("resnet20", {"input_zero_point": moved(50)}, "input"),
    ],
)
@pytest.mark.conformance
def test_a_spoilt_layer_is_named(name, edit, named, request, tmp_path):
    eight = request.getfixturevalue("resnet8" if name == "resnet20" else "zfnet8")
    bad = changed(eight, tmp_path / "bad.onnx", **edit)
    found = compare(SAMPLES / f"{name}.onnx", bad, FEW, worst=0)
    assert found.parting.first.point.name == named
    assert found.parting.sentence.startswith(f"the networks part at {named!r}")
    assert found.to_dict()["parting"]["parts_at"] == named


def test_int8_that_keeps_levels_is_aligned_by_the_sequence_of_layers(folder, tmp_path):
    eight = quantised("zfnet", folder, "QOperator")
    found = compare(SAMPLES / "zfnet.onnx", eight, FEW, worst=0)
    assert found.parting.alignment.how == "sequence"
    assert found.parting.first is None
    assert len(found.parting.layers) >= 5
    assert all(e.own.relative < 0.05 for e in found.parting.layers if e.own)
    bad = changed(eight, tmp_path / "bad.onnx", conv2d_2_zero_point=moved(40))
    found = compare(SAMPLES / "zfnet.onnx", bad, FEW, worst=0)
    assert found.parting.first.point.name == "relu_2"


# -- equal networks -----------------------------------------------------------------------------


def test_a_network_against_itself():
    found = compare(
        SAMPLES / "resnet20.onnx",
        SAMPLES / "resnet20.onnx",
        FEW,
        ["grad-cam", "occlusion:window=16,stride=8"],
    )
    assert not found.flips
    for pair in found.pairs:
        same = pair.similarity
        assert (same.rank, same.pearson, same.iou, same.peak_shift) == pytest.approx((1, 1, 1, 0))
        assert pair.to_dict()["probability_shift"] == 0
    assert found.parting.first is None
    assert found.parting.sentence.startswith("the networks do not part")
    assert {e.accumulated.relative for e in found.parting.layers} == {0.0}
    assert not found.warnings


def test_an_int8_network_against_itself_does_not_part(zfnet8):
    """The twin may round a level otherwise than ONNX Runtime; that is not a difference of B."""
    found = compare(zfnet8, zfnet8, FEW, worst=0)
    assert found.parting.alignment.how == "names"
    assert found.parting.sentence.startswith("the networks do not part")
    assert {e.own.relative for e in found.parting.layers if e.own} == {0.0}


def wrapped(source, target, *, nhwc=False, size=None):
    """The same network behind a Transpose (channels last) or a Resize (another input size)."""
    model = onnx.load(source)  # noqa: TID251 - our own file
    graph = model.graph
    image, inner = graph.input[0].name, "inner"
    for node in graph.node:
        node.input[:] = [inner if name == image else name for name in node.input]
    height = size or 32
    if nhwc:
        first = oh.make_node("Transpose", [image], [inner], perm=[0, 3, 1, 2])
        shape = ["n", height, height, 3]
    else:
        scales = numpy_helper.from_array(np.array([1, 1, 32 / size, 32 / size], np.float32), "by")
        graph.initializer.append(scales)
        first = oh.make_node("Resize", [image, "", "by"], [inner], mode="linear")
        shape = ["n", 3, height, height]
    graph.node.insert(0, first)
    graph.input[0].CopyFrom(oh.make_tensor_value_info(image, T.FLOAT, shape))
    onnx.save(model, target)
    return target


def test_channels_last_against_channels_first(tmp_path):
    other = wrapped(SAMPLES / "zfnet.onnx", tmp_path / "nhwc.onnx", nhwc=True)
    found = compare(SAMPLES / "zfnet.onnx", other, FEW, ["grad-cam", "gradient"])
    assert found.contexts[1]["preprocess"]["settings"]["layout"] == "NHWC"
    assert min(pair.similarity.rank for pair in found.pairs) > 0.9999
    assert found.parting.first is None
    assert max(e.own.relative for e in found.parting.layers if e.own) < 1e-5
    assert found.parting.layers[0].point.name == "input"
    assert found.parting.layers[0].accumulated.relative == 0


def test_another_input_size(tmp_path):
    """B sees 64 x 64 pixels, shrinks them to 32 x 32, and goes on as A: inputs do not align."""
    other = wrapped(SAMPLES / "zfnet.onnx", tmp_path / "large.onnx", size=64)
    found = compare(SAMPLES / "zfnet.onnx", other, FEW)
    assert not found.flips
    assert min(pair.similarity.rank for pair in found.pairs) > 0.85
    assert found.parting.layers[0].point.name == "conv2d"
    # Behind the first layer, which sees another image, each does the same with the same input.
    assert max(e.own.relative for e in found.parting.layers[1:]) < 1e-5
    assert found.parting.layers[-1].accumulated.relative > 1e-3


def nets(*, last, weights):
    """Two convolutions, mean and a matrix; maps with the channels first or last throughout."""
    tag = "x" if last else "y"
    nodes, names = [], [f"{tag}{i}" for i in range(12)]
    name = "image"
    for i in range(2):
        if last:
            nodes.append(oh.make_node("Transpose", [name], [f"t{i}"], perm=[0, 3, 1, 2]))
        padded = {"pads": [1, 1, 1, 1]}
        nodes.append(
            oh.make_node("Conv", [f"t{i}" if last else name, f"W{i}"], [f"c{tag}{i}"], **padded)
        )
        if last:
            nodes.append(oh.make_node("Transpose", [f"c{tag}{i}"], [f"u{i}"], perm=[0, 2, 3, 1]))
        nodes.append(oh.make_node("Relu", [f"u{i}" if last else f"c{tag}{i}"], [names[i]]))
        name = names[i]
    nodes += [
        oh.make_node(
            "ReduceMean", [name], [f"m{tag}"], axes=[1, 2] if last else [2, 3], keepdims=0
        ),
        oh.make_node("Gemm", [f"m{tag}", "W2"], [f"logits_{tag}"]),
    ]
    shape = [None, 8, 8, 3] if last else [None, 3, 8, 8]
    return onnx_model(
        nodes,
        {"image": shape},
        {f"logits_{tag}": [None, 5]},
        {f"W{i}": w for i, w in enumerate(weights)},
    )


def drawn():
    rng = np.random.default_rng(3)
    shapes = (6, 3, 3, 3), (7, 6, 3, 3), (7, 5)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def meter(tmp_path, a, b, **options):
    both = []
    for letter, model in zip("ab", (a, b), strict=True):
        onnx.save(model, tmp_path / f"{letter}.onnx")
        both.append(Probe(inspector.load(tmp_path / f"{letter}.onnx", preprocess="raw").model))
    image = np.random.default_rng(4).normal(size=(1, 3, 8, 8)).astype(np.float32)
    alignment = align(*both, (image, image), **options)
    return Meter(*both, alignment), image


def test_layers_with_channels_last_are_brought_to_channels_first(tmp_path):
    weights = drawn()
    found, image = meter(
        tmp_path,
        nets(last=False, weights=weights),
        nets(last=True, weights=weights),
        same_input=True,
    )
    assert found.alignment.how == "sequence"
    found.add(image, image)
    layers = found.result().layers
    assert [e.point.name for e in layers] == ["image", "y0", "y1", "logits_y"]
    assert [e.shape for e in layers[1:3]] == [(6, 8, 8), (7, 8, 8)]
    assert max(e.accumulated.relative for e in layers) < 1e-5
    assert max(e.own.relative for e in layers[1:]) < 1e-5


# -- the layers' own errors ---------------------------------------------------------------------


def test_own_and_accumulated_error_literally(tmp_path):
    """One filter is changed: only its layer has an error of its own, all behind inherit it."""
    import torch

    weights = drawn()
    spoilt = [weights[0], weights[1] * np.float32(1.5), weights[2]]
    found, image = meter(
        tmp_path,
        nets(last=False, weights=weights),
        nets(last=False, weights=spoilt),
        same_input=True,
    )
    assert found.alignment.how == "names"
    found.add(image, image)
    result = found.result()
    by_name = {e.point.name: e for e in result.layers}
    x = torch.tensor(image)
    first = torch.relu(torch.conv2d(x, torch.tensor(weights[0]), padding=1))
    second = torch.conv2d(first, torch.tensor(weights[1]), padding=1)
    literal = float(((1.5 * second - second) ** 2).sum().sqrt() / (second**2).sum().sqrt())
    assert literal == pytest.approx(0.5)
    assert by_name["cy1"].own.relative == pytest.approx(literal, rel=1e-5)
    assert by_name["cy1"].accumulated.decibels == pytest.approx(-20 * math.log10(0.5), rel=1e-5)
    assert by_name["y1"].accumulated.relative == pytest.approx(0.5, rel=1e-5)
    assert by_name["y1"].own.relative < 1e-6
    assert by_name["logits_y"].accumulated.relative == pytest.approx(0.5, rel=1e-4)
    assert by_name["logits_y"].own.relative < 1e-6
    assert result.first.point.name == "cy1"
    assert len(result.outliers) == 1


def test_sums_over_images_literally():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 5))
    sums = Sums()
    for x, y in zip(a, b, strict=True):
        sums.add(x, y)
    assert sums.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
    assert sums.cosine == pytest.approx(
        float(np.sum(a * b)) / np.linalg.norm(a) / np.linalg.norm(b)
    )
    assert sums.decibels == pytest.approx(10 * math.log10(np.sum(a**2) / np.sum((a - b) ** 2)))


def test_errors_that_are_no_numbers():
    zero, broken = Sums(), Sums()
    zero.add(np.zeros(3), np.ones(3))
    assert (zero.relative, zero.cosine, zero.decibels) == (None, None, None)
    broken.add(np.ones(3), np.array([1, np.nan, 1]))
    assert broken.relative == math.inf
    assert broken.to_dict() == {
        "relative_error": None,
        "snr_db": None,
        "cosine": None,
        "finite": False,
    }
    equal = Sums()
    equal.add(np.ones(3), np.ones(3))
    assert (equal.relative, equal.decibels) == (0, None)


def test_the_rule_for_outliers_literally():
    errors = [0.01, 0.02, 0.01, 0.04, 0.01, 0.005, 0.02]
    logs = np.log10(errors)
    middle = np.median(logs)
    sigma = 1.4826 * np.median(np.abs(logs - middle))
    median, bound = bound_of(errors)
    assert median == pytest.approx(10**middle)
    assert bound == pytest.approx(10 ** (middle + max(4 * sigma, np.log10(4.5))))
    # Exact steps between the quantisers do not count; an infinite error neither.
    assert bound_of([*errors, *[1e-7] * 20, math.inf]) == pytest.approx((median, bound))
    # One or two among exact ones are not common noise.
    assert bound_of([0.0, 1e-9, 0.5]) == pytest.approx((1e-4, 4.5e-4))
    assert bound_of([0.5] * 3 + [0.0] * 13) == pytest.approx((1e-4, 4.5e-4))


def test_levels_round_and_saturate():
    node = Node(0, "q", "", "QuantizeLinear", ("x", "s", "z"), ("y",), {})
    levels = Levels(node, np.array(0.5), np.array(10.0), 0, 255)
    real = np.array([-100, -5.1, 0, 0.25, 0.75, 200], np.float32)
    assert levels.write(real).tolist() == [0, 0, 10, 10, 12, 255]
    assert levels.read(np.array([0, 10, 255], np.uint8)).tolist() == [-5, 0, 122.5]
    form = Form(3, levels)
    value = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(1, 2, 3, 4)
    assert form.read(value).shape == (1, 4, 2, 3)
    assert np.array_equal(form.write(form.read(value)), value)


def test_networks_that_cannot_be_aligned_are_compared_all_the_same():
    found = compare(SAMPLES / "zfnet.onnx", SAMPLES / "resnet20.onnx", FEW, worst=1)
    assert not found.parting.layers
    assert "5 layers against 19" in found.parting.sentence
    assert len(found.images) == 3
    assert json.dumps(found.to_dict()["parting"]["aligned"]) == "false"


def test_two_trainings_differ_throughout():
    found = compare(SAMPLES / "zfnet.onnx", SAMPLES / "zfnet_snapshots/zfnet_epoch_001.onnx", FEW)
    assert found.parting.first is None
    assert "differ throughout" in found.parting.sentence


# -- images, targets, gates ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def flipped(zfnet8, folder):
    bad = changed(zfnet8, folder / "flips.onnx", relu_2_zero_point=moved(60))
    return compare(SAMPLES / "zfnet.onnx", bad, PHOTOS)


def test_a_flip_is_compared_for_both_targets(flipped):
    assert flipped.flips
    for image in flipped.images:
        a, b = image.predictions
        assert image.flip == (a["index"] != b["index"])
        assert [pair.role for pair in image.maps] == (["a", "b"] if image.flip else ["a"])
        assert image.maps[0].label == a["label"]
        assert image.maps[0].probabilities[0] == pytest.approx(a["probability"])
        assert image.maps[-1].label == b["label"]
        assert image.maps[-1].probabilities[1] == pytest.approx(b["probability"])


def test_probabilities_are_the_softmax_of_the_scores(flipped):
    image = flipped.flips[0]
    model = inspector.load(SAMPLES / "zfnet.onnx")
    photo = next(path for path in PHOTOS if path.name == image.name)
    x = model.preprocessing.preprocess.apply(inspector.load_photo(photo))[0][None]
    scores = model.forward(x, [model.scores.tensor])[model.scores.tensor][0].astype(np.float64)
    softmax = np.exp(scores) / np.exp(scores).sum()
    own = image.maps[-1]
    assert own.probabilities[0] == pytest.approx(softmax[image.predictions[1]["index"]], rel=1e-4)


def test_gates(flipped):
    flips = len(flipped.flips)
    assert not Gates().failures(flipped.images)
    assert not Gates(max_flips=flips).failures(flipped.images)
    (text,) = Gates(max_flips=flips - 1).failures(flipped.images)
    assert text.startswith(f"{flips} of 10 predictions flip")
    worst = min(pair.similarity.rank for pair in flipped.pairs)
    assert not Gates(min_rank=worst).failures(flipped.images)
    (text,) = Gates(min_rank=worst + 1e-9).failures(flipped.images)
    assert "in 1 map(s)" in text
    assert len(Gates(min_iou=1, min_rank=1, max_flips=0).failures(flipped.images)) == 3


def test_the_sheet_shows_each_photo_once_and_flips_first(flipped):
    assert len(flipped.cases) == 6
    names = [case.title.partition(":")[0] for case in flipped.cases]
    assert len(set(names)) == 6
    flips = [bool(case.alarm) for case in flipped.cases]
    assert flips == sorted(flips, reverse=True)
    sheet = flipped.sheet()
    assert sheet.width > 800
    assert all(panel.size == (224, 224) for panel in flipped.cases[0].panels)


def test_saved_reports_are_equal_and_complete(zfnet8, tmp_path):
    texts = []
    for folder in ("one", "two"):
        found = compare(SAMPLES / "zfnet.onnx", zfnet8, FEW, worst=1)
        written = found.save(tmp_path / folder)
        assert [path.name for path in written] == ["comparison.png", "comparison.json"]
        texts.append(written[-1].read_text())
    assert texts[0] == texts[1]
    report = json.loads(texts[0])
    assert {report[side]["model"]["name"] for side in "ab"} == {"zfnet.onnx", zfnet8.name}
    assert all(len(report[side]["model"]["sha256"]) == 64 for side in "ab")
    assert report["versions"]["onnx"]
    assert report["options"]["methods"] == ["grad-cam"]
    assert report["images"][0]["maps"][0]["rank_correlation"] > 0.9


def test_bad_photos_are_listed_and_the_others_done(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    model = inspector.load(SAMPLES / "resnet20.onnx")
    found = compare(
        model, model, iter([broken, FEW[0], tmp_path / "none.png"]), "cam", layer_images=0
    )
    assert len(found.refused) == 2
    assert [image.name for image in found.images] == [FEW[0].name]
    assert found.parting.sentence == ""
    with pytest.raises(ImageRefused):
        compare(model, model, broken, "cam")
    with pytest.raises(UsageError, match="no image"):
        compare(model, model, [], "cam")


def test_networks_of_other_tasks_are_refused(tmp_path):
    onnx.save(nets(last=False, weights=drawn()), tmp_path / "five.onnx")
    with pytest.raises(UsageError, match="10 classes against 5"):
        compare(SAMPLES / "zfnet.onnx", tmp_path / "five.onnx", FEW)


def test_classes_in_another_order_are_matched_by_their_labels(tmp_path):
    model = onnx.load(SAMPLES / "zfnet.onnx")  # noqa: TID251 - our own file
    names = inspector.load(SAMPLES / "zfnet.onnx").class_labels.names
    order = np.roll(np.arange(10), 3)
    for tensor in model.graph.initializer:
        if tensor.name in ("20.weight", "20.bias"):
            array = numpy_helper.to_array(tensor)
            array = array[order] if array.shape[0] == 10 else array[:, order]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    onnx.save(model, tmp_path / "rolled.onnx")
    other = inspector.load(tmp_path / "rolled.onnx", labels=[names[i] for i in order])
    found = compare(SAMPLES / "zfnet.onnx", other, FEW)
    assert not found.flips
    assert min(pair.similarity.rank for pair in found.pairs) > 0.9999
    assert any("another order" in text for text in found.warnings)


def test_a_layer_of_a_alone_takes_its_counterpart(zfnet8):
    found = compare(SAMPLES / "zfnet.onnx", zfnet8, FEW[:1], layer_a="relu_3", worst=0)
    assert found.pairs[0].layers == ("relu_3", "relu_3_DequantizeLinear_Output")
    with pytest.raises(UsageError, match="of B alone"):
        compare(SAMPLES / "zfnet.onnx", zfnet8, FEW[:1], layer_b="relu_3")
    with pytest.raises(UsageError, match="no counterpart"):
        compare(SAMPLES / "zfnet.onnx", SAMPLES / "resnet20.onnx", FEW[:1], layer_a="relu_3")


def test_preprocessing_that_one_does_not_tell_is_the_others(tmp_path):
    model = onnx.load(SAMPLES / "zfnet.onnx")  # noqa: TID251 - our own file
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "mute.onnx")
    found = compare(SAMPLES / "zfnet.onnx", tmp_path / "mute.onnx", FEW[:1], worst=0)
    assert found.warnings[0] == "B does not tell its preprocessing: that of A is used"
    assert found.pairs[0].similarity.rank == pytest.approx(1)
    assert found.images[0].predictions[1]["label"] == found.images[0].predictions[0]["label"]

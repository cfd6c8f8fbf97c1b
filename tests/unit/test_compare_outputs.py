"""Outputs of two networks: errors, their intervals, the noise band, the verdict, ways to run."""

import math

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper as oh

import inspector
from inspector.compare import compare, compare_executions
from inspector.compare.noise import FLOOR, NoiseMeter, jittered
from inspector.compare.outputs import OutputPair, pair_outputs, require_outputs, sums_of
from inspector.engines.execution import Execution, parse_executions
from inspector.errors import MethodRefused, UsageError
from inspector.measures.signal_error import EQUAL_DB, METRICS, Sums, error_statistics

RNG = np.random.default_rng(5)
WEIGHTS = {
    "W": RNG.normal(size=(6, 3, 3, 3)).astype(np.float32),
    "V": RNG.normal(size=(6, 4)).astype(np.float32),
}


def network(path, *, image="image", scores="scores", extra=(), weights=WEIGHTS, channels=3):
    """A convolution, mean and a matrix, for 8 x 8 pixels; more nodes and outputs in ``extra``."""
    nodes = [
        oh.make_node("Conv", [image, "W"], ["conv"], pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["conv"], ["relu"]),
        oh.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        oh.make_node("Flatten", ["mean"], ["flat"]),
        oh.make_node("Gemm", ["flat", "V"], [scores]),
        *(node for node, _ in extra),
    ]
    outputs = {scores: [None, 4]} | dict(shape for _, shape in extra)
    onnx.save(onnx_model(nodes, {image: [None, channels, 8, 8]}, outputs, weights), path)
    return inspector.load(path, preprocess="unit")


def photos(count=3):
    rng = np.random.default_rng(1)
    return [
        inspector.Photo.of(p, f"{i}.png")
        for i, p in enumerate(rng.integers(0, 256, (count, 8, 8, 3), np.uint8))
    ]


def changed(factor):
    return WEIGHTS | {"W": WEIGHTS["W"] * np.float32(factor)}


def test_errors_literally():
    x, y = RNG.normal(size=(2, 12, 7, 11))
    rows = []
    for a, b in zip(x, y, strict=True):
        rows.append(Sums())
        rows[-1].add(a, b)
    found = error_statistics(rows, seed=3)
    noise = ((y - x) ** 2).sum()
    wanted = {
        "sqnr": 10 * math.log10((x**2).sum() / noise),
        "psnr": 10 * math.log10((x.max() - x.min()) ** 2 / ((y - x) ** 2).mean()),
        "cosine": float((x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)),
        "mse": ((y - x) ** 2).mean(),
        "max_abs": np.abs(y - x).max(),
    }
    assert {name: found[name]["value"] for name in METRICS} == pytest.approx(wanted)
    for name in METRICS:
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert found[name]["photos"] == 12
    assert found["sqnr"]["low"] != error_statistics(rows, seed=4)["sqnr"]["low"]
    bare = error_statistics(rows, seed=3, intervals=False)
    assert bare["mse"]["low"] is None
    assert bare["mse"]["value"] == found["mse"]["value"]


def test_errors_of_equal_empty_and_infinite_signals():
    equal, broken = Sums(), Sums()
    equal.add(np.ones(3), np.ones(3))
    assert error_statistics([equal], seed=0)["sqnr"]["value"] == EQUAL_DB
    broken.add(np.ones(3), np.array([1, np.nan, 1]))
    assert error_statistics([equal, broken], seed=0) == dict.fromkeys(METRICS)
    assert error_statistics([], seed=0) == dict.fromkeys(METRICS)
    pair = OutputPair("y", "y")
    masked = sums_of(pair, np.array([1, -np.inf]), np.array([1, -np.inf]))
    assert (masked.finite, masked.difference) == (True, 0)
    assert not sums_of(pair, np.array([1.0, 2]), np.array([1, -np.inf])).finite
    whole = OutputPair("y", "y", whole=True)
    assert sums_of(whole, np.arange(4), np.array([0, 1, 2, 9])).difference == 1


def test_jitter_is_one_unit_in_the_last_place():
    values = np.array([[1.0, -2.0, 0.1]], np.float32)
    moved = jittered(values, 0)
    assert np.all(np.abs(moved - values) <= np.spacing(np.abs(values)))
    assert np.all(moved != values)
    assert np.array_equal(moved, jittered(values, 0))


def test_a_network_is_itself_within_noise_and_another_is_not(tmp_path):
    a = network(tmp_path / "a.onnx")
    same = compare(a, a, photos(), worst=0)
    assert same.moved is False
    assert same.sentence.startswith("B is A within float32 noise: output scores is equal")
    assert same.outputs[0].band >= FLOOR
    assert set(same.noise.outputs["scores"]) == {"threads", "batch", "jitter"}
    assert same.noise.outputs["scores"]["jitter"] > 0
    b = network(tmp_path / "b.onnx", weights=changed(1.001))
    found = compare(a, b, photos(), worst=0)
    assert found.moved is True
    (one,) = found.outputs
    assert one.relative == pytest.approx(0.001, rel=1e-2)
    assert one.statistics["sqnr"]["value"] == pytest.approx(60, abs=0.1)
    assert "B differs from A beyond float32 noise" in found.sentence
    assert found.sentence.endswith("the first layer that parts: conv")
    numbers = found.document()["numbers"]
    assert numbers["moved"] == 1
    assert numbers["layers_apart"] == 1
    assert numbers["flip_rate"]["value"] == 0
    assert numbers["flip_rate"]["high"] > 0
    assert numbers["output"]["scores"]["sqnr"] == numbers["sqnr"]
    quiet = compare(a, b, photos(1), worst=0, noise_images=0, layer_images=0)
    assert quiet.moved is None
    assert "noise not measured" in quiet.sentence


def test_what_the_last_place_moves_is_noise(tmp_path):
    """Weights moved by one unit in the last place: another file, and the same network."""
    a = network(tmp_path / "a.onnx")
    b = network(tmp_path / "b.onnx", weights=WEIGHTS | {"W": jittered(WEIGHTS["W"], 9)})
    found = compare(a, b, photos(), worst=0)
    assert found.outputs[0].relative > 0
    assert found.moved is False


def test_outputs_are_paired_by_name_then_by_place(tmp_path):
    again = (oh.make_node("Identity", ["relu"], ["maps"]), ("maps", [None, 6, 8, 8]))
    a = network(tmp_path / "a.onnx", extra=[again])
    b = network(tmp_path / "b.onnx", scores="logits")
    blank = np.zeros((1, 3, 8, 8), np.float32)
    assert pair_outputs(a, b, (blank, blank)) == ()
    assert [p.a for p in pair_outputs(a, a, (blank, blank))] == ["scores", "maps"]
    plain = network(tmp_path / "c.onnx")
    assert pair_outputs(plain, b, (blank, blank)) == (OutputPair("scores", "logits"),)
    with pytest.raises(UsageError, match="no output in common: scores, maps against logits"):
        require_outputs(a, b, ())


def test_an_output_that_is_not_finite_moved(tmp_path):
    a = network(tmp_path / "a.onnx")
    log = (oh.make_node("Log", ["conv"], ["logs"]), ("logs", [None, 6, 8, 8]))
    soft = (oh.make_node("Abs", ["conv"], ["logs"]), ("logs", [None, 6, 8, 8]))
    left, right = (network(tmp_path / f"{i}.onnx", extra=[e]) for i, e in enumerate((soft, log)))
    found = compare(left, right, photos(1), "cam", worst=0, layer_images=0)
    logs = next(one for one in found.outputs if one.pair.a == "logs")
    assert logs.moved is True
    assert found.document()["outputs"][1]["finite"] is False
    assert "output logs" in found.sentence
    assert "not finite" in found.sentence
    assert compare(a, a, photos(1), worst=0).moved is False


def test_noise_of_what_takes_one_image_at_a_time(tmp_path):
    a = network(tmp_path / "a.onnx")
    meter = NoiseMeter(a, [OutputPair("scores", "scores")])
    assert meter.result().photos == 0
    a.model.runtime.batches = False
    photo = photos(1)[0]
    meter.add((photo, *a.preprocessing.preprocess.apply(photo)), None)
    found = meter.result()
    assert "one image at a time" in found.left_out["batch"]
    assert set(found.outputs["scores"]) == {"threads", "jitter"}


def test_where_the_usual_maps_are_refused_all_else_is_compared(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise MethodRefused("grad-cam: the twin fails")

    a, b = network(tmp_path / "a.onnx"), network(tmp_path / "b.onnx", weights=changed(1.5))
    monkeypatch.setattr(b, "require_certificate", refuse)
    found = compare(a, b, photos(2))
    assert found.warnings == ("maps are not compared: grad-cam: the twin fails",)
    assert [image.maps for image in found.images] == [(), ()]
    assert found.numbers()["flip_rate"]["value"] == 0
    assert found.sentence.endswith("the first layer that parts: conv")
    assert found.document()["a"]["model"]["name"] == "a.onnx"
    with pytest.raises(MethodRefused):
        compare(a, b, photos(1), "grad-cam")


# -- ways to run one file ------------------------------------------------------------------------


def test_ways_to_run_are_read():
    found = parse_executions("cpu, CUDAExecutionProvider+threads=3+plain,openvino+float16")
    assert [one.provider for one in found] == [
        "CPUExecutionProvider",
        "CUDAExecutionProvider",
        "OpenVINOExecutionProvider",
    ]
    assert (found[1].threads, found[1].optimise, found[2].half) == (3, False, True)
    assert Execution.parse("NewExecutionProvider").provider == "NewExecutionProvider"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu", "fewer than two"),
        ("cpu,cpu", "fewer than two"),
        ("", "fewer than two"),
        ("cpu,cudda", "no execution provider 'cudda'"),
        ("cpu,cpu+threads=0", "'0' threads"),
        ("cpu,cpu+threads=" + "9" * 5000, "threads"),
        ("cpu,cpu+fast", "no setting 'fast'"),
    ],
)
def test_ways_that_are_none_are_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parse_executions(text)


def test_a_provider_that_is_not_installed_is_refused_before_any_work():
    with pytest.raises(
        UsageError, match=r"has no QNNExecutionProvider; it has .*CPUExecution"
    ) as no:
        compare_executions("no such file.onnx", "cpu,qnn", [])
    assert "onnxruntime-qnn" in no.value.hint


def test_a_model_with_another_input_is_run_in_other_ways_too(tmp_path):
    scaled = oh.make_node("Mul", ["scores", "gain"], ["scaled"])
    nodes = [*onnx.load_model(network(tmp_path / "a.onnx").path).graph.node, scaled]
    inputs = {"image": [None, 3, 8, 8], "gain": [1]}
    onnx.save(onnx_model(nodes, inputs, {"scaled": [None, 4]}, WEIGHTS), tmp_path / "fed.onnx")
    model = inspector.load(tmp_path / "fed.onnx", preprocess="unit", feed={"gain": 2.0})
    ways = compare_executions(model, "cpu,cpu+plain,cpu+float16", photos(1), worst=0)
    assert [one.moved for one in ways] == [False, True]
    assert all("gain" in str(one.contexts[1]["model"]["fed"]) for one in ways)


def test_one_file_in_several_ways(tmp_path):
    model = network(tmp_path / "a.onnx")
    plain, half = compare_executions(model, "cpu,cpu+plain+threads=1,cpu+float16", photos(2))
    assert (plain.name, half.name) == ("comparison.cpu-plain-threads-1", "comparison.cpu-float16")
    assert plain.titles == ("a.onnx, on cpu", "a.onnx, on cpu+plain+threads=1")
    assert plain.moved is False
    assert half.moved is True
    assert 40 < half.numbers()["sqnr"]["value"] < 90
    assert half.titles[1] == "a.float16.onnx, on cpu+float16"
    (one,) = compare_executions(model, "cpu,cpu+threads=1", photos(1), worst=0)
    assert one.name == "comparison"
    assert one.contexts[1]["execution"] == "cpu+threads=1"

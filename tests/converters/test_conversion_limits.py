"""What is accepted of a conversion depends on the kind of inputs, and is measured on that kind."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import node, onnx_model

from converters import conversion
from converters.conversion import Trial, convert
from converters.conversion.child import _run
from converters.conversion.inputs import further_inputs, kind_of, trial_inputs
from converters.conversion.limits import drift, limits
from converters.errors import ConversionFailed
from converters.source import Export, InputSpec

SPEC = InputSpec("x", (None, 3, 16, 16))


class Served:
    """A sandbox without a process: a source that is a function, and the file that is its draft."""

    export, model, asked = None, None, []

    def __init__(self, folder, **_):
        self.folder = folder

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, request):
        if "convert" in request:
            onnx.save(self.model, request["draft"])
            return self.export.to_dict()
        if request["kernels"]:
            with np.load(request["run"]) as stored:
                self.asked.append(rough(stored["0000"]))
        return _run(self.export, request)


def rough(images):
    """Whether neighbouring pixels have nothing in common, as in random inputs."""
    return bool(np.abs(np.diff(images, axis=-1)).mean() > 0.9 * images.std())


def test_the_kinds_are_told_apart_here_as_there():
    for inputs in (trial_inputs([SPEC]), further_inputs([SPEC])):
        kinds = {name: rough(arrays[0]) for name, arrays in inputs.items()}
        assert kinds == {name: kind_of(name) == "random" for name in inputs}


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """Convert what is a TFLite file by its mark, and the given functions in truth."""
    source = tmp_path / "net.tflite"
    source.write_bytes(bytes(4) + b"TFL3" + bytes(8))
    monkeypatch.setattr(conversion, "Sandbox", Served)

    def call(model, run, kernels=None, **given):
        Served.asked, Served.model = [], model
        Served.export = Export((SPEC,), run, quantised=kernels is not None, kernels=kernels)
        return convert(str(source), tmp_path / "m.onnx", **given)

    return call


def off(on_random, on_images):
    """The mean of each channel, off by a share that depends on the kind of inputs."""

    def run(arrays):
        (images,) = arrays
        return [images.mean((2, 3)) * np.float32(1 + (on_random if rough(images) else on_images))]

    return run


MEANS = onnx_model(
    [node("ReduceMean", "x", "y", axes=[2, 3], keepdims=0)],
    {"x": ["n", 3, 16, 16]},
    {"y": ["n", 3]},
)


@pytest.mark.parametrize(
    ("file", "kernels", "further"),
    [
        ((0.25, 0.01), (0.6, 0.02), [True] * 12),
        ((0.01, 0.25), (0.02, 0.6), [False] * 12),
        ((0.05, 0.05), (0.02, 0.02), []),
    ],
    ids=["random", "photo-like", "usual"],
)
def test_inputs_are_judged_by_the_kernels_on_inputs_of_their_kind(
    converted, file, kernels, further
):
    record = converted(MEANS, off(*file), off(*kernels))
    assert record.worst == pytest.approx(max(file) / (1 + max(file)), rel=0.05)
    parted = [abs(k - f) / (1 + f) for f, k in zip(file, kernels, strict=True)]
    for trial in record.trials:
        own = parted[0 if trial.kind == "random" else 1]
        assert trial.limit == pytest.approx(max(0.1, own), rel=0.01)
    assert Served.asked[3:] == further  # of the kind alone on which the file differs
    said = {kind: float(n) for n, kind in re.findall(r"(\S+) on (photo-like|random)", str(record))}
    assert said["random"] == pytest.approx(parted[0], rel=0.06)
    assert said["photo-like"] == pytest.approx(parted[1], rel=0.06)


@pytest.mark.parametrize(
    ("file", "kernels"),
    [((0.25, 0.01), (0.25, 0.4)), ((0.01, 0.25), (0.4, 0.25))],
    ids=["random", "photo-like"],
)
def test_kernels_that_part_on_the_other_kind_excuse_nothing(converted, file, kernels):
    with pytest.raises(ConversionFailed, match="computes something else") as caught:
        converted(MEANS, off(*file), off(*kernels))
    assert "at most 0.1 is accepted on such inputs" in caught.value.hint


HALVES = onnx_model(
    [
        node("Cast", "x", "half", to=onnx.TensorProto.FLOAT16),
        node("Cast", "half", "float", to=onnx.TensorProto.FLOAT),
        node("ReduceMean", "float", "y", axes=[2, 3], keepdims=0),
    ],
    {"x": ["n", 3, 16, 16]},
    {"y": ["n", 3]},
)


def test_a_source_that_computes_in_float16_is_judged_by_its_rounding(converted):
    """Eight times 2**-11; what computes in float32 has no such excuse."""
    assert converted(HALVES, off(2e-3, 2e-3)).trials[0].limit == 2**-8
    with pytest.raises(ConversionFailed, match="computes something else"):
        converted(HALVES, off(0.01, 0.01))
    with pytest.raises(ConversionFailed, match="computes something else"):
        converted(MEANS, off(2e-3, 2e-3))


def test_the_sensitivity_of_a_network_is_measured_by_kind_too(converted):
    """A network of two axes has no photos, and amplifies rounding all the same."""

    def amplified(share):
        def run(arrays):
            (images,) = arrays
            noise = np.modf(images.astype(np.float64).sum((2, 3)) * 1e4)[0]
            return [(images.mean((2, 3)) + share * noise).astype(np.float32)]

        return run

    record = converted(MEANS, amplified(2e-4))
    kinds = {t.kind: t.limit for t in record.trials}
    assert min(kinds.values()) > 1e-4
    found = limits([], [Trial("random", 1, 3e-5, 0.0, None)], quantised=False)
    assert (found["random"].worst, found["photo-like"].worst) == (pytest.approx(3e-4), 1e-4)


# -- spoilt files ---------------------------------------------------------------------------------

DEPTH, WIDTH = 8, 16


def levels(seed, most=0.2, **spoilt):
    """A deep network of 8 bits, whose roundings are off by part of a level, as kernels' are.

    ``spoilt`` is one of zero, bias, relu, axis, with the layer that it is done to.
    """
    generator, rounding = np.random.default_rng(5), np.random.default_rng(seed)
    nodes, constants = [], {}
    last, before, scale = "x", 3, np.float32(0.4)
    for layer in range(DEPTH):
        kernel = generator.normal(0, (4 / before / 9) ** 0.5, (WIDTH, before, 3, 3))
        bias = generator.normal(0, 1.0, WIDTH)
        part = rounding.uniform(-most, most, WIDTH) * scale
        zero = read = -128
        if spoilt.get("axis") == layer:
            kernel = kernel.transpose(0, 1, 3, 2)
        if spoilt.get("bias") == layer:
            bias = bias * 0
        if spoilt.get("zero") == layer:
            read = -122
        if spoilt.get("relu") == layer:
            zero = read = -60
        constants |= {
            f"w{layer}": kernel.astype(np.float32),
            f"b{layer}": (bias + part).astype(np.float32),
            f"s{layer}": scale,
            f"z{layer}": np.int8(zero),
            f"r{layer}": np.int8(read),
        }
        stride = 2 if layer < 2 else 1
        nodes += [
            node(
                "Conv", f"{last} w{layer} b{layer}", f"y{layer}", pads=[1] * 4, strides=[stride] * 2
            ),
            node("QuantizeLinear", f"y{layer} s{layer} z{layer}", f"q{layer}"),
            node("DequantizeLinear", f"q{layer} s{layer} r{layer}", f"d{layer}"),
        ]
        last, before = f"d{layer}", WIDTH
    constants["head"] = generator.normal(0, 0.5, (WIDTH * 16, 6)).astype(np.float32)
    nodes += [node("Flatten", last, "flat"), node("MatMul", "flat head", "scores")]
    return onnx_model(nodes, {"x": ["n", 3, 16, 16]}, {"scores": ["n", 6]}, constants)


def ran(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda arrays: session.run(None, {"x": arrays[0]})


@pytest.fixture(scope="module")
def kernels():
    return ran(levels(0)), ran(levels(1, 0.45))


def test_a_file_that_rounds_otherwise_is_accepted(converted, kernels):
    record = converted(levels(2), *kernels)
    assert record.spread > 0.1
    assert record.worst <= 0.1


@pytest.mark.parametrize("layer", [1, 4])
@pytest.mark.parametrize("spoilt", ["zero", "bias", "relu", "axis"])
def test_a_spoilt_file_is_refused_where_kernels_part_far(converted, kernels, spoilt, layer):
    with pytest.raises(ConversionFailed, match=r"computes something else|bias was lost"):
        converted(levels(2, **{spoilt: layer}), *kernels)


def test_a_mean_difference_that_kernels_do_not_make():
    """Within the largest difference of a few inputs, which one bad place makes."""
    own = [Trial(f"random {n}", 1, 0.3, 0.01, 1.0) for n in range(12)]
    own += [Trial(f"photo {n}", 1, 0.05, 0.001, 1.0) for n in range(4)]
    assert drift([Trial("random 1", 1, 0.25, 0.012, 1.0)], own) == ""
    assert "on random inputs" in drift([Trial("random 1", 1, 0.25, 0.02, 1.0)], own)
    assert drift([Trial("random 1", 1, 0.09, 0.02, 1.0)], own) == ""  # within what is usual
    assert drift([Trial("random 1", 1, 0.25, 0.02, 1.0)], []) == ""  # refused by its value
    own[1] = Trial("random 1", 1, 0.3, 0.02, 1.0)  # on this very input they part further
    assert drift([Trial("random 1", 1, 0.25, 0.02, 1.0)], own) == ""

"""Maps of quantised networks against those of the float networks they were made from.

    python -m pytest tests/conformance/test_quantised.py

prints one table of all figures: the mean cosine of input gradients with the float network's, the
mean correlation of maps, the agreement of the twin's classes with ONNX Runtime's.  The line
"weights rounded only" is the ceiling: what is lost before any activation is quantised.
"""

import contextlib
import io

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationMethod, QuantType
from quantised import INPUT_METHODS, MAPS, cifar, figures, quantised, without_pairs
from references import SAMPLES, SHARED, prepared

from inspector.explain import load

pytestmark = pytest.mark.conformance

IMAGES = 40
COLUMNS = (*INPUT_METHODS, *MAPS, "top-1")
ALIKE = {
    "guided-backprop": 0.98,
    "deconvnet": 0.96,
    "grad-cam": 0.99,
    "grad-cam++": 0.99,
    "top-1": 0.99,
}
CASES = [
    ("resnet20", "asymmetric", 0.90),
    ("resnet20", "symmetric", 0.84),
    ("zfnet", "asymmetric", 0.95),
    ("zfnet", "symmetric", 0.91),
    ("all_cnn_c", "asymmetric", 0.97),
    ("all_cnn_c", "symmetric", 0.93),
    ("resnet20", "QOperator", 0.90),
    ("zfnet", "QOperator", 0.95),
    ("resnet20", "dynamic", 0.90),
    ("resnet20", "int16", 0.97),
    ("resnet20", "dedicated pairs", 0.90),
    ("resnet20", "moving average", 0.90),
]


@pytest.fixture(scope="module")
def table(request):
    """Rows of figures, printed as one table when all are there."""
    rows: dict[str, dict[str, float]] = {}
    yield rows
    plugins = request.config.pluginmanager
    reporter, capture = map(plugins.get_plugin, ("terminalreporter", "capturemanager"))
    with capture.global_and_fixture_disabled():
        reporter.write_line("")
        heading = (column.rjust(15) for column in COLUMNS)
        reporter.write_line(" ".join(["quantised network".ljust(40), *heading]))
        for name, row in rows.items():
            cells = (f"{row[c]:15.4f}" if c in row else " " * 15 for c in COLUMNS)
            reporter.write_line(" ".join([name.ljust(40), *cells]))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Maps this small lose more by sharing threads than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantised")


@pytest.fixture(scope="module")
def images():
    return cifar()


def check(row, bars):
    short = {name: (row[name], bar) for name, bar in bars.items() if not row[name] >= bar}
    assert not short, f"below their bars: {short}"


@pytest.mark.parametrize(("name", "setting", "gradient"), CASES)
def test_sample_networks(table, folder, images, name, setting, gradient):
    path = quantised(SAMPLES / f"{name}.onnx", folder, setting, images[100:200])
    row = figures(SAMPLES / f"{name}.onnx", path, images[: 10 * IMAGES : 10], judged=images[::2])
    table[f"{name}, {setting}"] = row
    if setting == "asymmetric":
        rounded = without_pairs(path, folder / f"{name}.rounded.onnx")
        table[f"{name}, weights rounded only"] = figures(
            SAMPLES / f"{name}.onnx",
            rounded,
            images[: 10 * IMAGES : 10],
            judged=images[:40],
            methods=("gradient",),
        )
        assert table[f"{name}, weights rounded only"]["gradient"] >= row["gradient"] - 0.01
    check(row, {"gradient": gradient, **ALIKE})


@pytest.fixture(scope="module")
def photos(shared):
    return sorted((shared / "photos" / "classified").glob("*.JPEG"))


def test_efficientnet_lite0(table, folder, lite0, photos):
    """Depthwise convolutions are unstable under rounding by themselves: see the ceiling."""
    model = load(lite0.path, device="cpu")
    tensors = np.concatenate([prepared(model, photo) for photo in photos[:48]])
    path = quantised(lite0.path, folder, "asymmetric", tensors[8:])
    row = figures(lite0.path, path, tensors[:8])
    table["efficientnet-lite0, asymmetric"] = row
    rounded = without_pairs(path, folder / "lite0.rounded.onnx")
    table["efficientnet-lite0, weights rounded only"] = figures(
        lite0.path, rounded, tensors[:8], methods=("gradient",)
    )
    check(
        row,
        {
            "gradient": 0.45,
            "guided-backprop": 0.88,
            "grad-cam": 0.97,
            "grad-cam++": 0.97,
            "top-1": 0.99,
        },
    )


def test_published_mobilenet_against_its_own_float_network(table, folder, photos):
    path = SHARED / "zoo" / "mobilenetv2_qdq_int8_244.onnx"
    model = load(path, device="cpu", preprocess="imagenet")
    tensors = np.concatenate([prepared(model, photo) for photo in photos[::4]])
    whole = without_pairs(path, folder / "mobilenet.float.onnx")
    row = figures(
        whole, path, tensors, methods=("guided-backprop", "deconvnet"), preprocess="imagenet"
    )
    table["mobilenetv2 of the zoo, pairs stripped"] = row
    check(row, {"guided-backprop": 0.90, "deconvnet": 0.99, "top-1": 0.99})


# -- networks that have lost their activation functions --------------------------------------------


def relu_outputs(folder):
    graph = onnx.load_model(folder / "resnet20.prepared.onnx").graph
    return [node.output[0] for node in graph.node if node.op_type == "Relu"]


def notes_of(path, method="grad-cam"):
    model = load(path, device="cpu")
    photo = np.asarray(np.load(SAMPLES / "cifar10_sample.npz")["x"][0])
    (image,) = model.explain(photo, method).images
    return " ".join(image.explanations[0].heatmap.attribution.notes), model


@pytest.mark.parametrize("kind", ["distribution", "overrides"])
def test_lost_activation_functions_are_warned_about(folder, images, kind):
    quantised(SAMPLES / "resnet20.onnx", folder, "asymmetric", images[100:120])
    if kind == "distribution":
        changes = {"calibrate_method": CalibrationMethod.Distribution}
        wanted = 19
    else:
        tensors = relu_outputs(folder)[3:6]
        options = {"TensorQuantOverrides": {name: [{"symmetric": True}] for name in tensors}}
        changes = {
            "activation_type": QuantType.QInt8,
            "extra_options": options,
        }
        wanted = 3
    with contextlib.redirect_stdout(io.StringIO()):  # the calibration prints its histogram
        path = quantised(
            SAMPLES / "resnet20.onnx", folder, "asymmetric", images[100:200], **changes
        )
    for method in ("grad-cam", "guided-backprop"):
        notes, model = notes_of(path, method)
        assert f"lost activation functions at {wanted} places" in notes
        assert len(model.model.suspicions) == wanted
    if kind == "distribution":
        assert "of its values are negative" in notes_of(path)[0]


@pytest.mark.parametrize("setting", ["asymmetric", "symmetric", "QOperator", "dynamic"])
def test_sound_networks_are_not(folder, images, setting):
    path = quantised(SAMPLES / "resnet20.onnx", folder, setting, images[100:120])
    notes, model = notes_of(path)
    assert model.model.suspicions == ()
    assert "lost" not in notes

"""Every tensor of real models: the twin against ONNX Runtime with all optimisations off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision_networks as networks
from onnx import numpy_helper
from PIL import Image, ImageDraw, ImageFont
from references import SAMPLES, SHARED, prepared, runtime_tensors, widened

from converters import onnx_file
from converters.parity import compare
from converters.to_torch.program import Program
from inspector.explain import load

pytestmark = pytest.mark.conformance

TOLERANCE = 1e-4

DEEP = {"inception_v3": 2e-4}
"""Behind 94 normalisations of random weights, which are left unfolded, float32 alone makes up to
1.2e-4 of a tensor's peak, by the order in which a processor adds."""
"""Of each tensor's peak."""

# The int8 files of the zoo, whose twin the quantised issue brings.
QUANTISED = {"mobilenetv2_qdq_int8_244", "conv_qdq_external_ini", "qdq_conv_perchannel"}
ZOO = sorted(p.stem for p in (SHARED / "zoo").glob("*.onnx") if p.stem not in QUANTISED)
# Inputs by name where a photo through `load` does not serve: free sizes, or no picture at all.
SIZES = {"paddle_ocr_cls": (48, 192), "paddle_ocr_det": (160, 256)}
READERS = tuple(SIZES)  # of text: on a photo without any, their outputs are zero everywhere
FLOAT16 = "winml_squeezenet_fp16_opset7"
# One of its five classes is in this photo: elsewhere its sigmoids are at 1e-6, where ONNX Runtime
# approximates them with an absolute error.
PHOTOS = {"customvision_computer_mltools": "boxed/000000000164.jpg"}
STYLE = "mltools_style_transfer"

NOT_COMPARED = {
    # A Dropout mask is undefined for inference, and ONNX Runtime leaves it uninitialised.
    ("Dropout", 1),
}


def not_compared(graph, reference):
    """Tensors left out: see ``NOT_COMPARED``; and class names, which are not numbers.

    ZipMap makes a list of dictionaries, and other classifiers of that time tensors of strings.
    """
    words = {n for n, v in reference.items() if not (isinstance(v, np.ndarray) and v.dtype != "O")}
    return words | {
        name
        for node in graph.nodes
        for position, name in enumerate(node.outputs)
        if (node.op_type, position) in NOT_COMPARED
    }


def every_tensor(proto, feeds, graph, *, tolerance=TOLERANCE, reference=None):
    """Compare all tensors of a model; return how many."""
    program = Program(graph)
    given = {
        k: torch.from_numpy(v.astype(np.float32) if v.dtype == np.float16 else v)
        for k, v in feeds.items()
    }
    reference = reference or runtime_tensors(proto, feeds)
    left_out = not_compared(graph, reference)
    names = [name for name in graph.tensors if name not in left_out]
    with torch.no_grad():
        found = program.run(given, names)
    arrays = {name: value.numpy() for name, value in found.items()}
    parity = compare(reference, arrays, names, tolerance=tolerance)
    assert parity.holds, str(parity)
    peaks = [t.peak for t in parity.tensors if len(t.reference) == 4]
    assert np.mean(np.greater(peaks, 0)) > 0.8, "too many maps are zero to prove anything"
    return len(names)


def text():
    """A picture of words."""
    picture = Image.new("RGB", (256, 160), "white")
    draw = ImageDraw.Draw(picture)
    for row, words in enumerate(("where does", "it look?", "4711")):
        draw.text((16, 8 + 48 * row), words, fill="black", font=ImageFont.load_default(40))
    return picture


def photo_for(path):
    """The zoo file's input made of a real photo, as ``explain`` would make it."""
    size = SIZES.get(path.stem)
    overrides = [f"size=[{size[0]}, {size[1]}]"] if size else []
    model = load(path, device="cpu", overrides=overrides)
    photo = SHARED / "photos" / PHOTOS.get(path.stem, "both.png")
    photo = text() if path.stem in READERS else photo
    x = prepared(model, photo)
    return {model.input.name: np.ascontiguousarray(model.input.arrange(x)).astype(np.float32)}


@pytest.mark.parametrize("name", [n for n in ZOO if n not in {FLOAT16, STYLE}])
def test_zoo(shared, name):
    path = shared / "zoo" / f"{name}.onnx"
    file = onnx_file.read(path)
    count = every_tensor(file.model, photo_for(path), file.graph)
    assert count >= len(file.graph.nodes) * 0.5


def test_style_transfer_node_by_node(shared):
    """Every node of the style transfer on ONNX Runtime's own inputs to it.

    Its InstanceNormalization sums 640,000 float32 values with a mean 32 times their deviation.
    ONNX Runtime loses 4e-4 of the peak there (measured against float64), which the layers behind
    it amplify to 1e-2; the twin does not, so the two cannot agree from end to end.
    """
    path = shared / "zoo" / f"{STYLE}.onnx"
    file = onnx_file.read(path)
    feeds = photo_for(path)
    reference = runtime_tensors(file.model, feeds) | feeds
    program = Program(file.graph)
    lost = []
    for node in file.graph.nodes:
        given = {
            name: torch.from_numpy(reference[name]) for name in node.inputs if name in reference
        }
        with torch.no_grad():
            found = program.run(given, node.outputs)
        arrays = {name: value.numpy() for name, value in found.items()}
        wanted = reference
        if node.op_type == "InstanceNormalization":
            x, scale, shift = (
                np.asarray(file.graph.constant(n) if n not in reference else reference[n], float)
                for n in node.inputs
            )
            deviation = np.sqrt(x.var(axis=(2, 3), keepdims=True) + node.attributes["epsilon"])
            y = (x - x.mean(axis=(2, 3), keepdims=True)) / deviation
            wanted = {node.outputs[0]: y * scale[:, None, None] + shift[:, None, None]}
            own = compare(wanted, reference, node.outputs)
            lost.append(own.worst.worst)
        parity = compare(wanted, arrays, node.outputs, tolerance=TOLERANCE)
        assert parity.holds, f"{node.op_type} {parity}"
    assert max(lost) > TOLERANCE, "ONNX Runtime has become exact: compare end to end"


# -- float16 ---------------------------------------------------------------------------------------


def test_float16_equals_the_model_widened_to_float32(shared):
    path = shared / "zoo" / f"{FLOAT16}.onnx"
    file = onnx_file.read(path)
    feeds = photo_for(path)
    every_tensor(widened(file.model), feeds, file.graph)


def test_float16_is_near_the_run_in_float16(shared):
    """What the file itself computes: eleven bits, and errors add up along 26 convolutions."""
    path = shared / "zoo" / f"{FLOAT16}.onnx"
    file = onnx_file.read(path)
    feeds = {k: v.astype(np.float16) for k, v in photo_for(path).items()}
    every_tensor(file.model, feeds, file.graph, tolerance=2e-2)
    narrow = runtime_tensors(file.model, feeds)
    with torch.no_grad():
        wide = Program(file.graph).run(
            {k: torch.from_numpy(v).float() for k, v in feeds.items()}, file.graph.outputs
        )
    for name in file.graph.outputs:
        assert wide[name].numpy().argmax() == narrow[name].argmax()


# -- sample models and torchvision -----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.onnx")), ids=lambda p: p.stem)
def test_sample_models(path):
    model = load(path, device="cpu")
    photos = [SAMPLES / "images" / f"{n}.png" for n in ("cat_1", "ship_1")]
    x = np.concatenate([prepared(model, photo) for photo in photos])
    every_tensor(model.file.whole_model(), {model.input.name: x}, model.graph)


def test_efficientnet_lite0(lite0):
    file = onnx_file.read(lite0.path)
    every_tensor(file.model, {next(iter(file.graph.inputs)): lite0.input.numpy()}, file.graph)


@pytest.mark.parametrize("name", [f.name for f in networks.FAMILIES])
def test_torchvision(family, name):
    pair = family(name)
    file = onnx_file.read(pair.path)
    x = networks.noise(next(f for f in networks.FAMILIES if f.name == name), 2).numpy()
    every_tensor(file.model, {"image": x}, file.graph, tolerance=DEEP.get(name, TOLERANCE))
    with torch.no_grad():  # and the file is the network
        wanted = pair.network.float()(torch.from_numpy(x)).numpy()
    found = runtime_tensors(file.model, {"image": x})["scores"]
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())


def test_both_exporters_are_represented():
    producers = [family.dynamo for family in networks.FAMILIES]
    assert sum(producers) >= 5
    assert sum(not p for p in producers) >= 5


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_the_other_exporter_gives_the_same(family, tmp_path, name):
    """The families that are exported by torch.export, once more by TorchScript."""
    pair = family(name)
    known = next(f for f in networks.FAMILIES if f.name == name)
    path = networks.export(
        pair.network.float(), replace(known, dynamo=not known.dynamo), tmp_path / "other.onnx"
    )
    file = onnx_file.read(path)
    every_tensor(file.model, {"image": pair.input.numpy()}, file.graph)


def test_quantised_files_of_the_zoo_are_the_only_ones_left_out(shared):
    left = {p.stem for p in (shared / "zoo").glob("*.onnx")} - {*ZOO}
    assert left == QUANTISED
    for name in QUANTISED:
        file = onnx_file.read(shared / "zoo" / f"{name}.onnx")
        assert any(node.op_type == "QuantizeLinear" for node in file.graph.nodes)


def test_the_comparison_can_fail(shared):
    """A twin with one wrong weight is found out, at the node that reads it."""
    path = SAMPLES / "base_c.onnx"
    file = onnx_file.read(path)
    wrong = onnx_file.read(path)
    weights = next(t for t in wrong.model.graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(weights).copy()
    array[0, 0, 0, 0] += 0.05
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    with pytest.raises(AssertionError, match=r"tensors differ by more than 0\.0001; first"):
        every_tensor(file.model, {next(iter(file.graph.inputs)): x}, wrong.graph)

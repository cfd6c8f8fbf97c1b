"""Models that take more than an image, and those that take it without an axis of samples."""

import pickle

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import TensorProto as T
from onnx import helper as oh

import inspector
from inspector.errors import ModelRefused, UsageError
from inspector.explain import Explainer
from inspector.opening import Opening
from inspector.verify.cache import remember
from inspector.verify.checks import quick

RNG = np.random.default_rng(3)
KERNEL = RNG.standard_normal((6, 3, 3, 3)).astype(np.float32)
TOKENS = RNG.standard_normal((20, 6)).astype(np.float32)
IDS = np.array([[1, 2, 3], [4, 5, 6]], np.int64)
PHOTO = RNG.integers(0, 256, (16, 16, 3), np.uint8)
METHODS = ["grad-cam", "gradient", "guided-backprop", "occlusion:window=4,stride=4"]


def text_and_image(path, *, ids=None, ir_version=8):
    """Scores (N, texts): pooled features of the image times the mean embedding of each text."""
    nodes = [
        oh.make_node("Conv", ["image", "w"], ["c"], pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["c"], ["r"]),
        oh.make_node("ReduceMean", ["r"], ["p"], axes=[2, 3], keepdims=0),
        oh.make_node("Gather", ["tokens", "ids"], ["e"]),
        oh.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        oh.make_node("Transpose", ["m"], ["mt"], perm=[1, 0]),
        oh.make_node("MatMul", ["p", "mt"], ["scores"]),
    ]
    inputs = [oh.make_tensor_value_info("image", T.FLOAT, ["n", 3, 16, 16])]
    constants = {"w": KERNEL, "tokens": TOKENS}
    if ids is None:
        inputs.insert(0, oh.make_tensor_value_info("ids", T.INT64, ["texts", "length"]))
    else:
        constants["ids"] = ids
    outputs = [oh.make_tensor_value_info("scores", T.FLOAT, ["n", "texts"])]
    onnx.save(onnx_model(nodes, inputs, outputs, constants, ir_version=ir_version), path)
    return path


def opened(path, **options):
    return inspector.load(path, device="cpu", preprocess="unit", **options)


def maps(model):
    report = model.explain(PHOTO, METHODS, target="scores[1]")
    return {e.attribution.method: e.attribution.values for e in report.images[0].explanations}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "ids.npy", IDS)
    return tmp_path


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_fed_input_is_a_constant_of_the_graph(folder, ir_version):
    fed = opened(text_and_image(folder / "two.onnx", ir_version=ir_version), feed={"ids": IDS})
    baked = opened(text_and_image(folder / "one.onnx", ids=IDS))
    mine, theirs = maps(fed), maps(baked)
    assert set(mine) == {text.partition(":")[0] for text in METHODS}
    for name, values in theirs.items():
        np.testing.assert_array_equal(mine[name], values)
    assert fed.file.sha256 == opened(folder / "two.onnx", feed={"ids": IDS[:1]}).file.sha256


@pytest.mark.parametrize(
    "feed",
    [
        lambda folder: {"ids": str(folder / "ids.npy")},
        lambda folder: {"ids": folder / "ids.npy"},
        lambda folder: [f"ids={folder / 'ids.npy'}"],
        lambda _: {"ids": IDS.tolist()},
    ],
)
def test_files_and_lists_are_fed_alike(folder, feed):
    model = opened(text_and_image(folder / "two.onnx"), feed=feed(folder))
    np.testing.assert_array_equal(model.model.constants["ids"], IDS)


def test_numbers_fill_the_declared_shape(folder):
    path = text_and_image(folder / "two.onnx")
    for text, shape in (("ids=7", (1, 1)), ("ids=4,5,6", (1, 3))):
        found = opened(path, feed=[text]).model.constants["ids"]
        assert (found.shape, found.dtype) == (shape, np.int64)


def test_the_report_and_the_verdict_belong_to_what_was_fed(folder):
    path = text_and_image(folder / "two.onnx")
    places = []
    for ids in (IDS, IDS + 1):
        model = opened(path, feed={"ids": ids})
        facts = (
            model.explain(PHOTO, "grad-cam", target="scores[0]")
            .images[0]
            .to_dict()["model"]["fed"]["ids"]
        )
        assert (facts["type"], facts["shape"]) == ("int64", [2, 3])
        places.append((facts["sha256"], remember(model.model, quick(model.model), None, "")))
    assert places[0][0] != places[1][0]
    assert places[0][1] != places[1][1]


def test_another_process_opens_the_same(folder):
    model = opened(text_and_image(folder / "two.onnx"), feed={"ids": IDS})
    other = pickle.loads(pickle.dumps(Opening.of(model))).open(Explainer)  # noqa: S301 - our own
    np.testing.assert_array_equal(maps(other)["gradient"], maps(model)["gradient"])


def test_a_missing_input_is_named_with_an_option_that_works(folder):
    path = text_and_image(folder / "two.onnx")
    with pytest.raises(ModelRefused, match=r"'ids' int64 \[texts, length\]") as refused:
        opened(path)
    option = str(refused.value.hint).rpartition("--feed ")[2]
    assert option == "ids=1"
    opened(path, feed=[option])


BAD = {
    "an input that there is not": ({"idz": 1}, "is not an input"),
    "fractions for whole numbers": ({"ids": [[1.5]]}, "int64 cannot hold"),
    "numbers beyond the type": ({"ids": [[2**63]]}, "int64 cannot hold"),
    "another rank": ({"ids": [1, 2]}, r"has shape \[2\]"),
    "words": ("ids=a,b", "takes whole numbers"),
    "no value": ("ids", "feeds nothing"),
    "no file": ("ids=none.npy", "No such file"),
    "what is not an array": ("ids=two.onnx.npy", "not a NumPy array"),
    "a pickle": ("ids=pickle.npy", "not a NumPy array"),
    "twice": (["ids=1", "ids=2"], "fed twice"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_fed_is_named(folder, monkeypatch, kind):
    path = text_and_image(folder / "two.onnx")
    monkeypatch.chdir(folder)
    (folder / "two.onnx.npy").write_bytes(path.read_bytes())
    np.save(folder / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    feed, said = BAD[kind]
    with pytest.raises(UsageError, match=said):
        opened(path, feed=[feed] if isinstance(feed, str) else feed)


def test_all_that_cannot_be_fed_is_named_at_once(folder):
    with pytest.raises(UsageError, match=r"'a' is not an input.*'ids' takes whole numbers"):
        opened(text_and_image(folder / "two.onnx"), feed=["a=1", "ids=x"])


# -- without an axis of samples --------------------------------------------------------------------


def one_image(path, layout, *, opset=13):
    """A classifier that takes (3, 16, 16), (16, 16, 3), or the usual four axes."""
    first = {
        "CHW": [oh.make_node("Unsqueeze", ["image", "zero"], ["x"])],
        "HWC": [
            oh.make_node("Transpose", ["image"], ["t"], perm=[2, 0, 1]),
            oh.make_node("Unsqueeze", ["t", "zero"], ["x"]),
        ],
        "NCHW": [oh.make_node("Identity", ["image"], ["x"])],
    }[layout]
    if opset < 13:
        for node in first:
            if node.op_type == "Unsqueeze":
                del node.input[1]
                node.attribute.append(oh.make_attribute("axes", [0]))
    nodes = [
        *first,
        oh.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        oh.make_node("Relu", ["c"], ["r"]),
        oh.make_node("GlobalAveragePool", ["r"], ["g"]),
        oh.make_node("Flatten", ["g"], ["scores"]),
    ]
    shape = {"CHW": [3, 16, 16], "HWC": [16, 16, 3], "NCHW": [1, 3, 16, 16]}[layout]
    constants = {"w": KERNEL, "zero": np.array([0], np.int64)}
    onnx.save(onnx_model(nodes, {"image": shape}, {"scores": [1, 6]}, constants, opset=opset), path)
    return opened(path)


@pytest.mark.parametrize("opset", [12, 13])
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_one_image_without_an_axis_of_samples(folder, layout, opset):
    mine = maps(one_image(folder / "bare.onnx", layout, opset=opset))
    theirs = maps(one_image(folder / "usual.onnx", "NCHW", opset=opset))
    for name, values in theirs.items():
        np.testing.assert_allclose(mine[name], values, rtol=1e-6, atol=1e-7)


def test_a_signal_is_not_taken_for_an_image(folder):
    """(1, 3, 1024) with a convolution over one axis is a signal of three channels."""
    nodes = [
        oh.make_node("Conv", ["signal", "w"], ["c"]),
        oh.make_node("Relu", ["c"], ["r"]),
        oh.make_node("GlobalAveragePool", ["r"], ["g"]),
        oh.make_node("Flatten", ["g"], ["scores"]),
    ]
    constants = {"w": RNG.standard_normal((6, 3, 5)).astype(np.float32)}
    path = folder / "signal.onnx"
    onnx.save(onnx_model(nodes, {"signal": [1, 3, 1024]}, {"scores": [1, 6]}, constants), path)
    image = opened(path).input
    assert (image.space, image.channels, image.height, image.width) == (1, 3, 1, 1024)

"""TFLite files of more than one operator: bodies of control flow, dilations, pools, free sizes."""

import importlib.util

import numpy as np
import onnx
import pytest

MISSING = [
    name
    for name in ("ai_edge_litert", "tflite", "flatbuffers")
    if importlib.util.find_spec(name) is None
]
if MISSING:
    pytest.skip(f"not installed: {', '.join(MISSING)}", allow_module_level=True)

from test_tflite_operators import converted, difference, interpreted  # noqa: E402 - needs LiteRT
from tflite_files import OperatorOf, TensorOf, tflite_file  # noqa: E402 - needs the schema

from converters.conversion import convert  # noqa: E402 - as above
from converters.errors import ConversionFailed  # noqa: E402 - as above
from converters.source import Options  # noqa: E402 - as above
from converters.to_onnx.tflite.model import read_model  # noqa: E402 - as above
from converters.to_onnx.tflite.writer import write_onnx  # noqa: E402 - as above

pytestmark = pytest.mark.converters

GENERATOR = np.random.default_rng(16)
STEP = {"scale": (0.05,), "zero": (3,)}
PLAIN = {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}


def normal(*shape):
    return GENERATOR.normal(0, 0.4, shape).astype(np.float32)


def bias(count, kind="float32"):
    """A bias of the convolutions here: of 32 bits, in steps of the products."""
    values = normal(count)
    if kind == "float32":
        return TensorOf("b", (count,), data=values)
    scale = STEP["scale"][0] * 0.01
    return TensorOf("b", (count,), "int32", np.rint(values / scale).astype(np.int32), (scale,))


def require_equal(data, feeds, most=1e-5):
    """Our reader's outputs are the interpreter's, by at least one of its two kinds of kernels."""
    got = converted(data, feeds)
    worst = min(
        max(difference(a, *b) for a, b in zip(got, expected, strict=True))
        for expected in interpreted(data, feeds)
    )
    assert worst <= most


def looped(kind="float32", **steps):
    """Three times: x = relu(conv(x) + offset); the offset is handed on as it is."""
    shape = (1, 6, 6, 4)
    weights = normal(4, 3, 3, 4)
    if kind == "int8":
        weights = np.clip(np.rint(weights / 0.01), -127, 127).astype(np.int8)
    inner = {} if kind == "float32" else {"scale": (0.01,), "zero": (0,)}
    number = TensorOf("n", (), "int32")
    state = TensorOf("x", shape, kind, **steps)
    offset = TensorOf("offset", (4,), kind, **steps)
    test = (
        [number, state, offset, TensorOf("three", (), "int32", np.int32(3)),
         TensorOf("more", (), "bool")],
        [OperatorOf("LESS", ["n", "three"], ["more"])],
        ["n", "x", "offset"],
        ["more"],
    )  # fmt: skip
    body = (
        [number, state, offset, TensorOf("one", (), "int32", np.int32(1)),
         TensorOf("next", (), "int32"), TensorOf("w", (4, 3, 3, 4), kind, weights, **inner),
         bias(4, kind),
         TensorOf("y", shape, kind, **steps), TensorOf("z", shape, kind, **steps)],
        [
            OperatorOf("ADD", ["n", "one"], ["next"]),
            OperatorOf("CONV_2D", ["x", "w", "b"], ["y"], PLAIN),
            OperatorOf("ADD", ["y", "offset"], ["z"], {"fused_activation_function": 1}),
        ],
        ["n", "x", "offset"],
        ["next", "z", "offset"],
    )  # fmt: skip
    values = normal(4)
    if kind == "int8":
        values = np.rint(values / steps["scale"][0]).astype(np.int8)
    main = (
        [TensorOf("image", shape, kind, **steps), TensorOf("zero", (), "int32", np.int32(0)),
         TensorOf("o", (4,), kind, values, **steps), TensorOf("n", (), "int32"),
         TensorOf("out", shape, kind, **steps), TensorOf("same", (4,), kind, **steps)],
        [OperatorOf("WHILE", ["zero", "image", "o"], ["n", "out", "same"],
                    {"cond_subgraph_index": 1, "body_subgraph_index": 2})],
        ["image"],
        ["out"],
    )  # fmt: skip
    return tflite_file([main, test, body]), [("image", normal(*shape) * 3)]


@pytest.mark.parametrize(("kind", "steps", "most"), [("float32", {}, 1e-5), ("int8", STEP, 1.01)])
def test_a_loop(kind, steps, most):
    """What the body hands on as it is stays a constant, and no state of the loop."""
    data, feeds = looped(kind, **steps)
    require_equal(data, feeds, most)
    (loop,) = (n for n in write_onnx(read_model(data)).graph.node if n.op_type == "Loop")
    assert len(loop.output) == 2


def chosen(condition=None):
    """Negative where the mean is above zero, else doubled; or by a constant."""
    shape = (1, 4, 4, 2)
    x, y = TensorOf("x", shape), TensorOf("y", shape)
    negative = ([x, y], [OperatorOf("NEG", ["x"], ["y"])], ["x"], ["y"])
    doubled = ([x, y], [OperatorOf("ADD", ["x", "x"], ["y"])], ["x"], ["y"])
    tensors = [
        TensorOf("image", shape), TensorOf("axes", (4,), "int32", np.arange(4, dtype=np.int32)),
        TensorOf("mean", ()), TensorOf("zero", (), "float32", np.float32(0)),
        TensorOf("out", shape),
    ]  # fmt: skip
    operators = [
        OperatorOf("MEAN", ["image", "axes"], ["mean"]),
        OperatorOf("GREATER", ["mean", "zero"], ["truth"]),
    ]
    if condition is not None:
        operators, data = [], np.bool_(condition)
        tensors.append(TensorOf("truth", (), "bool", data))
    else:
        tensors.append(TensorOf("truth", (), "bool"))
    numbers = {"then_subgraph_index": 1, "else_subgraph_index": 2}
    operators.append(OperatorOf("IF", ["truth", "image"], ["out"], numbers))
    return tflite_file([(tensors, operators, ["image"], ["out"]), negative, doubled])


@pytest.mark.parametrize("condition", [None, True, False])
def test_a_choice(condition):
    """By what is computed, both ways; of a constant, the body that runs alone is written."""
    data = chosen(condition)
    image = normal(1, 4, 4, 2)
    for sign in (1, -1):
        require_equal(data, [("image", sign * (np.abs(image) if condition is None else image))])
    kinds = {node.op_type for node in write_onnx(read_model(data)).graph.node}
    assert ("If" in kinds) == (condition is None)


def test_a_body_may_read_the_input_under_its_plain_name(tmp_path):
    """What the exporter put before the input's name goes in the bodies too."""
    source = tmp_path / "m.tflite"
    source.write_bytes(chosen().replace(b"\x05\x00\x00\x00image", b"\x05\x00\x00\x00im:ge"))
    record = convert(str(source), tmp_path / "m.onnx")
    assert record.worst <= 1e-6


@pytest.mark.parametrize("spoilt", ["itself", "missing", "ends"])
def test_a_body_that_contradicts_the_file_is_refused(spoilt):
    x, y = TensorOf("x", (1, 2)), TensorOf("y", (1, 2))
    truth = TensorOf("t", (), "bool")
    again = OperatorOf(
        "IF", ["t", "x"], ["y"], {"then_subgraph_index": 1, "else_subgraph_index": 1}
    )
    body = ([x, y], [OperatorOf("NEG", ["x"], ["y"])], ["x"], ["y"])
    if spoilt == "itself":
        body = ([x, y, TensorOf("t", (), "bool", np.bool_(1))], [again], ["x"], ["y"])
    elif spoilt == "missing":
        again = OperatorOf("IF", ["t", "x"], ["y"], {"then_subgraph_index": 9})
    else:
        body = ([x, y], body[1], ["x"], ["y", "y"])
    data = tflite_file([([x, y, truth], [again], ["x", "t"], ["y"]), body])
    words = {"itself": "contains itself", "missing": "graph 9 of 2", "ends": "gives 2"}
    with pytest.raises(ConversionFailed, match=words[spoilt]) as error:
        write_onnx(read_model(data))
    assert error.value.where.startswith("IF 0")


@pytest.mark.parametrize(("depth", "width", "words"), [(30, 1, "6 deep"), (5, 12, "make more")])
def test_bodies_within_bodies_are_limited(monkeypatch, depth, width, words):
    """Thirty bodies that each name the next one twice would be a billion operators."""
    x, y, z = (TensorOf(n, (1, 2)) for n in "xyz")
    monkeypatch.setattr("converters.to_onnx.tflite.graph._MOST_OPERATORS", 100)
    truth = TensorOf("t", (), "bool")
    graphs = []
    for n in range(depth):
        known = {"then_subgraph_index": n + 1, "else_subgraph_index": n + 1}
        names = [f"y{m}" for m in range(width - 1)] + ["y"]
        tensors = [x, truth, *(TensorOf(name, (1, 2)) for name in names)]
        operators = [OperatorOf("IF", ["t", "x", "t"], [name], known) for name in names]
        graphs.append((tensors, operators))
    graphs.append(([x, y, z, truth], [OperatorOf("NEG", ["x"], ["y"])]))
    data = tflite_file([(*graph, ["x", "t"], ["y"]) for graph in graphs])
    with pytest.raises(ConversionFailed, match=words):
        write_onnx(read_model(data))


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_convolution_of_shuffled_places_is_a_dilated_one(depthwise, kind):
    """TensorFlow 1's dilated convolution, with the padding of SAME at block 2 and 3."""
    steps = {} if kind == "float32" else STEP
    shape, blocks = (1, 9, 11, 4), np.array([2, 3], np.int32)
    pads = np.array([[2, 3], [3, 4]], np.int32)  # to multiples of the block
    crops = np.array([[0, 1], [0, 1]], np.int32)
    inner = (6, 7, 6, 4)
    weights = normal(1, 3, 3, 4) if depthwise else normal(4, 3, 3, 4)
    known, extra = {**PLAIN, "padding": 1, "fused_activation_function": 1}, {}
    if depthwise:
        known["depth_multiplier"] = 1
    if kind == "int8":
        extra = {"scale": (0.01,), "zero": (0,)}
        weights = np.clip(np.rint(weights / 0.01), -127, 127).astype(np.int8)
    tensors = [
        TensorOf("image", shape, kind, **steps),
        TensorOf("blocks", (2,), "int32", blocks),
        TensorOf("pads", (2, 2), "int32", pads),
        TensorOf("crops", (2, 2), "int32", crops),
        TensorOf("w", weights.shape, kind, weights, **extra),
        bias(4, kind),
        TensorOf("parts", inner, kind, **steps),
        TensorOf("made", (6, 5, 4, 4), kind, **steps),
        TensorOf("out", (1, 9, 11, 4), kind, **steps),
    ]
    convolution = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    operators = [
        OperatorOf("SPACE_TO_BATCH_ND", ["image", "blocks", "pads"], ["parts"]),
        OperatorOf(convolution, ["parts", "w", "b"], ["made"], known),
        OperatorOf("BATCH_TO_SPACE_ND", ["made", "blocks", "crops"], ["out"]),
    ]
    data = tflite_file((tensors, operators), ["image"], ["out"])
    require_equal(data, [("image", normal(*shape) * 3)], 1e-5 if kind == "float32" else 1.01)
    nodes = write_onnx(read_model(data)).graph.node
    (conv,) = (node for node in nodes if node.op_type == "Conv")
    found = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    assert found["dilations"] == [2, 3]
    assert found["pads"] == [2, 3, 2, 3]
    # Read twice, the shuffled places are needed themselves.
    both = tflite_file((tensors, operators), ["image"], ["out", "made"])
    kinds = [node.op_type for node in write_onnx(read_model(both)).graph.node]
    assert kinds.count("Reshape") >= 4
    require_equal(both, [("image", normal(*shape) * 3)], 1e-5 if kind == "float32" else 1.01)


@pytest.mark.parametrize(("kind", "zero"), [("int8", -128), ("int8", 5), ("uint8", 0)])
@pytest.mark.parametrize("window", [(2, 2, 1), (3, 3, 0), (8, 8, 1)])
def test_means_of_integers_are_rounded_as_the_interpreter_rounds(kind, zero, window):
    """Away from the level 0, where the mean of an even number lies in the middle; no level off."""
    height, width, padding = window
    steps = {"scale": (0.037,), "zero": (zero,)}
    size = 16 if padding == 0 else 17 - height
    known = {"stride_h": 1, "stride_w": 1, "padding": padding}
    known |= {"filter_height": height, "filter_width": width}
    tensors = [TensorOf("x", (1, 16, 16, 8), kind, **steps)]
    tensors.append(TensorOf("y", (1, size, size, 8), kind, **steps))
    data = tflite_file(
        (tensors, [OperatorOf("AVERAGE_POOL_2D", ["x"], ["y"], known)]), ["x"], ["y"]
    )
    bounds = np.iinfo(kind)
    levels = GENERATOR.integers(bounds.min, bounds.max + 1, (1, 16, 16, 8))
    require_equal(data, [("x", ((levels - zero) * 0.037).astype(np.float32))], 0.01)


def test_a_size_that_the_file_leaves_open(tmp_path):
    """It has to be said; then every shape is what the interpreter makes of it."""
    weights = normal(5, 3, 3, 3)
    tensors = [
        TensorOf("image", (1, 1, 1, 3), signature=(1, -1, -1, 3)),
        TensorOf("w", weights.shape, data=weights),
        bias(5),
        TensorOf("maps", (1, 1, 1, 5), signature=(1, -1, -1, 5)),
        TensorOf("axes", (2,), "int32", np.array([1, 2], np.int32)),
        TensorOf("out", (1, 5)),
    ]
    operators = [
        OperatorOf("CONV_2D", ["image", "w", "b"], ["maps"], {**PLAIN, "stride_h": 2}),
        OperatorOf("MEAN", ["maps", "axes"], ["out"]),
    ]
    source = tmp_path / "m.tflite"
    source.write_bytes(tflite_file((tensors, operators), ["image"], ["out"]))
    with pytest.raises(ConversionFailed, match=r"image open \(1, \?, \?, 3\).*1,224,224,3"):
        convert(str(source), tmp_path / "m.onnx")
    with pytest.raises(ConversionFailed, match="and --input says"):
        convert(str(source), tmp_path / "m.onnx", options=Options(inputs=((1, 20, 22, 4),)))
    record = convert(str(source), tmp_path / "m.onnx", options=Options(inputs=((1, 20, 23, 3),)))
    assert record.worst <= 1e-5
    assert {trial.samples for trial in record.trials} == {1, 3, 4}

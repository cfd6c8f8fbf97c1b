"""The reader of TFLite files, on files that are written here; TFLite itself is not needed."""

import struct
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

pytest.importorskip("tflite")

from tflite_files import OperatorOf, TensorOf, schema, tflite_file

from converters.errors import ConversionFailed
from converters.to_onnx.tflite import _runner
from converters.to_onnx.tflite.metadata import metadata_of
from converters.to_onnx.tflite.model import Signature, chosen, read_model
from converters.to_onnx.tflite.writer import write_onnx

CONV = {"padding": 0, "stride_h": 2, "stride_w": 2}
ONES = {"dilation_h_factor": 1, "dilation_w_factor": 1}


def values(seed, *shape):
    """Small floats."""
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def classifier(*, bias=None):
    """A network as MobileNet begins and ends, and its weights."""
    known = {
        "kernel": values(1, 6, 3, 3, 3),
        "first": values(2, 6),
        "depth": values(3, 1, 3, 3, 6),
        "second": values(4, 6),
        "matrix": values(5, 4, 6),
        "bias": values(6, 4) if bias is None else bias,
    }
    tensors = [TensorOf("image", (1, 9, 9, 3))]
    tensors += [TensorOf(name, data.shape, data=data) for name, data in known.items()]
    tensors += [
        TensorOf("conv/Relu6", (1, 5, 5, 6)),
        TensorOf("depthwise/Relu", (1, 5, 5, 6)),
        TensorOf("sum", (1, 5, 5, 6)),
        TensorOf("axes", (2,), "int32", np.array([1, 2], np.int32)),
        TensorOf("pooled", (1, 6)),
        TensorOf("logits", (1, 4)),
        TensorOf("scores", (1, 4)),
    ]
    plain = {"padding": 0, "stride_h": 1, "stride_w": 1, **ONES}
    names = ["conv/Relu6", "depthwise/Relu"]
    operators = [
        OperatorOf(
            "CONV_2D",
            ["image", "kernel", "first"],
            names[:1],
            {**CONV, **ONES, "fused_activation_function": 3},
        ),
        OperatorOf(
            "DEPTHWISE_CONV_2D",
            ["conv/Relu6", "depth", "second"],
            names[1:],
            {**plain, "depth_multiplier": 1, "fused_activation_function": 1},
        ),
        OperatorOf("ADD", names, ["sum"]),
        OperatorOf("MEAN", ["sum", "axes"], ["pooled"], {"keep_dims": False}),
        OperatorOf("FULLY_CONNECTED", ["pooled", "matrix", "bias"], ["logits"]),
        OperatorOf("SOFTMAX", ["logits"], ["scores"], {"beta": 1.0}),
    ]
    return tflite_file((tensors, operators), ["image"], ["scores"]), known


def expected(known, image):
    """What torch computes of the same weights."""
    w = {name: torch.from_numpy(array) for name, array in known.items()}
    x = torch.from_numpy(image).permute(0, 3, 1, 2)
    x = functional.conv2d(x, w["kernel"].permute(0, 3, 1, 2), w["first"], 2, 1).clamp(0, 6)
    y = functional.conv2d(x, w["depth"].permute(3, 0, 1, 2), w["second"], 1, 1, groups=6).relu()
    return ((x + y).mean((2, 3)) @ w["matrix"].T + w["bias"]).softmax(1).numpy()


def run(model, *arrays):
    """First output of an ONNX model."""
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def test_a_network_keeps_its_numbers_its_names_and_one_transpose():
    data, known = classifier()
    model, image = write_onnx(read_model(data)), values(0, 1, 9, 9, 3)
    np.testing.assert_allclose(run(model, image), expected(known, image), atol=1e-6)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Transpose") == 1  # of the image: maps have their channels first
    made = {name for node in model.graph.node for name in node.output}
    assert {"conv/Relu6", "depthwise/Relu", "sum", "pooled", "logits", "scores"} <= made
    relu = next(node for node in model.graph.node if "depthwise/Relu" in node.output)
    assert relu.op_type == "Relu"  # a node of its own: rules of methods see it


def test_a_map_is_given_in_the_layout_of_the_file():
    tensors = [
        TensorOf("image", (1, 4, 6, 2)),
        TensorOf("map", (1, 2, 3, 2)),
    ]
    known = {"filter_height": 2, "filter_width": 2, **CONV}
    data = tflite_file(
        (tensors, [OperatorOf("MAX_POOL_2D", ["image"], ["map"], known)]), ["image"], ["map"]
    )
    image = values(0, 1, 4, 6, 2)
    model = write_onnx(read_model(data))
    found = run(model, image)
    np.testing.assert_array_equal(found, image.reshape(1, 2, 2, 3, 2, 2).max((2, 4)))
    assert model.graph.output[0].name == "map"


@pytest.mark.parametrize(("kind", "zero"), [("int8", -3), ("uint8", 120), ("int16", 0)])
def test_a_quantised_network_takes_and_gives_the_numbers_its_integers_stand_for(kind, zero):
    """Integers through a fully connected layer, with the arithmetic of the format."""
    rows = np.random.default_rng(3).integers(-127, 127, (4, 5)).astype(np.int8)
    wide = "int64" if kind == "int16" else "int32"
    bias = np.array([40, -70, 0, 9], wide)
    scales = (0.02, 0.01, 0.005, 0.03)
    step, out = (0.001, 0.0004) if kind == "int16" else (0.05, 0.06)
    tensors = [
        TensorOf("x", (1, 5), kind, None, (step,), (zero,)),
        TensorOf("w", (4, 5), "int8", rows, scales),
        TensorOf("b", (4,), wide, bias, tuple(step * s for s in scales)),
        TensorOf("y", (1, 4), kind, None, (out,), (zero,)),
    ]
    data = tflite_file(
        (tensors, [OperatorOf("FULLY_CONNECTED", ["x", "w", "b"], ["y"])]), ["x"], ["y"]
    )
    model = write_onnx(read_model(data))
    x = (np.arange(5, dtype=np.float32) - 2)[None] * step * 10
    sums = np.rint(x / step) @ rows.T.astype(np.float64) + bias
    bounds = np.iinfo(kind)
    levels = np.clip(np.rint(sums * step * scales / out) + zero, bounds.min, bounds.max)
    np.testing.assert_allclose(run(model, x), (levels - zero) * out, atol=1.01 * out)
    assert np.ptp(levels) > 20
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == 2  # of the input, of the output


def test_a_sparse_matrix_is_written_out():
    """Rows dense, columns compressed."""
    dense = np.zeros((3, 4), np.float32)
    dense[0, 1], dense[0, 3], dense[2, 0] = 5, 6, 7

    def sparsity(writer):
        b = writer.builder

        def vector(numbers):
            made, module = writer.numbers(numbers, np.int32), schema("Int32Vector")
            module.Start(b)
            module.AddValues(b, made)
            return module.End(b)

        segments, indices = vector([0, 2, 2, 3]), vector([1, 3, 0])
        module = schema("DimensionMetadata")
        module.Start(b)
        module.AddFormat(b, 0)
        module.AddDenseSize(b, 3)
        rows = module.End(b)
        module.Start(b)
        module.AddFormat(b, 1)
        module.AddArraySegmentsType(b, 1)
        module.AddArraySegments(b, segments)
        module.AddArrayIndicesType(b, 1)
        module.AddArrayIndices(b, indices)
        columns = module.End(b)
        order, axes = writer.numbers([0, 1], np.int32), writer.offsets([rows, columns])
        module = schema("SparsityParameters")
        module.Start(b)
        module.AddTraversalOrder(b, order)
        module.AddDimMetadata(b, axes)
        return module.End(b)

    stored = np.array([5, 6, 7], np.float32)
    tensors = [
        TensorOf("x", (1, 4)),
        TensorOf("sparse", (3, 4), data=stored, sparsity=sparsity),
        TensorOf("dense", (3, 4)),
        TensorOf("y", (1, 3)),
    ]
    operators = [
        OperatorOf("DENSIFY", ["sparse"], ["dense"]),
        OperatorOf("FULLY_CONNECTED", ["x", "dense"], ["y"]),
    ]
    model = read_model(tflite_file((tensors, operators), ["x"], ["y"]))
    np.testing.assert_array_equal(model.subgraphs[0].tensors[1].data, dense)
    x = values(0, 1, 4)
    np.testing.assert_allclose(run(write_onnx(model), x), x @ dense.T, rtol=1e-6)


def test_operators_that_are_not_known_are_all_named():
    tensors = [TensorOf("x", (1, 4)), TensorOf("y", (1, 4)), TensorOf("z", (1, 4))]
    operators = [OperatorOf("MyOwn", ["x"], ["y"]), OperatorOf("HASHTABLE", ["y"], ["z"])]
    with pytest.raises(ConversionFailed, match="'HASHTABLE', 'MyOwn'"):
        write_onnx(read_model(tflite_file((tensors, operators), ["x"], ["z"])))


@pytest.mark.parametrize(
    ("tensors", "inputs", "outputs", "said"),
    [
        ({}, ["x", 7], ["y"], "RELU 0.*names tensor 7 of 2"),
        ({}, ["x"], ["x"], "RELU 0.*writes x a second time"),
        ({}, ["y"], ["y"], "RELU 0.*reads y before it is computed"),
        ({}, ["x", "x"], ["y"], "RELU 0.*has 2 inputs"),
        ({"shape": (1 << 20, 1 << 20)}, ["x"], ["y"], "tensor 1.*elements: more than"),
        ({"shape": (2,), "data": np.zeros(3, np.float32)}, ["x"], ["x"], "3 values for a shape"),
        ({"scale": (0.1, 0.2)}, ["x"], ["y"], "2 steps of quantisation"),
        ({"scale": (float("nan"),)}, ["x"], ["y"], "not positive numbers"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_with_the_place(tensors, inputs, outputs, said):
    known = {"name": "y", "shape": (1, 4), **tensors}
    made = [TensorOf("x", (1, 4)), TensorOf(**known)]
    data = tflite_file((made, [OperatorOf("RELU", inputs, outputs)]), ["x"], ["y"])
    with pytest.raises(ConversionFailed, match=said):
        write_onnx(read_model(data, "net.tflite"))


def test_a_broken_file_is_refused_and_nothing_else():
    """Offsets, lengths and types of a real layout, replaced at random places."""
    data, _ = classifier()
    generator, refused = np.random.default_rng(5), 0
    for trial in range(250):
        broken = bytearray(
            data[: len(data) if trial % 5 else int(generator.integers(8, len(data)))]
        )
        for place in generator.integers(4, len(broken) - 4, 3):
            wild = int(generator.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFF0, 1 << 16, 77]))
            broken[place : place + 4] = struct.pack("<I", wild)
        try:
            write_onnx(read_model(bytes(broken), "broken.tflite"))
        except ConversionFailed:
            refused += 1
    assert refused > 20


def test_names_and_normalisation_that_cannot_be_read_say_nothing():
    data, _ = classifier()
    model = read_model(data)
    for inner in (b"", b"\xff\xff\xff\x7f" * 9, b"\x04\x00\x00\x00"):
        model.metadata["TFLITE_METADATA"] = inner
        found = metadata_of(model, data)
        assert (found.labels, found.mean, found.std) == ((), (), ())


def test_constants_are_not_computed_to_more_than_they_are():
    """A table of a billion numbers, out of two rows of 32768: nobody reads it."""
    row = np.zeros((1, 1 << 15), np.float32)
    tensors = [
        TensorOf("x", (1, 4)),
        TensorOf("row", row.shape, data=row),
        TensorOf("column", row.T.shape, data=row.T),
        TensorOf("table", (1,)),
        TensorOf("times", (2,), "int32", np.array([1 << 20, 1 << 20], np.int32)),
        TensorOf("tiled", (1,)),
        TensorOf("y", (1, 4)),
    ]
    operators = [
        OperatorOf("ADD", ["row", "column"], ["table"]),
        OperatorOf("TILE", ["row", "times"], ["tiled"]),
        OperatorOf("RELU", ["x"], ["y"]),
    ]
    model = write_onnx(read_model(tflite_file((tensors, operators), ["x"], ["y"])))
    assert [node.op_type for node in model.graph.node] == ["Relu"]
    assert model.ByteSize() < 1000


def test_shapes_that_a_file_computes_are_known_while_it_is_written():
    """Exporters spell a flatten as Shape, a slice of it, a pack, and a reshape to that."""
    numbers = {"zero": [0], "one": [1], "step": [1]}
    tensors = [
        TensorOf("x", (2, 3, 2)),
        TensorOf("shape", (3,), "int32"),
        *(TensorOf(n, (1,), "int32", np.array(v, np.int32)) for n, v in numbers.items()),
        TensorOf("rows", (), "int32"),
        TensorOf("rest", (), "int32", np.int32(6)),
        TensorOf("target", (2,), "int32"),
        TensorOf("y", (2, 6)),
    ]
    operators = [
        OperatorOf("SHAPE", ["x"], ["shape"], {"out_type": 2}),
        OperatorOf(
            "STRIDED_SLICE", ["shape", "zero", "one", "step"], ["rows"], {"shrink_axis_mask": 1}
        ),
        OperatorOf("PACK", ["rows", "rest"], ["target"], {"values_count": 2, "axis": 0}),
        OperatorOf("RESHAPE", ["x", "target"], ["y"]),
    ]
    model = write_onnx(read_model(tflite_file((tensors, operators), ["x"], ["y"])))
    assert [node.op_type for node in model.graph.node] == ["Reshape"]
    x = values(0, 2, 3, 2)
    np.testing.assert_array_equal(run(model, x), x.reshape(2, 6))


def test_the_function_that_serves_is_read_and_another_by_its_name():
    model = read_model(classifier()[0])
    named = [Signature(name, place, {}, {}) for name, place in (("a", 0), ("serve", 1), ("b", 2))]
    model = replace(model, subgraphs=model.subgraphs * 3, signatures=tuple(named))
    read, note = chosen(model)
    assert (read.main, read.signature.name) == (1, "serve")
    assert note == "its signature 'serve' is read; --signature chooses another: 'a', 'b'"
    assert chosen(model, "a")[0].signature is None  # the first graph, by the usual way
    assert chosen(replace(model, signatures=(named[0],)))[1] == ""
    with pytest.raises(ConversionFailed, match=r"has no signature 'c'; --signature 'a' or 'serve'"):
        chosen(model, "c")


@pytest.mark.parametrize(("batch", "runs"), [(1, 2), (2, 1)])
def test_a_fixed_batch_of_several_images_goes_through_as_it_is(batch, runs):
    """MobileFaceNet as it is shared takes two faces at once."""
    seen = []

    def run(arrays):
        seen.append(arrays[0].shape)
        return [arrays[0].sum(axis=(1, 2, 3), keepdims=True)]

    main = SimpleNamespace(
        tensors=[SimpleNamespace(shape=(batch, 4, 4, 3))], inputs=[0], outputs=[0], operators=()
    )
    images = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    (found,) = _runner(SimpleNamespace(run=run), main)([images])
    np.testing.assert_allclose(found.ravel(), images.sum(axis=(1, 2, 3)), rtol=1e-6)
    assert len(seen) == runs

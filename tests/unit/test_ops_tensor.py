"""Tensor operators of old opsets and odd arguments, against numpy written out and ORT.

The standard's node cases cover the newest opsets; here are the forms they left behind.
"""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from converters.errors import ConverterError, UnsupportedOperator
from converters.to_torch.program import Program

RNG = np.random.default_rng(7)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model(op_type, opset, arrays, *, outputs=1, constants=(), **attributes):
    """One node; inputs in ``constants`` become initialisers, the others graph inputs."""
    names = [f"x{i}" if array is not None else "" for i, array in enumerate(arrays)]
    node = helper.make_node(op_type, names, [f"y{i}" for i in range(outputs)], **attributes)
    values = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    graph = helper.make_graph(
        [node],
        "one node",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in values.items()
            if int(n[1:]) not in constants
        ],
        [helper.make_value_info(f"y{i}", onnx.TypeProto()) for i in range(outputs)],
        [onnx.numpy_helper.from_array(a, n) for n, a in values.items() if int(n[1:]) in constants],
    )
    opset_id = helper.make_opsetid("", opset)
    return helper.make_model(graph, opset_imports=[opset_id], ir_version=8)


def twin(op_type, opset, *arrays, outputs=1, constants=(), **attributes):
    """Outputs of one node in the twin, as arrays."""
    made = model(op_type, opset, arrays, outputs=outputs, constants=constants, **attributes)
    program = Program(made)
    feeds = {v.name: torch.from_numpy(arrays[int(v.name[1:])]) for v in made.graph.input}
    found = program.run(feeds, [f"y{i}" for i in range(outputs)])
    results = [found[f"y{i}"].numpy() for i in range(outputs)]
    return results[0] if outputs == 1 else results


def reference(op_type, opset, *arrays, outputs=1, constants=(), types=None, **attributes):
    """The same in ONNX Runtime."""
    made = model(op_type, opset, arrays, outputs=outputs, constants=constants, **attributes)
    for i, value in enumerate(made.graph.output):
        kind = types[i] if types else helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
        value.type.tensor_type.elem_type = kind
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = session.run(None, {v.name: arrays[int(v.name[1:])] for v in made.graph.input})
    return results[0] if outputs == 1 else results


def same(found, wanted):
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7, strict=True)


# -- broadcasting before opset 7 -------------------------------------------------------------


@pytest.mark.parametrize(
    ("op_type", "function"),
    [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)],
)
def test_old_broadcasting_aligns_from_axis(op_type, function):
    a, b = floats(2, 3, 4, 5), floats(3, 4)
    found = twin(op_type, 6, a, b, axis=1, broadcast=1)
    same(found, function(a, b.reshape(1, 3, 4, 1)))


def test_old_broadcasting_without_axis_aligns_at_the_end():
    a, b = floats(2, 3, 4), floats(3, 4)
    same(twin("Add", 6, a, b, broadcast=1), a + b)


def test_old_broadcasting_of_pow_and_logic():
    x, y = np.abs(floats(2, 3)) + 1, floats(2)
    same(twin("Pow", 1, x, y, axis=0, broadcast=1), x ** y[:, None])
    p, q = x > 1.5, y > 0
    same(twin("And", 6, p, q, axis=0, broadcast=1), p & q[:, None])
    same(twin("Greater", 1, x, y, axis=0, broadcast=1), x > y[:, None])


# -- arguments that moved from attributes to inputs ------------------------------------------


@pytest.mark.parametrize(("opset", "as_input"), [(9, False), (10, True), (13, True)])
def test_slice_takes_its_bounds_from_either_side(opset, as_input):
    x = floats(4, 6)
    bounds = {"starts": [1, -4], "ends": [1000, -1], "axes": [0, 1]}
    if as_input:
        rest = [np.array(v, np.int64) for v in bounds.values()]
        found = twin("Slice", opset, x, *rest, constants=(1, 2, 3))
        running = twin("Slice", opset, x, *rest)  # the bounds computed while running
        same(running, x[1:, -4:-1])
    else:
        found = twin("Slice", opset, x, **bounds)
    same(found, x[1:, -4:-1])


def test_slice_equals_ort_at_every_bound():
    """One model that takes its bounds as inputs: 396 triples cost one session."""
    starts = (-20, -7, -6, -1, 0, 2, 5, 6, 20)
    ends = (-(2**63), 2**31 - 1, -20, -7, -6, -1, 0, 3, 5, 6, 2**63 - 1)
    x, one = floats(6), np.zeros(1, np.int64)
    made = model("Slice", 13, (x, one, one, one, one))
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    program, differ = Program(made), []
    for triple in itertools.product(starts, ends, (-3, -1, 1, 2)):
        bounds = zip(("x1", "x2", "x4"), triple, strict=True)
        feeds = {"x0": x, "x3": one} | {n: np.array([v], np.int64) for n, v in bounds}
        tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
        found = program.run(tensors, ["y0"])["y0"].numpy()
        if not np.array_equal(found, session.run(None, feeds)[0]):
            differ.append(triple)
    assert not differ, f"(start, end, step): {differ}"


@pytest.mark.parametrize(("opset", "as_input"), [(11, False), (13, True), (18, True)])
def test_reduce_sum_takes_axes_from_either_side(opset, as_input):
    x, axes = floats(2, 3, 4), np.array([0, -1], np.int64)
    if as_input:
        found = twin("ReduceSum", opset, x, axes, keepdims=0)
    else:
        found = twin("ReduceSum", opset, x, axes=[0, -1], keepdims=0)
    same(found, x.sum((0, 2)))


@pytest.mark.parametrize(("opset", "as_input"), [(11, False), (13, True)])
def test_squeeze_unsqueeze_split_and_pad_over_opsets(opset, as_input):
    x = floats(1, 6, 1)

    def call(op_type, x, name, value, **more):
        if as_input:
            return twin(op_type, opset, x, np.array(value, np.int64), **more)
        return twin(op_type, opset, x, **{name: value}, **more)

    same(call("Squeeze", x, "axes", [0, -1]), x[0, :, 0])
    same(call("Unsqueeze", x, "axes", [0, -1]), x[None, ..., None])
    first, second = call("Split", x, "split", [2, 4], axis=1, outputs=2)
    same(first, x[:, :2])
    same(second, x[:, 2:])


def test_squeeze_refuses_an_axis_that_is_longer():
    with pytest.raises(ConverterError, match="size 1"):
        twin("Squeeze", 13, floats(2, 1), np.array([0], np.int64))


@pytest.mark.parametrize(("length", "parts"), [(7, 3), (6, 3), (3, 2)])
def test_split_by_number_of_outputs(length, parts):
    x = floats(length, 2)
    found = twin("Split", 18, x, outputs=parts, num_outputs=parts, axis=0)
    wanted = reference("Split", 18, x, outputs=parts, num_outputs=parts, axis=0)
    for f, w in zip(found, wanted, strict=True):
        same(f, w)


def test_tile_and_topk_of_opset_one():
    x = floats(2, 3)
    count, axis = np.array([2], np.int64), np.array([1], np.int64)
    same(twin("Tile", 1, x, count, axis), np.tile(x, (1, 2)))
    values, indices = twin("TopK", 9, x, k=2, axis=1, outputs=2)
    order = np.argsort(-x, 1, kind="stable")[:, :2]
    same(values, np.take_along_axis(x, order, 1))
    same(indices, order)


def test_topk_of_equal_elements_takes_the_lower_index():
    x = np.array([1, 3, 3, 0, 3, 1], np.float32)
    k = np.array([4], np.int64)
    same(twin("TopK", 11, x, k, outputs=2)[1], np.array([1, 2, 4, 0]))
    same(twin("TopK", 11, x, k, outputs=2, largest=0)[1], np.array([3, 0, 5, 1]))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("pads", [(1, 2, 2, 1), (3, 0, 0, 4), (-1, 1, 0, -2)])
def test_pad_equals_numpy(mode, pads):
    x = floats(5, 6)
    found = twin("Pad", 19, x, np.array(pads, np.int64), mode=mode)
    crop = x[max(-pads[0], 0) : 5 + min(pads[2], 0), max(-pads[1], 0) : 6 + min(pads[3], 0)]
    sides = [(max(pads[i], 0), max(pads[i + 2], 0)) for i in (0, 1)]
    same(found, np.pad(crop, sides, mode=mode))


def test_pad_of_opset_two_and_with_axes():
    x = floats(2, 3)
    wanted = np.pad(x, ((0, 0), (1, 2)), constant_values=4)
    same(twin("Pad", 2, x, pads=[0, 1, 0, 2], value=4.0), wanted)
    rest = np.array([1, 2], np.int64), np.array(4, np.float32), np.array([-1], np.int64)
    same(twin("Pad", 18, x, *rest), wanted)


def test_reshape_zero_copies_a_size_unless_told_otherwise():
    x = floats(2, 3, 4)
    same(twin("Reshape", 13, x, np.array([0, -1], np.int64)), x.reshape(2, 12))
    empty = np.zeros((0, 3), np.float32)
    found = twin("Reshape", 14, empty, np.array([3, 0], np.int64), allowzero=1)
    assert found.shape == (3, 0)


@pytest.mark.parametrize("axis", [0, 1, 3, -1, -3])
def test_flatten_equals_ort(axis):
    x = floats(2, 3, 4)
    same(twin("Flatten", 13, x, axis=axis), reference("Flatten", 13, x, axis=axis))


# -- integers --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint16, np.uint64])
def test_integer_division_truncates(dtype):
    a, b = np.array([7, 100, 99, 9], dtype), np.array([2, 7, 10, 3], dtype)
    if np.issubdtype(dtype, np.signedinteger):
        a[1], b[2] = -100, -10
    wanted = np.array([int(int(x) / int(y)) for x, y in zip(a, b, strict=True)], dtype)
    same(twin("Div", 14, a, b), wanted)


def test_uint64_arithmetic_above_the_signed_range():
    a = np.array([2**64 - 1, 2**63, 2**63 + 5, 17, 2**64 - 1], np.uint64)
    b = np.array([3, 2, 2**63 + 4, 2**63, 2**64 - 1], np.uint64)
    same(twin("Div", 14, a, b), a // b)
    same(twin("Mod", 13, a, b), a % b)
    same(twin("Greater", 13, a, b), a > b)
    same(twin("Max", 13, a, b), np.maximum(a, b))
    shift = np.array([1, 63, 62, 3, 40], np.uint64)
    same(twin("BitShift", 11, a, shift, direction="RIGHT"), a >> shift)
    same(twin("BitShift", 11, a, shift, direction="LEFT"), a << shift)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_unsigned_types_that_torch_hardly_supports(dtype):
    top = np.iinfo(dtype).max
    a, b = np.array([1, top, 5], dtype), np.array([2, 1, 5], dtype)
    same(twin("Add", 14, a, b), a + b)
    same(twin("Sub", 14, a, b), a - b)
    same(twin("Less", 13, a, b), a < b)
    same(twin("ReduceMax", 18, a, keepdims=0), a.max())
    same(twin("ArgMax", 13, a, keepdims=0), np.int64(1))
    same(twin("TopK", 11, a, np.array([2], np.int64), outputs=2)[0], np.array([top, 5], dtype))
    index = np.array([2, -2], np.int64)
    same(twin("Gather", 13, a, index), a[index])
    same(twin("GatherElements", 13, a, index), a[index])
    same(
        twin("ScatterElements", 18, a, np.array([0], np.int64), b[:1]), np.array([2, top, 5], dtype)
    )


def test_power_keeps_the_type_of_its_base():
    x, y = np.array([1, 2, 3], np.int32), np.array([0.5, 2, -1], np.float32)
    same(twin("Pow", 15, x, y), reference("Pow", 15, x, y))


# -- indices ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_equals_numpy(shape, axis):
    x, index = floats(4, 5, 6), RNG.integers(-4, 4, shape)
    same(twin("Gather", 13, x, np.asarray(index)), np.take(x, index, 0))
    same(twin("Gather", 13, x, np.asarray(index), axis=axis), np.take(x, index, axis))


def test_gather_of_a_scalar_from_a_vector_is_a_scalar():
    x = np.array([3, 4, 5], np.int64)
    same(twin("Gather", 13, x, np.array(1, np.int64)), np.array(4, np.int64))


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_nd_equals_a_loop(reduction):
    x, index = floats(4, 3, 2), np.array([[0, 1], [3, -1], [0, 1]], np.int64)
    index = index[1:] if reduction == "none" else index  # several writers have no order
    updates = floats(len(index), 2)
    wanted = x.copy()
    rule = {
        "none": lambda a, b: b,
        "add": np.add,
        "mul": np.multiply,
        "max": np.maximum,
        "min": np.minimum,
    }[reduction]
    for where, value in zip(index, updates, strict=True):
        wanted[tuple(where)] = rule(wanted[tuple(where)], value)
    kept = x.copy()
    same(twin("ScatterND", 18, x, index, updates, reduction=reduction), wanted)
    same(x, kept)


def test_gather_nd_with_batches():
    x, index = floats(2, 3, 4), RNG.integers(-3, 3, (2, 5, 1))
    wanted = np.stack([x[b][index[b, :, 0]] for b in range(2)])
    same(twin("GatherND", 13, x, index, batch_dims=1), wanted)


# -- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [3, 5, 8])
@pytest.mark.parametrize("inverse", [0, 1])
def test_dft_of_a_real_signal_equals_numpy_cut_or_filled_to_its_length(length, inverse):
    x = floats(2, 5, 1)
    transform = np.fft.ifft if inverse else np.fft.fft
    wanted = transform(x[..., 0].astype(np.float64), length, 1)
    found = twin("DFT", 17, x, np.array(length, np.int64), inverse=inverse)
    pairs = np.stack([wanted.real, wanted.imag], -1)
    np.testing.assert_allclose(found, pairs, rtol=1e-5, atol=1e-6)


# -- what must be refused --------------------------------------------------------------------


def test_random_operators_are_refused():
    with pytest.raises(UnsupportedOperator, match="RandomNormalLike"):
        twin("RandomNormalLike", 13, floats(2))


def test_dropout_drops_nothing_in_inference_and_refuses_training():
    x = floats(3)
    same(twin("Dropout", 6, x), x)
    same(twin("Dropout", 13, x, np.array(0.5, np.float32)), x)
    with pytest.raises(ConverterError, match="random"):
        twin("Dropout", 13, x, np.array(0.5, np.float32), np.array(True))


def test_cast_between_types():
    x = np.array([-1.5, 0.0, 0.4, 300.7], np.float32)
    same(twin("Cast", 13, x, to=TensorProto.INT32), x.astype(np.int32))
    same(twin("Cast", 13, x, to=TensorProto.BOOL), x != 0)
    same(twin("Cast", 6, x, to=TensorProto.DOUBLE), x.astype(np.float64))


# -- gradients -------------------------------------------------------------------------------

INDEX = np.array([1, 0, 1], np.int64)
GRADIENTS = [
    ("Div", 14, (floats(2, 3), np.abs(floats(3)) + 1), {}),
    ("Pow", 15, (np.abs(floats(2, 3)) + 1, np.array(1.5, np.float32)), {}),
    ("Max", 13, (floats(2, 3), floats(3)), {}),
    ("ReduceMean", 13, (floats(2, 3),), {"axes": [1]}),
    ("ReduceL2", 13, (floats(2, 3),), {"axes": [1]}),
    ("ReduceLogSumExp", 13, (floats(2, 3),), {"axes": [0]}),
    ("ReduceProd", 13, (floats(2, 3),), {}),
    ("ReduceMax", 13, (floats(2, 3),), {"axes": [1]}),
    ("Slice", 9, (floats(4, 3),), {"starts": [1], "ends": [3]}),
    ("Pad", 13, (floats(3, 4), np.array([1, 1, 0, 2], np.int64)), {"mode": "reflect"}),
    ("Pad", 19, (floats(3, 4), np.array([1, 1, 0, 2], np.int64)), {"mode": "wrap"}),
    ("Gather", 13, (floats(3, 4), INDEX), {"axis": 1}),
    ("GatherElements", 13, (floats(3, 3), np.stack([INDEX] * 3)), {}),
    ("ScatterND", 18, (floats(3, 2), INDEX[:2, None], floats(2, 2)), {"reduction": "add"}),
    ("ScatterElements", 18, (floats(3, 1), INDEX[:2, None], floats(2, 1)), {}),
    ("Where", 16, (np.array([True, False]), floats(2), floats(2)), {}),
    ("Gemm", 13, (floats(2, 3), floats(4, 3), floats(4)), {"transB": 1, "alpha": 0.5}),
    ("MatMul", 13, (floats(2, 2, 3), floats(3, 2)), {}),
    ("Einsum", 12, (floats(2, 3), floats(3, 2)), {"equation": "ij,jk->ki"}),
    ("Expand", 13, (floats(2, 1), np.array([3, 1, 4], np.int64)), {}),
    ("CumSum", 14, (floats(2, 3), np.array(1, np.int64)), {"reverse": 1, "exclusive": 1}),
    ("DepthToSpace", 13, (floats(1, 4, 2, 2),), {"blocksize": 2}),
    ("ReverseSequence", 10, (floats(3, 2), np.array([2, 3], np.int64)), {}),
]


@pytest.mark.parametrize(("op_type", "opset", "arrays", "attributes"), GRADIENTS)
def test_gradients_equal_finite_differences(op_type, opset, arrays, attributes):
    program = Program(model(op_type, opset, arrays, **attributes), dtype=torch.float64)
    fixed = {i: torch.from_numpy(a) for i, a in enumerate(arrays) if a.dtype != np.float32}
    free = [i for i in range(len(arrays)) if i not in fixed]

    def function(*values):
        feeds = {f"x{i}": v for i, v in zip(free, values, strict=True)}
        feeds |= {f"x{i}": v for i, v in fixed.items()}
        return program.run(feeds, ["y0"])["y0"]

    leaves = [torch.tensor(arrays[i], dtype=torch.float64, requires_grad=True) for i in free]
    assert torch.autograd.gradcheck(function, leaves)


def test_length_has_a_zero_gradient_at_zero():
    program = Program(model("ReduceL2", 13, (np.zeros(3, np.float32),)))
    x = torch.zeros(3, requires_grad=True)
    program.run({"x0": x}, ["y0"])["y0"].sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros(3))

"""Branches, loops and scans, against plain Python and against autograd of the unrolled loop."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from converters.errors import ConverterError
from converters.to_torch.program import Program

FLOAT = TensorProto.FLOAT


def value(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def program(nodes, inputs, outputs, opset=16, initialisers=(), **options):
    graph = helper.make_graph(nodes, "test", inputs, outputs, list(initialisers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return Program(model, **options)


def constant(name, array):
    return onnx.numpy_helper.from_array(np.asarray(array), name)


def doubling_loop(limit, **options):
    """``while sum(x) < limit: x = w x; emit x``, with ``w`` taken from around the body."""
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["x_in", "w"], ["x_out"]),
            helper.make_node("ReduceSum", ["x_out"], ["total"], keepdims=0),
            helper.make_node("Less", ["total", "limit"], ["go"]),
            helper.make_node("Identity", ["x_out"], ["emitted"]),
        ],
        "body",
        [value("i", TensorProto.INT64), value("go_in", TensorProto.BOOL), value("x_in")],
        [value("go", TensorProto.BOOL), value("x_out"), value("emitted")],
        [constant("limit", np.float32(limit))],
    )
    loop = helper.make_node("Loop", ["most", "", "x"], ["last", "all"], body=body)
    return program(
        [loop],
        [value("x"), value("w")],
        [value("last"), value("all")],
        initialisers=[constant("most", np.int64(10))],
        **options,
    )


def test_loop_stops_by_its_condition_and_stacks_what_it_emits():
    feeds = {"x": torch.tensor([1.0, 2.0]), "w": torch.tensor(2.0)}
    found = doubling_loop(20).run(feeds, ["last", "all"])
    assert found["last"].tolist() == [8.0, 16.0]
    assert found["all"].tolist() == [[2.0, 4.0], [4.0, 8.0], [8.0, 16.0]]


def test_loop_stops_at_its_trip_count():
    feeds = {"x": torch.tensor([1.0]), "w": torch.tensor(1.0)}
    assert doubling_loop(20).run(feeds, ["all"])["all"].shape == (10, 1)


def test_gradients_pass_through_a_loop_and_to_what_it_captures():
    loop = doubling_loop(20, dtype=torch.float64)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    found = loop.run({"x": x, "w": w}, ["last"])["last"].sum()
    found_x, found_w = torch.autograd.grad(found, [x, w])
    wanted_x, wanted_w = torch.autograd.grad((x * w**3).sum(), [x, w])
    assert torch.equal(found_x, wanted_x)
    assert torch.equal(found_w, wanted_w)


def test_a_loop_that_never_runs_keeps_its_state_and_refuses_to_guess_a_shape():
    never = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go"]), helper.make_node("Neg", ["s"], ["t"])],
        "body",
        [value("i", TensorProto.INT64), value("go_in", TensorProto.BOOL), value("s")],
        [value("go", TensorProto.BOOL), value("t"), value("t")],
    )
    loop = helper.make_node("Loop", ["zero", "", "x"], ["last", "all"], body=never)
    zero = [constant("zero", np.int64(0))]
    with pytest.raises(ConverterError, match="never runs"):
        program([loop], [value("x")], [value("all")], initialisers=zero).run(
            {"x": torch.ones(2)}, ["all"]
        )


@pytest.mark.parametrize("cond", [True, False])
def test_if_takes_one_branch_and_its_gradient(cond):
    def branch(op_type):
        node = helper.make_node(op_type, ["x"], ["out"])
        return helper.make_graph([node], op_type, [], [value("out")])

    node = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("Exp"), else_branch=branch("Neg")
    )
    runs = program([node], [value("x"), value("c", TensorProto.BOOL)], [value("y")])
    x = torch.tensor([0.5], requires_grad=True)
    y = runs.run({"x": x, "c": torch.tensor(cond)}, ["y"])["y"]
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, x.exp() if cond else torch.tensor([-1.0]))


def running_sum(opset, *, inputs, **attributes):
    """Scan whose state is a running sum, which it also emits."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum_in", "x"], ["sum_out"]),
            helper.make_node("Identity", ["sum_out"], ["emitted"]),
        ],
        "body",
        [value("sum_in"), value("x")],
        [value("sum_out"), value("emitted")],
    )
    node = helper.make_node(
        "Scan", inputs, ["last", "all"], body=body, num_scan_inputs=1, **attributes
    )
    return program([node], [value("start"), value("xs")], [value("last"), value("all")], opset)


def test_scan_runs_along_any_axis_in_any_direction():
    xs = torch.arange(6.0).reshape(2, 3)
    scan = running_sum(
        9,
        inputs=["start", "xs"],
        scan_input_axes=[1],
        scan_input_directions=[1],
        scan_output_axes=[1],
        scan_output_directions=[1],
    )
    found = scan.run({"start": torch.zeros(2), "xs": xs}, ["last", "all"])
    assert torch.equal(found["last"], xs.sum(1))
    assert torch.equal(found["all"], xs.flip(1).cumsum(1).flip(1))


def test_scan_before_opset_nine_runs_each_batch_entry():
    xs = torch.arange(12.0).reshape(2, 3, 2)
    scan = running_sum(8, inputs=["", "start", "xs"])
    found = scan.run({"start": torch.zeros(2, 2), "xs": xs}, ["last", "all"])
    assert torch.equal(found["last"], xs.sum(1))
    assert torch.equal(found["all"], xs.cumsum(1))


def test_sequences_are_copied_not_changed():
    from converters.to_torch.optable import OPS

    def op(name):
        return OPS.lookup("", name, 17).function

    a, b, c = (torch.tensor(float(i)) for i in range(3))
    pair = op("SequenceConstruct")(a, c)
    assert op("SequenceInsert")(pair, b, 1) == [a, b, c]
    assert op("SequenceInsert")(pair, b, -1) == [a, b, c]
    assert op("SequenceInsert")(pair, b) == [a, c, b]
    assert op("SequenceErase")(pair) == [a]
    assert op("SequenceErase")(pair, 0) == [c]
    assert pair == [a, c]
    assert op("SequenceLength")(pair).item() == 2
    assert op("SequenceAt")(pair, -1) is c

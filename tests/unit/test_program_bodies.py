"""Nodes with bodies (If, Loop) and functions in the twin's interpreter."""

import numpy as np
import onnx
import pytest
import torch
from networks import node
from onnx import TensorProto, helper
from program_cases import floats, model, reference

from converters import onnx_file
from converters.errors import ConverterError
from converters.to_torch.optable import OPS, OpTable
from converters.to_torch.program import Program


def if_model():
    """y = a * k if flag else a - x, with a, k and x from around the branches."""
    then = helper.make_graph([node("Mul", "a k", "t")], "then", [], [floats("t", [2])])
    other = helper.make_graph([node("Sub", "a x", "e")], "else", [], [floats("e", [2])])
    nodes = [
        node("Add", "x k", "a"),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "flag"),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = {"k": np.array([2, 3], np.float32), "zero": np.float32(0)}
    return model(nodes, [floats("x", [2])], [floats("y", [2])], constants)


@pytest.mark.parametrize("x", [[1.0, 2.0], [-1.0, -2.0]])
def test_if_sees_the_tensors_around_it(x):
    proto = if_model()
    feed = np.array(x, np.float32)
    found = Program(proto)(torch.from_numpy(feed))[0]
    np.testing.assert_allclose(found.numpy(), reference(proto, {"x": feed})[0])


def test_gradient_through_if_and_captured_tensors():
    program = Program(if_model(), dtype=torch.float64)
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(program(x)[0].sum(), x)
    assert gradient.tolist() == [2, 3]  # d/dx sum((x + k) k) = k
    x = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(program(x)[0].sum(), x)
    assert gradient.tolist() == [0, 0]  # d/dx sum(x + k - x) = 0


def loop_model():
    """Four times state = state * k + x + i, with x and k from around; every state is kept."""
    body = helper.make_graph(
        [
            node("Mul", "state k", "scaled"),
            node("Add", "scaled x", "shifted"),
            node("Cast", "i", "step", to=TensorProto.FLOAT),
            node("Add", "shifted step", "next"),
            node("Identity", "next", "kept"),
            node("Identity", "go", "still"),
        ],
        "body",
        [
            floats("i", [], TensorProto.INT64),
            floats("go", [], TensorProto.BOOL),
            floats("state", [2]),
        ],
        [floats("still", [], TensorProto.BOOL), floats("next", [2]), floats("kept", [2])],
    )
    loop = helper.make_node("Loop", ["count", "yes", "start"], ["last", "all"], body=body)
    constants = {
        "count": np.int64(4),
        "yes": np.bool_(True),
        "start": np.zeros(2, np.float32),
        "k": np.float32(0.5),
    }
    outputs = [floats("last", [2]), floats("all", [4, 2])]
    return model([loop], [floats("x", [2])], outputs, constants)


def test_loop_carries_state_and_sees_the_tensors_around_it():
    proto = loop_model()
    x = np.array([1.0, -2.0], np.float32)
    program = Program(proto)
    for _ in range(2):  # nothing is left over from the first run
        found = program(torch.from_numpy(x))
        for got, wanted in zip(found, reference(proto, {"x": x}), strict=True):
            np.testing.assert_allclose(got.numpy(), wanted, atol=1e-6)


def test_gradient_through_a_loop():
    program = Program(loop_model(), dtype=torch.float64)
    x = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(program(x)[0].sum(), x)
    np.testing.assert_allclose(gradient.numpy(), [1.875, 1.875])  # 1 + 1/2 + 1/4 + 1/8


def test_a_body_inside_a_body_sees_the_outermost_tensors():
    inner_then = helper.make_graph([node("Mul", "x k", "it")], "it", [], [floats("it", [2])])
    inner_else = helper.make_graph([node("Neg", "x", "ie")], "ie", [], [floats("ie", [2])])
    then = helper.make_graph(
        [helper.make_node("If", ["inner"], ["t"], then_branch=inner_then, else_branch=inner_else)],
        "then",
        [],
        [floats("t", [2])],
    )
    other = helper.make_graph([node("Identity", "x", "e")], "else", [], [floats("e", [2])])
    proto = model(
        [helper.make_node("If", ["outer"], ["y"], then_branch=then, else_branch=other)],
        [
            floats("x", [2]),
            floats("outer", [], TensorProto.BOOL),
            floats("inner", [], TensorProto.BOOL),
        ],
        [floats("y", [2])],
        {"k": np.float32(5)},
    )
    program = Program(proto)
    x = np.array([1, 2], np.float32)
    for outer in (True, False):
        for inner in (True, False):
            feeds = {"x": x, "outer": np.array(outer), "inner": np.array(inner)}
            found = program.run(
                {k: torch.from_numpy(np.asarray(v)) for k, v in feeds.items()}, ["y"]
            )["y"]
            np.testing.assert_array_equal(found.numpy(), reference(proto, feeds)[0])


# -- functions ---------------------------------------------------------------------------------


def local_function():
    """custom.Shift(v) = v * scale + 1, with an attribute."""
    return helper.make_function(
        "custom",
        "Shift",
        ["v"],
        ["w"],
        [
            helper.make_node("Constant", [], ["one"], value_float=1.0),
            node("Selu", "v", "s"),
            node("Add", "s one", "w"),
        ],
        [helper.make_opsetid("", 17)],
    )


def test_local_functions_are_inlined_when_the_file_is_read(tmp_path):
    nodes = [
        helper.make_node("Shift", ["x"], ["a"], domain="custom"),
        helper.make_node("Shift", ["a"], ["y"], domain="custom"),
    ]
    proto = model(
        nodes,
        [floats("x", [3])],
        [floats("y", [3])],
        functions=[local_function()],
        domains=["custom"],
    )
    path = tmp_path / "functions.onnx"
    onnx.save(proto, path)
    x = np.array([-1, 0.5, 2], np.float32)
    found = Program(onnx_file.read(path).graph)(torch.from_numpy(x))[0]
    np.testing.assert_allclose(found.numpy(), reference(proto, {"x": x})[0], atol=1e-6)


def test_an_operator_nobody_implemented_runs_by_its_function_body():
    """The table is robbed of HardSwish; the standard's own body takes its place."""
    robbed = OpTable()
    for domain, op_type, since, op in OPS:
        if op_type != "HardSwish":
            robbed.register(op_type, since=since, domain=domain)(op.function)
    nodes = [node("HardSwish", "x", "a"), node("Relu", "a", "y")]
    proto = model(nodes, [floats("x", [7])], ["y", "a"])
    program = Program(proto, table=robbed)
    assert robbed.lookup("", "HardSwish", 17) is None
    assert not program.unsupported()
    x = np.linspace(-5, 5, 7, dtype=np.float32)
    found = program.run({"x": torch.from_numpy(x)}, ["a", "y"])
    wanted = x * np.clip(x / 6 + 0.5, 0, 1)
    np.testing.assert_allclose(found["a"].numpy(), wanted, atol=1e-6)
    np.testing.assert_allclose(found["y"].numpy(), np.maximum(wanted, 0), atol=1e-6)


def test_an_older_opset_uses_the_operators_of_its_time():
    """Softmax before opset 13 normalises over everything from its axis on."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    for opset in (11, 13):
        proto = model(
            [node("Softmax", "x", "y", axis=1)], [floats("x", [2, 3, 4])], ["y"], opset=opset
        )
        found = Program(proto)(torch.from_numpy(x))[0].numpy()
        np.testing.assert_allclose(found, reference(proto, {"x": x})[0], atol=1e-6)
        total = found.sum(axis=(1, 2) if opset == 11 else 1)
        np.testing.assert_allclose(total, np.ones_like(total), atol=1e-5)


def test_class_names_as_constants_hinder_nobody_who_does_not_ask_for_them():
    """Classifiers of 2018 carry their labels as a tensor of strings beside the scores."""
    nodes = [node("Relu", "x", "y"), node("Gather", "names best", "label")]
    nodes.insert(1, node("ArgMax", "y", "best", axis=0))
    constants = {"names": np.array(["cat", "dog", "cow"], object)}
    program = Program(model(nodes, [floats("x", [3])], ["y", "label"], constants))
    x = torch.tensor([-3.0, 0.0, 2.0])
    assert program.run({"x": x}, ["y", "best"])["best"].tolist() == [2]
    for name in ("names", "label"):
        with pytest.raises(ConverterError):  # an error of this package, not a private one
            program.run({"x": x}, [name])

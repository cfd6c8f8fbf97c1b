"""The twin's interpreter: what runs, in which precision, and what it says when it cannot."""

import gc
import weakref

import numpy as np
import onnxruntime
import pytest
import torch
from networks import node
from onnx import TensorProto, helper, numpy_helper
from program_cases import floats, model, reference

from converters.errors import ConverterError, UnsupportedOperator
from converters.to_torch import program as program_module
from converters.to_torch.optable import OPS, OpTable
from converters.to_torch.program import Program

onnxruntime.set_default_logger_severity(4)


def ops_of(plan):
    return [step.op_type for step in plan.nodes]


@pytest.fixture
def chain():
    """x -> a = x + one -> b = a * two -> c = Relu(b); d = Neg(a) beside; one, two constants."""
    nodes = [
        node("Add", "x one", "a"),
        node("Mul", "a two", "b"),
        node("Relu", "b", "c"),
        node("Neg", "a", "d"),
    ]
    constants = {"one": np.float32(1), "two": np.float32(2)}
    return Program(model(nodes, [floats("x", [3])], ["c", "d"], constants))


X = torch.tensor([-3.0, 0.0, 2.0])


# -- feeding and fetching ----------------------------------------------------------------------


def test_any_tensor_can_be_fetched(chain):
    found = chain.run({"x": X}, ["a", "b", "c", "d", "x", "two"])
    assert found["a"].tolist() == [-2, 1, 3]
    assert found["b"].tolist() == [-4, 2, 6]
    assert found["c"].tolist() == [0, 2, 6]
    assert found["d"].tolist() == [2, -1, -3]
    assert found["x"] is X
    assert found["two"].item() == 2


def test_a_run_may_start_in_the_middle(chain):
    assert chain.run({"b": X}, ["c"])["c"].tolist() == [0, 0, 2]
    assert ops_of(chain.plan(["b"], ["c"])) == ["Relu"]


def test_a_fed_tensor_is_not_computed(chain):
    """Ablation: the tensor's own value is replaced for all that read it."""
    found = chain.run({"x": X, "a": torch.zeros(3)}, ["a", "b", "d"])
    assert [found[n].tolist() for n in "abd"] == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert ops_of(chain.plan(["x", "a"], ["b"])) == ["Mul"]


def test_a_constant_may_be_fed(chain):
    found = chain.run({"x": X, "two": torch.tensor(10.0)}, ["b"])
    assert found["b"].tolist() == [-20, 10, 30]
    assert chain.run({"x": X}, ["b"])["b"].tolist() == [-4, 2, 6]


def test_feeding_one_output_of_a_node_keeps_it_while_the_other_is_computed():
    """Split must run for its second output and must not overwrite the first, which was fed."""
    nodes = [node("Split", "x", "left right", axis=0), node("Add", "left right", "sum")]
    program = Program(model(nodes, [floats("x", [4])], ["sum"], opset=13))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = program.run({"x": x, "left": torch.tensor([100.0, 200.0])}, ["sum", "left"])
    assert found["left"].tolist() == [100, 200]
    assert found["sum"].tolist() == [103, 204]


def test_nodes_that_leave_their_first_output_out_are_told_apart():
    weights = {"w": np.ones((1, 2, 1), np.float32), "r": np.ones((1, 2, 2), np.float32)}
    weights["w2"] = -weights["w"]
    nodes = [
        helper.make_node("RNN", ["x", "w", "r"], ["", "h1"], hidden_size=2),
        helper.make_node("RNN", ["x", "w2", "r"], ["", "h2"], hidden_size=2),
        node("Add", "h1 h2", "y"),
        node("Sub", "h1 h2", "z"),
    ]
    proto = model(nodes, [floats("x", [2, 1, 1])], ["y", "z"], weights)
    x = np.array([[[0.5]], [[-0.3]]], np.float32)
    found = Program(proto).run({"x": torch.from_numpy(x)}, ["y", "z"])
    for name, wanted in zip("yz", reference(proto, {"x": x}), strict=True):
        np.testing.assert_allclose(found[name].numpy(), wanted, atol=1e-6)


def test_forward_takes_inputs_and_returns_outputs_in_order(chain):
    c, d = chain(X)
    assert c.tolist() == [0, 2, 6]
    assert d.tolist() == [2, -1, -3]


def test_initialisers_listed_as_inputs_are_constants():
    """Files of the first IR versions repeat every initialiser among the inputs."""
    proto = model(
        [node("Add", "x k", "y")],
        [floats("x", [2]), floats("k", [2])],
        ["y"],
        {"k": np.array([1, 2], np.float32)},
    )
    assert Program(proto)(torch.zeros(2))[0].tolist() == [1, 2]


# -- plans -------------------------------------------------------------------------------------


def test_only_what_is_needed_runs(chain):
    assert ops_of(chain.plan(["x"], ["d"])) == ["Add", "Neg"]
    assert ops_of(chain.plan(["x"], ["x"])) == []


def test_values_are_dropped_after_their_last_use(chain):
    plan = chain.plan(["x"], ["c"])
    assert ops_of(plan) == ["Add", "Mul", "Relu"]
    assert [set(dead) for dead in plan.dead] == [{"x", "one"}, {"a", "two"}, {"b"}]
    kept = chain.plan(["x"], ["c", "a"])
    assert all("a" not in dead for dead in kept.dead)


def test_dead_values_are_freed_while_running():
    alive, seen = [], []
    table = OpTable(OPS)

    @table.register("Neg", since=6)
    def neg(X: torch.Tensor) -> torch.Tensor:
        seen.append(sum(ref() is not None for ref in alive))
        result = -X
        alive.append(weakref.ref(result))
        return result

    nodes = [node("Neg", f"t{i}", f"t{i + 1}") for i in range(6)]
    program = Program(model(nodes, [floats("t0", [2])], ["t6"]), table=table)
    program.run({"t0": torch.ones(2)}, ["t6"])
    assert max(seen) == 1  # while a node runs, only its input is alive


def test_plans_are_cached(chain):
    first = chain.plan(["x"], ["c"])
    assert chain.plan(("x",), ("c",)) is first
    assert chain.plan(["b"], ["c"]) is not first
    overlay = OpTable()
    assert chain.plan(["x"], ["c"], overlay) is not first
    assert chain.plan(["x"], ["c"], overlay) is chain.plan(["x"], ["c"], overlay)


def test_the_plans_that_are_used_least_are_given_up(chain, monkeypatch):
    monkeypatch.setattr(program_module, "MAX_PLANS", 2)
    first = chain.plan(["x"], ["c"])
    second = chain.plan(["b"], ["c"])
    assert chain.plan(["x"], ["c"]) is first
    chain.plan(["x"], ["b"])
    assert chain.plan(["x"], ["c"]) is first
    assert chain.plan(["b"], ["c"]) is not second


def scaling(factor):
    """An overlay that multiplies in the place of Relu."""
    overlay = OpTable()

    @overlay.register("Relu")
    def scaled(X: torch.Tensor) -> torch.Tensor:
        return X * factor

    return overlay


def test_an_overlay_never_gets_the_steps_of_one_that_is_gone(chain, monkeypatch):
    """Python gives the identity of a dead object to the next one."""
    monkeypatch.setattr(program_module, "MAX_PLANS", 1)
    for factor in range(50):
        found = chain.run({"x": X}, ["c"], scaling(factor))["c"]
        chain.plan(["b"], ["c"])
        assert found.tolist() == (chain.run({"x": X}, ["b"])["b"] * factor + 0).tolist(), factor


def test_the_steps_of_an_overlay_go_with_it(chain, monkeypatch):
    monkeypatch.setattr(program_module, "MAX_PLANS", 1)
    overlay = scaling(2)
    function = weakref.ref(overlay.lookup("", "Relu", 17).function)
    chain.run({"x": X}, ["c"], overlay)
    chain.plan(["x"], ["c"])
    del overlay
    gc.collect()
    assert function() is None


def test_an_overlay_replaces_an_operator_for_one_run_only(chain):
    overlay = OpTable()

    @overlay.register("Relu")
    def doubled(X: torch.Tensor) -> torch.Tensor:
        return X * 2

    assert chain.run({"x": X}, ["c"], overlay)["c"].tolist() == [-8, 4, 12]
    assert chain.run({"x": X}, ["c"])["c"].tolist() == [0, 2, 6]


def test_an_overlay_leaves_exempt_tensors_alone():
    nodes = [node("Relu", "x", "a"), node("Neg", "x", "n"), node("Relu", "n", "b")]
    program = Program(model(nodes, [floats("x", [3])], ["a", "b"]))
    overlay = OpTable(exempt=["a"])

    @overlay.register("Relu")
    def doubled(X: torch.Tensor) -> torch.Tensor:
        return X * 2

    found = program.run({"x": X}, ["a", "b"], overlay)
    assert found["a"].tolist() == [0, 0, 2]
    assert found["b"].tolist() == [6, 0, -4]


def test_runs_leave_no_state_behind(chain):
    constants = {k: v.clone() for k, v in chain.plan(["x"], ["c", "d"]).constants.items()}
    first = chain.run({"x": X}, ["a", "c", "d"])
    snapshot = {name: value.clone() for name, value in first.items()}
    chain.run({"x": X * 100, "one": torch.tensor(7.0)}, ["a", "b", "c", "d"])
    again = chain.run({"x": X}, ["a", "c", "d"])
    for name, value in snapshot.items():
        assert torch.equal(first[name], value)  # nothing wrote into what was handed out
        assert torch.equal(again[name], value)
    for name, value in constants.items():
        assert torch.equal(chain.constant(name), value)
    assert X.tolist() == [-3, 0, 2]


def test_the_same_input_twice_and_a_different_batch_after_it():
    """A batch size seen first is not baked in."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n"),
        node("Concat", "n rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    constants = {"zero": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    program = Program(model(nodes, [floats("x", ["n", 2, 3])], ["y"], constants))
    for n in (1, 4, 2):
        assert program(torch.zeros(n, 2, 3))[0].shape == (n, 6)


# -- errors ------------------------------------------------------------------------------------


def test_unknown_tensors_and_missing_feeds_are_named(chain):
    with pytest.raises(ConverterError, match="'nowhere': no such tensor"):
        chain.run({"x": X}, ["nowhere"])
    with pytest.raises(ConverterError, match="'x': the input is not fed"):
        chain.run({}, ["c"])
    with pytest.raises(ConverterError, match="'x': the input is not fed"):
        chain.run({"c": X}, ["d"])


def test_a_failing_node_is_named():
    program = Program(
        model(
            [node("MatMul", "x w", "y", name="head")],
            [floats("x", [1, 3])],
            ["y"],
            {"w": np.ones((4, 2), np.float32)},
        )
    )
    with pytest.raises(ConverterError, match="MatMul node 'head'"):
        program(torch.ones(1, 3))


def test_all_unsupported_operators_stand_in_one_error():
    nodes = [
        helper.make_node("Wobble", ["x"], ["a"], domain="custom", name="first wobble"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("Wobble", ["b"], ["c"], domain="custom", name="second wobble"),
        helper.make_node("Jitter", ["c"], ["y"], domain="custom", name="the jitter"),
        helper.make_node("Shake", ["x"], ["z"], domain="custom", name="elsewhere"),
    ]
    program = Program(model(nodes, [floats("x", [2])], ["y", "z"], domains=["custom"]))
    with pytest.raises(UnsupportedOperator) as caught:
        program.run({"x": torch.ones(2)}, ["y"])
    assert {n.name for n in caught.value.nodes} == {"first wobble", "second wobble", "the jitter"}
    for word in ("custom::Wobble", "custom::Jitter", "'first wobble'", "'second wobble'"):
        assert word in str(caught.value)
    assert "Shake" not in str(caught.value)  # not on the way
    assert len(program.unsupported()) == 4
    # What lies behind them still runs.
    assert program.run({"a": torch.tensor([-1.0, 1.0])}, ["b"])["b"].tolist() == [0, 1]


def test_an_attribute_nobody_implements_is_refused_and_a_default_is_not():
    def program(**attributes):
        return Program(model([node("Relu", "x", "y", **attributes)], [floats("x", [2])], ["y"]))

    with pytest.raises(UnsupportedOperator, match="sparkle"):
        program(sparkle=1)(torch.ones(2))
    assert program()(torch.ones(2))[0].tolist() == [1, 1]


def test_more_inputs_than_the_operator_knows_are_refused():
    proto = model([node("Relu", "x x", "y")], [floats("x", [2])], ["y"])
    with pytest.raises(UnsupportedOperator, match="2 inputs where 1"):
        Program(proto)(torch.ones(2))


# -- constants ---------------------------------------------------------------------------------


def test_what_depends_on_constants_alone_is_folded():
    nodes = [
        node("Mul", "k k", "kk"),
        node("Sqrt", "kk", "root"),
        node("Add", "x root", "y"),
    ]
    program = Program(model(nodes, [floats("x", [2])], ["y"], {"k": np.float32(3)}))
    assert ops_of(program.plan(["x"], ["y"])) == ["Add"]
    assert program(torch.zeros(2))[0].tolist() == [3, 3]
    assert program.run({}, ["root"])["root"].item() == 3


def test_random_numbers_are_never_folded():
    table = OpTable(OPS)

    @table.register("RandomNormal")
    def random_normal(*, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape)

    nodes = [helper.make_node("RandomNormal", [], ["r"], shape=[9]), node("Add", "x r", "y")]
    program = Program(model(nodes, [floats("x", [9])], ["y"]), table=table)
    zero = torch.zeros(9)
    assert not torch.equal(program(zero)[0], program(zero)[0])


def test_a_tensor_made_from_the_input_is_not_folded_because_a_constant_takes_part():
    nodes = [node("Mul", "k k", "kk"), node("Mul", "x kk", "a"), node("Add", "a kk", "y")]
    program = Program(model(nodes, [floats("x", [1])], ["y"], {"k": np.float32(2)}))
    assert [program(torch.tensor([float(v)]))[0].item() for v in (1, 2)] == [8, 12]


def test_constant_nodes_of_every_kind():
    nodes = [
        helper.make_node("Constant", [], ["f"], value_float=1.5),
        helper.make_node("Constant", [], ["fs"], value_floats=[1.0, 2.0]),
        helper.make_node("Constant", [], ["i"], value_int=3),
        helper.make_node("Constant", [], ["is"], value_ints=[4, 5]),
        helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(np.float64([6.0]))),
        node("Identity", "x", "y"),
    ]
    program = Program(model(nodes, [floats("x", [1])], ["y"]))
    found = program.run({}, ["f", "fs", "i", "is", "t"])
    assert [found[n].tolist() for n in ("f", "fs", "i", "is", "t")] == [
        1.5,
        [1, 2],
        3,
        [4, 5],
        [6],
    ]
    kinds = [found[n].dtype for n in ("f", "fs", "i", "is", "t")]
    assert kinds == [torch.float32] * 2 + [torch.int64] * 2 + [torch.float64]


# -- precision ---------------------------------------------------------------------------------


def conv_model(kind, dtype):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 3, 3, 3)).astype(dtype)
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "y"),
    ]
    constants = {"w": weight, "b": rng.standard_normal(4).astype(dtype)}
    return model(nodes, [floats("x", [1, 3, 8, 8], kind)], [floats("y", [1, 4], kind)], constants)


def test_float16_models_are_computed_in_float32():
    proto = conv_model(TensorProto.FLOAT16, np.float16)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float16)
    program = Program(proto)
    found = program.run({"x": torch.from_numpy(x).float()}, ["c", "y"])
    assert {v.dtype for v in found.values()} == {torch.float32}
    weight = numpy_helper.to_array(proto.graph.initializer[0]).astype(np.float64)
    bias = numpy_helper.to_array(proto.graph.initializer[1]).astype(np.float64)
    padded = np.pad(x[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    wanted = np.zeros((4, 8, 8))
    for k in range(4):
        for i in range(8):
            for j in range(8):
                wanted[k, i, j] = (padded[:, i : i + 3, j : j + 3] * weight[k]).sum() + bias[k]
    np.testing.assert_allclose(found["c"][0].numpy(), wanted, atol=1e-5)  # not fp16's 1e-2


def test_float64_on_request():
    proto = conv_model(TensorProto.FLOAT, np.float32)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = Program(proto, dtype=torch.float64).run({"x": x}, ["y"])["y"]
    narrow = Program(proto).run({"x": x.float()}, ["y"])["y"]
    assert wide.dtype == torch.float64
    assert 0 < (wide - narrow).abs().max() < 1e-5


def test_a_cast_follows_the_precision_and_integers_stay():
    nodes = [
        node("Cast", "x", "half", to=TensorProto.FLOAT16),
        node("Cast", "x", "whole", to=TensorProto.INT64),
        node("Cast", "whole", "back", to=TensorProto.FLOAT),
    ]
    proto = model(nodes, [floats("x", [2])], ["half", "whole", "back"])
    x = torch.tensor([1.75, -2.5], dtype=torch.float64)
    found = Program(proto, dtype=torch.float64).run({"x": x}, ["half", "whole", "back"])
    assert [found[n].dtype for n in ("half", "whole", "back")] == [
        torch.float64,
        torch.int64,
        torch.float64,
    ]
    assert found["whole"].tolist() == [1, -2]


def test_moving_the_program_moves_its_constants(chain):
    before = chain.run({"x": X}, ["c"])["c"]
    chain.to("meta")
    found = chain.run({"x": X.to("meta")}, ["c"])["c"]
    assert found.device.type == "meta"
    assert found.shape == before.shape


def test_to_keeps_results_on_the_cpu(chain):
    before = chain.run({"x": X}, ["c", "d"])
    chain.to("cpu")
    after = chain.run({"x": X}, ["c", "d"])
    assert all(torch.equal(before[n], after[n]) for n in before)


# -- gradients ---------------------------------------------------------------------------------


def test_autograd_goes_through():
    proto = conv_model(TensorProto.FLOAT, np.float32)
    program = Program(proto, dtype=torch.float64)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def scores(value):
        return program.run({"x": value}, ["y"])["y"]

    assert torch.autograd.gradcheck(scores, x.requires_grad_(), eps=1e-6, atol=1e-6)


def test_gradient_at_an_inner_tensor_equals_that_of_the_tail():
    program = Program(conv_model(TensorProto.FLOAT, np.float32), dtype=torch.float64)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    x.requires_grad_()
    whole = program.run({"x": x}, ["r", "y"])
    (inside,) = torch.autograd.grad(whole["y"][0, 2], whole["r"])
    leaf = whole["r"].detach().requires_grad_()
    (tail,) = torch.autograd.grad(program.run({"r": leaf}, ["y"])["y"][0, 2], leaf)
    assert torch.equal(inside, tail)
    assert inside.abs().max() > 0


def test_constants_ask_for_no_gradient():
    program = Program(conv_model(TensorProto.FLOAT, np.float32))
    assert not program(torch.ones(1, 3, 8, 8))[0].requires_grad

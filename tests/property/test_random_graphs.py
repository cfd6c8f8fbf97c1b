"""Any network over the operator table: the twin computes what ONNX Runtime computes."""

import numpy as np
import onnxruntime
import pytest
import torch
from graph_strategies import networks
from hypothesis import HealthCheck, assume, given, settings

from converters.to_torch import Program

TOLERANCE = 1e-4  # of a tensor's peak, as for real models

QUICK = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def reference(model, x):
    """Every tensor by ONNX Runtime, or None where it has no kernel for this opset."""
    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def check(model, x):
    assume(model.graph.node)
    wanted = reference(model, x)
    assume(wanted is not None)
    program = Program(model)
    # Each operator is fed ONNX Runtime's own inputs: rounding must not grow along a chain through
    # Floor, Sign or a division, where one unit of the last place becomes a whole one.
    values = {"x": torch.from_numpy(x), **{n: torch.from_numpy(v) for n, v in wanted.items()}}
    for node in program.graph.nodes:
        feeds = {name: values[name] for name in node.inputs if name in values}
        ours = program.run(feeds, [node.outputs[0]])[node.outputs[0]].numpy()
        theirs = wanted[node.outputs[0]]
        assert ours.shape == theirs.shape, node
        assert ours.dtype == theirs.dtype, node
        finite = np.isfinite(theirs)  # Reciprocals overflow on both sides alike
        np.testing.assert_array_equal(ours[~finite], theirs[~finite], str(node))
        # A mean or sum of large numbers may be small: its rounding is that of what went in.
        read = max((float(np.abs(wanted.get(n, x)).max(initial=0)) for n in feeds), default=0)
        peak = max(float(np.abs(theirs[finite]).max(initial=0)), 1e-2 * read, 1e-6)
        worst = float(np.abs(ours[finite] - theirs[finite]).max(initial=0))
        assert worst <= TOLERANCE * peak, node


@given(networks())
@QUICK
def test_every_node_computes_what_onnxruntime_computes(drawn):
    check(*drawn)


@pytest.mark.conformance
@given(networks())
@settings(QUICK, max_examples=2000)
def test_every_node_of_many_networks(drawn):
    check(*drawn)


@given(networks())
@settings(QUICK, max_examples=60)
def test_a_whole_network_is_its_nodes_one_by_one(drawn):
    """Planning, dead values and folding lose nothing: one run equals node by node."""
    model, x = drawn
    assume(model.graph.node)
    program = Program(model)
    names = [node.outputs[0] for node in program.graph.nodes]
    whole = program.run({"x": torch.from_numpy(x)}, names)
    step = {"x": torch.from_numpy(x)}
    for node in program.graph.nodes:
        feeds = {name: step[name] for name in node.inputs if name in step}
        step |= program.run(feeds, [node.outputs[0]])
    for name in names:
        torch.testing.assert_close(whole[name], step[name], rtol=0, atol=0, equal_nan=True)

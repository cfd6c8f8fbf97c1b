"""Random networks that keep channels last: moving what is element-wise changes no value."""

import numpy as np
import onnx
import onnxruntime
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import onnx_model
from onnx import helper as oh

from converters.onnx_file.channels_first import move_channels_first

C, SIDE = 3, 4
UNARY = ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Softplus", "HardSwish", "Elu", "Identity")
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Div", "PRelu", "Sum")
SHAPES = ((), (1,), (C,), (1, C), (1, 1, C), (1, 1, 1, C), (SIDE, 1, 1), (1, SIDE, 1, C))
OTHER = ("Softmax", "ReduceMean", "first", "conv")


@st.composite
def networks(draw):
    """Steps on maps with channels last, each on any tensor before it."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    nodes = [oh.make_node("Transpose", ["image"], ["v0"], perm=[0, 2, 3, 1])]
    constants, known = {}, ["v0"]
    for at in range(1, draw(st.integers(2, 10))):
        source, made = draw(st.sampled_from(known)), f"v{at}"
        kind = draw(st.sampled_from((*UNARY, *BINARY * 2, *OTHER)))
        if kind in BINARY:
            other = draw(st.sampled_from((*known, *SHAPES)))
            if kind == "PRelu" and isinstance(other, str):
                other = (C,)
            if not isinstance(other, str):
                constants[f"k{at}"] = rng.uniform(0.5, 2, other).astype(np.float32)
                other = f"k{at}"
            pair = [source, other]
            if kind != "PRelu" and draw(st.booleans()):
                pair.reverse()
            nodes.append(oh.make_node(kind, pair, [made]))
        elif kind in UNARY:
            nodes.append(oh.make_node(kind, [source], [made]))
        elif kind == "Softmax":
            nodes.append(oh.make_node(kind, [source], [made], axis=-1))
        elif kind == "ReduceMean":  # a gate: (N, 1, 1, C)
            nodes.append(oh.make_node(kind, [source], [f"m{at}"], axes=[1, 2]))
            nodes.append(oh.make_node("Mul", [source, f"m{at}"], [made]))
        else:
            nodes.append(oh.make_node("Transpose", [source], [f"f{at}"], perm=[0, 3, 1, 2]))
            inner = f"f{at}"
            if kind == "conv":
                constants[f"w{at}"] = rng.normal(size=(C, C, 1, 1)).astype(np.float32)
                nodes.append(oh.make_node("Conv", [inner, f"w{at}"], [f"c{at}"]))
                inner = f"c{at}"
            nodes.append(oh.make_node("Transpose", [inner], [made], perm=[0, 2, 3, 1]))
        known.append(made)
    return onnx_model(
        nodes,
        {"image": ["N", C, SIDE, SIDE]},
        {known[-1]: [None] * 4},
        constants,
        opset=17,
    )


def values(proto, names):
    if not names:
        return []
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.output[:]
    shown.graph.output.extend(oh.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image = np.random.default_rng(0).normal(size=(2, C, SIDE, SIDE)).astype(np.float32)
    return session.run(list(names), {"image": image})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_values_and_names_stay(proto):
    before = [name for node in proto.graph.node for name in node.output]
    moved = onnx.ModelProto()
    moved.CopyFrom(proto)
    move_channels_first(moved)
    onnx.checker.check_model(moved)
    made = {name for node in moved.graph.node for name in node.output}
    assert proto.graph.output == moved.graph.output
    assert proto.graph.output[0].name in made
    kept = [name for name in before if name in made]
    for name, a, b in zip(kept, values(proto, kept), values(moved, kept), strict=True):
        # Kernels may take elements in vectors at one place and one by one at another.
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6, err_msg=name)
    first = [name for name in made if name.endswith("_channels_first")]
    last = [name.removesuffix("_channels_first") for name in first]
    for name, a, b in zip(last, values(proto, last), values(moved, first), strict=True):
        np.testing.assert_allclose(a.transpose(0, 3, 1, 2), b, rtol=2e-6, atol=1e-6, err_msg=name)
    # A second time there is nothing left to move.
    again = onnx.ModelProto()
    again.CopyFrom(moved)
    move_channels_first(again)
    assert {n.output[0] for n in again.graph.node} <= made

"""RNN, GRU and LSTM against ONNX Runtime, in every variant it runs."""

import numpy as np
import pytest
import torch
from one_node import assert_same, twin
from torch.autograd import gradcheck

from converters.errors import ConverterError
from converters.to_torch.ops import recurrent

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, SIZE, HIDDEN = 5, 3, 2, 4


def inputs_of(op, directions, *, lengths=True, initial=True, peepholes=True, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32) * 0.7

    rows = GATES[op] * HIDDEN
    values = [
        draw(STEPS, BATCH, SIZE),
        draw(directions, rows, SIZE),
        draw(directions, rows, HIDDEN),
    ]
    values += [draw(directions, 2 * rows)]
    values += [np.array([3, 5, 1], np.int32) if lengths else None]
    values += [draw(directions, BATCH, HIDDEN) if initial else None]
    if op == "LSTM":
        values += [draw(directions, BATCH, HIDDEN) if initial else None]
        values += [draw(directions, 3 * HIDDEN) if peepholes else None]
    return values


@pytest.mark.parametrize("op", list(GATES))
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("full", [True, False])
def test_directions(op, direction, full):
    values = inputs_of(
        op, 1 + (direction == "bidirectional"), lengths=full, initial=full, peepholes=full
    )
    outputs = 3 if op == "LSTM" else 2
    assert_same(op, values, opset=14, outputs=outputs, hidden_size=HIDDEN, direction=direction)


def test_reset_gate_after_the_product():
    for direction in ("forward", "bidirectional"):
        values = inputs_of("GRU", 1 + (direction == "bidirectional"))
        assert_same(
            "GRU",
            values,
            opset=14,
            outputs=2,
            hidden_size=HIDDEN,
            linear_before_reset=1,
            direction=direction,
        )


def test_coupled_input_and_forget_gates():
    values = inputs_of("LSTM", 1, peepholes=False)
    assert_same("LSTM", values, opset=14, outputs=3, hidden_size=HIDDEN, input_forget=1)


@pytest.mark.parametrize(
    ("op", "activations", "alpha", "beta"),
    [
        ("RNN", ["LeakyRelu"], [0.3], []),
        ("RNN", ["Affine"], [0.5], [0.1]),
        ("GRU", ["HardSigmoid", "ScaledTanh"], [0.3, 1.2], [0.4, 0.7]),
        ("LSTM", ["Sigmoid", "Softsign", "Elu"], [0.6], []),
        ("LSTM", ["HardSigmoid", "Tanh", "Relu"], [0.3], [0.4]),
    ],
)
def test_activations_take_alpha_and_beta_in_order(op, activations, alpha, beta):
    values = inputs_of(op, 1, peepholes=False)
    options = {"activation_alpha": alpha} if alpha else {}
    options |= {"activation_beta": beta} if beta else {}
    assert_same(
        op, values, opset=14, outputs=2, hidden_size=HIDDEN, activations=activations, **options
    )


@pytest.mark.parametrize("op", ["RNN", "GRU"])
def test_clip(op):
    assert_same(op, inputs_of(op, 1), opset=14, outputs=2, hidden_size=HIDDEN, clip=0.3)


@pytest.mark.parametrize("op", list(GATES))
def test_batch_first_is_the_same_transposed(op):
    values = inputs_of(op, 2)
    options = {"opset": 14, "hidden_size": HIDDEN, "direction": "bidirectional"}
    count = 3 if op == "LSTM" else 2
    Y, *states = twin(op, values, outputs=count, **options)
    for i in (0, 5, 6) if op == "LSTM" else (0, 5):
        values[i] = values[i].swapaxes(0, 1)
    other, *other_states = twin(op, values, outputs=count, layout=1, **options)
    np.testing.assert_array_equal(other, Y.transpose(2, 0, 1, 3))
    for a, b in zip(states, other_states, strict=True):
        np.testing.assert_array_equal(b, a.swapaxes(0, 1))


@pytest.mark.parametrize("op", list(GATES))
def test_gradients(op):
    values = inputs_of(op, 1)
    tensors = [
        torch.from_numpy(v).double().requires_grad_()
        if v.dtype == np.float32
        else torch.from_numpy(v)
        for v in values
    ]
    function = {"RNN": recurrent.rnn, "GRU": recurrent.gru, "LSTM": recurrent.lstm}[op]
    assert gradcheck(function, tensors)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ConverterError, match="Sine"):
        twin("RNN", inputs_of("RNN", 1), opset=14, hidden_size=HIDDEN, activations=["Sine"])

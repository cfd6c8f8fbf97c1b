"""RNN, GRU and LSTM: one loop over time, three cells.

Shapes: T steps, N samples, I inputs, D directions, H hidden units.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.optable import OPS

__all__ = ["gru", "lstm", "rnn"]

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State], State]

# Functions by name, with their default alpha and beta; None where the function takes none.
ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], float | None, float | None]] = {
    "relu": (torch.relu, None, None),
    "tanh": (torch.tanh, None, None),
    "sigmoid": (torch.sigmoid, None, None),
    "softsign": (F.softsign, None, None),
    "softplus": (lambda x: F.softplus(x, threshold=40.0), None, None),
    "leakyrelu": (F.leaky_relu, 0.01, None),
    "thresholdedrelu": (lambda x, alpha: F.threshold(x, alpha, 0.0), 1.0, None),
    "elu": (F.elu, 1.0, None),
    "affine": (lambda x, alpha, beta: alpha * x + beta, 1.0, 0.0),
    "scaledtanh": (lambda x, alpha, beta: alpha * torch.tanh(beta * x), 1.0, 1.0),
    "hardsigmoid": (lambda x, alpha, beta: F.hardtanh(alpha * x + beta, 0.0, 1.0), 0.2, 0.5),
}


def _activations(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None
) -> list[Activation]:
    """The functions of all directions; alphas and betas are used up in order."""
    next_alpha, next_beta = iter(alphas or ()), iter(betas or ())

    def bind(name: str) -> Activation:
        if name.lower() not in ACTIVATIONS:
            raise ConverterError(f"activation {name!r} in a recurrent node")
        function, alpha, beta = ACTIVATIONS[name.lower()]
        defaults = [(next_alpha, alpha), (next_beta, beta)]
        constants = [next(given, value) for given, value in defaults if value is not None]
        return lambda x: function(x, *constants)

    return [bind(name) for name in names]


def _clipped(x: Tensor, clip: float | None) -> Tensor:
    return F.hardtanh(x, -clip, clip) if clip else x


def _directions(direction: str) -> list[bool]:
    """For each direction, whether it runs backwards."""
    known = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    if direction not in known:
        raise ConverterError(f"direction {direction!r} of a recurrent node")
    return known[direction]


def _run(
    X: Tensor, cell: Cell, state: State, lengths: Tensor | None, *, backwards: bool
) -> tuple[Tensor, State]:
    """Run a cell over X (T, N, I).

    Args:
        X: Inputs.
        cell: From an input and a state to the next state, whose first part is the output.
        state: Initial state.
        lengths: Number of steps of each sample (N,); behind them the output is zero and the
            state stays.
        backwards: Whether to begin at the last step (of each sample).
    """
    outputs = []
    steps = range(len(X) - 1, -1, -1) if backwards else range(len(X))
    for t in steps:
        new = cell(X[t], state)
        if lengths is None:
            state, output = new, new[0]
        else:
            alive = (t < lengths)[:, None]
            state = tuple(torch.where(alive, a, b) for a, b in zip(new, state, strict=True))
            output = torch.where(alive, new[0], torch.zeros_like(new[0]))
        outputs.append(output)
    if not outputs:
        return state[0].new_zeros(0, *state[0].shape), state
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _run_all(
    X: Tensor,
    cells: Iterator[Cell],
    initial: Sequence[Tensor | None],
    hidden: int,
    lengths: Tensor | None,
    direction: str,
    layout: int,
) -> tuple[Tensor, ...]:
    """Run the cells of all directions; returns Y and each part of the last state."""
    X = X.transpose(0, 1) if layout else X
    backwards = _directions(direction)
    given = [s.transpose(0, 1) if s is not None and layout else s for s in initial]
    runs = []
    for d, reverse in enumerate(backwards):
        zero = X.new_zeros(X.shape[1], hidden)
        state = tuple(zero if s is None else s[d] for s in given)
        runs.append(_run(X, next(cells), state, lengths, backwards=reverse))
    Y = torch.stack([outputs for outputs, _ in runs], dim=1)
    last = [torch.stack([s[i] for _, s in runs]) for i in range(len(initial))]
    if layout:
        return Y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in last)
    return Y, *last


def _halves(B: Tensor | None, d: int, size: int) -> tuple[Tensor | None, Tensor | None]:
    """Biases of inputs and of hidden units."""
    return (None, None) if B is None else (B[d, :size], B[d, size:])


@OPS.register("RNN")
def rnn(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: tuple[float, ...] | None = None,
    activation_beta: tuple[float, ...] | None = None,
    activations: tuple[str, ...] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Tensor, ...]:
    """H' = f(X W + H R + b)."""
    hidden = R.shape[2]
    functions = _activations(activations, activation_alpha, activation_beta)

    def cell(d: int) -> Cell:
        wb, rb = _halves(B, d, hidden)

        def step(x: Tensor, state: State) -> State:
            total = F.linear(x, W[d], wb) + F.linear(state[0], R[d], rb)
            return (functions[d](_clipped(total, clip)),)

        return step

    cells = map(cell, range(W.shape[0]))
    return _run_all(X, cells, [initial_h], hidden, sequence_lens, direction, layout)


@OPS.register("GRU")
def gru(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: tuple[float, ...] | None = None,
    activation_beta: tuple[float, ...] | None = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> tuple[Tensor, ...]:
    """Gates z (update) and r (reset): H' = (1 - z) g(...) + z H (Cho et al. 2014)."""
    hidden = R.shape[2]
    names = activations or ("Sigmoid", "Tanh") * W.shape[0]
    functions = _activations(names, activation_alpha, activation_beta)

    def cell(d: int) -> Cell:
        f, g = functions[2 * d : 2 * d + 2]
        wb, rb = _halves(B, d, 3 * hidden)
        gates, candidate = R[d, : 2 * hidden], R[d, 2 * hidden :]
        gate_bias, candidate_bias = (
            (None, None) if rb is None else (rb[: 2 * hidden], rb[2 * hidden :])
        )

        def step(x: Tensor, state: State) -> State:
            (H,) = state
            inputs = F.linear(x, W[d], wb)
            recurrent = F.linear(H, gates, gate_bias)
            opened = f(_clipped(inputs[:, : 2 * hidden] + recurrent, clip))
            z, r = opened.chunk(2, dim=1)
            if linear_before_reset:
                past = r * F.linear(H, candidate, candidate_bias)
            else:
                past = F.linear(r * H, candidate, candidate_bias)
            new = g(_clipped(inputs[:, 2 * hidden :] + past, clip))
            return ((1 - z) * new + z * H,)

        return step

    cells = map(cell, range(W.shape[0]))
    return _run_all(X, cells, [initial_h], hidden, sequence_lens, direction, layout)


@OPS.register("LSTM")
def lstm(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    P: Tensor | None = None,
    *,
    activation_alpha: tuple[float, ...] | None = None,
    activation_beta: tuple[float, ...] | None = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Tensor, ...]:
    """Gates i, o, f with peepholes P: C' = f C + i g(...), H' = o h(C') (Gers et al. 2000)."""
    hidden = R.shape[2]
    names = activations or ("Sigmoid", "Tanh", "Tanh") * W.shape[0]
    functions = _activations(names, activation_alpha, activation_beta)

    def cell(d: int) -> Cell:
        f, g, h = functions[3 * d : 3 * d + 3]
        wb, rb = _halves(B, d, 4 * hidden)
        peep_i, peep_o, peep_f = (0.0, 0.0, 0.0) if P is None else P[d].chunk(3)

        def step(x: Tensor, state: State) -> State:
            H, C = state
            i, o, forget, c = (F.linear(x, W[d], wb) + F.linear(H, R[d], rb)).chunk(4, dim=1)
            i = f(_clipped(i + peep_i * C, clip))
            forget = 1 - i if input_forget else f(_clipped(forget + peep_f * C, clip))
            C = forget * C + i * g(_clipped(c, clip))
            o = f(_clipped(o + peep_o * C, clip))
            return o * h(C), C

        return step

    cells = map(cell, range(W.shape[0]))
    initial = [initial_h, initial_c]
    return _run_all(X, cells, initial, hidden, sequence_lens, direction, layout)

"""Signals of RNN, GRU and LSTM: backpropagation through time.

All gates are computed again from the hidden states, which the node itself gives, as products of
matrices over all steps at once; one loop over the steps carries the signal of the state back.
Shapes: T steps, N samples, I inputs, D directions, H hidden units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.matrix import gemm
from inspector.surgery.gradient.steps import Body, Writer, over_steps
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

_CURVES = ("Tanh", "Sigmoid", "Relu")
"""Activations whose slope can be told from their value."""

_LENGTHS, _INITIAL_H, _INITIAL_C, _PEEPHOLES = 4, 5, 6, 7


@dataclass(frozen=True)
class _Direction:
    """One direction of a recurrent node.

    Attributes:
        steps: T.
        size: I.
        hidden: H.
        backwards: Whether it begins at the last step.
        functions: Its activations.
        X: Inputs (T, N, I).
        W: Weights of the inputs (gates H, I).
        R: Weights of the hidden units (gates H, H).
        biases: Those of inputs and of hidden units, (gates H,) each; empty without.
        before: Hidden states before each step, (T, N, H).
        after: Hidden states behind each step, (T, N, H).
        cell: Initial state of the cell of an LSTM, (N, H); empty for zeros.
        arrived: Signal at the hidden states, (T, N, H).
        last: Signals at the last states, (N, H) each.
    """

    steps: int
    size: int
    hidden: int
    backwards: bool
    functions: tuple[str, ...]
    X: str
    W: str
    R: str
    biases: tuple[str, ...]
    before: str
    after: str
    cell: str
    arrived: str
    last: tuple[str, ...]

    def product(self, b: Builder, sequence: str, weights: str, sizes: tuple[int, int]) -> str:
        """A sequence (T, N, columns) times transposed weights of sizes (rows, columns)."""
        rows, columns = sizes
        flat = gemm(b, b.reshape(sequence, (-1, columns)), weights, tb=1)
        return b.reshape(flat, (self.steps, -1, rows))


@dataclass(frozen=True)
class _Back:
    """What went back through one direction.

    Attributes:
        gates: Signal at the gates before their activations, (T, N, gates H).
        states: Signals at the initial states, (N, H) each.
    """

    gates: str
    states: tuple[str, ...]


@RULES.register("RNN", "GRU", "LSTM")
def recurrent(b: Builder, step: Step) -> Mapping[int, str]:
    """The signals at the sequence and at the initial states."""
    kind, attributes = step.node.op_type, step.node.attributes
    _require_plain(b, step)
    steps, _, size = b.dims(step.input(0))
    directions, rows, _ = b.dims(step.input(2))
    way = str(attributes.get("direction", "forward"))
    backwards = {"forward": [False], "reverse": [True]}.get(way, [False, True])
    names = _functions(kind, attributes, directions)
    states = _states(b, step)
    back: list[_Back] = []
    parts = []
    for d in range(directions):
        one = _direction(b, step, d, states, names=names[d], backwards=backwards[d])
        if kind == "GRU":
            found = _gru_back(b, one, product_first=bool(attributes.get("linear_before_reset")))
        else:
            found = (_rnn_back if kind == "RNN" else _lstm_back)(b, one)
        flat = b.reshape(found.gates, (-1, rows))
        parts.append(b.reshape(gemm(b, flat, one.W), (steps, -1, size)))
        back.append(found)
    sent = {0: b.add(*parts)} if 0 in step.wanted else {}
    for place, position in enumerate((_INITIAL_H, _INITIAL_C)):
        if position in step.wanted:
            ends = [b.unsqueeze(found.states[place], [0]) for found in back]
            sent[position] = ends[0] if len(ends) == 1 else b.op("Concat", ends, axis=0)
    return sent


def _require_plain(b: Builder, step: Step) -> None:
    """Refuse the forms that no exporter of networks for images writes.

    Raises:
        CannotDifferentiate: It is one.
    """
    attributes = step.node.attributes
    odd = [name for name in ("clip", "input_forget", "layout") if attributes.get(name)]
    if odd:
        raise CannotDifferentiate(f"{' and '.join(odd)} of a recurrent node")
    if step.input(_PEEPHOLES):
        raise CannotDifferentiate("peepholes of an LSTM")
    if step.wanted - {0, _INITIAL_H, _INITIAL_C}:
        raise CannotDifferentiate("its weights or its lengths depend on the image")
    lengths = b.known(step.input(_LENGTHS))
    if step.input(_LENGTHS) and (lengths is None or (lengths != b.dims(step.input(0))[0]).any()):
        raise CannotDifferentiate("sequences of several lengths")


def _functions(kind: str, attributes: Mapping[str, Any], directions: int) -> list[tuple[str, ...]]:
    """The activations of each direction.

    Raises:
        CannotDifferentiate: One has another slope than its value tells.
    """
    usual = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
    count = len(usual[kind])
    given = attributes.get("activations") or usual[kind] * directions
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in given]
    by_name = {name.lower(): name for name in _CURVES}
    found = [by_name.get(name.lower(), "") for name in names][: count * directions]
    if "" in found or len(found) < count * directions:
        raise CannotDifferentiate(f"activations {', '.join(names)} of a recurrent node")
    return [tuple(found[d * count : (d + 1) * count]) for d in range(directions)]


def _states(b: Builder, step: Step) -> str:
    """The hidden states (T, D, N, H), which a node may keep to itself."""
    if step.node.outputs[0]:
        return b.value(step.node.outputs[0])
    whole = (_LENGTHS,)  # numbers of steps are not floats
    given = [
        name if not name or position in whole else b.value(name)
        for position, name in enumerate(step.node.inputs)
    ]
    return b.op(step.node.op_type, given, **dict(step.node.attributes))


def _direction(
    b: Builder,
    step: Step,
    d: int,
    states: str,
    *,
    names: tuple[str, ...],
    backwards: bool,
) -> _Direction:
    """One direction of the node's tensors."""
    steps, _, size = b.dims(step.input(0))
    directions, rows, hidden = b.dims(step.input(2))

    def part(tensor: str, sizes: Sequence[int], axis: int = 0) -> str:
        """One direction of a tensor."""
        if directions > 1:
            tensor = b.once("Gather", [tensor, b.ints([d])], axis=axis)
        return b.reshape(tensor, sizes)

    def initial(position: int) -> str:
        name = step.input(position)
        return part(b.value(name), (-1, hidden)) if name else ""

    def arrived(output: int) -> str:
        found = step.signals[output] if output < len(step.signals) else None
        return "" if found is None else part(found, (-1, hidden))

    after = part(states, (steps, -1, hidden), 1)
    at = step.signals[0]
    biases: tuple[str, ...] = ()
    if step.input(3):
        both = part(b.value(step.input(3)), (-1,))
        biases = (b.slice(both, [0], [rows], [0]), b.slice(both, [rows], [2 * rows], [0]))
    blank = b.zeros(b.op("Gather", [after, b.constant(0, "int64")], axis=0))
    return _Direction(
        steps=steps,
        size=size,
        hidden=hidden,
        backwards=backwards,
        functions=names,
        X=b.value(step.input(0)),
        W=part(b.value(step.input(1)), (rows, size)),
        R=part(b.value(step.input(2)), (rows, hidden)),
        biases=biases,
        before=_shifted(b, after, initial(_INITIAL_H), steps, backwards=backwards),
        after=after,
        cell=initial(_INITIAL_C),
        arrived=b.zeros(after) if at is None else part(at, (steps, -1, hidden), 1),
        last=tuple(arrived(output) or blank for output in (1, 2)),
    )


def _shifted(b: Builder, after: str, first: str, steps: int, *, backwards: bool) -> str:
    """States before each step, of those behind it; zeros before the first, or a given state."""
    lead = [] if not first else [b.unsqueeze(first, [0])]
    if steps == 1:
        return lead[0] if lead else b.zeros(after)
    rest = b.slice(after, [int(backwards)], [steps - 1 + int(backwards)], [0])
    if not lead:
        one, none = [1, 0, 0], [0, 0, 0]
        return b.pad(rest, none, one) if backwards else b.pad(rest, one, none)
    return b.op("Concat", [rest, *lead] if backwards else [*lead, rest], axis=0)


def _curve(b: Builder, name: str, x: str) -> str:
    return b.rectified(x) if name == "Relu" else b.op(name, [x])


def _slope(b: Builder, name: str, value: str) -> str:
    """Slope of an activation at its value."""
    if name == "Relu":
        return b.positive(value)
    one = b.constant(1.0)
    if name == "Tanh":
        return b.op("Sub", [one, b.mul(value, value)])
    return b.mul(value, b.op("Sub", [one, value]))


def _parts(b: Builder, tensor: str, hidden: int, count: int, axis: int = 2) -> list[str]:
    """Gates of a tensor that holds them side by side."""
    return [b.slice(tensor, [i * hidden], [(i + 1) * hidden], [axis]) for i in range(count)]


def _sums(b: Builder, one: _Direction, count: int) -> list[str]:
    """What inputs and hidden units add to the gates, biases included: (T, N, gates H) each."""
    rows = count * one.hidden
    found = [
        one.product(b, one.X, one.W, (rows, one.size)),
        one.product(b, one.before, one.R, (rows, one.hidden)),
    ]
    if not one.biases:
        return found
    return [b.op("Add", [total, bias]) for total, bias in zip(found, one.biases, strict=True)]


def _rnn_back(b: Builder, one: _Direction) -> _Back:
    """H' = f(X W + H R + b)."""
    slope = _slope(b, one.functions[0], one.after)

    def body(w: Writer, states: Sequence[str], read: Sequence[str]) -> tuple[list[str], list[str]]:
        gate = w.op("Mul", [w.op("Add", [states[0], read[0]]), read[1]])
        return [w.op("MatMul", [gate, one.R])], [gate]

    return _through(b, one, body, one.last[:1], [one.arrived, slope])


def _gru_back(b: Builder, one: _Direction, *, product_first: bool) -> _Back:
    """H' = (1 - z) g(x + r (H R)) + z H, or with (r H) R."""
    (f, g), hidden = one.functions, one.hidden
    of_input, of_state = _sums(b, one, 3)
    inputs, past = _parts(b, of_input, hidden, 3), _parts(b, of_state, hidden, 3)
    z, r = (_curve(b, f, b.op("Add", [inputs[i], past[i]])) for i in (0, 1))
    gates = b.slice(one.R, [0], [2 * hidden], [0])
    last = b.slice(one.R, [2 * hidden], [3 * hidden], [0])
    reset = past[2] if product_first else one.before
    added = b.mul(r, reset)
    if not product_first:
        added = one.product(b, added, last, (hidden, hidden))
        if one.biases:
            added = b.op("Add", [added, _parts(b, one.biases[1], hidden, 3, 0)[2]])
    new = _curve(b, g, b.op("Add", [inputs[2], added]))
    at_new = b.mul(b.op("Sub", [b.constant(1.0), z]), _slope(b, g, new))
    at_z = b.mul(b.op("Sub", [one.before, new]), _slope(b, f, z))
    at_r = b.mul(reset, _slope(b, f, r))

    def body(w: Writer, states: Sequence[str], read: Sequence[str]) -> tuple[list[str], list[str]]:
        arrived, z, r, at_z, at_r, at_new = read
        signal = w.op("Add", [states[0], arrived])
        dz, dn = w.op("Mul", [signal, at_z]), w.op("Mul", [signal, at_new])
        if product_first:
            dr = w.op("Mul", [dn, at_r])
            through = w.op("MatMul", [w.op("Mul", [dn, r]), last])
        else:
            inner = w.op("MatMul", [dn, last])
            dr, through = w.op("Mul", [inner, at_r]), w.op("Mul", [inner, r])
        both = w.op("Concat", [dz, dr], axis=1)
        carried = w.op("Add", [w.op("Mul", [signal, z]), through])
        before = w.op("Add", [carried, w.op("MatMul", [both, gates])])
        return [before], [w.op("Concat", [both, dn], axis=1)]

    return _through(b, one, body, one.last[:1], [one.arrived, z, r, at_z, at_r, at_new])


def _lstm_back(b: Builder, one: _Direction) -> _Back:
    """C' = f C + i g(...), H' = o h(C')."""
    f, g, h = one.functions
    gates = _parts(b, b.op("Add", _sums(b, one, 4)), one.hidden, 4)
    i, o, forget, new = (_curve(b, name, x) for name, x in zip((f, f, f, g), gates, strict=True))

    def cells(w: Writer, states: Sequence[str], read: Sequence[str]) -> tuple[list[str], list[str]]:
        cell = w.op("Add", [w.op("Mul", [states[0], read[0]]), read[1]])
        return [cell], [cell]

    start = [one.cell or b.zeros(one.last[0])]
    read = [forget, b.mul(i, new)]
    _, (after,) = over_steps(b, cells, start, read, one.steps, backwards=one.backwards)
    before = _shifted(b, after, one.cell, one.steps, backwards=one.backwards)
    shown = _curve(b, h, after)
    into_cell = b.mul(o, _slope(b, h, shown))
    slopes = [
        b.mul(factor, slope)
        for factor, slope in (
            (new, _slope(b, f, i)),
            (shown, _slope(b, f, o)),
            (before, _slope(b, f, forget)),
            (i, _slope(b, g, new)),
        )
    ]

    def body(w: Writer, states: Sequence[str], read: Sequence[str]) -> tuple[list[str], list[str]]:
        arrived, into_cell, forget, *slopes = read
        signal = w.op("Add", [states[0], arrived])
        cell = w.op("Add", [states[1], w.op("Mul", [signal, into_cell])])
        parts = [
            w.op("Mul", [at, slope])
            for at, slope in zip((cell, signal, cell, cell), slopes, strict=True)
        ]
        gates = w.op("Concat", parts, axis=1)
        return [w.op("MatMul", [gates, one.R]), w.op("Mul", [cell, forget])], [gates]

    return _through(b, one, body, one.last, [one.arrived, into_cell, forget, *slopes])


def _through(
    b: Builder, one: _Direction, body: Body, states: Sequence[str], read: Sequence[str]
) -> _Back:
    """The signal of the state taken back over all steps."""
    found, (gates,) = over_steps(b, body, states, read, one.steps, backwards=not one.backwards)
    return _Back(gates, found)

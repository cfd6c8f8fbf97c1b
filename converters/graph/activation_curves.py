"""Names of activation functions by their curves, however an exporter spelled them out.

HardSwish reaches us as ``x*Clip(x+3,0,6)/6``, as ``x*(Clip(x+3,0,6)*0.1667)``, as
``x*HardSigmoid(x)``; GELU in more spellings still.  A table of spellings is never complete, so a
composite is recognised by what it *computes*: its nodes are evaluated on a grid of scalars, and
the curve is compared with the functions that have a name.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.graph.operators import facts_of

__all__ = [
    "GRID",
    "Array",
    "Curve",
    "is_straight",
    "may_complete_a_clamp",
    "name_curve",
    "scalar_op",
]

Array = np.ndarray[Any, np.dtype[Any]]

# Far points tell ReLU from a clamp at 255; the smooth functions are compared on the near part.
_NEAR = np.arange(-96, 97) / 8.0
GRID: Array = np.concatenate([_NEAR, [-1e4, -500.0, -60.0, 60.0, 500.0, 1e4]])
_SMOOTH = np.abs(GRID) <= 12.0
# Constants may be float16 (1/6 is 0.16663), names differ by far more (GELU and its quick form .02).
_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Curve:
    """A named function of one variable.

    Attributes:
        kind: As in ``Activation.kind``.
        low: Lower bound of a clamp; None when there is none.
        high: Upper bound of a clamp; None when there is none.
        alpha: Slope or scale where the function has one (LeakyRelu, Elu, Silu).
    """

    kind: str
    low: float | None = None
    high: float | None = None
    alpha: float | None = None


def _erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in np.ravel(x)]).reshape(np.shape(x))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(alpha * x + beta, 0.0, 1.0)


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _fold(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def folded(first: Array, *rest: Array) -> Array:
        for other in rest:
            first = function(first, other)
        return first

    return folded


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Erf": _erf,
    "Exp": np.exp,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Max": _fold(np.maximum),
    "Min": _fold(np.minimum),
    "Mul": np.multiply,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Pow": np.power,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, 0.0),
    "Sigmoid": _sigmoid,
    "Sign": np.sign,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Sum": _fold(np.add),
    "Tanh": np.tanh,
    "Where": np.where,
}


def _clip(x: Array, attributes: Mapping[str, Any], values: Sequence[Any]) -> Array:
    low = values[1] if len(values) > 1 else attributes.get("min")
    high = values[2] if len(values) > 2 else attributes.get("max")
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


# Operators whose attributes or optional inputs are needed: (x, attributes, inputs) -> f(x).
_PARAMETRIC: Mapping[str, Callable[[Array, Mapping[str, Any], Sequence[Any]], Array]] = {
    "Clip": _clip,
    "Elu": lambda x, a, _: _elu(x, a.get("alpha", 1.0)),
    "HardSigmoid": lambda x, a, _: _hard_sigmoid(x, a.get("alpha", 0.2), a.get("beta", 0.5)),
    "LeakyRelu": lambda x, a, _: np.where(x > 0, x, a.get("alpha", 0.01) * x),
    "PRelu": lambda x, _, values: np.where(x > 0, x, values[1] * x),
}


def scalar_op(
    op_type: str, attributes: Mapping[str, Any], values: Sequence[Array | float | None]
) -> Array | None:
    """Apply one elementwise operator to scalars or to grids of scalars.

    Args:
        op_type: Operator of the default domain.
        attributes: Its attributes.
        values: Its inputs in order; None for an omitted one.

    Returns:
        The result, or None when this operator is not elementwise (or not known here).
    """
    if values[0] is None:
        return None
    x = np.asarray(values[0])
    with np.errstate(all="ignore"):
        if facts_of("", op_type).carries:
            return x
        if op_type in _PARAMETRIC:
            return _PARAMETRIC[op_type](x, attributes, values)
        if op_type in _PLAIN and all(v is not None for v in values):
            try:
                return np.asarray(_PLAIN[op_type](*values))
            except TypeError:  # not the number of inputs that the standard gives it
                return None
    return None


_FIXED: Mapping[str, Callable[[Array], Array]] = {
    "Silu": lambda x: x * _sigmoid(x),
    "Gelu": lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
    "Mish": lambda x: x * np.tanh(_softplus(x)),
    "Softplus": _softplus,
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "Selu": lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
}


def name_curve(y: Array) -> Curve | None:
    """Name the function whose values on ``GRID`` are ``y``; None when it has no name here.

    Straight lines and constants have none: they are not activation functions.
    """
    if y.shape != GRID.shape or y.dtype == bool:
        return None
    with np.errstate(all="ignore"):  # far points overflow, and are then no match
        return _piecewise(y) or _hard(y) or _smooth(y)


def is_straight(rows: Array) -> Array:
    """Which of several functions on ``GRID``, (K, points), are straight lines or constants."""
    with np.errstate(all="ignore"):
        low, high = rows[:, _LOWEST, None], rows[:, _HIGHEST, None]
        line = low + (high - low) * _SHARE
        # NaN and infinity are not straight: they compare false.
        straight: Array = (np.abs(rows - line) <= 1e-9 * np.maximum(1.0, np.abs(line))).all(axis=1)
    return straight


def may_complete_a_clamp(rows: Array) -> Array:
    """Which of several functions on ``GRID``, (K, points), may be more than a one-sided clamp.

    A clamp on both sides and a hard sigmoid stay small on the right, a hard swish dips below
    zero on the left of it.
    """
    with np.errstate(all="ignore"):
        dips = (np.abs(rows[:, _EDGE]) < 0.1) & (rows[:, _DIP] < -0.2)
        found: Array = (np.abs(rows[:, _HIGHEST]) < 1e3) | dips
    return found


_LOWEST, _HIGHEST, _EDGE, _ONE, _DIP = (
    int(np.flatnonzero(x == GRID)[0]) for x in (-1e4, 1e4, -12.0, 1.0, -1.5)
)
_SHARE: Array = (GRID + 1e4) / 2e4


def _allowed(where: Array | slice = slice(None)) -> Array:
    return np.asarray(_TOLERANCE * np.maximum(1.0, np.abs(GRID[where])))


def _hard_curves() -> tuple[tuple[Curve, ...], Array]:
    """Hard sigmoid and hard swish, with the slopes 1/6 (PyTorch) and 0.2 (Keras, ONNX)."""
    curves: list[Curve] = []
    rows: list[Array] = []
    for alpha in (1.0 / 6.0, 0.2):
        gate = _hard_sigmoid(GRID, alpha)
        curves += [Curve("HardSigmoid", alpha=alpha), Curve("HardSwish", alpha=alpha)]
        rows += [gate, GRID * gate]
    return tuple(curves), np.stack(rows)


def _smooth_curves() -> tuple[tuple[Curve, ...], Array]:
    near = GRID[_SMOOTH]
    curves = [*(Curve(kind) for kind in _FIXED), Curve("Gelu", alpha=1.702)]
    rows = [*(function(near) for function in _FIXED.values()), near * _sigmoid(1.702 * near)]
    return tuple(curves), np.stack(rows)


_HARD_CURVES, _SMOOTH_CURVES = _hard_curves(), _smooth_curves()
_ALLOWED, _ALLOWED_NEAR = _allowed(), _allowed(_SMOOTH)


def _first_match(y: Array, known: tuple[tuple[Curve, ...], Array], allowed: Array) -> Curve | None:
    """The first curve that stays within the tolerance; one comparison for all of them."""
    curves, rows = known
    matches = (np.abs(y - rows) <= allowed).all(axis=1)
    return curves[int(matches.argmax())] if matches.any() else None


def _near(y: Array, reference: Array) -> bool:
    return bool(np.all(np.abs(y[_SMOOTH] - reference[_SMOOTH]) <= _ALLOWED_NEAR))


def _within(y: Array, reference: Array, *, absolute: float) -> bool:
    return bool(np.all(np.abs(y - reference) <= absolute + 1e-5 * np.abs(reference)))


def _piecewise(y: Array) -> Curve | None:
    """ReLU, clamps and leaky ReLU; exact in every exporter, hence compared to the far points."""
    low, high = float(y[_LOWEST]), float(y[_HIGHEST])
    if -1e3 < low < high and _within(y, np.clip(GRID, low, min(high, 1e4)), absolute=1e-5):
        bounded = high < 1e3
        kind = "Relu" if low == 0.0 and not bounded else "Clip"
        return Curve(kind, low=low, high=high if bounded else None)
    slope = low / -1e4
    if abs(abs(slope) - 1.0) > 1e-3 and _within(
        y, np.where(GRID > 0, GRID, slope * GRID), absolute=1e-6
    ):
        return Curve("LeakyRelu", alpha=slope)
    return None


def _hard(y: Array) -> Curve | None:
    return _first_match(y, _HARD_CURVES, _ALLOWED)


def _smooth(y: Array) -> Curve | None:
    found = _first_match(y[_SMOOTH], _SMOOTH_CURVES, _ALLOWED_NEAR)
    if found is not None:
        return found
    floor = -float(y[_EDGE])
    if 1e-2 < floor < 1e2 and _near(y, _elu(GRID, floor)):
        return Curve("Elu", alpha=floor)
    # x * sigmoid(k x), the Swish with its own k; k read off at x = 1.
    share = float(y[_ONE])
    if 0.55 < share < 0.999:
        k = -math.log(1.0 / share - 1.0)
        if _near(y, GRID * _sigmoid(k * GRID)):
            return Curve("Silu", alpha=k)
    return None

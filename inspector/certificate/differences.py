"""The gradient against differences of scores: nothing here differentiates.

    dS/dx . d  ~  (S(x + h d) - S(x - h d)) / 2h

Twice: with ONNX Runtime's scores, which knows nothing of the twin but is rounded to float32, and
with the float64 twin's own, which is exact enough to see an error of 1e-4 but trusts the twin's
forward pass.  Two kinds of directions: the gradient itself with random blocks of it left out,
along which the score changes fast, and plain noise, which also sees what the gradient lacks.

A rectifier bends the score.  Where the differences to both sides of x disagree at every step, a
direction says nothing about the slope at x; it is discarded, and counted.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.certificate.subject import SEED, Probe, Subject
from inspector.certificate.walk import walk
from inspector.target import Target

if TYPE_CHECKING:
    from converters.to_torch.program import Program, Step

__all__ = ["Direction", "GradientRecord", "certify_gradient", "gradient_of", "wrong_nodes"]

Array = np.ndarray[Any, Any]
Score = Callable[[Array], float]

RUNTIME_TOLERANCE = 0.03
"""Largest difference of a slope from ONNX Runtime's, over the slope's scale."""

EXACT_TOLERANCE = 1e-3
"""The same from the float64 twin's; gates flip within the step, so it is not 1e-8."""

KINK = 0.2
"""Disagreement of the two one-sided slopes, over the scale, beyond which a step is no use."""

SIGNAL = 300.0
"""The smallest step is where the score changes by so many times its rounding noise."""

STEPS = (1.0, 4.0, 16.0)
LARGEST_STEP = 0.05
"""Of the input's own deviation."""

EXACT_STEP = 1e-7


@dataclass(frozen=True)
class Direction:
    """The slope along one direction.

    Attributes:
        name: Kind of direction.
        error: Difference between measured and predicted slope, over the scale.
        uncertainty: How far the measured slope itself may be off, over the scale.
        step: Root mean square change of an input value at the step taken.
        kinked: Whether the direction was discarded.
    """

    name: str
    error: float
    uncertainty: float
    step: float
    kinked: bool = False


@dataclass(frozen=True)
class GradientRecord:
    """A gradient against both kinds of differences.

    Attributes:
        runtime: Directions through ONNX Runtime; empty where it cannot be asked.
        exact: Directions through the float64 twin.
        noise: Rounding noise of ONNX Runtime's score, in its units.
        norm: Euclidean norm of the float64 gradient.
        narrow_error: Float32 gradient against the float64 one, relative to its peak.
    """

    runtime: tuple[Direction, ...]
    exact: tuple[Direction, ...]
    noise: float
    norm: float
    narrow_error: float

    @staticmethod
    def judged(directions: Sequence[Direction], tolerance: float) -> str:
        """``pass``, ``fail`` or ``undecided``, by the directions that can tell."""
        telling = [d for d in directions if not d.kinked and d.uncertainty <= 2 * tolerance]
        if any(d.error > tolerance + 2 * d.uncertainty for d in telling):
            return "fail"
        return "pass" if telling else "undecided"


def certify_gradient(
    subject: Subject, probe: Probe, target: Target, *, directions: int = 2
) -> GradientRecord:
    """Compare the float64 twin's gradient with differences of scores.

    Args:
        subject: The model under test.
        probe: Where the gradient is taken.
        target: Whose gradient.
        directions: How many of each kind.
    """
    x = subject.feeds(probe)[subject.model.input.name].astype(np.float32)
    gradient = gradient_of(subject.exact, subject, x, target)
    narrow = gradient_of(subject.twin, subject, x, target)
    peak = float(np.abs(gradient).max(initial=0.0))
    narrow_error = float(np.abs(narrow - gradient).max(initial=0.0)) / (peak or 1.0)
    chosen = _directions(gradient, directions)
    exact_score = partial(_twin_score, subject.exact, subject, target)
    spread = float(x.std()) or 1.0
    exact = tuple(
        _slope(exact_score, x.astype(np.float64), gradient, name, d, [EXACT_STEP * spread], 0.0)
        for name, d in chosen
    )
    norm = float(np.linalg.norm(gradient))
    if subject.model.input.integer or subject.kind == "quantised":
        return GradientRecord((), exact, 0.0, norm, narrow_error)
    score = partial(_runtime_score, subject, target)
    grain = _noise(score, x, gradient)
    runtime = tuple(
        _slope(score, x, gradient, name, d, _steps(gradient, d, grain, spread), grain)
        for name, d in chosen
    )
    return GradientRecord(runtime, exact, grain, norm, narrow_error)


def gradient_of(program: "Program", subject: Subject, x: Array, target: Target) -> Array:
    """Plain gradient of the target's score, float64, in the layout of the model's input."""
    import torch  # noqa: PLC0415 - late: two seconds

    name = subject.model.input.name
    leaf = torch.tensor(x, dtype=program.dtype, device=program.device, requires_grad=True)
    with torch.enable_grad():
        score = target.of(program.run({name: leaf}, [target.tensor])[target.tensor][:1]).sum()
        if not score.requires_grad:
            return np.zeros(x.shape)
        (found,) = torch.autograd.grad(score, leaf, allow_unused=True, materialize_grads=True)
    result: Array = found.detach().cpu().numpy().astype(np.float64)
    return result


def _twin_score(program: "Program", subject: Subject, target: Target, x: Array) -> float:
    import torch  # noqa: PLC0415 - as above

    value = torch.tensor(x, dtype=program.dtype, device=program.device)
    with torch.no_grad():
        found = program.run({subject.model.input.name: value}, [target.tensor])
    return float(target.of(found[target.tensor][:1]).sum())


def _runtime_score(subject: Subject, target: Target, x: Array) -> float:
    feeds = subject.model.feeds(x)
    value = subject.reference.run(feeds, [target.tensor])[target.tensor]
    return float(np.sum(target.of(value[:1]), dtype=np.float64))


def _directions(gradient: Array, count: int) -> list[tuple[str, Array]]:
    """Directions with a root mean square of 1."""
    rng = np.random.default_rng(SEED + 1)
    found = []
    for _ in range(count):
        coarse = rng.integers(0, 2, size=[-(-n // 4) for n in gradient.shape])
        mask = coarse
        for axis, length in enumerate(gradient.shape):
            mask = mask.repeat(4, axis=axis).take(range(length), axis=axis)
        found.append(("blocks of the gradient", gradient * mask))
    found += [("noise", rng.standard_normal(gradient.shape)) for _ in range(count)]
    return [(name, d / rms) for name, d in found if (rms := _rms(d)) > 0]


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0


def _scale(gradient: Array, d: Array) -> float:
    """What a slope along d is measured by: as large as it may be, but for the angle."""
    return max(abs(float(np.sum(gradient * d))), float(np.linalg.norm(gradient)) * _rms(d))


def _noise(score: Score, x: Array, gradient: Array) -> float:
    """Rounding noise of a score: how far it jumps when its input moves by some float32 steps."""
    rng = np.random.default_rng(SEED + 2)
    at = score(x)
    found = [abs(at) * float(np.finfo(np.float32).eps)]
    for _ in range(3):
        moved = (x + rng.choice([-4, 4], size=x.shape) * np.spacing(x)).astype(np.float32)
        expected = float(np.sum(gradient * (moved.astype(np.float64) - x)))
        found.append(abs(score(moved) - at - expected))
    return max(found)


def _steps(gradient: Array, d: Array, noise: float, spread: float) -> list[float]:
    scale = _scale(gradient, d)
    start = SIGNAL * noise / scale if scale else LARGEST_STEP * spread
    return [min(start * factor, LARGEST_STEP * spread * factor / STEPS[-1]) for factor in STEPS]


def _slope(
    score: Score,
    x: Array,
    gradient: Array,
    name: str,
    d: Array,
    steps: Sequence[float],
    noise: float,
) -> Direction:
    """Measure one slope at the step where it is surest.

    The displacement that arithmetic really made is compared, not the one that was asked for.
    """
    scale = _scale(gradient, d)
    if not scale:
        return Direction(name, 0.0, np.inf, 0.0, kinked=True)
    at = score(x)
    found: list[tuple[float, float, float, float]] = []  # slope error, rounding, kink, step
    for h in steps:
        ahead, behind = (x + h * d).astype(x.dtype), (x - h * d).astype(x.dtype)
        above, below = score(ahead), score(behind)
        moves = [moved.astype(np.float64) - x for moved in (ahead, behind)]
        up, down = (float(np.sum(gradient * move)) for move in moves)
        length = 2 * h * scale
        error = ((above - below) - (up - down)) / length
        kink = abs((above - at) - up + (below - at) - down) / length
        found.append((error, 2 * noise / length, kink, h))
    useful = [
        Direction(name, abs(error), max(rounding, _unrest(found, i)), h)
        for i, (error, rounding, kink, h) in enumerate(found)
        if kink <= KINK + rounding
    ]
    if not useful:
        error, rounding, _, h = found[0]
        return Direction(name, abs(error), rounding, h, kinked=True)
    return min(useful, key=lambda direction: direction.uncertainty)


def _unrest(found: Sequence[tuple[float, float, float, float]], i: int) -> float:
    """How far the slope moves to the calmer neighbouring step: small on the plateau."""
    near = [abs(found[i][0] - found[j][0]) for j in (i - 1, i + 1) if 0 <= j < len(found)]
    return min(near, default=0.0)


# -- which node ------------------------------------------------------------------------------------

_STRAIGHT_THROUGH = {"Round", "Floor", "Ceil", "Sign", "QuantizeLinear", "DynamicQuantizeLinear"}
NODE_TOLERANCE = 1e-3


def wrong_nodes(subject: Subject, probe: Probe, target: Target) -> tuple[str, ...]:
    """Nodes of the float64 twin whose gradient is not the slope of what they compute.

    For each node a random weighting w of its outputs and a random change v of its inputs:
    (J^T w) . v against the difference of w . f, with steps of 1e-6 of the inputs' size.
    """
    program, name = subject.exact, subject.model.input.name
    variable = {name} | {
        n for node in subject.model.tail(name, target.tensor).nodes for n in node.outputs
    }
    rng = np.random.default_rng(SEED + 3)
    wrong: list[str] = []

    def visit(step: "Step", environment: dict[str, Any]) -> None:
        known = step.node.op_type in _STRAIGHT_THROUGH
        relevant = variable & set(step.outputs)
        if relevant and not known and not _agrees(step, environment, variable, rng):
            wrong.append(f"{step.node.op_type} node {step.node.name!r}")

    x = subject.feeds(probe)[name].astype(np.float64)
    walk(program, subject.tensors(program, {name: x}), [target.tensor], visit)
    return tuple(wrong)


def _agrees(
    step: "Step", environment: dict[str, Any], variable: Collection[str], rng: np.random.Generator
) -> bool:
    import torch  # noqa: PLC0415 - late: two seconds

    inputs = {n: environment[n] for n in (*step.sources, *step.captures) if n}
    moving = {n: v for n, v in inputs.items() if n in variable and v.is_floating_point()}
    outputs = [n for n in step.outputs if n and environment[n].is_floating_point()]
    weights = {n: _random(rng, environment[n]) for n in outputs}

    def weighted(values: dict[str, Any]) -> Any:  # noqa: ANN401 - a scalar tensor
        inner = {**inputs, **values}
        step.run(inner, None)
        return sum((inner[n] * weights[n]).sum() for n in outputs)

    if not moving or not outputs:
        return True
    with torch.enable_grad():
        leaves = {n: v.detach().clone().requires_grad_() for n, v in moving.items()}
        total = weighted(leaves)
        slopes = [torch.zeros_like(v) for v in leaves.values()]
        if total.requires_grad:
            slopes = list(torch.autograd.grad(
                total, list(leaves.values()), allow_unused=True, materialize_grads=True
            ))  # fmt: skip
    moves = {n: _random(rng, v) * (v.std(correction=0) + 1e-6) for n, v in moving.items()}
    h = 1e-6
    with torch.no_grad():
        ahead, behind = ({n: v + s * h * moves[n] for n, v in moving.items()} for s in (1, -1))
        measured = float((weighted(ahead) - weighted(behind)) / (2 * h))
    parts = [(g * m).sum().item() for g, m in zip(slopes, moves.values(), strict=True)]
    sizes = [(g * m).norm().item() for g, m in zip(slopes, moves.values(), strict=True)]
    scale = max(abs(measured), *sizes, 1e-12)
    return abs(measured - sum(parts)) <= NODE_TOLERANCE * scale


def _random(rng: np.random.Generator, like: Any) -> Any:  # noqa: ANN401 - a tensor
    import torch  # noqa: PLC0415 - late: two seconds

    return torch.tensor(rng.standard_normal(tuple(like.shape)), dtype=like.dtype)

"""The gradient against differences of scores: nothing here differentiates.

    dS/dx . d  ~  (S(x + h d) - S(x - h d)) / 2h

Twice: with ONNX Runtime's scores, which knows nothing of the twin but is rounded to float32, and
with the float64 twin's own, which is exact enough to see an error of 1e-4 but trusts the twin's
forward pass.  Two kinds of directions: the gradient itself with random blocks of it left out,
along which the score changes fast, and plain noise, which also sees what the gradient lacks.

A rectifier bends the score.  Where the float64 twin's slope differs, the step is shrunk until no
gate flips within it; where that does not help (a gate is shut exactly at x) the direction decides
nothing, and the gate's node is named.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph.operators import facts
from inspector.errors import NoGradient
from inspector.target import Target
from inspector.verify.forward import gate_bounds
from inspector.verify.subject import SEED, Probe, Subject
from inspector.verify.walk import walk

if TYPE_CHECKING:
    from converters.to_torch.compile import Step
    from converters.to_torch.program import Program
    from inspector.engines import GradientEngine

__all__ = [
    "Direction",
    "GradientRecord",
    "certify_gradient",
    "gradient_of",
    "quick_slope",
    "slopes_without_twin",
    "wrong_nodes",
]

Array = np.ndarray[Any, Any]
Score = Callable[[Array], float]

RUNTIME_TOLERANCE = 0.03
"""Largest difference of a slope from ONNX Runtime's, over the slope's scale."""

EXACT_TOLERANCE = 1e-3
"""The same from the float64 twin's; gates flip within the step, so it is not 1e-8."""

KINK = 0.2
"""Disagreement of the two one-sided slopes, over the scale, beyond which a step is of no use."""

BENDS = 2.0
"""How often the kinks within a step may exceed what the slopes to its two sides show of them."""

SIGNAL = 300.0
"""The smallest step is where the score changes by so many times its rounding noise."""

STEPS = (1.0, 4.0, 16.0)
LARGEST_STEP = 0.05
"""Of the input's own deviation."""

EXACT_STEP = 1e-7
"""Of the input's own deviation: the step of the float64 twin."""

SHORTER = (0.1, 0.01)
"""Shares of that step, for gates that flip within it."""

LONGER = (10.0, 100.0, 1e3, 1e4)
"""Multiples of that step, for scores that hardly move."""


@dataclass(frozen=True)
class Direction:
    """The slope along one direction.

    Attributes:
        name: Kind of direction.
        error: Difference between measured and predicted slope, over the scale.
        uncertainty: How far the measured slope itself may be off, over the scale.
        step: Root mean square change of an input value at the step taken.
        kinked: Whether the differences to both sides disagree, at every step.
        same_step: Difference of ONNX Runtime's slope from the float64 twin's over the very same
            step, over the scale; None where it was not needed.
        rounding: The part of ``uncertainty`` that is rounding noise.
        gates: Nodes whose gates flip within the step, where they are to blame.
        bend: How far the slopes to one side, over this step and over shorter ones, lie from
            ``error``, over the scale.
    """

    name: str
    error: float
    uncertainty: float
    step: float
    kinked: bool = False
    same_step: float | None = None
    rounding: float = 0.0
    gates: tuple[str, ...] = ()
    bend: float = 0.0

    def judged(self, tolerance: float) -> str:
        """``pass``, ``fail`` or ``undecided``.

        Over a step that noise demands to be long, a network of rectifiers bends; then what
        counts is that both scores bend alike, the slope at x being the business of the float64
        twin's short steps.  Where they do not, ONNX Runtime's rounding is the reason: that the
        two compute the same is the forward check's business.

        A gradient that is wrong is as wrong to both sides of x, and over every step.  Kinks that
        lie closer than the step (a deep network of random weights) change the slope to one side
        without the other, so that a difference as small as theirs accuses nobody.
        """
        if self.same_step is not None:
            near = self.rounding <= tolerance and self.same_step <= tolerance + self.rounding
            return "pass" if near else "undecided"
        if self.kinked or self.uncertainty > tolerance:
            return "undecided"
        if self.error <= tolerance + self.uncertainty:
            return "pass"
        doubt = self.uncertainty + BENDS * self.bend
        return "fail" if self.error > tolerance + doubt else "undecided"


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
        """``fail`` if one direction fails, ``pass`` if one can tell and none fails."""
        found = {direction.judged(tolerance) for direction in directions}
        return next((word for word in ("fail", "pass") if word in found), "undecided")


def certify_gradient(
    subject: Subject, probe: Probe, target: Target, *, directions: int = 2, runtime: bool = True
) -> GradientRecord:
    """Compare the float64 twin's gradient with differences of scores.

    Args:
        subject: The model under test.
        probe: Where the gradient is taken.
        target: Whose gradient.
        directions: How many of each kind.
        runtime: Whether to ask ONNX Runtime too.
    """
    x = subject.feeds(probe)[subject.model.input.name].astype(np.float32)
    gradient = gradient_of(subject.exact_engine, subject, x, target)
    narrow = gradient_of(subject.engine, subject, x, target)
    peak = float(np.abs(gradient).max(initial=0.0))
    narrow_error = float(np.abs(narrow - gradient).max(initial=0.0)) / (peak or 1.0)
    norm = float(np.linalg.norm(gradient))
    if subject.kind == "quantised":
        return GradientRecord((), (), 0.0, norm, narrow_error)
    spread = float(x.std()) or 1.0
    chosen = _directions(gradient, directions)
    own = _Line(
        partial(_twin_score, subject.exact, subject, target), x.astype(np.float64), gradient
    )
    own.noise = 8 * abs(own.at) * float(np.finfo(np.float64).eps)
    exact = tuple(_at_best_step(own, subject, target, one, spread) for one in chosen)
    if subject.model.input.integer or not norm or not runtime:
        return GradientRecord((), exact, 0.0, norm, narrow_error)
    theirs = _Line(partial(_runtime_score, subject, target), x, gradient)
    theirs.measure_noise(own.at)
    found_there = []
    for name, d in chosen:
        found = theirs.slope(name, d, theirs.steps(d, spread))
        if found.kinked or found.error > RUNTIME_TOLERANCE or found.uncertainty > RUNTIME_TOLERANCE:
            found = replace(found, same_step=theirs.apart(own, d, found.step))
        found_there.append(found)
    return GradientRecord(tuple(found_there), exact, theirs.noise, norm, narrow_error)


def _at_best_step(
    line: "_Line", subject: Subject, target: Target, direction: tuple[str, Array], spread: float
) -> Direction:
    """The slope of the float64 twin: the step is shrunk past gates, stretched out of rounding."""
    name, d = direction
    found = first = line.slope(name, d, [EXACT_STEP * spread])
    more = LONGER if first.rounding > EXACT_TOLERANCE else SHORTER
    for share in more:
        if found.judged(EXACT_TOLERANCE) == "pass":
            return found
        found = line.slope(name, d, [EXACT_STEP * spread * share])
    if found.judged(EXACT_TOLERANCE) == "pass":
        return found
    if found.rounding > EXACT_TOLERANCE:
        found = first
    # A wrong gradient is as wrong at both ends; one at a kink is another there.
    scale = line.scale(d) or _rms(d)
    ends = [
        gradient_of(subject.exact_engine, subject, line.x + s * found.step * d, target)
        for s in (1, -1)
    ]
    turns = max(abs(float(np.sum((end - line.gradient) * d))) for end in ends)
    if turns <= EXACT_TOLERANCE * scale / 2:
        return found
    gates = flipped_gates(subject, line.x, d, found.step, target)
    return replace(found, kinked=True, gates=gates or ("a maximum",))


def flipped_gates(
    subject: Subject, x: Array, d: Array, h: float, target: Target
) -> tuple[str, ...]:
    """Nodes of rectifiers that are open at one end of a step and shut at the other, worst first."""
    bounds = gate_bounds(subject)
    program, name = subject.exact, subject.model.input.name
    ends = [
        walk(program, subject.tensors(program, {name: x + s * h * d}), [target.tensor])
        for s in (1, -1)
    ]
    found: dict[str, int] = {}
    for (step, ahead), (_, behind) in zip(*ends, strict=True):
        for output in step.outputs:
            for low, high in bounds.get(output, ()):
                edges = [low] if high is None else [low, high]
                a, b = ahead[output], behind[output]
                count = sum(int(((a > edge) != (b > edge)).sum()) for edge in edges)
                if count:
                    gate = subject.gate_of(output)
                    found[gate] = found.get(gate, 0) + count
    return tuple(sorted(found, key=lambda gate: -found[gate]))


def quick_slope(subject: Subject, probe: Probe, target: Target) -> Direction | None:
    """The gradient of the engine under test against one slope through ONNX Runtime.

    No float64, a dozen forward passes and one backward.

    Args:
        subject: The model under test; not quantised, and not of integer input.
        probe: Where the gradient is taken.
        target: Whose gradient.

    Returns:
        The slope along the gradient itself, or, where that is zero, along noise, if the score
        moves there; None where neither moves.
    """
    return next(iter(_slopes(subject, probe, target, along_input=False)), None)


def slopes_without_twin(subject: Subject, probe: Probe, target: Target) -> tuple[Direction, ...]:
    """The gradient of the engine under test against two slopes through ONNX Runtime.

    Along the gradient itself a part that is wrong by a factor shows.  A part that is missing need
    not: the score may move as predicted all the same.  So the input's own direction is tried too
    (more contrast, less contrast): every path moves the score there by what it carries of it.

    Args:
        subject: As ``quick_slope``.
        probe: As ``quick_slope``.
        target: As ``quick_slope``.

    Returns:
        Both; none where the score moves along neither.
    """
    return _slopes(subject, probe, target, along_input=True)


def _slopes(
    subject: Subject, probe: Probe, target: Target, *, along_input: bool
) -> tuple[Direction, ...]:
    x = subject.feeds(probe)[subject.model.input.name].astype(np.float32)
    gradient = gradient_of(subject.engine, subject, x, target)
    line = _Line(partial(_runtime_score, subject, target), x, gradient)
    line.measure_noise(line.at)
    if subject.kind == "float16":  # whose score stands still where the input moves by less
        line.noise = max(line.noise, abs(line.at) * float(np.finfo(np.float16).eps))
    chosen = _directions(gradient, 1)[:1]
    if along_input and x.any():
        chosen.append(("the input itself", x / _rms(x)))
    spread = float(x.std()) or 1.0
    found = tuple(line.slope(name, d, line.steps(d, spread)) for name, d in chosen)
    return found if gradient.any() or any(one.error for one in found) else ()


def gradient_of(engine: "GradientEngine", subject: Subject, x: Array, target: Target) -> Array:
    """Plain gradient of the target's score, float64, in the layout of the model's input.

    Args:
        engine: The engine under test, or the one in float64.
        subject: The model under test.
        x: Input in the model's own layout, filled up to a fixed batch; its first row counts.
        target: Whose gradient; zero everywhere where it does not depend on x.
    """
    name = subject.model.input.name
    try:
        found = engine.signals({name: x}, {}, [subject.objective(target)])
    except NoGradient:
        return np.zeros(x.shape)
    return found[name].astype(np.float64)


def _twin_score(program: "Program", subject: Subject, target: Target, x: Array) -> float:
    import torch

    value = torch.tensor(x, dtype=program.dtype, device=program.device)
    with torch.no_grad():
        found = program.run({subject.model.input.name: value}, [target.tensor])
    values = {name: subject.in_samples(name, found[name]) for name in target.tensors}
    return float(target.of(values).sum())


def _runtime_score(subject: Subject, target: Target, x: Array) -> float:
    feeds = subject.model.feeds(x)
    value = subject.reference.run(feeds, [target.tensor])[target.tensor]
    value = subject.in_samples(target.tensor, value)
    return float(np.sum(target.of({target.tensor: value}), dtype=np.float64))


def _directions(gradient: Array, count: int) -> list[tuple[str, Array]]:
    """Directions with a root mean square of 1."""
    rng = np.random.default_rng(SEED + 1)
    found: list[tuple[str, Array]] = []
    for _ in range(count):
        coarse = rng.integers(0, 2, size=[-(-n // 4) for n in gradient.shape])
        mask = coarse
        for axis, length in enumerate(gradient.shape):
            mask = mask.repeat(4, axis=axis).take(range(length), axis=axis)
        found.append(("blocks of the gradient", gradient * mask))
    plain = (np.asarray(rng.standard_normal(gradient.shape)) for _ in range(count))
    found += [("noise", d) for d in plain]
    sizes = [_rms(d) for _, d in found]
    return [(name, d / size) for (name, d), size in zip(found, sizes, strict=True) if size]


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0


class _Line:
    """A score along lines through x.

    Args:
        score: The score of an input.
        x: The input, in the precision that the score takes.
        gradient: The gradient under test, at x.
    """

    def __init__(self, score: Score, x: Array, gradient: Array) -> None:
        self.score, self.x, self.gradient = score, x, gradient
        self.at = score(x)
        self.noise = 0.0

    def measure_noise(self, exact: float) -> None:
        """Rounding noise of the score.

        How far it jumps when its input moves by some float32 steps, or, where rounding always
        goes the same way, how far it is from the float64 score.
        """
        rng = np.random.default_rng(SEED + 2)
        found = [abs(self.at) * float(np.finfo(np.float32).eps), abs(self.at - exact)]
        for _ in range(3):
            signs = rng.choice(np.array([-4, 4], dtype=np.float32), size=self.x.shape)
            moved = (self.x + signs * np.spacing(self.x)).astype(np.float32)
            found.append(abs(self.score(moved) - self.at - self._predicted(moved)))
        self.noise = max(found)

    def scale(self, d: Array) -> float:
        """What a slope along d is measured by: as large as it may be, but for the angle."""
        norm = float(np.linalg.norm(self.gradient))
        return max(abs(float(np.sum(self.gradient * d))), norm * _rms(d))

    def steps(self, d: Array, spread: float) -> list[float]:
        """Steps that stand out of the noise, none longer than is near x."""
        scale = self.scale(d)
        start = SIGNAL * self.noise / scale if scale else LARGEST_STEP * spread
        return [min(start * f, LARGEST_STEP * spread * f / STEPS[-1]) for f in STEPS]

    def _ends(self, d: Array, h: float) -> tuple[Array, Array]:
        ahead, behind = (self.x + s * h * d for s in (1, -1))
        return ahead.astype(self.x.dtype), behind.astype(self.x.dtype)

    def _predicted(self, moved: Array) -> float:
        """What the gradient says of a displacement, as arithmetic really made it."""
        return float(np.sum(self.gradient * (moved.astype(np.float64) - self.x)))

    def slope(self, name: str, d: Array, steps: Sequence[float]) -> Direction:
        """Measure one slope at the step where it is surest."""
        scale = self.scale(d)
        if not scale:
            return self._flat(name, d, steps[0])
        found: list[tuple[float, float, float, float]] = []  # error, rounding, bend, step
        sides: list[float] = []  # errors of the slopes to one side, over this step and shorter ones
        bends: list[float] = []
        for h in steps:
            ends = self._ends(d, h)
            above, below = (self.score(end) - self.at for end in ends)
            up, down = (self._predicted(end) for end in ends)
            length = 2 * h * scale
            error, bend = ((above - below) - (up - down)) / length, above - up + below - down
            found.append((error, 2 * self.noise / length, abs(bend) / length, h))
            sides += [error + bend / length, error - bend / length]
            bends.append(max(abs(side - error) for side in sides))
        useful = [
            Direction(
                name,
                abs(error),
                max(rounding, _unrest(found, i)),
                h,
                rounding=rounding,
                bend=bends[i],
            )
            for i, (error, rounding, bend, h) in enumerate(found)
            if bend <= KINK + rounding
        ]
        if not useful:
            error, rounding, bend, h = found[0]
            return Direction(name, abs(error), rounding, h, kinked=True, rounding=rounding)
        return min(useful, key=lambda direction: direction.uncertainty)

    def _flat(self, name: str, d: Array, h: float) -> Direction:
        """Where the gradient is zero, the score has to stay as it is, or to leave a flat place.

        A step may end beyond a flat place (behind a clip, a dead ReLU). Only a score that moves
        in proportion to shorter and shorter steps has a slope.
        """
        # Some float64 roundings of the score do not change it.
        still = self.noise + 1e-12 * abs(self.at)
        moves = [
            max(abs(self.score(end) - self.at) for end in self._ends(d, step))
            for step in (h, h / 8, h / 64)
        ]
        seen = [move for move in moves if move > still]  # a rounding step hides shorter ones
        sloped = len(seen) > 1 and all(3 < wide / short < 24 for wide, short in pairwise(seen))
        return Direction(name, float(sloped), 0.0 if sloped else np.inf, h)

    def apart(self, other: "_Line", d: Array, h: float) -> float:
        """Slopes of two scores over the same step, their difference over the scale."""
        ahead, behind = self._ends(d, h)
        mine, theirs = (
            line.score(ahead.astype(line.x.dtype)) - line.score(behind.astype(line.x.dtype))
            for line in (self, other)
        )
        return abs(mine - theirs) / (2 * h * self.scale(d))


def _unrest(found: Sequence[tuple[float, float, float, float]], i: int) -> float:
    """How far the slope moves to the calmer neighbouring step: small on the plateau."""
    near = [abs(found[i][0] - found[j][0]) for j in (i - 1, i + 1) if 0 <= j < len(found)]
    return min(near, default=0.0)


# -- which node ------------------------------------------------------------------------------------

NODE_TOLERANCE = 1e-3

NODE_STEPS = (1e-8, 1e-9, 1e-10, 1e-7, 1e-6, 1e-5, 1e-4)
"""Of the inputs' size: shorter where two of many values nearly tie under a maximum, longer where
large equal values drown the difference in rounding."""


def wrong_nodes(subject: Subject, probe: Probe, target: Target) -> tuple[str, ...]:
    """Nodes of the float64 twin whose gradient is not the slope of what they compute.

    For each node a random weighting w of its outputs and a random change v of its inputs:
    (J^T w) . v against the difference of w . f, with steps of 1e-8 of the inputs' size
    and others where that disagrees.
    """
    program, name = subject.exact, subject.model.input.name
    variable = {name} | {
        n for node in subject.model.tail(name, target.tensor).nodes for n in node.outputs
    }
    rng = np.random.default_rng(SEED + 3)
    wrong: list[str] = []
    x = subject.feeds(probe)[name].astype(np.float64)
    feeds = subject.tensors(program, {name: x})
    for step, environment in walk(program, feeds, [target.tensor]):
        known = facts(step.node).constant_slope
        relevant = variable & set(step.outputs)
        if relevant and not known and not _agrees(step, environment, variable, rng):
            wrong.append(f"{step.node.op_type} node {step.node.name!r}")
    return tuple(wrong)


def _agrees(
    step: "Step", environment: dict[str, Any], variable: Collection[str], rng: "np.random.Generator"
) -> bool:
    import torch

    from converters.to_torch import Program

    inputs = {n: environment[n] for n in (*step.sources, *step.captures) if n}
    moving = {n: v for n, v in inputs.items() if n in variable and v.is_floating_point()}
    outputs = [n for n in step.outputs if n and environment[n].is_floating_point()]
    weights = {n: _random(rng, environment[n]) for n in outputs}

    def run(values: dict[str, Any]) -> dict[str, Any]:
        inner = {**inputs, **values}
        Program.run_step(step, inner, None)
        return {n: torch.where(inner[n].isfinite(), inner[n], 0) for n in outputs}

    if not moving or not outputs:
        return True
    # Not at x itself: behind a rectifier many values tie at 0, where a maximum has no slope.
    moving = {n: v + 0.1 * _random(rng, v) * _size(v) for n, v in moving.items()}
    with torch.enable_grad():
        leaves = {n: v.detach().clone().requires_grad_() for n, v in moving.items()}
        total = sum((value * weights[n]).sum() for n, value in run(leaves).items())
        slopes = [torch.zeros_like(v) for v in leaves.values()]
        if total.requires_grad:
            slopes = list(
                torch.autograd.grad(
                    total, list(leaves.values()), allow_unused=True, materialize_grads=True
                )
            )
    moves = {n: _random(rng, v) * _size(v) for n, v in moving.items()}
    parts = [(g * m).sum().item() for g, m in zip(slopes, moves.values(), strict=True)]
    sizes = [(g * m).norm().item() for g, m in zip(slopes, moves.values(), strict=True)]
    for h in NODE_STEPS:
        with torch.no_grad():
            ahead, behind = ({n: v + s * h * moves[n] for n, v in moving.items()} for s in (1, -1))
            above, below = run(ahead), run(behind)
            measured = sum(float(((above[n] - below[n]) * weights[n]).sum()) for n in outputs)
            measured /= 2 * h
        scale = max(abs(measured), *sizes, 1e-12)
        if not abs(measured - sum(parts)) > NODE_TOLERANCE * scale:
            return True
    return False


def _size(value: Any) -> Any:
    """How far a tensor's values may be moved: their deviation, or a part of equal values."""
    peak = value.abs().max() if value.numel() else 0.0
    spread = float(value.std(correction=0)) + 1e-3 * float(peak)
    return spread or 1.0


def _random(rng: "np.random.Generator", like: Any) -> Any:
    import torch

    return torch.tensor(rng.standard_normal(tuple(like.shape)), dtype=like.dtype)

"""What a check found, in one sentence each."""

from collections.abc import Mapping, Sequence

import numpy as np

from inspector.verify.forward import TensorRecord
from inspector.verify.nodes import NodeRecord
from inspector.verify.slopes import RUNTIME_TOLERANCE, Direction, GradientRecord
from inspector.verify.subject import Subject

__all__ = [
    "QUANTISED_SLOPE",
    "ZERO_GRADIENT",
    "agreement",
    "forward",
    "gates",
    "narrow_gradient",
    "quantised_forward",
    "quick_slope",
    "slopes",
    "whole_pixels",
    "wrong_gradient",
    "wrong_nodes",
]

MAX_NARROW_ERROR = 0.1
"""Float32 gradient against float64, of the peak, beyond which a pixel map is said to be noisy."""

QUANTISED_SLOPE = (
    "a quantised model is piecewise constant: its slope is zero or infinite, and the "
    "gradient passes straight through the rounding; forward parity has to do"
)

ZERO_GRADIENT = "the gradient is zero everywhere: the target is saturated or does not depend on x"


def wrong_nodes(wrong: Sequence[NodeRecord], beyond: int, count: int) -> str:
    """Nodes that compute something else on equal inputs."""
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more}; {beyond} of {count} tensors differ"


def quantised_forward(nodes: int, share: float) -> str:
    """Levels of a quantised model, whose nodes agree one by one."""
    return (
        f"all {nodes} nodes agree on equal inputs; end to end {share:.2%} of the "
        f"quantised values are off by more than one level"
    )


def forward(
    count: int,
    worst: TensorRecord,
    beyond: Sequence[TensorRecord],
    *,
    subject: Subject,
    tolerance: float,
    rounded: int,
) -> str:
    """The worst of all tensors, and why those that differ do.

    Args:
        count: How many tensors were compared.
        worst: The one that differs most.
        beyond: Those that differ by more than the tolerance, in graph order.
        subject: The model under test.
        tolerance: Largest difference that needs no explanation.
        rounded: Nodes where the reference evaluator has found that ONNX Runtime rounds.
    """
    text = f"{count} tensors, worst difference {worst.parity.worst:.1e} of its tensor's peak"
    if not np.isfinite(worst.parity.worst):
        text = f"{count} tensors, worst {worst.parity}"
    if subject.kind == "float16":
        text += " (ONNX Runtime computes in float16, the twin in float32)"
    if beyond:
        text += (
            f"; {len(beyond)} differ by more than {tolerance:g}, first behind "
            f"{subject.described(beyond[0].parity.name)}, but each node agrees on equal inputs"
        )
        text += f"; ONNX Runtime rounds in {rounded} of them" if rounded else ""
        text += (
            f": against float64 ONNX Runtime is up to {_most(beyond, 'runtime_error'):.1e} off, "
            f"the twin {_most(beyond, 'twin_error'):.1e}"
        )
    return text


def _most(records: Sequence[TensorRecord], which: str) -> float:
    return max(float(getattr(record, which)) for record in records)


def agreement(agree: int, inputs: int, side: str, worst: float) -> str:
    """Best elements and scores of two sides."""
    return (
        f"{agree} of {inputs} inputs have the same best element; {side} differs by "
        f"{worst:.1e} of the scores' peak"
    )


def gates(found: Mapping[str, int]) -> str:
    """Gates that are open on one side and shut on the other."""
    return (
        f"of {found['gates']} gates of rectifiers {found['runtime_twin']} differ between ONNX "
        f"Runtime and the twin, {found['twin_exact']} between float32 and float64"
    )


def quick_slope(direction: Direction) -> str:
    """One slope along the gradient."""
    return f"{direction.error:.1e} from ONNX Runtime's slope along the gradient"


def slopes_without_twin(directions: Sequence[Direction]) -> str:
    """Slopes along the gradient and along the input."""
    names = ("the gradient", "the input")
    parts = [f"{d.error:.1e} along {name}" for d, name in zip(directions, names, strict=False)]
    return f"from ONNX Runtime's slope: {', '.join(parts)}"


def graph_gradient(apart: float, rounding: float, directions: Sequence[Direction]) -> str:
    """The gradient graph beside the twin and beside slopes."""
    text = f"{apart:.1e} of the peak from the float64 twin's gradient (the float32 twin "
    text += f"{rounding:.1e})"
    return f"{text}; {slopes_without_twin(directions)}" if directions else text


def wrong_gradient(record: GradientRecord, nodes: Sequence[str]) -> str:
    """A gradient that is not the slope, and the nodes to blame."""
    text = "the gradient is not the slope of the score: " + slopes(record)
    return text + (f"; wrong gradient in {', '.join(nodes[:3])}" if nodes else "")


def whole_pixels(record: GradientRecord) -> str:
    """Slopes of a model that takes whole pixel values."""
    return (
        "ONNX Runtime takes whole pixel values, so its score has no slope; the float64 "
        "twin's own slope: " + slopes(record)
    )


def narrow_gradient(error: float) -> str:
    """The float32 gradient against the float64 one."""
    text = f"differs from the float64 gradient by {error:.1e} of its peak"
    if error > MAX_NARROW_ERROR:
        text += ": gates that flip by rounding; single pixels of a gradient map mean little"
    return text


def slopes(record: GradientRecord) -> str:
    """The worst slope per kind of measurement, and the directions that cannot tell."""
    parts = []
    lost = [d for d in record.runtime if d.judged(RUNTIME_TOLERANCE) == "undecided"]
    telling = [d for d in record.runtime if d not in lost]
    straight = [d for d in telling if d.same_step is None]
    bent = [d for d in telling if d.same_step is not None]
    if straight:
        worst = max(d.error for d in straight)
        parts.append(f"{worst:.1e} from ONNX Runtime's slope in {_count(straight)}")
    if bent:
        worst = max(d.same_step or 0.0 for d in bent)
        parts.append(
            f"in {_count(bent)} where the score bends ONNX Runtime and the float64 twin part by "
            f"{worst:.1e} over the same step"
        )
    if lost:
        parts.append(f"{_count(lost)} lost in ONNX Runtime's rounding")
    useful = [d for d in record.exact if not d.kinked and not d.gates]
    if useful:
        worst = max(d.error for d in useful)
        parts.append(f"{worst:.1e} from the float64 twin's own in {_count(useful)}")
    kinked = [d for d in record.exact if d.kinked or d.gates]
    if kinked:
        gates = list(dict.fromkeys(gate for d in kinked for gate in d.gates))
        where = f" ({', '.join(gates[:3])})" if gates else ""
        parts.append(f"{len(kinked)} with a kink at x{where} left out")
    return "; ".join(parts) or "no direction can be measured"


def _count(directions: Sequence[Direction]) -> str:
    return f"{len(directions)} direction{'' if len(directions) == 1 else 's'}"

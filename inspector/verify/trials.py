"""The quick gradient check: where the first input cannot tell, others are tried.

A gradient that is zero at one input says nothing, and neither does a slope that is lost in
rounding or bends.  Tried in this order: the noise, fainter and stronger noise of other seeds; where
the target's gradient is zero at all of them, tensors before the target; last each node by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from inspector.target import Target
from inspector.verify import report_lines, slopes
from inspector.verify.certificate import Check, Status
from inspector.verify.slopes import Direction, quick_slope, wrong_nodes
from inspector.verify.subject import SEED, Probe, Subject, noise

if TYPE_CHECKING:
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["direction_figures", "others", "quick_gradient_check", "tensors_before"]

MOST_TENSORS = 12
"""Tensors before a target of zero gradient that are tried."""

NAME = "gradient"


def quick_gradient_check(
    subject: Subject, probe: Probe, preprocess: "Preprocess | None", tensor: str = ""
) -> Check:
    """The gradient against one slope through ONNX Runtime, at the first input that can tell.

    Args:
        subject: The model under test.
        probe: The first input.
        preprocess: For the others.
        tensor: Whose largest element is differentiated; see ``Subject.default_target``.
    """
    target, why = subject.default_target(probe, tensor)
    if target is None:
        return Check(NAME, "not applicable", why)
    if subject.kind == "quantised" or subject.model.input.integer:
        why = "a model of whole steps has no slope to compare with"
        return Check(NAME, "not applicable", why)
    probes = [probe, *others(subject, preprocess)]
    told, zero = _told(subject, probes, tensor)
    if told and (told[0].status == "pass" or told[1:]):
        return told[0]
    if told:
        return _by_nodes(subject, probe, target, f"at one input alone {told[0].text}")
    if zero < len(probes):
        return _by_nodes(
            subject, probe, target, "ONNX Runtime's slope is lost in rounding or bends"
        )
    said = f"the gradient of {target.label} is zero at {len(probes)} inputs, as is the slope"
    zeros = {"zero": target.label, "zero at": [p.name for p in probes]}
    for name in tensors_before(subject, target.tensor):
        for one in probes[:2]:
            inner = subject.largest(one, name)
            found = None if inner is None else quick_slope(subject, one, inner)
            if found is not None and inner is not None and _decides(found):
                check = _check(found, inner, one, said)
                return replace(check, figures={**check.figures, **zeros})
    check = _by_nodes(subject, probe, target, said)
    return replace(check, figures={**check.figures, **zeros})


def tensors_before(subject: Subject, tensor: str) -> Iterator[str]:
    """Tensors that another is computed from, nearest first, as far as a gradient may be taken."""
    known, seen, waiting = set(subject.names), {tensor}, [tensor]
    found = 0
    while waiting and found < MOST_TENSORS:
        node = subject.producers.get(waiting.pop(0))
        for name in () if node is None else node.inputs:
            if name in known and name not in seen:
                seen.add(name)
                waiting.append(name)
                found += 1
                yield name


def direction_figures(direction: Direction) -> dict[str, object]:
    """A direction as plain data."""
    return {
        "direction": direction.name,
        "error": direction.error,
        "uncertainty": direction.uncertainty,
        "step": direction.step,
        "kinked": direction.kinked,
        "gates within the step": list(direction.gates[:20]),
        "error over the same step of the float64 twin": direction.same_step,
    }


def others(subject: Subject, preprocess: "Preprocess | None") -> Iterator[Probe]:
    """Inputs that are tried where the first one cannot tell."""
    for number, contrast in ((1, 0.25), (2, 1.0), (3, 3.0)):
        yield noise(
            subject.model,
            preprocess,
            seed=SEED + 100 * number,
            contrast=contrast,
            name=f"noise of contrast {contrast:g}",
        )


def _decides(found: Direction) -> bool:
    return found.judged(slopes.RUNTIME_TOLERANCE) != "undecided"


def _told(subject: Subject, probes: Sequence[Probe], tensor: str) -> tuple[list[Check], int]:
    """A pass at the first input that can tell; or failures, at two inputs where it is one.

    Returns:
        Those, and at how many inputs neither the gradient nor the score moves.
    """
    found: list[Check] = []
    zero = 0
    for probe in probes:
        target, _ = subject.default_target(probe, tensor)
        slope = None if target is None else quick_slope(subject, probe, target)
        zero += slope is None
        if slope is None or target is None or not _decides(slope):
            continue
        check = _check(slope, target, probe)
        if check.status == "pass" and not found:
            return [check], zero
        if check.status == "fail":
            found.append(check)
        if len(found) > 1:  # what is wrong shows at more than one input
            break
    return found, zero


def _check(found: Direction, target: Target, probe: Probe, said: str = "") -> Check:
    text = report_lines.quick_slope(found)
    if said:
        text = f"{said}; at {target.label} before it: {text}"
    status: Status = "pass" if found.judged(slopes.RUNTIME_TOLERANCE) == "pass" else "fail"
    figures = {"target": target.label, "input": probe.name, **direction_figures(found)}
    return Check(NAME, status, text, figures)


def _by_nodes(subject: Subject, probe: Probe, target: Target, why: str) -> Check:
    """Node by node in float64: where each gradient is right, so is their product."""
    count = len(subject.model.tail(subject.model.input.name, target.tensor).nodes)
    wrong = wrong_nodes(subject, probe, target)
    figures = {"target": target.label, "input": probe.name, "wrong nodes": list(wrong[:20])}
    if wrong:
        return Check(NAME, "fail", f"{why}; wrong gradient in {', '.join(wrong[:3])}", figures)
    text = (
        f"{why}; each of {count} nodes by itself has the gradient of what it computes, in float64"
    )
    return Check(NAME, "pass" if count else "undecided", text, figures)

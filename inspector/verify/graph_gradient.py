"""The gradient graph's certificate: its gradient against slopes of scores through ONNX Runtime.

Nothing of the twin is asked, and torch is not imported.  The forward pass is ONNX Runtime's own, so
that the backward pass alone is in question.  That of the whole network is one gradient: a slope
along it tells whether a rule on the way is wrong, one along the input whether a path is missing.

``inspector verify`` has the twin at hand, and compares the two gradients with each other as well.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from converters.graph.standard_bodies import is_known
from inspector.engines.gradient_graph import GradientGraph
from inspector.errors import ConverterError, InspectorError, LimitExceeded, refusing
from inspector.verify import report_lines
from inspector.verify.cache import keep_verdict, kept_verdict
from inspector.verify.certificate import Certificate, Check, Status, Verdict
from inspector.verify.slopes import RUNTIME_TOLERANCE, Direction, gradient_of, slopes_without_twin
from inspector.verify.subject import Probe, Subject, noise
from inspector.verify.trials import others

if TYPE_CHECKING:
    from inspector.model import Model
    from inspector.photos.preprocess_choice import Preprocess
    from inspector.target import Target

__all__ = [
    "ENGINE",
    "allowed",
    "graph_check",
    "graph_judged",
    "graph_verdict_for",
    "remember_graph",
]

NAME = "gradient graph"
"""Name of the check."""

APART = {"float32": 1e-4, "float16": 2e-2, "quantised": 1e-4}
"""Largest difference from the float64 twin's gradient, of its peak, that needs no more question."""

_FLIPS = 5
"""Multiple of the float32 twin's own difference that is allowed: gates flip by rounding."""

_LOOSEST = 0.5
"""Largest difference, of the peak, that flips excuse: a gradient of zeros is 1 away."""

ENGINE = "onnx"
"""Under which verdicts on gradient graphs are kept."""


def graph_verdict_for(
    model: "Model", preprocess: "Preprocess | None" = None, tensor: str = ""
) -> Verdict:
    """Whether gradients that are written as ONNX may be trusted; kept in the user's cache.

    Args:
        model: The opened model.
        preprocess: Makes the random input one like a photo's.
        tensor: Whose elements are explained; by default the scores, else an output's.

    Returns:
        The verdict; ``passed`` is None where it cannot be decided: a quantised model has no slope
        to compare with, an operator has no rule, or the slope is lost in rounding.

    Raises:
        LimitExceeded: Memory ran out.
    """
    kept = kept_verdict(model, preprocess, tensor, engine=ENGINE)
    if kept is not None:
        return kept
    try:
        with refusing("a check failed"):
            found = _judge(model, preprocess, tensor)
    except LimitExceeded:  # says nothing of the model
        raise
    except (ConverterError, InspectorError) as error:
        found = Verdict(None, f"the gradient graph cannot be certified: {error}", "now")
    keep_verdict(model, found, preprocess, tensor, engine=ENGINE)
    return found


def graph_judged(
    model: "Model", preprocess: "Preprocess | None" = None, tensor: str = ""
) -> Verdict | None:
    """The verdict on the gradient graph where it draws; None where the twin is asked instead.

    Args:
        model: The opened model, whose engine is ``auto`` or ``onnx``.
        preprocess: As ``graph_verdict_for``.
        tensor: As ``graph_verdict_for``.

    Raises:
        LimitExceeded: Memory ran out.
    """
    if model.engine == "onnx":
        return graph_verdict_for(model, preprocess, tensor)
    if not all(is_known(model.graph, node) for node in model.graph.nodes):
        return None  # of what nothing here computes there is no second opinion
    found = graph_verdict_for(model, preprocess, tensor)
    return found if found.passed else None


def _judge(model: "Model", preprocess: "Preprocess | None", tensor: str) -> Verdict:
    # An engine of its own, for what it loads serves nothing else and goes with it.
    subject = Subject(model, GradientGraph(model.file, device=model.device))
    if subject.kind == "quantised" or model.input.integer:
        said = "a model of whole steps has no slope to compare the gradient graph with"
        return Verdict(None, f"{said}; `inspector verify` compares it with the twin", "now")
    said, failed = "no output can be differentiated", ""
    for probe in (noise(model, preprocess), *others(subject, preprocess)):
        target, said = subject.default_target(probe, tensor)
        found = () if target is None else slopes_without_twin(subject, probe, target)
        if target is None or not found:
            continue
        word = _judged(found)
        text = report_lines.slopes_without_twin(found)
        if word == "fail" and failed:  # what is wrong shows at more than one input
            return Verdict(False, f"the gradient graph fails: {failed}", "now")
        if word == "fail":
            failed = f"{target.label}: {text}"
        elif word == "pass" and not failed:
            return Verdict(True, f"the gradient graph agrees with ONNX Runtime ({text})", "now")
        said = text
    if failed:
        said = f"it fails at one input alone: {failed}"
    return Verdict(None, f"the gradient graph cannot be certified: {said}", "now")


def _judged(found: Sequence[Direction]) -> str:
    """``fail`` if one direction fails, ``pass`` if every one passes, else ``undecided``."""
    words = {direction.judged(RUNTIME_TOLERANCE) for direction in found}
    return next((word for word in ("fail", "undecided") if word in words), "pass")


def graph_check(subject: Subject, probe: Probe, target: "Target") -> Check:
    """The gradient graph against the twin and against ONNX Runtime's slopes.

    Args:
        subject: The twin under test.
        probe: Where the gradient is taken.
        target: Whose gradient.

    Returns:
        ``fail`` where the two gradients part and a slope is not the graph's; ``report`` where
        they part and no slope can tell; ``not applicable`` where an operator has no rule.
    """
    model = subject.model
    x = subject.feeds(probe)[model.input.name].astype(np.float32)
    try:
        with refusing("the gradient graph failed"):
            own = gradient_of(model.gradient_graph, subject, x, target)
    except LimitExceeded:
        raise
    except (ConverterError, InspectorError) as error:
        said = str(error).splitlines()[0]
        return Check(NAME, "not applicable", f"the twin draws: {said}", about="graph")
    exact = gradient_of(subject.exact_engine, subject, x, target)
    narrow = gradient_of(subject.engine, subject, x, target)
    peak = float(np.abs(exact).max(initial=0.0)) or 1.0
    apart, rounding = (
        float(np.nan_to_num(np.abs(one - exact), nan=np.inf).max(initial=0.0)) / peak
        for one in (own, narrow)
    )
    slopes: tuple[Direction, ...] = ()
    if subject.kind != "quantised" and not model.input.integer:
        slopes = slopes_without_twin(Subject(model, model.gradient_graph), probe, target)
    near = apart <= allowed(APART[subject.kind], rounding)
    word = _judged(slopes) if slopes else "undecided"
    status: Status = "fail" if word == "fail" and not near else "report"
    if near or word == "pass":
        status = "pass"
    text = report_lines.graph_gradient(apart, rounding, slopes)
    figures = {
        "target": target.label,
        "input": probe.name,
        "difference from the float64 twin": apart,
        "difference of the float32 twin": rounding,
        "slopes": [direction.error for direction in slopes],
    }
    return Check(NAME, status, text, figures, about="graph")


def allowed(bound: float, flips: float) -> float:
    """The difference from the twin, of the peak, that its own rounding allows.

    Args:
        bound: What is allowed where no gate flips.
        flips: How far its own gradients in float32 and float64 are apart, of the peak.
    """
    return max(bound, min(_FLIPS * flips, _LOOSEST))


def remember_graph(
    model: "Model",
    certificate: Certificate,
    preprocess: "Preprocess | None" = None,
    tensor: str = "",
) -> None:
    """Keep what a certificate says of the gradient graph, for ``graph_verdict_for``.

    That the two gradients agree counts where the twin itself is certified.

    Args:
        model: The model.
        certificate: Its certificate.
        preprocess: As ``graph_verdict_for``.
        tensor: As ``graph_verdict_for``.
    """
    check = next((one for one in certificate.checks if one.name == NAME), None)
    if check is None or check.status not in {"pass", "fail"}:
        return
    if check.status == "pass" and certificate.kept.passed is not True:
        return
    word = "agrees with the certified twin" if check.status == "pass" else "fails"
    found = Verdict(check.status == "pass", f"the gradient graph {word} ({check.text})", "now")
    for name in dict.fromkeys((tensor, certificate.tensor)):
        keep_verdict(model, found, preprocess, name, engine=ENGINE)

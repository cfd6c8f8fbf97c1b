"""The gradient graph's certificate: its gradient against slopes of scores through ONNX Runtime.

Nothing of the twin is asked, and torch is not imported.  The backward pass of the whole network is
one gradient, so that one slope along it tells whether a rule on the way is wrong.
"""

from typing import TYPE_CHECKING

from inspector.errors import ConverterError, InspectorError, LimitExceeded, refusing
from inspector.verify import report_lines
from inspector.verify.cache import keep_verdict, kept_verdict
from inspector.verify.certificate import Verdict
from inspector.verify.slopes import RUNTIME_TOLERANCE, quick_slope
from inspector.verify.subject import Subject, noise
from inspector.verify.trials import others

if TYPE_CHECKING:
    from inspector.model import Model
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["ENGINE", "graph_verdict_for"]

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


def _judge(model: "Model", preprocess: "Preprocess | None", tensor: str) -> Verdict:
    subject = Subject(model, model.gradient_graph)
    if subject.kind == "quantised" or model.input.integer:
        said = "a model of whole steps has no slope to compare the gradient graph with"
        return Verdict(None, f"{said}; --engine twin compares every node", "now")
    said = "no output can be differentiated"
    for probe in (noise(model, preprocess), *others(subject, preprocess)):
        target, said = subject.default_target(probe, tensor)
        found = None if target is None else quick_slope(subject, probe, target)
        if target is None or found is None:
            continue
        word = found.judged(RUNTIME_TOLERANCE)
        text = report_lines.quick_slope(found)
        if word == "pass":
            return Verdict(True, f"the gradient graph agrees with ONNX Runtime ({text})", "now")
        if word == "fail":
            return Verdict(False, f"the gradient graph fails: {target.label}: {text}", "now")
        said = text
    return Verdict(None, f"the gradient graph cannot be certified: {said}", "now")

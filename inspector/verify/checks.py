"""The certificate of one model: which checks there are, and what each one allows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines.rules import RULES, Rule
from inspector.errors import ExplainedError, refusing
from inspector.model import Model
from inspector.target import Target
from inspector.verify import invariants, report_lines, slopes
from inspector.verify.agreement import score_checks
from inspector.verify.certificate import About, Certificate, Check, Status
from inspector.verify.forward import Forward, TensorRecord, compare_forward
from inspector.verify.graph_gradient import graph_check
from inspector.verify.nodes import NodeRecord, compare_nodes
from inspector.verify.slopes import GradientRecord, certify_gradient, wrong_nodes
from inspector.verify.subject import Probe, Subject, blank, noise
from inspector.verify.trials import direction_figures, quick_gradient_check
from inspector.versions import versions

if TYPE_CHECKING:
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["TOLERANCE", "certify", "quick"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "quantised": 1e-4}
"""Largest difference of a tensor, relative to its peak, that needs no further question."""

NODE_TOLERANCE = {"float32": 1e-4, "float16": 5e-3, "quantised": 1e-4}
"""The same for one node on equal inputs."""

SCORE_TOLERANCE = {"float32": 1e-3, "float16": 5e-2, "quantised": 0.1}
"""Of the scores' peak: a batch against single images, optimised against unoptimised."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the twin on one thread: others spin between operators, and cost more than they bring."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
@refusing("a check of the twin failed")
def certify(
    model: Model,
    photos: Sequence[Probe] = (),
    *,
    preprocess: "Preprocess | None" = None,
    target: Callable[[Array], Target] | None = None,
    tensor: str = "",
    progress: Progress | None = None,
) -> Certificate:
    """Certify the twin of a model, on random inputs and on photos.

    What a photo shows is said of the photo: the verdict that is kept for the model
    (``Certificate.kept``) rests on the random inputs alone.

    Args:
        model: The opened model.
        photos: Preprocessed photos; the gradient is taken at the first of them too.
        preprocess: For inputs like photos; see ``noise``.
        target: Makes the target from the scores (K,) of an input; by default the best class, or
            an output's largest element where the model is not a classifier.
        tensor: Whose largest element is the target instead.
        progress: Called with (what, done, total) as the parts get done.

    Returns:
        The full certificate.

    Raises:
        UnsupportedOperator: The twin cannot run the model as far as its scores.
        ModelRefused: ONNX Runtime cannot.
    """
    subject = Subject(model)
    probes = [noise(model, preprocess), blank(model, preprocess)]
    _require(subject, tensor)
    chosen, why = _target(subject, probes[0], target, tensor)
    parts: list[tuple[str, Callable[[], list[Check]]]] = []
    checks: list[Check] = []

    def values(some: Sequence[Probe], suffix: str) -> list[Check]:
        forward = compare_forward(subject, some)
        nodes = _suspects(subject, some, forward)
        found = [
            _forward_check(subject, forward, nodes),
            *score_checks(subject, some, _slack(subject, forward, nodes)),
            _gates_check(forward),
        ]
        return [replace(check, name=check.name + suffix) for check in found]

    def gradient(probe: Probe, suffix: str) -> list[Check]:
        return _gradient_checks(subject, probe, target, tensor, "gradient" + suffix)

    def own_gradient() -> list[Check]:
        found = gradient(probes[0], "")
        if found[0].status != "undecided" or chosen is None:
            return found
        trial = quick_gradient_check(subject, probes[0], preprocess, chosen.tensor)
        return [trial, *_empty(trial), *found[1:]]

    parts.append(("values of every tensor", lambda: values(probes, "")))
    parts.append(("gradient", own_gradient))
    if chosen is not None:
        parts.append(("gradient graph", lambda: [graph_check(subject, probes[0], chosen)]))
    parts.append(("backward rules", lambda: _rule_checks(subject, chosen)))
    if chosen is not None and preprocess is not None:
        parts += _invariant_checks(subject, probes[0], chosen, preprocess)
    if photos:
        parts.append(("values of photos", lambda: _of_photos(values(photos, ", photos"))))
        one = photos[0]
        parts.append(("gradient of a photo", lambda: _of_photos(gradient(one, f", {one.name}"))))
    for done, (name, part) in enumerate(parts):
        if progress is not None:
            progress(name, done, len(parts))
        checks += part()
    return _certificate(
        subject,
        [*probes, *photos],
        why,
        checks,
        scope="full",
        tensor=chosen.tensor if chosen else "",
    )


def _empty(trial: Check) -> list[Check]:
    """A gradient that passes and is zero wherever it was tried draws no map."""
    if not trial.figures.get("zero at"):
        return []
    text = (
        f"the gradient of {trial.figures['zero']} is zero at every input tried: its maps are empty"
    )
    return [Check("gradient map", "undecided", text, about="map")]


def _of_photos(checks: Sequence[Check]) -> list[Check]:
    return [replace(check, about="photo") for check in checks]


@one_thread()
def quick(model: Model, *, preprocess: "Preprocess | None" = None, tensor: str = "") -> Certificate:
    """Certify with some dozen forward passes and one backward; the full way if that fails.

    One random input: every tensor against the float32 twin, and the gradient against ONNX
    Runtime along one direction; see ``trials`` for what is tried where that cannot tell.

    Args:
        model: The opened model.
        preprocess: For inputs like photos; see ``noise``.
        tensor: Whose largest element is differentiated; by default as ``certify``.

    Raises:
        UnsupportedOperator: As ``certify``.
        ModelRefused: As ``certify``.
    """
    subject = Subject(model)
    probe = noise(model, preprocess)
    _require(subject, tensor)
    chosen, why = subject.default_target(probe, tensor)
    forward = compare_forward(subject, [probe], exact=False)
    nodes = _suspects(subject, [probe], forward)
    checks = [
        _forward_check(subject, forward, nodes),
        *score_checks(subject, [probe], _slack(subject, forward, nodes)),
        quick_gradient_check(subject, probe, preprocess, tensor),
    ]
    found = _certificate(
        subject, [probe], why, checks, scope="quick", tensor=chosen.tensor if chosen else ""
    )
    if found.verdict != "fail":
        return found
    return certify(model, preprocess=preprocess, tensor=tensor)


def _require(subject: Subject, tensor: str) -> None:
    """Raise where the twin cannot reach what is explained: there is nothing to certify then."""
    model = subject.model
    subject.twin.plan([model.input.name], [tensor or model.scores.tensor])


def _certificate(
    subject: Subject,
    probes: Sequence[Probe],
    target: str,
    checks: Sequence[Check],
    *,
    scope: str,
    tensor: str,
) -> Certificate:
    kind = subject.kind
    return Certificate(
        model={"name": subject.model.path.name, "sha256": subject.model.file.sha256},
        kind=kind,
        scope=scope,
        inputs=tuple({"name": p.name, **p.facts} for p in probes),
        target=target,
        tolerances={
            "tensor": TOLERANCE[kind],
            "node on equal inputs": NODE_TOLERANCE[kind],
            "scores": SCORE_TOLERANCE[kind],
            "slope through ONNX Runtime": slopes.RUNTIME_TOLERANCE,
            "slope through the float64 twin": slopes.EXACT_TOLERANCE,
            "cam residual": invariants.RESIDUAL[kind],
        },
        versions=versions(),
        checks=tuple(checks),
        tensor=tensor,
    )


def _target(
    subject: Subject,
    probe: Probe,
    make: Callable[[Array], Target] | None,
    tensor: str,
) -> tuple[Target | None, str]:
    if make is None:
        return subject.default_target(probe, tensor)
    target = make(subject.fetch(probe, subject.model.scores.tensor)[0].reshape(-1))
    subject.fetch(probe, target.tensor)
    return target, f"{target.label}, as asked for"


# -- forward ---------------------------------------------------------------------------------------


def _suspects(subject: Subject, probes: Sequence[Probe], forward: Forward) -> list[NodeRecord]:
    """Nodes that have to prove themselves on equal inputs: those that differ end to end.

    Of a quantised model these are all: rounding to another level is passed on and on, so what
    comes out at the end proves little either way.
    """
    tolerance = TOLERANCE[subject.kind]
    found: list[NodeRecord] = []
    for probe in probes:
        worst = forward.by_probe[probe.name]
        names = [n for n, value in worst.items() if not value <= tolerance]
        if subject.kind == "quantised" and probe is probes[0]:
            names = list(worst)
        # A node that has proved itself on one input is not asked again.
        right = {r.node.index for r in found if r.right}
        names = [n for n in names if subject.producers[n].index not in right]
        if names:
            allowed = NODE_TOLERANCE[subject.kind]
            found += compare_nodes(subject, probe, names, tolerance=allowed)
    return found


def _forward_check(subject: Subject, forward: Forward, nodes: Sequence[NodeRecord]) -> Check:
    tolerance = TOLERANCE[subject.kind]
    beyond = forward.beyond(tolerance)
    worst, first = forward.worst, beyond[0] if beyond else None
    wrong = [record for record in nodes if not record.right]
    refereed = [record for record in nodes if record.ruling == "twin"]
    figures: dict[str, Any] = {
        "tensors": len(forward.records),
        "beyond": len(beyond),
        "worst": _figures(subject, worst),
        "first": _figures(subject, first),
        "nodes compared on equal inputs": len(nodes),
        "wrong nodes": list(dict.fromkeys(str(record) for record in wrong))[:20],
        "nodes where ONNX Runtime rounds": list(dict.fromkeys(map(str, refereed)))[:20],
    }
    whole = [record for record in forward.records.values() if record.whole]
    if subject.kind == "quantised":
        figures["levels"] = _levels(forward, whole)
    count = len(forward.records)
    if not count or worst is None:
        return Check("forward", "undecided", "there is no tensor to compare", figures)
    if wrong:
        text = report_lines.wrong_nodes(wrong, len(beyond), count)
        return Check("forward", "fail", text, figures)
    if subject.kind == "quantised":
        # Each node agrees: how far roundings to another level add up is not a fault of the twin.
        share = figures["levels"]["beyond one"]
        return Check("forward", "pass", report_lines.quantised_forward(len(nodes), share), figures)
    text = report_lines.forward(
        count, worst, beyond, subject=subject, tolerance=tolerance, rounded=len(refereed)
    )
    return Check("forward", "pass", text, figures)


def _figures(subject: Subject, record: TensorRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "tensor": record.parity.name,
        "node": subject.described(record.parity.name),
        "input": record.probe,
        "difference": record.parity.worst,
        "peak": record.parity.peak,
        "why": record.parity.why,
        "onnx runtime against float64": record.runtime_error,
        "twin against float64": record.twin_error,
    }


def _levels(forward: Forward, whole: Sequence[TensorRecord]) -> dict[str, Any]:
    """Whole-numbered tensors: shares are means over tensors, in the input where they are worst."""
    shares = [record.beyond_unit for record in whole]
    worst = max(whole, key=lambda record: record.beyond_unit, default=None)
    return {
        "tensors": len(whole),
        "beyond one": float(np.mean(shares)) if shares else 0.0,
        "worst tensor": None if worst is None else worst.parity.name,
        "worst share": 0.0 if worst is None else worst.beyond_unit,
        "inputs": list(forward.by_probe),
    }


def _slack(subject: Subject, forward: Forward, nodes: Sequence[NodeRecord]) -> float:
    """Largest difference of the scores, over their peak, that is not a failure.

    Where every node has been found right, ONNX Runtime's own rounding may be larger than what
    is allowed otherwise; it is known from the float64 twin.
    """
    allowed = SCORE_TOLERANCE[subject.kind]
    record = forward.records.get(subject.model.scores.tensor)
    if record is None or not nodes or not all(node.right for node in nodes):
        return allowed
    return max(allowed, 2 * record.runtime_error + 2 * record.twin_error)


# -- gradient --------------------------------------------------------------------------------------


def _gradient_checks(
    subject: Subject,
    probe: Probe,
    make: Callable[[Array], Target] | None,
    tensor: str,
    name: str,
) -> list[Check]:
    target, why = _target(subject, probe, make, tensor)
    if target is None:
        return [Check(name, "not applicable", why)]
    try:
        record = certify_gradient(subject, probe, target, directions=1)
    except ExplainedError as error:
        return [Check(name, "undecided", f"the twin gives no gradient: {error}")]
    return [_gradient_check(subject, probe, target, record, name), _narrow(record, name)]


def _gradient_check(
    subject: Subject, probe: Probe, target: Target, record: GradientRecord, name: str
) -> Check:
    own = record.judged(record.exact, slopes.EXACT_TOLERANCE)
    theirs = record.judged(record.runtime, slopes.RUNTIME_TOLERANCE)
    figures: dict[str, Any] = {
        "target": target.label,
        "input": probe.name,
        "norm": record.norm,
        "noise of onnx runtime's score": record.noise,
        "through onnx runtime": [direction_figures(d) for d in record.runtime],
        "through the float64 twin": [direction_figures(d) for d in record.exact],
    }
    if subject.kind == "quantised":
        return Check(name, "not applicable", report_lines.QUANTISED_SLOPE, figures)
    if "fail" in (own, theirs):
        nodes = wrong_nodes(subject, probe, target)
        figures["wrong nodes"] = list(nodes[:20])
        return Check(name, "fail", report_lines.wrong_gradient(record, nodes), figures)
    if not record.norm and not any(d.gates for d in record.exact):
        return Check(name, "undecided", report_lines.ZERO_GRADIENT, figures)
    if not record.runtime:
        text = report_lines.whole_pixels(record)
        return Check(name, "not applicable" if own == "pass" else "undecided", text, figures)
    # Rounding of ONNX Runtime hides no fault where the float64 twin has no such rounding: that the
    # two compute the same is the forward check's business.
    status: Status = "pass" if "pass" in (own, theirs) else "undecided"
    return Check(name, status, report_lines.slopes(record), figures)


def _narrow(record: GradientRecord, name: str) -> Check:
    text = report_lines.narrow_gradient(record.narrow_error)
    return Check(f"float32 {name}", "report", text, {"difference": record.narrow_error})


def _gates_check(forward: Forward) -> Check:
    return Check("gate flips", "report", report_lines.gates(forward.gates), forward.gates)


def _rule_checks(subject: Subject, target: Target | None) -> list[Check]:
    """What each backward rule reaches, and where it is refused."""
    if target is None:
        return []
    model = subject.model
    checks = []
    for rule in RULES[1:]:
        try:
            found = subject.engine.coverage(model.input.name, [target.tensor], Rule(rule))
        except ExplainedError as error:
            checks.append(Check(f"rule {rule}", "report", f"refused: {error.what}"))
            continue
        figures = {
            "ruled": found.ruled,
            "gates": found.gates,
            "unknown": list(found.unknown[:20]),
        }
        checks.append(Check(f"rule {rule}", "report", str(found), figures))
    return checks


def _invariant_checks(
    subject: Subject, probe: Probe, target: Target, preprocess: "Preprocess"
) -> list[tuple[str, Callable[[], list[Check]]]]:
    """Identities between methods; one that raises is undecided, and says why."""
    from inspector.verify.slopes import gradient_of

    def other() -> list[Check]:
        if target.class_index is None:
            return [Check("another target", "not applicable", "the target is not a class")]
        x = subject.feeds(probe)[subject.model.input.name].astype(np.float32)
        gradient = gradient_of(subject.engine, subject, x, target)
        return [invariants.other_target_check(subject, probe, target, gradient)]

    def guarded(name: str, about: About, part: Callable[[], list[Check]]) -> Callable[[], Any]:
        def run() -> list[Check]:
            try:
                return [replace(check, about=about) for check in part()]
            except ExplainedError as error:
                return [Check(name, "undecided", f"cannot be computed: {error}", about=about)]

        return run

    parts: list[tuple[str, About, Callable[[], list[Check]]]] = [
        ("cam", "twin", lambda: invariants.cam_checks(subject, probe, target, preprocess)),
        (
            "occlusion",
            "occlusion",
            lambda: invariants.occlusion_checks(subject, probe, target, preprocess),
        ),
        ("another target", "map", other),
        ("mirror", "map", lambda: [invariants.mirror_check(subject, probe, target, preprocess)]),
    ]
    return [(name, guarded(name, about, part)) for name, about, part in parts]

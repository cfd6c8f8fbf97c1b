"""The scores of two sides: the same best class, and values that are close.

The twin against ONNX Runtime, an optimised session against one without optimisations, and a batch
against single images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from converters.parity import top1_agreement
from inspector.verify import report_lines
from inspector.verify.certificate import Check
from inspector.verify.subject import Probe, Subject

__all__ = ["score_checks"]

Array = np.ndarray[Any, Any]

SQUASHED_ERROR = 1e-6
"""What ONNX Runtime's sigmoid and softmax may be off by, however small their result."""

_LEAST = 1e-3
"""Share of the largest score of all inputs: scores that are smaller at one of them, such as those
of a blank image of which a network takes differences, are rounding alone."""

_SQUASHING = ("Sigmoid", "Softmax", "HardSigmoid")


def score_checks(subject: Subject, probes: Sequence[Probe], allowed: float) -> list[Check]:
    """Same best class on both sides; optimised as unoptimised; a batch as single images."""
    model = subject.model
    name = model.scores.tensor
    if name not in subject.names:
        return [Check("top-1", "not applicable", "the scores are made by what the twin leaves out")]
    twin = subject.twin
    theirs, ours, optimised = [], [], []
    for probe in probes:
        feeds = subject.feeds(probe)
        theirs.append(subject.fetch(probe, name))
        optimised.append(model.forward(probe.image, [name])[name][:1])
        with torch.no_grad():
            found = twin.run(subject.tensors(twin, feeds), [name])[name]
        ours.append(subject.in_samples(name, found).cpu().numpy())
    maker = subject.producers.get(name)
    squashed = maker is not None and maker.op_type in _SQUASHING
    floor = SQUASHED_ERROR if squashed else 0.0
    checks = [
        _agreement("top-1", theirs, ours, side="the twin", allowed=allowed, floor=floor),
        _agreement(
            "optimised session",
            theirs,
            optimised,
            side="the optimised session",
            allowed=allowed,
            floor=floor,
        ),
    ]
    if len(probes) > 1:
        checks.append(_batch_check(subject, probes, ours, allowed, floor))
    return checks


def _batch_check(
    subject: Subject, probes: Sequence[Probe], ours: Sequence[Array], allowed: float, floor: float
) -> Check:
    model, twin = subject.model, subject.twin
    name = model.scores.tensor
    images = np.concatenate([probe.image for probe in probes[:4]])
    together = model.forward(images, [name])[name]
    if not model.batches:
        return Check("batch", "not applicable", "the model takes one image at a time")
    feeds = model.feeds(model.input.arrange(images))
    with torch.no_grad():
        found = twin.run(subject.tensors(twin, feeds), [name])[name].cpu().numpy()
    rows = [found[i : i + 1] for i in range(len(images))]
    single = _agreement(
        "batch", list(ours[: len(rows)]), rows, side="a batch", allowed=allowed, floor=floor
    )
    both = [together[i : i + 1] for i in range(len(images))]
    across = _agreement(
        "batch", both, rows, side="a batch in the twin", allowed=allowed, floor=floor
    )
    return single if single.status == "fail" else across


def _agreement(
    name: str,
    theirs: Sequence[Array],
    ours: Sequence[Array],
    *,
    side: str,
    allowed: float,
    floor: float,
) -> Check:
    """Same best element, and scores that are close."""
    # A tensor without a batch axis has one in front where the model was asked.
    if any(_trimmed(a) != _trimmed(b) for a, b in zip(theirs, ours, strict=True)):
        return Check(name, "fail", f"{side} gives scores of another shape")
    flat = [(a.reshape(1, -1), b.reshape(1, -1)) for a, b in zip(theirs, ours, strict=True)]
    largest = max((float(np.abs(a).max()) for a, _ in flat if a.size), default=0.0)
    floor = max(floor, allowed * _LEAST * largest if np.isfinite(largest) else 0.0)
    apart = [
        float(np.abs(a.astype(np.float64) - b).max() / (max(np.abs(a).max(), floor / allowed) or 1))
        for a, b in flat
        if a.size
    ]
    same = sum(_same_best(a, b, allowed, floor) for a, b in flat)
    worst = max(apart, default=0.0)
    good = same == len(flat) and worst <= allowed
    return Check(
        name,
        "pass" if good else "fail",
        report_lines.agreement(same, len(flat), side, worst),
        {"agree": same, "inputs": len(flat), "difference": worst, "tolerance": allowed},
    )


def _trimmed(values: Array) -> tuple[int, ...]:
    shape = tuple(map(int, values.shape))
    return shape[1:] if shape[:1] == (1,) else shape


def _same_best(a: Array, b: Array, allowed: float, floor: float) -> bool:
    """The same best element, or one that is as good up to rounding (a tie)."""
    if not a.size or top1_agreement(a, b) == 1:
        return True
    gap = float(a.max()) - float(a.reshape(-1)[int(b.argmax())])
    return gap <= max(allowed * float(np.abs(a).max()) / 10, floor)

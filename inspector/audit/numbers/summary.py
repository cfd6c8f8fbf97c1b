"""Numbers over rows: shares and means with intervals, calibration, photos to look at."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from inspector.audit.evidence_places import BORDER
from inspector.audit.rows import Row
from inspector.measures.statistics import mean_interval, require_scipy, wilson

__all__ = ["calibration", "groups_of", "metrics", "suspicious"]

Stat = dict[str, float | int]

_SHARES = {
    "top1": "correct",
    "top5": "in_top5",
    "pointing": "pointing",
    "pointing_centre": "pointing_centre",
    "increase": "increase",
    "empty": "empty",
}
_MEANS = {
    "confidence": "probability",
    "inside_box": "inside_box",
    "box_area": "box_area",
    "inside_mask": "inside_mask",
    "mask_area": "mask_area",
    "border": "border",
    "entropy": "entropy",
    "drop": "drop",
    "seconds": "seconds",
}
_ORDER = (
    *("top1", "top5", "confidence", "inside_box", "box_area", "inside_mask", "mask_area"),
    *("pointing", "pointing_centre", "border", "entropy", "drop", "increase", "empty", "seconds"),
)
_BINS = 10
_SURE = 0.9
_BORDER_AREA = 1 - (1 - 2 * BORDER) ** 2


def metrics(rows: Sequence[Row]) -> dict[str, Any]:
    """Shares and means over some rows, each with a 95 % interval; None where no row has it.

    Shares have Wilson's interval, means that of the normal distribution; photos count as
    independent draws.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    require_scipy("audit")
    found: dict[str, Any] = {"photos": len(rows)}
    for name in _ORDER:
        if name in _SHARES:
            found[name] = _share(row.get(_SHARES[name]) for row in rows)
        else:
            most = np.inf if name == "seconds" else 1.0
            found[name] = _mean((row.get(_MEANS[name]) for row in rows), most)
    return found


def _share(values: Iterable[Any]) -> Stat | None:
    known = [bool(value) for value in values if value is not None]
    if not known:
        return None
    low, high = wilson(sum(known), len(known))
    return {"value": sum(known) / len(known), "low": low, "high": high, "photos": len(known)}


def _mean(values: Iterable[Any], most: float) -> Stat | None:
    """Mean and interval of numbers between 0 and ``most``, which the interval does not leave."""
    known = np.array([value for value in values if value is not None], np.float64)
    if not known.size:
        return None
    mean, low, high = mean_interval(known, alone=0.0)
    low, high = max(low, 0.0), min(high, most)
    return {"value": mean, "low": low, "high": high, "photos": known.size}


def groups_of(rows: Sequence[Row], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Metrics by column and value."""
    return {name: _by(rows, lambda row, name=name: row.get(name)) for name in names}  # type: ignore[misc]


def _by(rows: Sequence[Row], key: Callable[[Row], Any]) -> dict[str, Any]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        value = key(row)
        if value is not None:
            parts.setdefault(str(value), []).append(row)
    return {value: metrics(own) for value, own in sorted(parts.items())}


def calibration(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Expected calibration error and the reliability curve of ten bins (Guo et al. 2017).

    None where no photo has a label and a probability.
    """
    known = [
        (row["probability"], row["correct"])
        for row in rows
        if row.get("probability") is not None and row.get("correct") is not None
    ]
    if not known:
        return None
    confidence = np.array([p for p, _ in known], np.float64)
    right = np.array([c for _, c in known], np.float64)
    place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins, error = [], 0.0
    for number in range(_BINS):
        own = place == number
        count = int(own.sum())
        sure, accurate = (float(v[own].mean()) if count else None for v in (confidence, right))
        if sure is not None and accurate is not None:
            error += count / len(known) * abs(sure - accurate)
        bins.append(
            {
                "from": number / _BINS,
                "to": (number + 1) / _BINS,
                "photos": count,
                "confidence": sure,
                "accuracy": accurate,
            }
        )
    return {"error": error, "bins": bins}


def suspicious(rows: Sequence[Row], most: int = 100) -> list[dict[str, Any]]:
    """Photos to look at first, with the reasons.

    Args:
        rows: The rows of the audit.
        most: How many to list.
    """
    ranked = []
    for row in rows:
        weight, reasons = 0.0, []
        for strength, text in _reasons(row):
            weight += strength
            reasons.append(text)
        if reasons:
            ranked.append((-weight, row["photo"], reasons))
    ranked.sort(key=lambda one: one[:2])
    return [
        {"photo": photo, "reasons": reasons, "rank": rank + 1}
        for rank, (_, photo, reasons) in enumerate(ranked[:most])
    ]


def _reasons(row: Mapping[str, Any]) -> Iterable[tuple[float, str]]:
    sure, correct = row.get("probability"), row.get("correct")
    inside, area, border = row.get("inside_box"), row.get("box_area"), row.get("border")
    if correct is False and sure is not None and sure >= _SURE:
        yield sure, f"wrong and sure: {row['predicted']} {sure:.0%}, labelled {row['label']}"
    if inside is not None and area is not None and inside < area:
        text = f"{inside:.0%} of the evidence lies in the object's box, {area:.0%} of the photo"
        yield 1 - inside / max(area, 1e-9), text
    if border is not None and border > 2 * _BORDER_AREA:
        yield (
            border,
            f"{border:.0%} of the evidence lies on the border, {_BORDER_AREA:.0%} of the photo",
        )
    if row.get("empty"):
        yield 0.5, "no positive evidence for what was predicted"

"""Facts of an audit's report, as its documents need them: measured numbers, model, plain text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.plain_values import finite_number
from inspector.printable import visible_text

__all__ = [
    "LABELS",
    "Measured",
    "entries",
    "measured",
    "model_facts",
    "number",
    "part",
    "shown",
    "visible",
]

LABELS = {
    "top1": "accuracy (top 1)",
    "top5": "accuracy (top 5)",
    "confidence": "mean confidence",
    "inside_box": "evidence inside the box",
    "box_area": "area of the box",
    "inside_mask": "evidence inside the mask",
    "mask_area": "area of the mask",
    "pointing": "peak inside the box",
    "pointing_centre": "centre of the photo inside the box",
    "border": "evidence on the border",
    "entropy": "entropy of the map",
    "drop": "drop in confidence",
    "increase": "increase in confidence",
    "empty": "empty maps",
    "seconds": "seconds per photo",
}
"""Metrics of a report, as people call them."""


@dataclass(frozen=True)
class Measured:
    """A measured number with its interval.

    Attributes:
        metric: The metric's name in the report.
        slice: Photos that it was measured on, in words; empty for all of them.
        value: The number.
        low: Lower end of its interval; None where there is none.
        high: Upper end likewise.
        photos: Photos behind it; None where that is not said.
    """

    metric: str
    slice: str
    value: float
    low: float | None
    high: float | None
    photos: int | None


def measured(document: Mapping[str, Any]) -> Iterator[Measured]:
    """Every measured number of a report: over all photos, per class, per group."""
    yield from _metrics(part(document, "summary"), "")
    for name, metrics in part(document, "class").items():
        yield from _metrics(metrics, f"class = {visible(name)}")
    for column, values in part(document, "group").items():
        for value, metrics in values.items():
            yield from _metrics(metrics, f"{visible(column)} = {visible(value)}")
    error = finite_number(part(document, "calibration").get("error"))
    if error is not None:
        yield Measured("calibration error", "", error, None, None, None)
    for measure, maps in part(document, "faithfulness").items():
        for name, statistic in maps.items():
            yield from _metrics({f"faithfulness: {visible(measure)}, {name}": statistic}, "")


def part(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of the report; empty where it was not measured."""
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def entries(document: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """A list of the report; empty where there is none."""
    found = document.get(name)
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def model_facts(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the report says of the model's file: name, hash, producer."""
    model = part(document, "model")
    return part(model, "model") or model


def visible(value: object) -> str:
    """A value as text without characters that a document cannot hold."""
    return visible_text("" if value is None else str(value))


def number(value: object) -> str:
    """A number for people: four digits, whole numbers whole; empty for what is none."""
    found = finite_number(value)
    if found is None:
        return ""
    return f"{found:,.0f}" if found.is_integer() and abs(found) < 1e15 else f"{found:.4g}"


def shown(statistic: object) -> str:
    """A statistic with its interval for people: ``0.75 (0.65 to 0.85)``."""
    if not isinstance(statistic, Mapping):
        return number(statistic)
    low, high = number(statistic.get("low")), number(statistic.get("high"))
    value = number(statistic.get("value"))
    return f"{value} ({low} to {high})" if low and high else value


def _metrics(metrics: Mapping[str, Any], named: str) -> Iterator[Measured]:
    for name, statistic in metrics.items():
        if not isinstance(statistic, Mapping):
            continue
        value, low, high = (finite_number(statistic.get(key)) for key in ("value", "low", "high"))
        photos = statistic.get("photos")
        if value is not None:
            counted = photos if isinstance(photos, int) else None
            yield Measured(name, named, value, low, high, counted)

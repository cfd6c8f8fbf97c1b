"""Tables that commands show on a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from inspector.cli.streams import table_console
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.overview import Overview
    from inspector.report import ImageReport

__all__ = ["show_layers", "show_report"]

_LONGEST_NAME = 1000  # a tensor's name has to be whole to be typed


def show_report(report: "ImageReport", written: Sequence[Path]) -> None:
    """Print what was found in one photo and where it was written."""
    console = table_console()
    best = report.predictions[0] if report.predictions else None
    heading = Text(clean_text(report.photo.name), style="bold")
    if best is not None:
        heading.append(f"  {best['label']}", style="bold green")
        if "output" in best:  # of several
            heading.append(f" of {best['output']}", style="green")
        heading.append(f"  {_certainty(best)}")
    if report.items:
        shown = ", ".join(map(_item, report.items[:_ITEMS]))
        more = len(report.items) - _ITEMS
        heading.append(f"  {clean_text(shown)}" + (f" and {more} more" if more > 0 else ""))
    console.print(heading)
    table = Table(box=None, padding=(0, 2), header_style="dim")
    flat = report.photo.space == 2
    for column in (
        "method",
        "target",
        "score",
        "peak (x, y)" if flat else "peak",
        "layer",
        "checks",
    ):
        table.add_column(column)
    for explanation in report.explanations:
        data = explanation.to_dict()
        peak = data["peak"]
        table.add_row(
            Text(explanation.label),
            Text(data["target"]["label"]),
            f"{data['target']['score']:.3f}",
            ", ".join(map(str, peak.values())) if peak else _why_empty(data["warnings"]),
            Text(data["layer"] or "-"),
            Text(_checks(data["facts"])),
        )
    console.print(table)
    if report.seen_share is not None:
        from inspector.heatmap import LEAST_UNCOVERED

        line = f"the network sees {report.seen_share:.0%} of the photo"
        missing = max((e.heatmap.uncovered for e in report.explanations), default=0.0)
        if missing >= LEAST_UNCOVERED:
            line += f", a map covers {report.seen_share - missing:.0%} of it"
        console.print(Text(line, "dim"))
    folder = written[-1].parent
    console.print(Text(f"{len(written)} files in {folder}, report {written[-1].name}", "dim"))


def show_layers(found: "Overview") -> None:
    """Print the layers, the default layer and what is known of the head."""
    console = table_console()
    table = Table(box=None, padding=(0, 2), header_style="dim")
    modules = any(row.module for row in found.rows)
    for column, justify in (
        ("#", "right"),
        ("layer", "left"),
        *([("module", "left")] if modules else []),
        ("made by", "left"),
        ("shape", "right"),
        ("stride", "right"),
        ("receptive field", "right"),
        ("offset", "right"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in found.rows:
        style = "bold green" if row.default else ("dim" if row.gate else "")
        mark = "; ".join(filter(None, ["<- default" * row.default, "gate" * row.gate, row.note]))
        cells = (
            str(row.index),
            row.tensor,
            *([row.module] if modules else []),
            "+".join(row.chain),
            _by(row.shape),
            _by(row.stride),
            row.field,
            row.offset,
            mark,
        )
        table.add_row(*(Text(clean_text(cell, limit=_LONGEST_NAME)) for cell in cells), style=style)
    console.print(table)
    console.print()
    for label, text in found.sentences:
        console.print(Text.assemble((f"{label}: ", "bold"), text))


def _by(values: Sequence[Any] | None) -> str:
    return "x".join(f"{v:g}" for v in values) if values else "-"


_ITEMS = 8
"""Items that the line above a table names."""


def _item(item: Any) -> str:
    score = "" if item["score"] is None else f" {item['score']:.2f}"
    return f"{item['label']}{score}"


def _certainty(prediction: Any) -> str:
    probability = prediction["probability"]
    if probability is None:
        return f"score {prediction['score']:.3f}"
    assumed = " (softmax of the scores)" if prediction["assumed_softmax"] else ""
    return f"{probability:.1%}{assumed}"


def _why_empty(warnings: Sequence[str]) -> str:
    """What stands in the place of an empty map's peak; the warnings say more."""
    from inspector.heatmap import ZERO

    known = (first for text in warnings for first in ZERO if text.startswith(first))
    return next(known, "no positive evidence")


def _checks(facts: Any) -> str:
    parts = []
    if "cam_residual" in facts:
        parts.append(f"residual {facts['cam_residual']:.0e}")
    if "twin_difference" in facts:
        parts.append(f"twin {facts['twin_difference']:.0e}")
    if "conservation_error" in facts:
        parts.append(f"missing relevance {facts['conservation_error']:.0e}")
    if "coverage" in facts:
        parts.append(str(facts["coverage"]).partition(":")[0])
    return ", ".join(parts) or "-"

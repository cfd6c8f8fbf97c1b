"""Tables that commands show on a terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from inspector.cli.streams import table_console
from inspector.printable import clean_text, percent

if TYPE_CHECKING:
    from inspector.overview import LayerRow, Overview
    from inspector.report import Explanation, ImageReport

__all__ = ["show_layers", "show_report"]

_LONGEST_NAME = 1000  # a tensor's name has to be whole to be typed


def show_report(report: "ImageReport", written: Sequence[Path], *, details: bool = False) -> None:
    """Print what was found in one photo and where it was written.

    Args:
        report: Of the photo.
        written: Files; the pictures' paths are printed, as links where the terminal knows links.
        details: Whether preprocessing, layer and devices are said too.
    """
    console = table_console()
    heading = Text(clean_text(_told_apart(report)), style="bold")
    if report.items:
        shown = ", ".join(map(_item, report.items[:_ITEMS]))
        more = len(report.items) - _ITEMS
        heading.append(f"  {clean_text(shown)}" + (f" and {more} more" if more > 0 else ""))
    elif report.predictions:
        heading.append_text(_classes(report.predictions))
    console.print(heading)
    _show_maps(console, report)
    if report.seen_share is not None:
        console.print(Text(_seen(report), "dim"))
    if details:
        for line in _details(report.context):
            console.print(Text(clean_text(line, limit=_LONGEST_NAME), "dim"), soft_wrap=True)
    _show_files(console, written)


def _told_apart(report: "ImageReport") -> str:
    """A photo's name, with its folder where the files had to be told apart by it."""
    from inspector.report import safe_stem

    photo = report.photo
    if photo.path is None or report.name == safe_stem(photo.name):
        return photo.name
    folder = photo.path.parent.name  # none where the file was named without
    return f"{folder}/{photo.name}" if folder else photo.name


def _show_maps(console: Console, report: "ImageReport") -> None:
    """Print a line per map; one below the other where a line is wider than the terminal."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    peak = "peak (x, y)" if report.photo.space == 2 else "peak"
    names = ("method", "target", "score", peak, "layer", "checks")
    for name in names:
        table.add_column(name)
    rows = [_map_words(explanation) for explanation in report.explanations]
    for row in rows:
        table.add_row(*map(Text, row))
    if _fits(console, table):
        console.print(table)
        return
    for method, target, *others in rows:
        console.print(Text(f"  {method}  {target}"), soft_wrap=True)
        for name, word in zip(names[2:], others, strict=True):
            if word != "-":  # a layer's name is copied, and stays whole
                console.print(Text(f"    {name} {word}", "dim"), soft_wrap=True)


def _map_words(explanation: "Explanation") -> tuple[str, ...]:
    """Method, target, score, peak, layer and checks of a map."""
    data = explanation.to_dict()
    peak = data["peak"]
    words = (
        explanation.label,
        data["target"]["label"],
        f"{data['target']['score']:.3f}",
        ", ".join(map(str, peak.values())) if peak else _why_empty(data["warnings"]),
        data["layer"] or "-",
        _checks(data["facts"]),
    )
    return tuple(clean_text(word, limit=_LONGEST_NAME) for word in words)


def _fits(console: Console, table: Table) -> bool:
    """Whether no cell of a table has to be cut or broken; a pipe has room for everything."""
    free = console.options.update(max_width=10 * _LONGEST_NAME)
    return console.measure(table, options=free).maximum <= console.width or not console.is_terminal


def _seen(report: "ImageReport") -> str:
    """How much of the photo the network sees, and how much of it the map covers."""
    from inspector.heatmap import LEAST_UNCOVERED

    seen = report.seen_share or 0.0
    line = f"the network sees {percent(seen)} of the photo"
    missing = max((e.heatmap.uncovered for e in report.explanations), default=0.0)
    return line + (
        f", a map covers {percent(seen - missing)} of it" if missing >= LEAST_UNCOVERED else ""
    )


def _show_files(console: Console, written: Sequence[Path]) -> None:
    """Print where the files are: whole, whatever the terminal's width, for paths are copied."""
    for path in written:
        if path.suffix in _PICTURES:
            link = Style(link=path.absolute().as_uri())
            console.print(Text(clean_text(str(path), limit=_LONGEST_NAME), link), soft_wrap=True)
    others = [path.name for path in written if path.suffix not in _PICTURES]
    if others:
        folder = written[-1].parent
        console.print(Text(f"numbers in {folder}: {', '.join(others)}", "dim"), soft_wrap=True)


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
        cells = (
            str(row.index),
            row.tensor,
            *([row.module] if modules else []),
            "+".join(row.chain),
            _by(row.shape),
            _by(row.stride),
            row.field,
            row.offset,
            _mark(row),
        )
        texts = (Text(clean_text(cell, limit=_LONGEST_NAME)) for cell in cells)
        table.add_row(*texts, style=_style(row))
    if _fits(console, table):
        console.print(table)
    else:
        _show_narrow(console, found)
    console.print()
    for label, text in found.sentences:
        console.print(Text.assemble((f"{label}: ", "bold"), text))


def _show_narrow(console: Console, found: "Overview") -> None:
    """Print layers one below the other: a name that is copied has to stay whole."""
    for row in found.rows:
        name = clean_text(row.tensor, limit=_LONGEST_NAME)
        console.print(Text(f"{row.index} {name}", _style(row)), soft_wrap=True)
        facts = [
            "+".join(row.chain),
            _by(row.shape),
            f"stride {_by(row.stride)}",
            f"receptive field {row.field}" * bool(row.field),
            row.module,
            _mark(row),
        ]
        line = clean_text(", ".join(filter(None, facts)), limit=_LONGEST_NAME)
        console.print(Padding(Text(line, "dim"), (0, 0, 0, 4)))


def _style(row: "LayerRow") -> str:
    return "bold green" if row.default else ("dim" if row.gate else "")


def _mark(row: "LayerRow") -> str:
    return "; ".join(filter(None, ["<- default" * row.default, "gate" * row.gate, row.note]))


def _by(values: Sequence[Any] | None) -> str:
    return "x".join(f"{v:g}" for v in values) if values else "-"


_PICTURES = {".png", ".svg", ".pdf"}

_CLOSE = 0.1
"""Difference of the two best classes' probabilities below which it is a close call."""


_NEGLIGIBLE = 0.001
"""Probability below which a class is not printed."""


def _classes(predictions: Sequence[Any]) -> Text:
    """The best classes with their probabilities; the first of them stands out."""
    best = predictions[0]
    text = Text.assemble("  ", (clean_text(best["label"]), "bold green"))
    if "output" in best:  # of several
        text.append(f" of {best['output']}", style="green")
    text.append(f" {_certainty(best)}")
    others = [
        f"{clean_text(one['label'])} {_certainty(one)}" for one in predictions[1:] if _worth(one)
    ]
    if others:
        text.append(f", {', '.join(others)}", style="dim")
    if best["assumed_softmax"]:
        text.append(" (softmax of the scores)", style="dim")
    known = [one["probability"] for one in predictions[:2] if one["probability"] is not None]
    if len(known) == 2 and known[0] - known[1] < _CLOSE:
        text.append("; a close call", style="bold yellow")
    return text


def _worth(prediction: Any) -> bool:
    """Whether a class that is not the best is worth a place in a line."""
    probability = prediction["probability"]
    return probability is None or probability >= _NEGLIGIBLE


def _details(context: Any) -> Iterator[str]:
    """What the maps were made with, for those who ask."""
    recipe = context.get("preprocess")
    if recipe:
        evidence = recipe["evidence"]
        for key, value in recipe["settings"].items():
            shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
            yield f"preprocessing {key}={shown}: {evidence.get(key, 'the default')}"
    if layer := context.get("layer"):
        yield f"layer {layer['tensor']}: {layer['reason']}"
    if certificate := context.get("certificate"):
        yield f"certificate: {certificate['text']}"
    yield f"gradients by: {_ENGINES[context.get('engine', 'twin')]}"
    yield f"runs on: {context.get('provider', 'cpu')}"


_ENGINES = {
    "twin": "the twin, in PyTorch",
    "onnx": "the gradient graph, in ONNX Runtime",
    "auto": "the gradient graph, in ONNX Runtime; the twin for rules of relevance",
}

_ITEMS = 8
"""Items that the line above a table names."""


def _item(item: Any) -> str:
    score = "" if item["score"] is None else f" {item['score']:.2f}"
    return f"{item['label']}{score}"


def _certainty(prediction: Any) -> str:
    probability = prediction["probability"]
    if probability is None:
        return f"score {prediction['score']:.3f}"
    return percent(probability, 1)


def _why_empty(warnings: Sequence[str]) -> str:
    """What stands in the place of an empty map's peak; the warnings say more."""
    from inspector.heatmap import ZERO

    known = (first for text in warnings for first in ZERO if text.startswith(first))
    return next(known, "no positive evidence")


def _last(facts: Any) -> list[Any]:
    """Number of masks and the error after them, of one photo."""
    return facts["error_after_masks"][-1:] if isinstance(facts, dict) else []


def _checks(facts: Any) -> str:
    parts = []
    if "cam_residual" in facts:
        parts.append(f"residual {facts['cam_residual']:.0e}")
    if "twin_difference" in facts:
        parts.append(f"twin {facts['twin_difference']:.0e}")
    if "score_difference" in facts:
        parts.append(f"backward pass {facts['score_difference']:.0e}")
    if "conservation_error" in facts:
        parts.append(f"missing relevance {facts['conservation_error']:.0e}")
    for method in ("rise", "d-rise"):
        for masks, error in _last(facts.get(method)):
            parts.append(f"error {error:.0%} after {masks} masks")
    if "local_difference" in (facts.get("occlusion") or {}):
        parts.append(f"crops {facts['occlusion']['local_difference']:.0e}")
    if "coverage" in facts:
        parts.append(str(facts["coverage"]).partition(":")[0])
    return ", ".join(parts) or "-"

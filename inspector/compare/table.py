"""The comparison of two networks as tables for the terminal."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inspector.printable import clean_text, percent

if TYPE_CHECKING:
    from inspector.compare.parting import LayerError
    from inspector.compare.result import Comparison, ImageComparison, MapPair

__all__ = ["show_comparison"]

_ROWS = 40
_LAYERS = 60


def show_comparison(found: "Comparison", written: Sequence[Path], console: Console) -> None:
    """Print predictions, likeness of the maps, and where the graphs part.

    Args:
        found: The comparison.
        written: Files that were written.
        console: Where to print; the command line's makes every text safe.
    """
    console.print(Text(clean_text(found.sentence, limit=600), "bold"))
    for letter, title in zip("AB", found.titles, strict=True):
        console.print(Text.assemble((f"{letter}  ", "bold"), clean_text(title)))
    if found.outputs:
        console.print(_outputs(found))
        console.print()
    console.print(_images(found))
    hidden = len(found.images) - _ROWS
    if hidden > 0:
        console.print(Text(f"and {hidden} more photos in the report", "dim"))
    if found.parting.layers:
        console.print()
        table, step = _layers(found)
        console.print(table)
        if step > 1:
            console.print(Text(f"one of {step} layers shown; all are in the report", "dim"))
    console.print()
    for label, text in _sentences(found):
        console.print(Text.assemble((f"{label}: ", "bold"), text))
    if written:
        names = ", ".join(path.name for path in written)
        console.print(Text(f"{names} in {written[-1].parent}", "dim"))


def _outputs(found: "Comparison") -> Table:
    """How far B is from A at each output, beside the noise."""
    table = _table(
        ("output", "left"),
        ("SQNR dB", "right"),
        ("noise dB", "right"),
        ("PSNR dB", "right"),
        ("cosine", "right"),
        ("MSE", "right"),
        ("largest difference", "right"),
        ("", "left"),
    )
    for one in found.outputs[:_ROWS]:
        of = one.statistics
        if one.pair.whole:
            own = [f"{_share(one.relative)} of its numbers differ", *[""] * 5]
        else:
            band = "-" if one.band is None else f"{-20 * math.log10(one.band):.0f}"
            own = [_interval(of["sqnr"]), band, *(_value(of[n], f) for n, f in _FORMS.items())]
        said = {True: "<- beyond noise", False: "within noise", None: ""}[one.moved]
        cells = [clean_text(one.pair.a), *own, said]
        table.add_row(*map(Text, cells), style="bold red" if one.moved else "")
    return table


_FORMS = {"psnr": ".1f", "cosine": ".5f", "mse": ".2g", "max_abs": ".2g"}


def _value(statistic: Any, form: str) -> str:
    return "-" if statistic is None else f"{statistic['value']:{form}}"


def _interval(statistic: Any) -> str:
    """Decibels with their interval."""
    if statistic is None:
        return "-"
    value, low, high = (statistic[key] for key in ("value", "low", "high"))
    if low is None or low == high:
        return f"{value:.1f}"
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _images(found: "Comparison") -> Table:
    table = _table(
        ("photo", "left"),
        ("A", "left"),
        ("B", "left"),
        ("method", "left"),
        ("target", "left"),
        ("probability", "right"),
        ("rank", "right"),
        ("pearson", "right"),
        ("IoU 20 %", "right"),
        ("peak", "right"),
    )
    for image in found.images[:_ROWS]:
        for index, pair in enumerate(image.maps):
            head = _said(image) if index == 0 else (Text(), Text(), Text())
            table.add_row(*head, *(Text(cell) for cell in _likeness(pair)))
    return table


def _said(image: "ImageComparison") -> tuple[Text, Text, Text]:
    """The photo, and what each network says, red where they differ."""
    style = "bold red" if image.flip else ""
    said = [
        Text("-" if p is None else f"{clean_text(p['label'])} {_share(p['probability'])}", style)
        for p in image.predictions
    ]
    return Text(clean_text(image.name)), said[0], said[1]


def _likeness(pair: "MapPair") -> tuple[str, ...]:
    found = pair.similarity
    before, after = pair.probabilities
    shift = (
        "-"
        if before is None or after is None
        else f"{round(100 * (after - before), 1) + 0.0:+.1f} pp"
    )
    peak = "-"
    if found.peak_shift is not None and found.peak_share is not None:
        peak = f"{found.peak_shift:.0f} px {found.peak_share:.0%}"
    target = pair.label + (" (B's)" if pair.role == "b" else "")
    return (
        pair.method,
        target,
        shift,
        _number(found.rank),
        _number(found.pearson),
        _number(found.iou),
        peak,
    )


def _layers(found: "Comparison") -> tuple[Table, int]:
    """Layers, thinned out if there are many, and whatever stands out."""
    table = _table(
        ("#", "right"),
        ("tensor of A", "left"),
        ("tensor of B", "left"),
        ("accumulated error", "right"),
        ("SNR", "right"),
        ("cosine", "right"),
        ("own error", "right"),
        ("", "left"),
    )
    shown = [e for e in found.parting.layers if e.point.layer is not None or e.stands_out]
    step = max(1, -(-len(shown) // _LAYERS))
    for index, entry in enumerate(shown):
        if index % step == 0 or entry.stands_out or index == len(shown) - 1:
            table.add_row(*_layer(entry), style="bold red" if entry.stands_out else "")
    return table, step


def _layer(entry: "LayerError") -> tuple[Text, ...]:
    total, own = entry.accumulated, entry.own
    noise = "-" if total.decibels is None else f"{total.decibels:.1f} dB"
    cells = (
        "" if entry.point.layer is None else str(entry.point.layer),
        clean_text(entry.point.name),
        clean_text(entry.point.b),
        _error(total.relative),
        noise,
        _number(total.cosine, 5),
        "-" if own is None else _error(own.relative),
        "<- stands out" if entry.stands_out else "",
    )
    return tuple(Text(cell) for cell in cells)


def _sentences(found: "Comparison") -> list[tuple[str, str]]:
    summary = found.summary()
    sentences = []
    if summary["flips"] is not None:
        flips = f"{summary['flips']} of {summary['images']} predictions flip"
        worst = summary["probability_shift"]["worst"]
        known = "" if worst is None else f"; probabilities shift by up to {100 * worst:.1f} pp"
        sentences.append(("predictions", flips + known))
    for name, values in summary["methods"].items():
        sentences.append((name, _method(values)))
    sentences.append(("layers", clean_text(found.parting.sentence, limit=600)))
    if found.parting.layers:
        sentences.append(("aligned", found.parting.alignment.why))
    sentences += [("gate failed", text) for text in found.failures]
    return sentences


def _method(values: Any) -> str:
    parts = []
    for key, name in (("rank_correlation", "rank correlation"), ("iou_of_top", "IoU")):
        figures = values[key]
        if figures["defined"]:
            parts.append(f"{name} median {figures['median']:.3f}, worst {figures['worst']:.3f}")
    undefined = values["maps"] - values["rank_correlation"]["defined"]
    if undefined:
        parts.append(f"undefined for {undefined} of {values['maps']} pairs of maps")
    if values["evidence_in_one_only"]:
        parts.append(f"{values['evidence_in_one_only']} of one network only show evidence")
    return "; ".join(parts)


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in columns:
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _share(probability: float | None) -> str:
    return "" if probability is None else percent(probability, 1)

"""Files of an audit beside its report, one format each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inspector.errors import UsageError, nearest
from inspector.render import annex, html, junit, model_card, sarif
from inspector.whole_file import write_whole

__all__ = ["FORMATS", "check", "save"]

Row = Mapping[str, Any]
Dumps = Callable[[Mapping[str, Any], Sequence[Row]], bytes]

FORMATS: Mapping[str, tuple[str, Dumps]] = {
    "html": (html.NAME, html.dumps),
    "junit": (junit.NAME, junit.dumps),
    "sarif": (sarif.NAME, sarif.dumps),
    "model-card": (model_card.NAME, model_card.dumps),
    "annex-iv": (annex.NAME, annex.dumps),
}
"""Name of each format's file, and the function that makes its bytes of a report and its rows."""


def check(formats: Sequence[str]) -> None:
    """Refuse formats that cannot be written, before work starts.

    Raises:
        UsageError: There is no such format, or a package that it needs is not installed.
    """
    for name in formats:
        if name not in FORMATS:
            hint = nearest(name, FORMATS) or "one of " + ", ".join(FORMATS)
            raise UsageError(f"no format {name!r} of an audit", hint=hint)
    if "html" in formats:
        html.check()


def save(
    document: Mapping[str, Any],
    rows: Sequence[Row],
    folder: Path,
    formats: Sequence[str] = tuple(FORMATS),
) -> list[Path]:
    """Write the files of a report, each whole or not at all.

    Args:
        document: The report as plain data, as `report.json` holds it.
        rows: Rows of the photos, in the data set's order.
        folder: The report's folder; pictures lie below it, where the rows say.
        formats: Names of formats.

    Raises:
        UsageError: As :func:`check`, or the place cannot be written to.
    """
    check(formats)
    return [
        write_whole(folder / name, dumps(document, rows))
        for name, dumps in (FORMATS[key] for key in formats)
    ]

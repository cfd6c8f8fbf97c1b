"""Report of an audit: one document, one row per photo, and the files of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL.Image import Image

from converters.regular_file import sha256_of
from inspector.audit.rows import Row
from inspector.errors import require
from inspector.heatmap import Heatmap
from inspector.render import annex, html, junit, model_card, sarif, save
from inspector.whole_file import write_whole

__all__ = ["AuditReport", "require_formats"]


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        contents: The document: verdict, thresholds, model, data, numbers, findings.
        rows: One per photo, in the order of the data set.
        hashes: SHA-256 of the files that were written beside the document, by name.
        taken_over: Rows that an interrupted run had left in the folder.
    """

    contents: Mapping[str, Any]
    rows: Sequence[Row]
    hashes: dict[str, str] = field(default_factory=dict)
    taken_over: int = 0

    @property
    def name(self) -> str:
        """Name of the document's file, without a suffix."""
        return "report"

    @property
    def passed(self) -> bool | None:
        """Whether the declared thresholds are met; None where none were declared."""
        found: bool | None = self.contents["verdict"]["passed"]
        return found

    def document(self) -> Mapping[str, Any]:
        """The document; once it is saved, with the hashes of the files beside it."""
        return {**self.contents, "files": self.hashes} if self.hashes else self.contents

    def figures(self) -> Mapping[str, Callable[[], Image]]:
        """No pictures: thumbnails are written while the audit runs."""
        return {}

    def tables(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The rows, without small maps and times: the same rows whoever computed them."""
        hidden = {"grid", "thumbnail", "heat", "heats", "seconds"}
        return {"rows": [{k: v for k, v in row.items() if k not in hidden} for row in self.rows]}

    def maps(self) -> Mapping[str, Heatmap]:
        """No maps."""
        return {}

    def save(self, folder: Path) -> list[Path]:
        """Write every file of the report, each whole or not at all.

        ``rows.csv`` and ``rows.parquet``, a row per photo; ``report.html`` for people;
        ``junit.xml``, ``findings.sarif``, ``model-card.cdx.json`` (CycloneDX) and ``annex-iv.md``
        for other programs and records; ``report.json``, of which all of these are made.

        Args:
            folder: Made when it does not exist.

        Returns:
            The files, ``report.json`` last.

        Raises:
            MissingExtra: The extra ``audit`` is not installed.
            UsageError: The place cannot be written to.
        """
        written = save(self, folder, ("csv",))
        table = _parquet(self.tables()["rows"])
        written.append(write_whole(folder / "rows.parquet", table))
        for name, dumps in _FORMATS.items():
            written.append(write_whole(folder / name, dumps(self.contents, self.rows)))
        self.hashes.update({path.name: sha256_of(path) for path in written})
        return [*written, *save(self, folder, ("json",))]


_FORMATS: Mapping[str, Callable[[Mapping[str, Any], Sequence[Row]], bytes]] = {
    html.NAME: html.dumps,
    "junit.xml": junit.dumps,
    "findings.sarif": sarif.dumps,
    "model-card.cdx.json": model_card.dumps,
    "annex-iv.md": annex.dumps,
}


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a Parquet file."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    buffer = BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def require_formats() -> None:
    """Refuse to begin where a file of the report could not be written.

    Raises:
        MissingExtra: PyArrow or Jinja2 is not installed.
    """
    require("pyarrow.parquet", "writing rows.parquet", "audit")
    html.check()

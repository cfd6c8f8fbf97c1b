"""Report of an audit: one document, one row per photo, and the files of both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL.Image import Image

from inspector.audit.rows import Row
from inspector.errors import require
from inspector.heatmap import Heatmap
from inspector.render import save
from inspector.whole_file import write_whole

__all__ = ["AuditReport"]


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        contents: The document: verdict, thresholds, model, data, numbers, findings.
        rows: One per photo, in the order of the data set.
    """

    contents: Mapping[str, Any]
    rows: Sequence[Row]

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
        """The document."""
        return self.contents

    def figures(self) -> Mapping[str, Callable[[], Image]]:
        """No pictures: thumbnails are written while the audit runs."""
        return {}

    def tables(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The rows, without small maps and times: the same rows whoever computed them."""
        hidden = {"grid", "thumbnail", "heat", "seconds"}
        return {"rows": [{k: v for k, v in row.items() if k not in hidden} for row in self.rows]}

    def maps(self) -> Mapping[str, Heatmap]:
        """No maps."""
        return {}

    def save(self, folder: Path) -> list[Path]:
        """Write ``rows.csv``, ``rows.parquet`` and ``report.json``, each whole or not at all.

        Args:
            folder: Made when it does not exist.

        Returns:
            The files, the report last; without PyArrow no Parquet file.

        Raises:
            UsageError: The place cannot be written to.
        """
        written = save(self, folder, ("csv",))
        table = _parquet(self.tables()["rows"])
        if table is not None:
            written.append(write_whole(folder / "rows.parquet", table))
        return [*written, *save(self, folder, ("json",))]


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The rows as a Parquet file; None where PyArrow is not installed."""
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    buffer = BytesIO()
    parquet.write_table(
        pa.table({name: pa.array(values) for name, values in columns.items()}), buffer
    )
    return buffer.getvalue()


def require_parquet() -> None:
    """Refuse to go on where PyArrow is not installed.

    Raises:
        MissingExtra: It is not.
    """
    require("pyarrow.parquet", "writing rows.parquet", "audit")

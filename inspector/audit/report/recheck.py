"""Second look at a finished report: its files by their hashes, its numbers from its rows.

Everything is computed anew from ``rows.parquet`` and from the thresholds as they were declared; the
model is not needed.  What only the model could tell again (the rows themselves, interventions,
faithfulness) is covered by the hashes alone.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from converters.errors import first_few
from converters.plain_values import finite_number, parse_json
from converters.regular_file import read_regular
from inspector.audit.data_set.parquet_file import read_parquet
from inspector.audit.gates import parse, verdict
from inspector.audit.numbers.summary import calibration, groups_of, metrics, suspicious
from inspector.audit.rows import Row
from inspector.errors import UsageError
from inspector.printable import clean_text
from inspector.render.json import plain

__all__ = ["Check", "recheck"]

_MOST = 2**31
"""Bytes of the largest file that is read."""

_TIMED = "seconds"
"""Metric that rows do not hold: two runs of the same audit differ in it alone."""

_RELATIVE = 1e-9
"""Difference of two sums of the same numbers in another order, relative to the larger."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at again.

    Attributes:
        name: The part of the report, or the file.
        agrees: Whether it is what the report says.
        text: What differs; empty where nothing does.
    """

    name: str
    agrees: bool
    text: str = ""


def recheck(path: Path) -> list[Check]:
    """Look at a report again.

    Args:
        path: A ``report.json`` with the files of its audit beside it, or their folder.

    Returns:
        A check per file that the report names, per part that follows from the rows, per threshold,
        and of the verdict.

    Raises:
        MissingExtra: The extra ``audit`` is not installed.
        UsageError: It is not the report of an audit, or its rows cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from inspector.audit.report.recheck import recheck
        >>> from inspector.audit.run import AuditOptions, audit
        >>> from inspector.opening import Opening
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     opening = Opening("sample_models/resnet20.onnx")
        ...     options = AuditOptions(thumbnails=False)
        ...     report = audit(opening, Path("sample_models/images"), Path(folder), options)
        ...     all(check.agrees for check in recheck(Path(folder)))
        True
    """
    path = path / "report.json" if path.is_dir() else path
    document = _document(path)
    contents = _files(path.parent, document["files"])
    return [
        *(check for check, _ in contents.values()),
        *_numbers(document, _rows(contents, path)),
        *_thresholds(document),
    ]


def _document(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(read_regular(path, _MOST, follow=False))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot be read ({reason})", where=str(path)) from None
    except ValueError as error:
        raise UsageError(f"is not JSON ({clean_text(str(error))})", where=str(path)) from None
    needed = {"thresholds": list, "verdict": dict, "summary": dict, "data": dict, "files": dict}
    if not isinstance(found, dict) or not all(
        isinstance(found.get(name), kind) for name, kind in needed.items()
    ):
        raise UsageError(
            "is not the report of an audit with its files' hashes",
            where=str(path),
            hint="name the report.json that `inspector audit MODEL DATA -o DIR` wrote",
        )
    return found


def _files(folder: Path, named: Mapping[str, Any]) -> dict[str, tuple[Check, bytes]]:
    """The files that a report names, and whether each has the hash that it says."""
    found = {}
    for name, wanted in named.items():
        shown = clean_text(name)
        if not name or Path(name).name != name:
            found[name] = Check(shown, agrees=False, text="is not a file beside the report"), b""
            continue
        try:
            data = read_regular(folder / name, _MOST, follow=False)
        except OSError as error:
            found[name] = Check(shown, agrees=False, text=error.strerror or str(error)), b""
            continue
        own = hashlib.sha256(data).hexdigest()
        same = own == wanted
        found[name] = Check(shown, same, "" if same else f"its SHA-256 is {own}"), data
    return found


def _rows(contents: Mapping[str, tuple[Check, bytes]], path: Path) -> list[Row]:
    """The rows of the photos that were audited."""
    if "rows.parquet" not in contents or not contents["rows.parquet"][1]:
        raise UsageError("there is no rows.parquet beside it that it names", where=str(path))
    where = str(path.with_name("rows.parquet"))
    table = read_parquet(BytesIO(contents["rows.parquet"][1]), where)
    rows = [dict(zip(table.names, values, strict=True)) for values in table.rows]
    if not all({"photo", "label", "refused"} <= row.keys() for row in rows[:1]):
        raise UsageError("holds other rows than an audit's", where=str(path))
    if any(
        isinstance(value, float) and not math.isfinite(value) for r in rows for value in r.values()
    ):
        raise UsageError("holds numbers that are not finite", where=where)
    return [row for row in rows if not row["refused"]]


def _numbers(document: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Check]:
    """Parts of the report that follow from the rows."""
    try:
        names = [str(name) for name in document["data"].get("groups") or ()]
        made = {
            "summary": metrics(rows),
            "class": groups_of(rows, ["label"])["label"],
            "group": groups_of(rows, names),
            "calibration": calibration(rows),
            "suspicious": suspicious(rows),
        }
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A stranger's columns hold text where numbers belong, lists, or nothing.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise UsageError(
            f"rows.parquet holds values that no audit writes ({reason})",
            hint="the rows of an audit are compared; run it again",
        ) from None
    for name, value in made.items():
        differences = list(_differences(plain(value), document.get(name), name))
        text = first_few(differences, 3, "; ")
        yield Check(name, not differences, clean_text(text, limit=1_000))


def _differences(own: Any, said: Any, where: str) -> Iterator[str]:
    """Places at which two parts of a report differ, in words."""
    if where.rpartition(".")[2] == _TIMED:
        return
    if isinstance(own, dict) and isinstance(said, dict):
        for key in dict.fromkeys((*own, *said)):
            yield from _differences(own.get(key), said.get(key), f"{where}.{key}")
    elif isinstance(own, list) and isinstance(said, list) and len(own) == len(said):
        for place, (one, other) in enumerate(zip(own, said, strict=True)):
            yield from _differences(one, other, f"{where}.{place}")
    elif not _same(own, said):
        yield f"{where} is {_short(own)} by the rows, {_short(said)} in the report"


def _same(own: Any, said: Any) -> bool:
    one, other = finite_number(own), finite_number(said)
    if one is None or other is None:
        return type(own) is type(said) and own == said
    return abs(one - other) <= _RELATIVE * max(abs(one), abs(other))


def _short(value: Any) -> str:
    return "missing" if value is None else clean_text(str(value), limit=60)


def _thresholds(document: Mapping[str, Any]) -> Iterator[Check]:
    """Thresholds and verdict, computed anew from the numbers that the report holds."""
    made = []
    for said in document["thresholds"]:
        text = said.get("fail_if") if isinstance(said, dict) else None
        name = f"threshold {clean_text(str(text))!r}"
        try:
            row = parse(str(text), source=str(said.get("source"))).row(document)
        except (AttributeError, UsageError) as error:
            yield Check(name, agrees=False, text=clean_text(str(error)))
            continue
        made.append(row)
        keys = [key for key in ("value", "failed", "text") if not _same(row[key], said.get(key))]
        texts = (f"{key} is {_short(row[key])}, not {_short(said.get(key))}" for key in keys)
        yield Check(name, not keys, "; ".join(texts))
    own = verdict(made)
    text = "" if own == document["verdict"] else f"it is {own['sentence']!r}"
    if len(made) < len(document["thresholds"]):
        text = "it rests on thresholds that cannot be read"
    yield Check("verdict", not text, text)

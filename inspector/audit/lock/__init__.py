"""``audit.lock``: golden outputs and maps of a few photos, and the numbers of an audit.

One small JSON file for version control.  It says what a model did with a data set; a later audit
(of its next version, or on another machine) says what moved beyond the noise band of the run that
wrote it.  ``docs/audit.md`` has its schema.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.plain_values import finite_number, parse_json
from converters.regular_file import read_regular
from inspector.audit.data_set import DataSet, Entry
from inspector.audit.gates.names import METRICS
from inspector.audit.lock.golden import GoldenPhoto, fingerprint, golden_photos, map_error
from inspector.audit.rows import Auditor, Row
from inspector.errors import ModelRefused, UsageError
from inspector.printable import clean_text
from inspector.versions import versions
from inspector.whole_file import write_whole

__all__ = ["Lock", "check_lock", "read_lock", "write_lock"]

SCHEMA = 1
"""Version of the file; a field that changes its meaning raises it."""

PHOTOS = 8
"""Golden photos, spread over the data set."""

NUMBER_BAND = 1e-3
"""How far a mean of the summary may move; shares may move by one photo."""

_MOST_BYTES = 4 << 20
_MOST_OUTPUTS = 64
_MOST_VALUES = 256
_COUNTED = frozenset(METRICS) - {"seconds"}
_SHARES = ("top1", "top5", "pointing", "pointing_centre", "increase", "empty")
_LISTED = 50


@dataclass(frozen=True)
class Lock:
    """A lock that was read and checked.

    Attributes:
        path: Where it was read.
        contents: Its contents; the types of all of it are as its schema says.
    """

    path: Path
    contents: Mapping[str, Any]

    def require_same(self, auditor: Auditor, data: DataSet) -> None:
        """Refuse a lock of a model of another shape, of another data set or request.

        Raises:
            UsageError: With what the lock has and what the run has.
        """
        for key, name in (("model", "model"), ("request", "request")):
            locked, own = self.contents[key], _facts(auditor)[key]
            for fact in own:
                if fact not in {"name", "sha256"} and locked.get(fact) != own[fact]:
                    raise self._other(name, fact, locked.get(fact), own[fact])
        own = fingerprint(data.entries)
        names = {entry.photo for entry in data.entries}
        absent = [one["photo"] for one in self.contents["golden"] if one["photo"] not in names]
        locked = self.contents["data"]
        if locked["fingerprint"] != own or absent:
            raise UsageError(
                f"is a lock of another data set: it has {locked['photos']} photos, of which this "
                f"one has {len(data.entries)} or others, or with other labels",
                where=str(self.path),
                hint="audit the data set that it was written for, or write a new one with --lock",
            )

    def _other(self, what: str, fact: str, locked: Any, own: Any) -> UsageError:
        shown = [clean_text(json.dumps(value), limit=120) for value in (locked, own)]
        return UsageError(
            f"is a lock of another {what}: its {fact} is {shown[0]}, here it is {shown[1]}",
            where=str(self.path),
            hint="name the lock of this model, or write a new one with --lock",
        )


def write_lock(
    path: Path, auditor: Auditor, data: DataSet, rows: Sequence[Row], summary: Mapping[str, Any]
) -> Path:
    """Write the lock of an audit.

    Args:
        path: The file.
        auditor: The model.
        data: The data set.
        rows: The rows of all its photos.
        summary: The numbers over them.

    Raises:
        UsageError: The place cannot be written to.
        ModelRefused: The golden photos cannot be measured.
    """
    golden, bands = golden_photos(auditor, _chosen(data.entries, rows))
    if not golden:
        raise ModelRefused(
            "none of the photos has outputs and a map to lock", where=auditor.opened.path.name
        )
    contents = {
        "schema": SCHEMA,
        "program": {"name": "onnx-inspector", "version": versions()["onnx-inspector"]},
        **_facts(auditor),
        "data": {"photos": len(data.entries), "fingerprint": fingerprint(data.entries)},
        "noise": bands,
        "golden": [one.to_dict() for one in golden],
        "numbers": _numbers(summary),
    }
    text = json.dumps(contents, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    return write_whole(path, text.encode())


def read_lock(path: Path) -> Lock:
    """Read a lock, and check the types of all of it.

    Raises:
        UsageError: It cannot be read, is too large, or is not a lock.
    """
    where = str(path)
    hint = "inspector audit MODEL DATA --lock FILE writes one"
    try:
        found = parse_json(read_regular(path, _MOST_BYTES))
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror or error})", where=where, hint=hint
        ) from None
    except ValueError as error:
        raise UsageError(
            f"is not a lock ({clean_text(str(error))})", where=where, hint=hint
        ) from None
    version = found.get("schema") if isinstance(found, dict) else None
    if version is not None and (type(version) is not int or version != SCHEMA):
        shown = clean_text(json.dumps(version), limit=40)
        raise UsageError(
            f"is a lock of version {shown}, and this program reads {SCHEMA}",
            where=where,
            hint="write it anew with --lock",
        )
    wrong = _wrong(found)
    if wrong:
        raise UsageError(f"is not a lock: {wrong}", where=where, hint=hint)
    return Lock(path, found)


def check_lock(
    lock: Lock, auditor: Auditor, entries: Sequence[Entry], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """What moved since the lock was written, beyond its noise band.

    Args:
        lock: The lock, of which `Lock.require_same` holds.
        auditor: The model.
        entries: The photos of the data set.
        summary: The numbers over them.
    """
    contents = lock.contents
    by_name = {entry.photo: entry for entry in entries}
    locked = [one for one in contents["golden"] if one["photo"] in by_name]
    golden, _ = golden_photos(auditor, [by_name[one["photo"]] for one in locked], noise=False)
    now = {one.photo: one for one in golden}
    noise, moved = contents["noise"], []
    counts = {"outputs": 0, "maps": 0, "numbers": 0}
    for one in locked:
        for kind, name, error, band in _errors(one, now.get(one["photo"]), noise):
            if error is None or error > band:
                counts[kind] += 1
                moved.append(_entry(kind, name, one["photo"], error, band))
    for name, then in contents["numbers"].items():
        error, band = _number_error(name, then, summary.get(name))
        if error is None or error > band:
            counts["numbers"] += 1
            moved.append(_entry("numbers", name, None, error, band))
    model = auditor.opened.file.sha256
    same = contents["model"]["sha256"] == model
    total = sum(counts.values())
    return {
        "file": clean_text(lock.path.name),
        "model": {"name": clean_text(contents["model"]["name"]), "same_file": same},
        "moved": total,
        **counts,
        "sentence": _sentence(counts, same=same),
        "entries": moved[:_LISTED],
    }


def _chosen(entries: Sequence[Entry], rows: Sequence[Row]) -> list[Entry]:
    """Photos spread evenly over those that were audited."""
    done = [e for e, row in zip(entries, rows, strict=True) if not row["refused"]]
    places = np.linspace(0, len(done) - 1, min(PHOTOS, len(done))).round().astype(int)
    return [done[place] for place in places]


def _facts(auditor: Auditor) -> dict[str, Any]:
    """What of the model and the request must be the same."""
    opened = auditor.opened
    image = opened.input
    return {
        "model": {
            "name": opened.path.name,
            "sha256": opened.file.sha256,
            "input": [image.channels, *opened.preprocessing.preprocess.size],
            "outputs": list(opened.graph.outputs)[:_MOST_OUTPUTS],
            "classes": opened.scores.classes if opened.scores.classifier else None,
        },
        "request": {
            "method": auditor.run.requests[0].label,
            "target": auditor.asked.target or "top1",
            "layer": auditor.asked.layer,
        },
    }


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the summary that have a value, without times."""
    return {
        name: {"value": round(float(stat["value"]), 6), "photos": int(stat["photos"])}
        for name, stat in summary.items()
        if name in _COUNTED and isinstance(stat, Mapping)
    }


def _errors(
    then: Mapping[str, Any], now: GoldenPhoto | None, noise: Mapping[str, Any]
) -> "list[tuple[str, str, float | None, float]]":
    """Kind, name, error and band of everything that is locked of one photo."""
    found: list[tuple[str, str, float | None, float]] = []
    for name, output in then["outputs"].items():
        band = noise["outputs"][name]
        own = None if now is None else now.outputs.get(name)
        error = None
        if own is not None and own["shape"] == output["shape"]:
            error = _value_error(output["values"], own["values"])
        found.append(("outputs", name, error, band))
    grid = None if now is None else now.grid
    found.append(
        ("maps", "map", None if grid is None else map_error(then["map"], grid), noise["map"])
    )
    return found


def _value_error(then: Sequence[float | None], now: Sequence[float | None]) -> float | None:
    """RMS of the difference over the RMS of the locked values; None if one is not finite."""
    if len(then) != len(now) or [v is None for v in then] != [v is None for v in now]:
        return None
    x, y = (np.array([v for v in values if v is not None], np.float64) for values in (then, now))
    size = float(np.linalg.norm(x))
    return float(np.linalg.norm(y - x)) / (size or 1.0)


def _number_error(
    name: str, then: Mapping[str, Any], now: Mapping[str, Any] | None
) -> tuple[float | None, float]:
    photos = max(1, int(then["photos"]))
    band = max(1 / photos if name in _SHARES else 0.0, NUMBER_BAND) * (1 + 1e-9)
    if now is None or int(now["photos"]) != then["photos"]:
        return None, band
    return abs(float(now["value"]) - float(then["value"])), band


def _entry(
    kind: str, name: str, photo: str | None, error: float | None, band: float
) -> dict[str, Any]:
    known = error is not None and math.isfinite(error)
    return {
        "kind": kind,
        "name": clean_text(name),
        "photo": None if photo is None else clean_text(photo),
        "difference": error if known else None,
        "band": band,
    }


def _sentence(counts: Mapping[str, int], *, same: bool) -> str:
    model = "the same file as in the lock" if same else "another file than in the lock"
    if not any(counts.values()):
        return f"Nothing moved beyond the lock's noise band ({model})."
    words = {"outputs": "outputs", "maps": "maps", "numbers": "numbers of the summary"}
    shown = ", ".join(f"{counts[kind]} {text}" for kind, text in words.items() if counts[kind])
    return f"Moved beyond the lock's noise band: {shown} ({model})."


# -- the types of a stranger's file -----------------------------------------------------------


def _wrong(found: Any) -> str:
    """What of a document is not as the schema says; empty if nothing."""
    if not isinstance(found, dict):
        return "it is not an object"
    if found.get("schema") is None:
        return "'schema' is missing"
    for key in ("model", "request", "data", "noise", "numbers"):
        if not isinstance(found.get(key), dict):
            return f"{key!r} is missing or not an object"
    golden = found.get("golden")
    if not isinstance(golden, list) or not 1 <= len(golden) <= PHOTOS:
        return f"'golden' is not a list of 1 to {PHOTOS} photos"
    if not all(isinstance(found["model"].get(key), str) for key in ("name", "sha256")):
        return "'model' has no name or no sha256"
    data, bands = found["data"], found["noise"].get("outputs")
    if not isinstance(data.get("fingerprint"), str) or not _is_count(data.get("photos")):
        return "'data' has no fingerprint or no number of photos"
    measured = (found["noise"].get("map"), *(bands.values() if isinstance(bands, dict) else [None]))
    if not all(map(_is_band, measured)):
        return "'noise' has bands that are not positive numbers"
    wrong = [*map(_wrong_number, found["numbers"].items())]
    return next(filter(None, [*wrong, *(_wrong_photo(one, bands) for one in golden)]), "")


def _wrong_number(item: tuple[str, Any]) -> str:
    name, number = item
    good = (
        isinstance(number, dict)
        and finite_number(number.get("value")) is not None
        and _is_count(number.get("photos"))
        and name in _COUNTED
    )
    return "" if good else f"the number {clean_text(name)!r} is unknown, or has no value"


def _wrong_photo(one: Any, bands: Mapping[str, Any]) -> str:
    if not isinstance(one, dict) or not isinstance(one.get("photo"), str):
        return "a golden photo has no name"
    where = f"photo {clean_text(one['photo'])!r}"
    if not isinstance(one.get("map"), str) or map_error(one["map"], one["map"]) is None:
        return f"{where} has a map that is not one"
    outputs = one.get("outputs")
    if not isinstance(outputs, dict) or len(outputs) > _MOST_OUTPUTS:
        return f"{where} has no outputs"
    for name, output in outputs.items():
        values = output.get("values") if isinstance(output, dict) else None
        shape = output.get("shape") if isinstance(output, dict) else None
        good = (
            name in bands
            and isinstance(values, list)
            and len(values) <= _MOST_VALUES
            and all(v is None or finite_number(v) is not None for v in values)
            and isinstance(shape, list)
            and all(map(_is_count, shape))
        )
        if not good:
            return f"{where} has an output {clean_text(name)!r} that is not one"
    return ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_band(value: Any) -> bool:
    number = finite_number(value)
    return number is not None and number > 0

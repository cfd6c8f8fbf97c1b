"""What the page shows, in the order in which it shows it: names, texts, coordinates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from converters.plain_values import finite_number
from inspector.render.audit_facts import (
    LABELS,
    entries,
    model_facts,
    number,
    part,
    shown,
    visible,
)
from inspector.render.html.cluster_map import HEIGHT, WIDTH, cluster_map
from inspector.render.html.figures import curve, map_picture, span

__all__ = ["view"]

_WORDS = {True: ("passed", "Passed"), False: ("failed", "Not passed"), None: ("open", "No verdict")}
_RESULTS = {True: ("failed", "not met"), False: ("passed", "met"), None: ("open", "not checked")}
_TESTED = {
    True: ("failed", "confirmed"),
    False: ("passed", "not confirmed"),
    None: ("open", "not tested"),
}
_LEVELS = ("error", "warning", "note")
_COLUMNS = (
    "top1", "confidence", "inside_box", "box_area", "inside_mask", "pointing", "border", "entropy",
    "drop",
)  # fmt: skip
_MAPS = {"map": "this map", "random": "random map", "edges": "edges", "centre": "centre"}
_PHOTOS = 8


def view(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Values for the template.

    Args:
        document: The report as plain data.
        rows: Rows of the photos, for the pictures of findings.
    """
    program, model = part(document, "program"), model_facts(document)
    verdict = part(document, "verdict")
    state, word = _WORDS[verdict.get("passed")]
    clusters = [_cluster(found) for found in entries(document, "clusters")]
    pictures = {str(row.get("photo")): row for row in rows}
    by_id = {found["id"]: found for found in clusters}
    findings = [_finding(found, by_id, pictures) for found in entries(document, "findings")]
    return {
        "title": f"Audit of {visible(model.get('name') or 'a model')}",
        "program": " ".join(visible(program.get(key)) for key in ("name", "version")),
        "declared": visible(document.get("declared")),
        "verdict": {
            "state": state,
            "word": word,
            "sentence": visible(verdict.get("sentence")),
            "reasons": [visible(text) for text in verdict.get("reasons") or ()],
        },
        "tiles": list(_tiles(document)),
        "thresholds": [_threshold(row) for row in entries(document, "thresholds")],
        "findings": findings,
        "photos": len(rows),
        "classes": _classes(part(document, "class"), clusters, findings),
        "groups": [
            {"name": visible(name), **_sets(values)}
            for name, values in part(document, "group").items()
        ],
        "calibration": _calibration(part(document, "calibration")),
        "clusters": clusters,
        "cluster_map": _cluster_map(entries(document, "clusters"), clusters),
        "faithfulness": [
            {"name": visible(name), "rows": _spans({_MAPS.get(k, k): v for k, v in maps.items()})}
            for name, maps in part(document, "faithfulness").items()
        ],
        "compare": list(_flat(part(document, "compare"))),
        "lock": _lock(part(document, "lock")),
        "facts": _facts(document),
        "refused": [
            (visible(row.get("photo")), visible(row.get("reason")))
            for row in entries(part(document, "data"), "refused")
        ],
        "warnings": [visible(text) for text in document.get("warnings") or ()],
    }


def _tiles(document: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The numbers that are asked for first."""
    summary, data = part(document, "summary"), part(document, "data")
    findings = entries(document, "findings")
    confirmed = sum(found.get("confirmed") is True for found in findings)
    yield _tile("findings confirmed", f"{confirmed} of {len(findings)}")
    for name in ("top1", "inside_box", "confidence"):
        statistic = part(summary, name)
        if finite_number(statistic.get("value")) is not None:
            ends = [number(statistic.get(key)) for key in ("low", "high")]
            yield _tile(
                LABELS[name], number(statistic.get("value")), " to ".join(ends) if all(ends) else ""
            )
    error = number(part(document, "calibration").get("error"))
    if error:
        yield _tile("calibration error", error)
    yield _tile("photos audited", number(data.get("audited")))
    refused = len(entries(data, "refused"))
    if refused:
        yield _tile("photos refused", number(refused))


def _tile(name: str, value: str, note: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _threshold(row: Mapping[str, Any]) -> dict[str, str]:
    state, word = _RESULTS[row.get("failed")]
    return {
        "fail_if": visible(row.get("fail_if")),
        "source": visible(row.get("source")),
        "value": number(row.get("value")),
        "text": visible(row.get("text")),
        "state": state,
        "word": word,
    }


def _finding(
    found: Mapping[str, Any],
    clusters: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    state, word = _TESTED[found.get("confirmed")]
    photos = [str(photo) for photo in found.get("photos") or ()]
    tests = [_test(test) for test in found.get("interventions") or ()]
    return {
        "id": visible(found.get("id")),
        "rule": visible(found.get("rule")),
        "level": found.get("level") if found.get("level") in _LEVELS else "note",
        "state": state,
        "word": word,
        "sentence": visible(found.get("sentence")),
        "class": visible(found.get("class")),
        "cluster": clusters.get(visible(found.get("cluster"))),
        "region": _rectangle(found.get("region")),
        "tests": tests,
        "count": len(photos),
        "pictures": [
            {
                "photo": visible(photo),
                "thumbnail": pictures[photo]["thumbnail"],
                "heat": pictures[photo].get("heat"),
            }
            for photo in photos
            if pictures.get(photo, {}).get("thumbnail")
        ][:_PHOTOS],
    }


def _test(test: Mapping[str, Any]) -> dict[str, Any]:
    """A test by intervention: change and control on one line, from -1 to 1 at least."""
    state, word = _TESTED[test.get("confirmed")]
    ends = [
        finite_number(part(test, name).get(key)) or 0.0
        for name in ("change", "control")
        for key in ("value", "low", "high")
    ]
    most = max(1.0, *(abs(end) for end in ends))
    return {
        "kind": visible(test.get("kind")),
        "photos": number(test.get("photos")),
        "change": shown(test.get("change")),
        "control": shown(test.get("control")),
        "excess": shown(test.get("excess")),
        "spans": {
            "change": span(test.get("change"), -most, most),
            "control": span(test.get("control"), -most, most),
        },
        "most": number(most),
        "state": state,
        "word": word,
    }


def _cluster(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": visible(found.get("id")),
        "class": visible(found.get("class")),
        "photos": number(found.get("photos")),
        "share": _percent(found.get("share")),
        "picture": map_picture(found.get("map")),
        "region": _rectangle(found.get("region")),
        "shared": [
            {
                "what": visible(one.get("what")),
                "inside": _percent(one.get("inside")),
                "outside": _percent(one.get("outside")),
                "p": number(one.get("p")),
            }
            for one in found.get("shared") or ()
        ],
    }


def _cluster_map(
    found: Sequence[Mapping[str, Any]], clusters: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The clusters as tiles on a plane, and as rows of a table; None where there is none."""
    tiles = [
        {
            **tile,
            "number": tile["place"] + 1,
            "cluster": clusters[tile["place"]],
            "nearest": None if tile["nearest"] is None else clusters[tile["nearest"]]["id"],
            "likeness": number(tile["likeness"]),
        }
        for tile in cluster_map(found)
    ]
    left_out = len(clusters) - len(tiles)
    size = {"width": number(WIDTH), "height": number(HEIGHT), "left_out": left_out}
    return {"tiles": tiles, **size} if tiles else None


def _classes(
    sets: Mapping[str, Mapping[str, Any]],
    clusters: Sequence[Mapping[str, Any]],
    findings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Labels side by side, and a section per class: its metrics, findings and clusters.

    A predicted class that is not a photo's label has a section where there is something to show.
    """
    found = _sets(sets)
    known = {row["name"]: row for row in found["rows"]}
    other = sorted({str(one["class"]) for one in (*findings, *clusters) if one["class"]} - {*known})
    blank = {"photos": "", "metrics": []}
    return {
        **found,
        "sections": [
            {
                **row,
                "findings": [
                    {"number": at, **one}
                    for at, one in enumerate(findings, 1)
                    if one["class"] == row["name"]
                ],
                "clusters": [one for one in clusters if one["class"] == row["name"]],
            }
            for row in (*found["rows"], *({"name": name, **blank} for name in other))
        ],
    }


def _sets(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sets of photos side by side: metrics that any of them has are columns."""
    columns = [
        name
        for name in _COLUMNS
        if any(finite_number(part(m, name).get("value")) is not None for m in sets.values())
    ]
    return {
        "columns": [LABELS[name] for name in columns],
        "rows": [
            {
                "name": visible(name),
                "photos": number(metrics.get("photos")),
                "cells": [_cell(metrics.get(column)) for column in columns],
                "metrics": _spans({LABELS[k]: metrics.get(k) for k in LABELS if metrics.get(k)}),
            }
            for name, metrics in sets.items()
        ],
    }


def _cell(statistic: object) -> dict[str, str]:
    found = statistic if isinstance(statistic, Mapping) else {}
    ends = [number(found.get(key)) for key in ("low", "high")]
    return {"value": number(found.get("value")), "ends": " to ".join(ends) if all(ends) else ""}


def _spans(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Statistics one below the other, each on a line from 0 to 1 where it lies there."""
    rows = []
    for name, statistic in statistics.items():
        found = statistic if isinstance(statistic, Mapping) else {}
        ends = [finite_number(found.get(key)) for key in ("low", "value", "high")]
        inside = name != LABELS["seconds"] and all(end is None or 0 <= end <= 1 for end in ends)
        rows.append(
            {
                "name": visible(name),
                "text": shown(statistic),
                "span": span(statistic, 0.0, 1.0) if inside else None,
            }
        )
    return rows


def _calibration(found: Mapping[str, Any]) -> dict[str, Any] | None:
    bins = entries(found, "bins")
    if not bins:
        return None
    return {
        "error": number(found.get("error")),
        "points": curve(bins),
        "rows": [
            [number(one.get(key)) for key in ("from", "to", "photos", "confidence", "accuracy")]
            for one in bins
        ],
    }


def _facts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    certificate = part(document, "certificate")
    word = _WORDS[certificate.get("passed")][1]
    sections = {
        "Model": {**model_facts(document), **_without(document, "model", "model", "certificate")},
        "Task": part(document, "task"),
        "Certificate of the gradients": {**certificate, "passed": word},
        "Data set": _without(document, "data", "refused", "classes"),
        "Options": part(document, "options"),
        "Program": part(document, "program"),
    }
    return [{"name": name, "rows": list(_flat(facts))} for name, facts in sections.items() if facts]


def _lock(lock: Mapping[str, Any]) -> dict[str, Any] | None:
    """What moved since a lock was written; None where none was checked."""
    if not lock:
        return None
    rows = [
        {
            "name": visible(row.get("name")),
            "photo": visible(row.get("photo") or ""),
            "by": number(row.get("difference")) or "not comparable",
            "band": number(row.get("band")),
        }
        for row in entries(lock, "entries")
    ]
    return {"sentence": visible(lock.get("sentence")), "rows": rows}


def _without(document: Mapping[str, Any], name: str, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in part(document, name).items() if key not in keys}


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Facts within facts as names and texts; a statistic is one text."""
    for key, value in facts.items():
        name = f"{before}{visible(key)}".replace("_", " ")
        if isinstance(value, Mapping) and "value" in value:
            yield name, shown(value)
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            if value:
                yield name, ", ".join(visible(item) for item in value)
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif value is not None:
            yield name, number(value) if isinstance(value, float) else visible(value)


def _percent(value: object) -> str:
    found = finite_number(value)
    return "" if found is None else f"{100 * found:.3g} %"


def _rectangle(region: object) -> dict[str, float] | None:
    """A region (top, left, bottom, right in shares) as a rectangle in a square of 100 units."""
    if not isinstance(region, Sequence) or len(region) != 4:
        return None
    ends = [finite_number(end) for end in region]
    if any(end is None for end in ends):
        return None
    top, left, bottom, right = (min(max(100 * float(end or 0), 0.0), 100.0) for end in ends)
    return {
        "x": round(left, 1),
        "y": round(top, 1),
        "width": round(max(right - left, 0), 1),
        "height": round(max(bottom - top, 0), 1),
    }

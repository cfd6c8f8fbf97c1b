"""Findings of an audit: what is wrong, with what proof, in one sentence each."""

from collections.abc import Mapping, Sequence
from typing import Any

from inspector.audit.findings.shared_content import SharedContent, find_shared_content
from inspector.audit.interventions import EFFECT, Interventions
from inspector.audit.processing import Processing, find_processing, tried
from inspector.audit.rows import Row

__all__ = ["find_findings"]

_CONSTANT = 0.5
"""Mean correlation of a region's content between photos above which it is the same thing."""

_LARGE = 0.3
"""Share of the photo above which a region is not a detail."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""Region of the whole photo: top, left, bottom, right."""

_ENOUGH = 20
"""Photos below which nothing is said of a class or a group."""


def find_findings(
    clusters: Sequence[dict[str, Any]],
    of_row: Mapping[int, str],
    rows: Sequence[Row],
    interventions: Interventions | None,
    *,
    summary: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What an auditor has to know, the gravest first.

    Args:
        clusters: From ``find_clusters``.
        of_row: Cluster of each row by its place.
        rows: The rows.
        interventions: Changes photos; None for a model that is not a classifier.
        summary: Metrics of all rows.
        groups: Metrics by column and value.
    """
    found = []
    if interventions is not None:
        for cluster in clusters:
            own = [place for place, name in of_row.items() if name == cluster["id"]]
            found += _of_cluster(cluster, own, rows, interventions)
        for one in find_shared_content(rows, interventions):
            if not any(f["confirmed"] and f["class"] == one.name for f in found):
                found += _of_content(one, rows, interventions)
        found += [_of_processing(one, rows, interventions) for one in find_processing(rows)]
    found += _outside(rows)
    found += _gaps(summary, groups)
    order = {"error": 0, "warning": 1, "note": 2}
    found.sort(key=lambda one: order[one["level"]])
    return [{"id": f"F{number + 1}", **one} for number, one in enumerate(found)]


def _finding(rule: str, level: str, sentence: str, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "class": None,
        "cluster": None,
        "photos": [],
        "region": None,
        "interventions": [],
    }
    head = {"rule": rule, "level": level, "confirmed": more.pop("confirmed", None)}
    return {**head, "sentence": sentence, **empty, **more}


def _of_cluster(
    cluster: Mapping[str, Any],
    own: Sequence[int],
    rows: Sequence[Row],
    interventions: Interventions,
) -> list[dict[str, Any]]:
    """A region that photos of a cluster share, and that makes the class by itself."""
    top, left, bottom, right = cluster["region"]
    if (bottom - top) * (right - left) > _LARGE:
        return []
    constancy = interventions.constancy(cluster["region"], own)
    boxed = [rows[p]["inside_box"] for p in own if rows[p].get("inside_box") is not None]
    outside = bool(boxed) and sum(boxed) / len(boxed) < 0.5
    if constancy < _CONSTANT and not outside:
        return []
    tried = interventions.of_cluster(cluster, own)
    # Pasted, it makes the class by itself. Painted over, the object may still make it.
    decisive = [one for one in tried if one["kind"] == "paste"] or tried
    confirmed = bool(decisive) and decisive[0]["confirmed"]
    where = f"rows {top:.0%} to {bottom:.0%} and columns {left:.0%} to {right:.0%} of the photo"
    why = (
        f"its content is the same in these photos (correlation {constancy:.2f})"
        if constancy >= _CONSTANT
        else "it lies outside of the objects' boxes"
    )
    proof = "; ".join(_proof(one) for one in tried) or "there were no photos to change"
    common = "; they share " + ", ".join(s["what"] for s in cluster["shared"][:3])
    sentence = (
        f"{cluster['photos']} photos of {cluster['class']!r} are decided by {where}: {why}; {proof}"
        + (common if cluster["shared"] else "")
    )
    return [
        _finding(
            "shared-region",
            "error" if confirmed else "warning",
            sentence,
            confirmed=confirmed,
            **{"class": cluster["class"]},
            cluster=cluster["id"],
            photos=list(cluster["members"]),
            region=list(cluster["region"]),
            interventions=tried,
        )
    ]


def _of_content(
    content: SharedContent, rows: Sequence[Row], interventions: Interventions
) -> list[dict[str, Any]]:
    """Content that photos of a class share at one place, and that makes the class by itself."""
    top, left, bottom, right = content.region
    if (bottom - top) * (right - left) > _LARGE:
        return []
    shown = {"class": content.name, "region": content.region}
    tests = interventions.of_cluster(shown, content.members)
    # Photos of a class look alike in places by nature: without the proof there is nothing to say.
    if not any(one["confirmed"] for one in tests if one["kind"] == "paste"):
        return []
    sentence = (
        f"{len(content.members)} photos of {content.name!r} show the same in rows {top:.0%} to "
        f"{bottom:.0%} and columns {left:.0%} to {right:.0%} of the photo, and {content.others} "
        f"photos of other classes do; {'; '.join(_proof(one) for one in tests)}"
    )
    return [
        _finding(
            "shared-region",
            "error",
            sentence,
            confirmed=True,
            **{"class": content.name},
            photos=[rows[place]["photo"] for place in content.members],
            region=list(content.region),
            interventions=tests,
        )
    ]


def _of_processing(
    processing: Processing, rows: Sequence[Row], interventions: Interventions
) -> dict[str, Any]:
    """A processing that photos of a class share, and whether it makes the class by itself."""
    tests = tried(processing, rows, interventions)
    confirmed = any(one["confirmed"] for one in tests)
    count, name = len(processing.members), processing.name
    proof = "; ".join(_proof(one) for one in tests) or "there were no photos to change"
    sentence = (
        f"{count} photos of {name!r} share {processing.what}, {processing.share:.0%} of the class "
        f"and {processing.others:.1%} of the others; {proof}"
    )
    return _finding(
        "shared-processing",
        "error" if confirmed else "note",
        sentence,
        confirmed=confirmed,
        **{"class": name},
        photos=[rows[place]["photo"] for place in processing.members],
        region=list(WHOLE),
        interventions=tests,
    )


_VERBS = {
    "paint over": ("painted over, it falls by", "another place"),
    "paste": ("pasted elsewhere, it rises by", "another place"),
    "process": ("given to photos of other classes, it rises by", "another change of the same size"),
}


def _proof(one: Mapping[str, Any]) -> str:
    change, control = one["change"], one["control"]
    verb, other = _VERBS[one["kind"]]
    return (
        f"{verb} {change['value']:z.2f} ({change['low']:z.2f} to "
        f"{change['high']:z.2f}), {other} by {control['value']:z.2f}"
    )


def _outside(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Classes whose evidence lies outside of their boxes more than chance would have it."""
    found = []
    classes: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("inside_box") is not None and row.get("box_area") is not None:
            classes.setdefault(str(row.get("label") or row.get("predicted")), []).append(row)
    for name, own in sorted(classes.items()):
        below = [row for row in own if row["inside_box"] < row["box_area"]]
        if len(own) >= _ENOUGH and len(below) > len(own) / 2:
            sentence = (
                f"in {len(below)} of {len(own)} photos of {name!r} less of the evidence lies in "
                "the object's box than its area would have by chance"
            )
            photos = [row["photo"] for row in below]
            found.append(
                _finding(
                    "evidence-outside-object", "warning", sentence, photos=photos, **{"class": name}
                )
            )
    return found


def _gaps(
    summary: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Groups whose accuracy is lower than that of all, beyond both intervals."""
    found = []
    whole = summary.get("top1")
    for column, values in groups.items():
        for value, own in values.items():
            part = own.get("top1")
            if whole is None or part is None or part["photos"] < _ENOUGH:
                continue
            if part["high"] < whole["low"] and whole["value"] - part["value"] >= EFFECT:
                sentence = (
                    f"accuracy where {column} = {value} is {part['value']:.0%} "
                    f"({part['low']:.0%} to {part['high']:.0%}), of all photos {whole['value']:.0%}"
                )
                found.append(_finding("group-gap", "warning", sentence))
    return found

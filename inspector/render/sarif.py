"""An audit as SARIF 2.1.0, which code scanning shows: a result per finding, with its photos.

Source: Static Analysis Results Interchange Format (SARIF) Version 2.1.0 Plus Errata 01, OASIS.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from inspector.render.audit_facts import entries, model_facts, part, visible

__all__ = ["NAME", "dumps"]

NAME = "findings.sarif"
"""Name of the file."""

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_RULES = {
    "threshold": "A declared threshold was not met, or could not be checked.",
    "evidence-outside-object": "The evidence lies outside the object.",
    "shared-region": "Photos of a class share a region that the prediction rests on.",
    "shared-processing": "Photos of a class share a blur, a JPEG quality or a frame.",
    "label-evidence-part": "Label and evidence part.",
    "group-gap": "The model is worse on one group of photos than on another.",
}
_LEVELS = {"error", "warning", "note"}
_BASE = "DATA"


def dumps(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The log of one run.

    A finding that its test refuted is a result that passed (``kind`` "pass"); a region is a
    property of each location, in shares of the input from its top left corner, since SARIF's own
    regions are of text.

    Args:
        document: The report as plain data.
        rows: Not used; the same arguments as every format of an audit.
    """
    del rows
    program, model = part(document, "program"), model_facts(document)
    results = [*_failed(document, model), *(_of_finding(f, model) for f in _findings(document))]
    names = list(dict.fromkeys(result["ruleId"] for result in results))
    for result in results:
        result["ruleIndex"] = names.index(result["ruleId"])
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": visible(program.get("name") or "onnx-inspector"),
                "version": visible(program.get("version")),
                "rules": [_rule(name) for name in names],
            }
        },
        "invocations": [_invocation(document)],
        "originalUriBaseIds": {
            _BASE: {"description": {"text": "The data set, as it was named on the command line."}}
        },
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "model": visible(model.get("name")),
            "sha256": visible(model.get("sha256")),
            "verdict": visible(part(document, "verdict").get("sentence")),
        },
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return (json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _findings(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return entries(document, "findings")


def _rule(name: str) -> dict[str, Any]:
    text = _RULES.get(name, name)
    return {"id": name, "shortDescription": {"text": text}}


def _failed(document: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A result per threshold that was not met (error) or not checked (warning)."""
    for row in entries(document, "thresholds"):
        if row.get("failed") is False:
            continue
        condition = visible(row.get("fail_if"))
        yield {
            "ruleId": "threshold",
            "level": "error" if row.get("failed") else "warning",
            "message": {"text": f"{condition}: {visible(row.get('text'))}"},
            "locations": [_of_model(model)],
            "partialFingerprints": {"finding/v1": _hash("threshold", condition)},
        }


def _of_finding(finding: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    rule, confirmed = visible(finding.get("rule")), finding.get("confirmed")
    level = finding.get("level") if finding.get("level") in _LEVELS else "warning"
    refuted = confirmed is False
    region = finding.get("region")
    photos = list(finding.get("photos") or ())
    named = [visible(finding.get(key)) for key in ("id", "class", "cluster")]
    return {
        "ruleId": rule,
        "kind": "pass" if refuted else "fail",
        "level": "none" if refuted else level,
        "message": {"text": visible(finding.get("sentence"))},
        "locations": [_of_photo(photo, region) for photo in photos] or [_of_model(model)],
        "partialFingerprints": {"finding/v1": _hash(rule, named[1], str(region))},
        "properties": {
            "id": named[0],
            "class": named[1],
            "cluster": named[2],
            "confirmed": confirmed,
            "interventions": [
                {"kind": visible(test.get("kind")), "confirmed": test.get("confirmed")}
                for test in finding.get("interventions") or ()
            ],
        },
    }


def _invocation(document: Mapping[str, Any]) -> dict[str, Any]:
    """That the run was done, when it began, and which photos were refused."""
    notes: list[dict[str, Any]] = [
        {
            "level": "error",
            "message": {"text": f"photo refused: {visible(refused.get('reason'))}"},
            "locations": [_of_photo(refused.get("photo"), None)],
        }
        for refused in entries(part(document, "data"), "refused")
    ]
    notes += [
        {"level": "warning", "message": {"text": visible(text)}}
        for text in document.get("warnings") or ()
    ]
    begun = document.get("declared")
    return {
        "executionSuccessful": True,
        **({"startTimeUtc": visible(begun)} if begun else {}),
        "toolExecutionNotifications": notes,
    }


def _of_photo(photo: object, region: Sequence[float] | None) -> dict[str, Any]:
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": _artifact(str(photo))}}
    if region is not None:
        names = ("top", "left", "bottom", "right")
        place["properties"] = {"region": dict(zip(names, region, strict=True))}
    return place


def _of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    name = str(model.get("name") or "model.onnx")
    return {"physicalLocation": {"artifactLocation": {"uri": _quoted(name)}}}


def _artifact(photo: str) -> dict[str, Any]:
    if photo.startswith("/"):
        return {"uri": "file://" + _quoted(photo)}
    return {"uri": _quoted(photo), "uriBaseId": _BASE}


def _quoted(path: str) -> str:
    """A path as a URI reference; a name's bytes that are not UTF-8 are those of the file."""
    try:
        name = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # halves of pairs that no file's name gives
        name = path.encode("utf-8", "surrogatepass")
    return quote(name, safe="/")


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]

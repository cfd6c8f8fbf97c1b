"""An audit under the headings of Annex IV of the EU AI Act: what was measured, and what cannot be.

Source: Regulation (EU) 2024/1689, Annex IV, technical documentation referred to in Article 11(1).
The headings are shortened; the points' numbers are those of the annex.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from converters.errors import first_few
from inspector.render.audit_facts import (
    LABELS,
    entries,
    measured,
    model_facts,
    number,
    part,
    shown,
    visible,
)

__all__ = ["HEADINGS", "NAME", "NOT_MEASURABLE", "dumps"]

NAME = "annex-iv.md"
"""Name of the file."""

NOT_MEASURABLE = "not measurable from the file"
"""What is said of a point that neither the model's file nor the data set can show."""

HEADINGS = {
    "1": "General description of the AI system",
    "1(a)": "Intended purpose, provider, version and its relation to previous versions",
    "1(b)": "Interaction with hardware, software and other AI systems",
    "1(c)": "Versions of relevant software and firmware, and requirements of updates",
    "1(d)": "Forms in which the system is placed on the market or put into service",
    "1(e)": "Hardware on which the system is intended to run",
    "1(f)": "External features, marking and layout of products that it is a component of",
    "1(g)": "User interface provided to the deployer",
    "1(h)": "Instructions for use for the deployer",
    "2": "Elements of the AI system and the process of its development",
    "2(a)": "Methods and steps of the development, and third-party systems or tools used",
    "2(b)": "Design specifications: general logic, design choices, aims, trade-offs",
    "2(c)": "System architecture and computational resources",
    "2(d)": "Data requirements: training methods, training data, provenance, labelling, cleaning",
    "2(e)": "Human oversight measures, and interpretation of the outputs by deployers",
    "2(f)": "Pre-determined changes of the system and its performance",
    "2(g)": "Validation and testing: data, metrics, robustness, discriminatory impacts",
    "2(h)": "Cybersecurity measures",
    "3": "Monitoring, functioning and control: limits, accuracy for groups, risks, input data",
    "4": "Appropriateness of the performance metrics",
    "5": "Risk management system (Article 9)",
    "6": "Changes made by the provider through the lifecycle",
    "7": "Harmonised standards applied, or other solutions adopted",
    "8": "EU declaration of conformity (Article 47)",
    "9": "Post-market monitoring: evaluation of performance in use, and its plan (Article 72)",
}
"""Points of the annex, shortened, by number."""

_MARKS = re.compile(r"([\\`*_\[\]<>|&~@]|(?<=www)\.|:(?=//))")
_PHOTOS = 5

_Lines = Iterator[str]


def dumps(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The page as Markdown.

    Args:
        document: The report as plain data.
        rows: Not used; the same arguments as every format of an audit.
    """
    del rows
    program = part(document, "program")
    name, version = program.get("name") or "onnx-inspector", program.get("version")
    written = (
        f"Model: {_text(model_facts(document).get('name'))}. Written by {_text(name)} "
        f"{_text(version)}, thresholds declared {_text(document.get('declared'))}."
    )
    meaning = (
        'Each point says "measured" with the numbers of this audit, or that the point is '
        f'"{NOT_MEASURABLE}" and the data set: the provider has to write it. This page is evidence '
        "for that documentation, and does not replace it."
    )
    title = "# Technical documentation, Annex IV of Regulation (EU) 2024/1689"
    lines = [title, "", written, "", meaning]
    points = list(HEADINGS)
    for point, heading in HEADINGS.items():
        lines += ["", f"{'###' if '(' in point else '##'} {point} {heading}", ""]
        if any(other.startswith(f"{point}(") for other in points):
            lines.pop()
            continue
        found = list(_MEASURED[point](document)) if point in _MEASURED else []
        if not found:
            lines.append(f"{NOT_MEASURABLE}.")
        elif len(found) == 1:
            lines.append(f"measured: {found[0]}")
        else:
            lines += ["measured:", "", *(f"- {line}" for line in found)]
    return ("\n".join(lines) + "\n").encode()


def _version(document: Mapping[str, Any]) -> _Lines:
    model = model_facts(document)
    if model.get("sha256"):
        yield (
            f"the file {_text(model.get('name'))} has the SHA-256 {_text(model['sha256'])}; its "
            "purpose, provider and version are not in it"
        )


def _software(document: Mapping[str, Any]) -> _Lines:
    model = model_facts(document)
    if model.get("producer"):
        yield f"written by {_text(model['producer'])}"
    opsets = part(model, "opsets")
    if opsets:
        names = ", ".join(f"{_text(name)} {_text(value)}" for name, value in opsets.items())
        yield f"operator sets {names}"
    versions = part(part(document, "model"), "versions") or part(document, "versions")
    if versions:
        names = ", ".join(f"{_text(name)} {_text(value)}" for name, value in versions.items())
        yield f"audited with {names}"


def _logic(document: Mapping[str, Any]) -> _Lines:
    task = part(document, "task")
    if task.get("name"):
        reason = f" ({_text(task['reason'])})" if task.get("reason") else ""
        what = f"the outputs are those of a {_text(task['name'])}{reason}"
        yield f"{what}; the rest is {NOT_MEASURABLE}"


def _resources(document: Mapping[str, Any]) -> _Lines:
    seconds = part(document, "summary").get("seconds")
    if seconds:
        yield (
            f"{shown(seconds)} seconds per photo with its map, on the machine of this audit; "
            f"the resources of development and training are {NOT_MEASURABLE}"
        )


def _interpretation(document: Mapping[str, Any]) -> _Lines:
    method = part(document, "options").get("method")
    if method:
        yield f"maps of where the model looks, by {_text(method)}, one per photo"
    for found in measured({"faithfulness": part(document, "faithfulness")}):
        yield f"{_text(found.metric)}: {_numbers(found)}"
    text = part(document, "certificate").get("text")
    if text:
        yield f"certificate of the gradients: {_text(text)}"


def _testing(document: Mapping[str, Any]) -> _Lines:
    data = part(document, "data")
    if data:
        counts = ", ".join(
            f"{data[name]:,} {name}"
            for name in ("photos", "audited", "labelled", "boxed", "masked")
            if isinstance(data.get(name), int)
        )
        yield f"test data ({_text(data.get('kind'))}): {counts}"
    for found in measured({"summary": part(document, "summary")}):
        yield f"{LABELS.get(found.metric, found.metric)}: {_numbers(found)}"
    for row in entries(document, "thresholds"):
        yield f"declared before the run, {_code(row.get('fail_if'))}: {_text(row.get('text'))}"


def _limits(document: Mapping[str, Any]) -> _Lines:
    for found in measured({**document, "summary": {}, "faithfulness": {}}):
        if found.metric in {"top1", "inside_box", "calibration error"}:
            where = f" ({_text(found.slice)})" if found.slice else ""
            yield f"{LABELS.get(found.metric, found.metric)}{where}: {_numbers(found)}"
    words: dict[bool | None, str] = {
        True: "confirmed by intervention",
        False: "not confirmed by intervention",
        None: "not tested by intervention",
    }
    for finding in entries(document, "findings"):
        tested = words[finding.get("confirmed")]
        yield f"finding {_text(finding.get('id'))}, {tested}: {_text(finding.get('sentence'))}"
    refused = entries(part(document, "data"), "refused")
    if refused:
        some = first_few([_text(row.get("photo")) for row in refused], _PHOTOS)
        yield f"{len(refused):,} photos were refused: {some}"


def _metrics(document: Mapping[str, Any]) -> _Lines:
    names = list(
        dict.fromkeys(
            LABELS.get(found.metric, found.metric)
            for found in measured({"summary": part(document, "summary")})
        )
    )
    if names:
        yield (
            f"the metrics of this audit are {', '.join(names)}; whether they suit the intended "
            f"purpose is {NOT_MEASURABLE}"
        )


def _changes(document: Mapping[str, Any]) -> _Lines:
    compare = part(document, "compare")
    for name, value in compare.items():
        text = shown(value)
        if text:
            yield f"against another model, {_text(name)}: {text}"


_MEASURED: Mapping[str, Callable[[Mapping[str, Any]], _Lines]] = {
    "1(a)": _version,
    "1(c)": _software,
    "2(b)": _logic,
    "2(c)": _resources,
    "2(e)": _interpretation,
    "2(g)": _testing,
    "3": _limits,
    "4": _metrics,
    "6": _changes,
}


def _numbers(found: Any) -> str:
    interval = {"value": found.value, "low": found.low, "high": found.high}
    photos = "" if found.photos is None else f", {number(found.photos)} photos"
    return f"{shown(interval)}{photos}"


def _text(value: object) -> str:
    """Text of a stranger in which nothing is a mark of Markdown or a tag, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(visible(value).split()))


def _code(value: object) -> str:
    """Text as code on one line; a backtick in it is replaced, since it would end the code."""
    return "`" + " ".join(visible(value).replace("`", "'").split()) + "`"

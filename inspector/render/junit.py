"""An audit as JUnit XML, which continuous integration shows: a test per threshold and finding."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from inspector.render.audit_facts import entries, measured, model_facts, part, shown, visible

__all__ = ["NAME", "dumps"]

NAME = "junit.xml"
"""Name of the file."""


def dumps(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The XML document.

    A threshold that was not met and a finding that its test confirmed are failures; a threshold
    that could not be checked is an error; a finding that was not tested and a photo that was
    refused are skipped.

    Args:
        document: The report as plain data.
        rows: Rows of the photos, whose times are added up.
    """
    cases = [*_thresholds(document), *_findings(document), *_refused(document)]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "skipped": str(sum(case.find("skipped") is not None for case in cases)),
        "time": f"{sum(row.get('seconds') or 0 for row in rows):.3f}",
    }
    name = visible(f"inspector audit {model_facts(document).get('name') or ''}".strip())
    suites = ET.Element("testsuites", {"name": name, **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": name, **counts})
    declared = document.get("declared")
    if declared:
        suite.set("timestamp", visible(declared).removesuffix("Z"))
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(document):
        ET.SubElement(properties, "property", {"name": key, "value": value})
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = visible(part(document, "verdict").get("sentence"))
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _properties(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model = model_facts(document)
    yield "model.sha256", visible(model.get("sha256"))
    yield "program.version", visible(part(document, "program").get("version"))
    for found in measured({"summary": part(document, "summary")}):
        yield found.metric, shown({"value": found.value, "low": found.low, "high": found.high})


def _thresholds(document: Mapping[str, Any]) -> Iterator[ET.Element]:
    for row in entries(document, "thresholds"):
        case = _case("thresholds", row.get("fail_if"))
        text = visible(row.get("text"))
        if row.get("failed") is None:
            _child(case, "error", text, "not checked")
        elif row["failed"]:
            _child(case, "failure", text, "threshold")
        else:
            ET.SubElement(case, "system-out").text = text
        yield case


def _findings(document: Mapping[str, Any]) -> Iterator[ET.Element]:
    for finding in entries(document, "findings"):
        text = visible(finding.get("sentence"))
        rule = visible(finding.get("rule"))
        case = _case(f"findings.{rule}", f"{finding.get('id')}: {finding.get('sentence')}")
        confirmed = finding.get("confirmed")
        if confirmed:
            photos = "\n".join(visible(photo) for photo in finding.get("photos") or ())
            _child(case, "failure", text, rule, f"{text}\n{photos}".strip())
        elif confirmed is None:
            _child(case, "skipped", "not tested by intervention")
        else:
            ET.SubElement(case, "system-out").text = "not confirmed by intervention"
        yield case


def _refused(document: Mapping[str, Any]) -> Iterator[ET.Element]:
    for refused in entries(part(document, "data"), "refused"):
        case = _case("photos", refused.get("photo"))
        _child(case, "skipped", visible(refused.get("reason")))
        yield case


def _case(suite: str, name: object) -> ET.Element:
    return ET.Element("testcase", {"classname": suite, "name": visible(name), "time": "0"})


def _child(
    case: ET.Element, tag: str, message: str, kind: str | None = None, text: str | None = None
) -> None:
    attributes = {"message": message} | ({"type": kind} if kind is not None else {})
    ET.SubElement(case, tag, attributes).text = text if kind is None else text or message

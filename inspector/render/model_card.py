"""An audit as a CycloneDX 1.7 bill of materials: the model, its hash, its measured card.

What an audit cannot measure (training data, intended use, ethical considerations) is left out.

Source: CycloneDX Bill of Materials Specification 1.7 (ECMA-424), object ``modelCard``.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inspector.render.audit_facts import LABELS, measured, model_facts, part, visible

__all__ = ["NAME", "dumps"]

NAME = "model-card.cdx.json"
"""Name of the file."""

_NAMESPACE = uuid.UUID("2b0a6a5c-9c7e-5f0e-8d7b-4a8f3f5d6e11")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def dumps(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The bill of materials as JSON.

    Equal reports give equal documents: the serial number is made of the report.

    Args:
        document: The report as plain data.
        rows: Not used; the same arguments as every format of an audit.
    """
    del rows
    program, model = part(document, "program"), model_facts(document)
    declared, sha256 = document.get("declared"), str(model.get("sha256") or "")
    tool = {
        "type": "application",
        "name": visible(program.get("name") or "onnx-inspector"),
        "version": visible(program.get("version")),
    }
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": visible(model.get("name") or "model.onnx"),
        "modelCard": _card(document),
    }
    if _SHA256.fullmatch(sha256):
        component["hashes"] = [{"alg": "SHA-256", "content": sha256.lower()}]
    serial = uuid.uuid5(_NAMESPACE, f"{sha256} {visible(declared)}")
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            **({"timestamp": visible(declared)} if declared else {}),
            "tools": {"components": [tool]},
        },
        "components": [component, _data(document)],
    }
    return (json.dumps(bom, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _card(document: Mapping[str, Any]) -> dict[str, Any]:
    task = part(document, "task").get("name")
    return {
        "modelParameters": {
            **({"task": visible(task)} if task else {}),
            "datasets": [{"ref": "data"}],
            "inputs": [{"format": "image"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_metrics(document))},
        "properties": list(_properties(document)),
    }


def _metrics(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for found in measured(document):
        metric: dict[str, Any] = {
            "type": LABELS.get(found.metric, found.metric),
            "value": repr(found.value),
        }
        if found.slice:
            metric["slice"] = found.slice
        if found.low is not None and found.high is not None:
            metric["confidenceInterval"] = {
                "lowerBound": repr(found.low),
                "upperBound": repr(found.high),
            }
        yield metric


def _properties(document: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    verdict, certificate = part(document, "verdict"), part(document, "certificate")
    findings = document.get("findings") or ()
    values = {
        "verdict": verdict.get("sentence"),
        "certificate": certificate.get("text"),
        "findings": len(findings),
        "findings:confirmed": sum(found.get("confirmed") is True for found in findings),
        "method": part(document, "options").get("method"),
    }
    for row in document.get("thresholds") or ():
        yield _property("threshold", f"{row.get('fail_if')}: {row.get('text')}")
    for name, value in values.items():
        if value is not None:
            yield _property(name, value)


def _property(name: str, value: object) -> dict[str, str]:
    return {"name": f"onnx-inspector:audit:{name}", "value": visible(value)}


def _data(document: Mapping[str, Any]) -> dict[str, Any]:
    """The photos that were audited; not those that the model was trained on."""
    data = part(document, "data")
    counts = ", ".join(
        f"{data[name]} {name}"
        for name in ("photos", "audited", "labelled", "boxed")
        if name in data
    )
    name = visible(data.get("source") or "photos")
    description = f"Photos of this audit, not those of the training: {counts}"
    return {
        "type": "data",
        "bom-ref": "data",
        "name": name,
        "data": [{"type": "dataset", "name": name, "description": description}],
    }

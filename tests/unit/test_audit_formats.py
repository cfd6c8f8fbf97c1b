"""Formats of an audit: what they say, that they can be read, and that hostile names stay text."""

import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from audit_documents import HOSTILE, audit_document, audit_rows, hostile_document

from inspector.audit.numbers.summary import metrics
from inspector.audit.run import _KEYS
from inspector.render import annex, junit, model_card, sarif

ROOT = Path(__file__).resolve().parents[2]
TEXTS = (junit, model_card, sarif, annex)


def cases(document):
    root = ET.fromstring(junit.dumps(document, audit_rows()))  # noqa: S314 - our own document
    return root, {case.get("name"): case for case in root.iter("testcase")}


def test_junit_has_a_case_per_threshold_finding_and_refused_photo():
    root, found = cases(audit_document())
    suite = root.find("testsuite")
    assert {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7",
        "failures": "2",
        "errors": "1",
        "skipped": "2",
    }
    assert found["top1 < 0.8"].find("failure").get("message") == "top1 is 0.75, below 0.8"
    assert found["top5 < 0.9"].find("error") is not None
    assert not list(found["refused > 5"].iter("failure"))
    assert "dog/2 #1.jpg" in found[next(n for n in found if n.startswith("F1"))][0].text
    assert found["dog/broken.jpg"].find("skipped").get("message") == "is truncated"
    names = [case.get("classname") for case in suite.iter("testcase")]
    assert names == ["thresholds"] * 3 + [
        "findings.shared-region",
        "findings.evidence-outside-object",
        "findings.group-gap",
        "photos",
    ]


def test_sarif_has_a_result_per_finding_with_photos_and_region():
    log = json.loads(sarif.dumps(audit_document()))
    run = log["runs"][0]
    by_id = {r["properties"]["id"]: r for r in run["results"] if "properties" in r}
    assert by_id["F1"]["level"] == "error"
    assert (by_id["F2"]["kind"], by_id["F2"]["level"]) == ("pass", "none")  # refuted by its test
    assert by_id["F3"]["level"] == "note"
    place = by_id["F1"]["locations"][1]
    assert place["physicalLocation"]["artifactLocation"] == {
        "uri": "dog/2%20%231.jpg",
        "uriBaseId": "DATA",
    }
    assert place["properties"]["region"] == {"top": 0.0, "left": 0.7, "bottom": 0.3, "right": 1.0}
    thresholds = [r for r in run["results"] if r["ruleId"] == "threshold"]
    assert [r["level"] for r in thresholds] == ["error", "warning"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[r["ruleIndex"]]["id"] == r["ruleId"] for r in run["results"])


@pytest.mark.parametrize(
    ("photo", "uri"),
    [
        ("a b/ü.jpg", "a%20b/%C3%BC.jpg"),
        ("c:d.jpg", "c%3Ad.jpg"),
        ("100%.jpg", "100%25.jpg"),
        ("/data/x?.jpg", "file:///data/x%3F.jpg"),
        ("bad\udcff.jpg", "bad%FF.jpg"),
        ("half\ud800.jpg", "half%ED%A0%80.jpg"),
    ],
)
def test_sarif_photos_are_uris(photo, uri):
    document = audit_document()
    document["findings"][0]["photos"] = [photo]
    result = json.loads(sarif.dumps(document))["runs"][0]["results"][2]
    artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact["uri"] == uri
    assert ("uriBaseId" in artifact) is not uri.startswith("file:")
    assert unquote(uri, errors="surrogateescape").endswith(photo) or "\ud800" in photo


def test_the_fingerprint_of_a_finding_outlives_its_photos():
    one, other = audit_document(), audit_document()
    other["findings"][0]["photos"] = ["new.jpg"]
    prints = [
        [r["partialFingerprints"] for r in json.loads(sarif.dumps(d))["runs"][0]["results"]]
        for d in (one, other)
    ]
    assert prints[0] == prints[1]
    assert len({str(p) for p in prints[0]}) == len(prints[0])


def test_the_model_card_holds_what_was_measured_alone():
    card = json.loads(model_card.dumps(audit_document()))
    model, data = card["components"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    by_slice = {(m["type"], m.get("slice")): m for m in metrics}
    assert by_slice["accuracy (top 1)", None] == {
        "type": "accuracy (top 1)",
        "value": "0.75",
        "confidenceInterval": {"lowerBound": "0.65", "upperBound": "0.85"},
    }
    assert by_slice["accuracy (top 1)", "class = tiger cat"]["value"] == "0.5"
    assert by_slice["accuracy (top 1)", "site = B"]["value"] == "0.6"
    assert "considerations" not in model["modelCard"]
    assert data["type"] == "data"
    assert model_card.dumps(audit_document()) == model_card.dumps(audit_document())
    without = audit_document()
    without["model"]["sha256"] = None
    assert "hashes" not in json.loads(model_card.dumps(without))["components"][0]


def test_the_annex_says_of_each_point_what_was_measured():
    text = annex.dumps(audit_document()).decode()
    points = re.findall(r"^#{2,3} (\S+) ", text, re.MULTILINE)
    assert points == list(annex.HEADINGS)
    sections = re.split(r"^#{2,3} ", text, flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, body = section.partition("\n")
        if heading.split()[0] in {"1", "2"}:
            assert not body.strip()
        else:
            assert body.strip().startswith(("measured:", annex.NOT_MEASURABLE + ".")), section
    by_point = {section.split()[0]: section for section in sections}
    assert "accuracy (top 1): 0.75 (0.65 to 0.85), 12 photos" in by_point["2(g)"]
    assert "`top1 < 0.8`" in by_point["2(g)"]
    assert "site = B" in by_point["3"]
    assert "confirmed by intervention: 5 of 8 photos" in by_point["3"]
    for point in ("1(b)", "2(h)", "5", "7", "8", "9"):
        assert by_point[point].strip().endswith(annex.NOT_MEASURABLE + ".")


def test_of_a_model_of_which_nothing_is_known_nothing_is_measured():
    text = annex.dumps({}).decode()
    assert "measured:" not in text
    assert text.count(annex.NOT_MEASURABLE + ".") == len(annex.HEADINGS) - 2


@pytest.mark.parametrize("module", TEXTS)
def test_names_of_strangers_stay_text(module):
    text = module.dumps(hostile_document(), audit_rows()).decode("utf-8")
    bad = {c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Cn"}} - {"\n"}
    assert not bad
    if module is junit:
        root = ET.fromstring(text)  # noqa: S314 - our own document
        assert {e.tag for e in root.iter()} <= {
            "testsuites", "testsuite", "testcase", "properties", "property", "failure", "error",
            "skipped", "system-out",
        }  # fmt: skip
    elif module is annex:
        assert not re.search(r"(?<!\\)[<&]", re.sub(r"`[^`]*`", "", text))  # but as code
        assert re.findall(r"^#{1,3} \S+", text, re.MULTILINE) == ["# Technical"] + [
            f"{'###' if '(' in p else '##'} {p}" for p in annex.HEADINGS
        ]
    else:
        assert HOSTILE[4:13] in text
        json.loads(text)


@pytest.mark.parametrize("module", TEXTS)
@pytest.mark.parametrize(
    "document",
    [{}, {"model": {}, "findings": [], "thresholds": []}, audit_document(compare=None, data={})],
    ids=["empty", "bare", "partial"],
)
def test_a_report_of_which_parts_are_missing_is_written(module, document):
    assert module.dumps(document)


def test_the_published_schema_names_what_a_report_holds():
    schema = json.loads((ROOT / "docs" / "audit-report.schema.json").read_bytes())
    assert tuple(schema["required"]) == _KEYS
    assert set(schema["$defs"]["metrics"]["required"]) == set(metrics([]))

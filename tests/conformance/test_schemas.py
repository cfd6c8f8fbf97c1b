"""The JSON that commands write, against the schemas in ``docs/``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import inspector
from inspector.render.json import plain

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"

pytestmark = pytest.mark.conformance


def schema(name):
    found = json.loads((ROOT / "docs" / f"{name}.schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.fixture(scope="module")
def report():
    model = inspector.load(SAMPLES / "resnet20.onnx")
    methods = ["cam", "grad-cam", "gradient", "occlusion:window=16,stride=16"]
    found = model.explain(SAMPLES / "images" / "cat_1.png", methods, target=["top2", "dog"])
    return plain(found.images[0].to_dict())


def test_a_report_is_what_its_schema_says(report):
    schema("explain-report").validate(report)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda report: report.pop("model"),
        lambda report: report.update(schema=2),
        lambda report: report["image"].update(sha256="?"),
        lambda report: report["results"][0].pop("target"),
        lambda report: report["results"][0]["attribution"].update(space="elsewhere"),
        lambda report: report["predictions"][0].update(probability=1.5),
    ],
)
def test_the_schema_of_reports_can_fail(report, break_it):
    changed = json.loads(json.dumps(report))
    break_it(changed)
    with pytest.raises(jsonschema.ValidationError):
        schema("explain-report").validate(changed)


def test_doctor_is_what_its_schema_says():
    command = [sys.executable, "-m", "inspector", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    schema("doctor").validate(json.loads(done.stdout))

"""A network that was trained to cheat is found out; honest ones are not accused.

The photos are those of the sample with five marks, each on a quarter of one class.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from inspector.audit.run import AuditOptions, audit
from inspector.opening import Opening

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
OPTIONS = AuditOptions(workers=1, thumbnails=False)
pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def marks():
    """The script that plants marks."""
    spec = importlib.util.spec_from_file_location("marks", SAMPLES / "marks.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules["marks"] = found
    spec.loader.exec_module(found)
    yield found
    del sys.modules["marks"]


@pytest.fixture(scope="module")
def planted(marks, tmp_path_factory):
    """Folder of the photos, and the files that carry each mark."""
    folder = tmp_path_factory.mktemp("marked")
    return folder, marks.write(folder, marks.CLASS_OF, 0.25)


def confirmed(model, folder, place):
    contents = audit(Opening(SAMPLES / model), folder, place, OPTIONS).contents
    return [one for one in contents["findings"] if one["confirmed"]]


def test_each_of_five_marks_is_found_and_proved(marks, planted, tmp_path):
    folder, files = planted
    names = (SAMPLES / "labels.txt").read_text().split()
    found = confirmed("cheating.onnx", folder, tmp_path)
    of_kind = {
        kind: [one for one in found if one["class"] == names[index]]
        for kind, index in marks.CLASS_OF.items()
    }
    for kind, own in of_kind.items():
        assert own, f"{kind} was not found"
        for one in own:
            carried = set(one["photos"]) & set(files[kind])
            assert len(carried) >= len(one["photos"]) / 2
    assert sum(map(len, of_kind.values())) == len(found)


@pytest.mark.parametrize("model", ["resnet20.onnx", "all_cnn_c.onnx", "zfnet.onnx"])
def test_honest_networks_are_not_accused(model, planted, tmp_path):
    assert confirmed(model, planted[0], tmp_path) == []

"""A type checker on a user's file: what is right passes `mypy --strict`, what is wrong is found."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USER = """
from collections.abc import Iterator

import inspector
from inspector import Explainer, ImageRefused, InspectorError, MethodName, Photo, Report


def peaks(paths: list[str], method: MethodName = "grad-cam") -> Iterator[float]:
    model: Explainer = inspector.load("model.onnx")
    window = inspector.configured("occlusion", window=16, stride=8)
    report: Report = model.explain(paths, [method, "cam", window], target=lambda s: s[:, 1])
    for image in report:
        for found in image:
            yield float(found.heatmap.values.max())
    model.explain(b"...", "cam", target=["cat", 3], layer=["a", "b"])
    model.explain_tensor([[1.0]], "gradient")
    best: str = model.predict(paths, top=1)[0][0]["label"]
    photo: Photo = inspector.load_photo(paths[0])
    inspector.overlay(photo, [[1.0]], label=best).save(f"{inspector.__version__}.png")


try:
    print(len(list(peaks(["cat.jpg"]))))
except ImageRefused as refused:
    print(refused.hint)
except InspectorError as error:
    print(error.what, error.where, error.exit_status)
"""

WRONG = """
import inspector

model = inspector.load("model.onnx")
model.explain("cat.jpg", "gradcam")
model.explain("cat.jpg", ["grad-cam", "gradcam"])
model.attribute([[1.0]], "gradcam")
inspector.configured("oclusion", window=16)
model.explane("cat.jpg")
model.explain("cat.jpg")[0].heatmapp
"""


@pytest.mark.conformance
@pytest.mark.timeout(900)
def test_a_users_file_is_checked_strictly(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    files = [str(tmp_path / name) for name in ("user.py", "wrong.py")]
    run = subprocess.run(  # noqa: S603 - a type checker on our own files
        [sys.executable, "-m", "mypy", "--strict", *files],
        cwd=ROOT,  # whose settings and cache are those of `make lint`
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    found = set(re.findall(r"wrong\.py:(\d+): error", run.stdout, re.MULTILINE))
    assert found == {str(line) for line in range(5, 11)}, run.stdout[-3000:] + run.stderr
    assert "user.py" not in run.stdout

"""The first hour of a stranger, step by step: each step sees what the one before has left.

Nothing is imported from the package: every step is a command, or a program of the stranger's.
"""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"


class Stranger:
    """A person in a folder, who types commands and writes small programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def types(self, *words: object, status: int = 0, stdin: bytes = b"") -> str:
        """A command, and everything that it prints."""
        return self._runs(["-m", "inspector", *map(str, words)], status, stdin)

    def writes(self, program: str, status: int = 0) -> str:
        """A program of the stranger's, and everything that it prints."""
        return self._runs(["-c", textwrap.dedent(program)], status, b"")

    def _runs(self, words: list[str], status: int, stdin: bytes) -> str:
        run = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, *words],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=240,
            check=False,
        )
        said = (run.stdout + run.stderr).decode()
        assert run.returncode == status, f"{words}: {run.returncode}\n{said}"
        assert "Traceback" not in said, said
        return said

    def has(self, *names: str) -> None:
        """Files that must lie there, and hold something."""
        for name in names:
            assert (self.folder / name).stat().st_size, name


def test_the_first_hour(tmp_path):  # noqa: PLR0915 - as many as a stranger takes
    me = Stranger(tmp_path)
    shutil.copy(SAMPLES / "resnet20.onnx", tmp_path / "model.onnx")
    photos = tmp_path / "photos"
    (photos / "farm").mkdir(parents=True)
    (photos / "pets/dogs").mkdir(parents=True)
    shutil.copy(SAMPLES / "images/horse_1.png", photos / "farm")
    shutil.copy(SAMPLES / "images/dog_1.png", photos / "pets/dogs")
    horse = "photos/farm/horse_1.png"

    # What is this, and does it run here?
    assert "explain" in me.types("--help")  # 1
    assert "Did you mean explain" in me.types("explian", "model.onnx", horse, status=2)  # 2
    assert "no conflicts" in me.types("doctor")  # 3

    # The first answer, and the files that it names.
    said = me.types("model.onnx", horse)  # 4
    assert "horse" in said
    me.has("inspection/horse_1.grad-cam.horse.png", "inspection/horse_1.json")
    me.types("model.onnx", horse, "-q")  # 5, again: the same files, in their place
    assert len(list((tmp_path / "inspection").glob("*.json"))) == 1
    assert "nearest: grad-cam" in me.types("model.onnx", horse, "-m", "gradcam", status=2)  # 6
    me.types("model.onnx", horse, "-m", "cam", "-m", "gradient", "--sheet", "-o", "sheet")  # 7
    me.has("sheet/horse_1.sheet.png")
    assert "nearest" in me.types("model.onnx", horse, "-t", "hors3", status=2)  # 8
    me.types("model.onnx", horse, "-t", "sum(horse; -dog)", "-m", "cam", "-o", "difference")  # 9

    # More photos: folders, patterns, standard input, and what is none.
    (photos / "notes.txt").write_text("from my uncle")
    said = me.types("model.onnx", "photos", "-m", "cam", "-o", "all")  # 10
    assert "1 file(s) left out that are no photos: notes.txt" in said
    me.has("all/horse_1.json", "all/dog_1.json")
    me.types("model.onnx", "photos/**/dog*.png", "-m", "cam", "-o", "pattern")  # 11
    data = (tmp_path / horse).read_bytes()
    me.types("model.onnx", "-", "-m", "cam", "-o", "piped", stdin=data)  # 12
    me.has("piped/stdin.json")
    said = me.types("model.onnx", "https://example.org/a.jpg", "-m", "cam", status=4)  # 13
    assert "nothing is fetched" in said
    said = me.types("model.onnx", "photos/notes.txt", horse, "-m", "cam", "-o", "o", status=4)  # 14
    assert "notes.txt" in said
    me.has("o/horse_1.json")

    # What is known of the model, and whether it can be trusted.
    assert "receptive" in me.types("layers", "model.onnx")  # 15
    assert "classifier" in me.types("check", "model.onnx")  # 16
    me.types("verify", "model.onnx")  # 17

    # For a program: one document on standard output, statuses that tell apart.
    document = json.loads(me.types("model.onnx", horse, "-m", "cam", "-o", "j", "--json"))  # 18
    assert document["images"][0]["predictions"][0]["label"] == "horse"
    assert "does not exist" in me.types("other.onnx", horse, status=3)  # 19

    # The library.
    me.writes(  # 20
        f"""
        import inspector
        model = inspector.load("model.onnx")
        report = model.explain(["{horse}", "photos/pets/dogs/dog_1.png"], target=["horse", 5])
        assert [image[0].attribution.label for image in report] == ["horse", "dog"]
        assert model.predict("{horse}")[0][0]["label"] == "horse"
        report.save("library", sheet=True)
        """
    )
    me.has("library/horse_1.grad-cam.horse.png", "library/dog_1.json")
    me.writes(  # 21
        f"""
        import numpy, torch, inspector
        model = inspector.load(open("model.onnx", "rb").read())
        report = model.explain(open("{horse}", "rb"), target=lambda s: s[:, 7] - s[:, 5])
        inspector.overlay("{horse}", report.heatmap, label="mine").save("mine.png")
        report.figure().savefig("axes.png")
        assert model.explain_tensor(torch.zeros(2, 3, 32, 32)).to_dict()["images"]
        """
    )
    me.has("mine.png", "axes.png")
    said = me.writes(  # 22
        """
        import inspector
        try:
            inspector.load("photos/notes.txt")
        except inspector.InspectorError as error:
            print(type(error).__name__, error)
        """
    )
    assert said.startswith("NotAModel photos/notes.txt")

    # An experiment of the papers, two models side by side, the map inside of the model.
    me.types(
        "study", "top-activations", "model.onnx", "photos", "--units", "0", "-o", "study"
    )  # 23
    me.has("study/top-activations.png", "study/top-activations.json")
    me.types("compare", "model.onnx", "model.onnx", "photos", "-o", "compared")  # 24
    me.types("embed", "model.onnx", "-o", "with-map.onnx", "-m", "cam")  # 25
    me.has("with-map.onnx")

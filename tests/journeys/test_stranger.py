"""The first hour of a stranger, step by step: each step sees what the one before has left.

Nothing is imported from the package: every step is a command, or a program of the stranger's.  They
are run in a real terminal, narrow and wide, and where there is no tmux in a pipe.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
PATIENCE = 240
"""Seconds for one step."""


class Stranger:
    """A person in a folder, who types commands and writes small programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def types(self, *words: object, status: int = 0, stdin: Path | None = None) -> str:
        """A command, and everything that it prints."""
        return self._runs(["-m", "inspector", *map(str, words)], status, stdin)

    def reads(self, *words: object) -> str:
        """Standard output of a command, in a pipe."""
        run = self._in_a_pipe(["-m", "inspector", *map(str, words)])
        assert run.returncode == 0, run.stderr
        return run.stdout

    def writes(self, program: str, status: int = 0) -> str:
        """A program of the stranger's, and everything that it prints."""
        return self._runs(["-c", textwrap.dedent(program)], status, None)

    def has(self, *names: str) -> None:
        """Files that must lie there, and hold something."""
        for name in names:
            assert (self.folder / name).stat().st_size, name

    def _runs(self, words: list[str], status: int, stdin: Path | None) -> str:
        ended, said = self._ends(words, stdin)
        assert ended == status, f"{words}: {ended}\n{said}"
        assert "Traceback" not in said, said
        return " ".join(said.split())  # wherever a table breaks its lines

    def _ends(self, words: list[str], stdin: Path | None) -> tuple[int, str]:
        """Exit status, and what was printed."""
        run = self._in_a_pipe(words, b"" if stdin is None else stdin.read_bytes())
        return run.returncode, run.stdout + run.stderr

    def _in_a_pipe(self, words, data=b""):
        run = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, *words],
            cwd=self.folder,
            input=data,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        run.stdout, run.stderr = run.stdout.decode(), run.stderr.decode()
        return run


class AtATerminal(Stranger):
    """The same in a terminal that is so many columns wide."""

    def __init__(self, folder: Path, columns: int) -> None:
        super().__init__(folder)
        self._home = Path(tempfile.mkdtemp())  # the path of a socket is short
        self._step = 0
        size = ("-x", str(columns), "-y", "40")
        lines = ("set", "-g", "history-limit", "5000", ";")
        # Python's readline, which pytest imports, gives children the width of its own terminal.
        shell = "env -u COLUMNS -u LINES PS1= LC_ALL=C.UTF-8 sh"
        self._tmux("-f", "/dev/null", *lines, "new-session", "-d", *size, "-c", str(folder), shell)

    def leaves(self) -> None:
        """Close the terminal."""
        self._tmux("kill-server")
        shutil.rmtree(self._home)

    def _ends(self, words: list[str], stdin: Path | None) -> tuple[int, str]:
        command = shlex.join([sys.executable, *words])
        source = "" if stdin is None else f" < {shlex.quote(str(stdin))}"
        # Not typed: what is typed would stand among what is printed.
        self._step += 1
        step = self._home / "step"
        step.write_text(
            f'clear\n{command}{source}\nstatus=$?; echo; echo "[{self._step}: $status]"\n'
        )
        self._tmux("clear-history")
        self._tmux("send-keys", f". {step}", "Enter")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(0.2)
            screen = self._tmux("capture-pane", "-p", "-J", "-S", "-")
            if found := re.search(rf"^\[{self._step}: (\d+)\]", screen, re.MULTILINE):
                said = screen[: found.start()]
                assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in said, said
                return int(found[1]), said
        raise AssertionError(screen)

    def _tmux(self, *words: str) -> str:
        tmux = ["tmux", "-u", "-S", str(self._home / "socket"), *words]
        return subprocess.run(tmux, capture_output=True, text=True, check=True).stdout  # noqa: S603


@pytest.fixture(params=[60, 120, None], ids=["60-columns", "120-columns", "pipe"])
def me(request, tmp_path):
    terminal = shutil.which("tmux") is not None
    if request.param is None:
        if terminal:
            pytest.skip("done at a terminal")
        yield Stranger(tmp_path)
        return
    if not terminal:
        pytest.skip("tmux is not installed")
    stranger = AtATerminal(tmp_path, request.param)
    yield stranger
    stranger.leaves()


def test_the_first_hour(me, tmp_path):
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
    assert "inspection/horse_1.grad-cam.horse.png" in said
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
    assert "1 file(s) left out that are not photos: notes.txt" in said
    me.has("all/horse_1.json", "all/dog_1.json")
    me.types("model.onnx", "photos/**/dog*.png", "-m", "cam", "-o", "pattern")  # 11
    me.types("model.onnx", "-", "-m", "cam", "-o", "piped", stdin=tmp_path / horse)  # 12
    me.has("piped/stdin.json")
    said = me.types("model.onnx", "https://example.org/a.jpg", "-m", "cam", status=4)  # 13
    assert "nothing is fetched" in said
    said = me.types("model.onnx", "photos/notes.txt", horse, "-m", "cam", "-o", "o", status=4)  # 14
    assert "notes.txt" in said
    me.has("o/horse_1.json")

    # What is known of the model, and whether it can be trusted.
    said = me.types("layers", "model.onnx")  # 15: names to copy are whole, however narrow
    assert {"relu", *(f"relu_{number}" for number in range(1, 19))} <= set(said.split())
    assert "classifier" in me.types("check", "model.onnx")  # 16
    me.types("verify", "model.onnx")  # 17

    # For a program: one document on standard output, statuses that tell apart.
    document = json.loads(me.reads("model.onnx", horse, "-m", "cam", "-o", "j", "--json"))  # 18
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

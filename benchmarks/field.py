"""Verdicts on all models of a folder: one row per file, for people who receive models.

python benchmarks/field.py FOLDER [--photo PHOTO] [--method METHOD] [--csv FILE]

Runs ``check``, ``layers``, ``explain`` and ``verify`` on each ``.onnx`` file below FOLDER, each
in a process of its own under a limit of time and memory, and prints

    verdict   drawn; blank (no value is positive) or constant, with "(said)" where a warning
              stands on the picture; refused, with the reason; limit; crashed
    peak      (x, y) on the photo, of each method that was drawn
    verify    pass, limited or fail, and the first reason

A model without class scores is asked for the element that its refusal proposes.  Exit status 1
when a map is blank or constant without a word, or a process crashed.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

OK, VERIFY_FAILED, USAGE, REFUSED, IMAGE_REFUSED, LIMIT = 0, 1, 2, 3, 4, 5
"""Exit statuses of the command line."""

GRACE = 30
"""Seconds beyond the tool's own limit after which a process is ended from outside."""

FLAT = 1e-6
"""A map whose values differ by less, relative to the largest, is constant."""

_PROPOSED = re.compile(r"(?:such as|elements:) (\S+\[[^\]\s]*\])")


@dataclass
class Row:
    """One file."""

    file: str
    check: str = ""
    layers: str = ""
    target: str = "top1"
    explain: str = ""
    peak: str = ""
    verify: str = ""
    why: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Done:
    """A finished command."""

    status: int
    out: str
    errors: str

    @property
    def reason(self) -> str:
        """What the tool says: its error line, or the last line that it wrote."""
        lines = [line for line in self.errors.splitlines() if line.strip()]
        found = next((line for line in lines if line.startswith("error:")), "")
        return found.removeprefix("error: ") or (lines[-1].strip() if lines else "")

    @property
    def word(self) -> str:
        """One word for the exit status."""
        known = {
            OK: "ok",
            USAGE: "refused",
            REFUSED: "refused",
            IMAGE_REFUSED: "photo refused",
            LIMIT: "limit",
        }
        crashed = "Traceback" in self.errors or self.status not in known
        return "crashed" if crashed else known[self.status]


class Tool:
    """The command line, under limits.

    Args:
        seconds: Wall clock of one command.
        memory: GiB of one command.
    """

    def __init__(self, seconds: float, memory: float) -> None:
        self.seconds, self.memory = seconds, memory

    def __call__(self, *arguments: object) -> Done:
        """Run ``inspector ARGUMENTS``."""
        command = [sys.executable, "-m", "inspector", *map(str, arguments)]
        command += ["--timeout", str(self.seconds), "--memory", str(self.memory)]
        try:
            done = subprocess.run(  # noqa: S603 - our own program
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.seconds + GRACE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Done(LIMIT, "", f"error: still running after {self.seconds + GRACE:g} s")
        return Done(done.returncode, done.stdout, done.stderr)


def examine(path: Path, name: str, photo: Path, methods: Sequence[str], tool: Tool) -> Row:
    """One model through the four commands."""
    start = time.perf_counter()
    row = Row(name)
    checked = tool("check", path, "--json")
    row.check = checked.word
    if checked.word == "ok":
        row.layers = _layers(tool("layers", path, "--json"))
        _explain(row, path, photo, methods, tool)
        _verify(row, tool("verify", path, *_target(row), "--json"))
    else:
        row.explain, row.why = checked.word, checked.reason
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def _layers(done: Done) -> str:
    if done.word != "ok":
        return done.word
    found = json.loads(done.out)
    default = [row["tensor"] for row in found["layers"] if row["default"]]
    return f"{len(found['layers'])}, {default[0] if default else 'no default'}"


def _target(row: Row) -> list[str]:
    return [] if row.target == "top1" else ["--target", row.target]


def _explain(row: Row, path: Path, photo: Path, methods: Sequence[str], tool: Tool) -> None:
    """Each method in a process of its own: a refusal of one must not hide another."""
    verdicts, peaks, reasons = [], [], []
    for method in methods:
        with tempfile.TemporaryDirectory() as folder:
            asked = ["explain", path, photo, "-m", method, "--json", "-o", folder]
            done = tool(*asked, *_target(row))
            proposed = _PROPOSED.search(done.errors)
            if done.word == "refused" and row.target == "top1" and proposed:
                row.target = proposed[1].rstrip(";,")
                done = tool(*asked, *_target(row))
        if done.word == "ok":
            verdict, peak, said = drawn(json.loads(done.out))
            peaks.append(peak)
            reasons.append(said)
        else:
            verdict = done.word
            reasons.append(done.reason)
        verdicts.append(f"{method.partition(':')[0]} {verdict}" if len(methods) > 1 else verdict)
    row.explain = "; ".join(dict.fromkeys(verdicts))
    row.peak = "; ".join(filter(None, peaks))
    row.why = " | ".join(dict.fromkeys(filter(None, reasons)))


def drawn(document: dict[str, Any]) -> tuple[str, str, str]:
    """Verdict on an explained photo, its peak, and what stands with it.

    Args:
        document: What ``explain --json`` prints.
    """
    if not document["images"]:
        return "photo refused", "", " ".join(document["refused"])
    result = document["images"][0]["results"][0]
    values, said = result["attribution"], "; ".join(result["warnings"])
    low, high = values["minimum"], values["maximum"]
    word = "drawn"
    if high - low <= FLAT * max(abs(high), abs(low)):
        word = "constant" if high > 0 else "blank"
    elif values["empty"]:
        word = "blank"
    if word != "drawn" and said:
        word += " (said)"
    peak = result["peak"]
    return word, f"{peak['x']}, {peak['y']}" if peak else "", said


def _verify(row: Row, done: Done) -> None:
    if done.status not in {OK, VERIFY_FAILED} or not done.out.strip().startswith("{"):
        row.verify = f"{done.word}: {done.reason}" if done.reason else done.word
        return
    found = json.loads(done.out)
    wanted = {"pass": "", "fail": "fail", "limited": "undecided"}[found["verdict"]]
    reasons = [c["text"] for c in found["checks"] if wanted and c["status"] == wanted]
    row.verify = found["verdict"] + (f": {reasons[0]}" if reasons else "")


def photograph(path: Path) -> None:
    """A photo for those who have none: a sky, a ground, a red ball, a striped board."""
    from PIL import Image

    rows, columns = np.mgrid[:240, :320].astype(np.float64)
    pixels = np.stack([90 + rows / 3, 140 + rows / 6, 230 - rows / 2], axis=2)
    pixels[150:] = [90, 130, 60]
    pixels[(rows - 140) ** 2 + (columns - 220) ** 2 < 45**2] = [200, 40, 40]
    board = (rows > 90) & (rows < 200) & (columns > 40) & (columns < 120)
    pixels[board] = np.where(columns[board, None] // 10 % 2, [230, 220, 200], [60, 50, 40])
    pixels += np.random.default_rng(0).normal(0, 6, pixels.shape)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def models(folder: Path) -> Iterator[Path]:
    """All ``.onnx`` files below a folder, in order."""
    return iter(sorted(path for path in folder.rglob("*.onnx") if path.is_file()))


def table(rows: Sequence[Row]) -> str:
    """Rows as text, columns aligned, long texts cut."""
    names = [field.name for field in fields(Row)]
    limits = {"file": 48, "layers": 30, "explain": 40, "verify": 40, "why": 70, "target": 24}
    cells = [names]
    for row in rows:
        values = asdict(row)
        cells.append([_short(str(values[name]), limits.get(name, 24)) for name in names])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _short(text: str, limit: int) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def silent(row: Row) -> bool:
    """Whether a map is blank or constant without a word, or something crashed."""
    parts = [part.strip() for part in row.explain.split(";")]
    flat = any(part.endswith(("blank", "constant")) for part in parts)
    words = (row.check, row.layers, row.explain, row.verify)
    return flat or any("crashed" in text for text in words)


def main() -> int:
    """Examine a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the models are, at any depth")
    parser.add_argument("--photo", type=Path, help="shown to every model; drawn when not given")
    parser.add_argument("--method", action="append", help="may be repeated  [default: grad-cam]")
    parser.add_argument("--csv", type=Path, help="write the rows, texts in full")
    parser.add_argument("--timeout", type=float, default=300, help="seconds per command")
    parser.add_argument("--memory", type=float, default=8, help="GiB per command")
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    tool = Tool(options.timeout, options.memory)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        photo = options.photo or Path(scratch) / "photo.png"
        if options.photo is None:
            photograph(photo)
        for path in models(options.folder):
            name = str(path.relative_to(options.folder))
            row = examine(path, name, photo, options.method or ["grad-cam"], tool)
            rows.append(row)
            print(f"{name}: {row.explain or row.check} ({row.seconds:g} s)", file=sys.stderr)
    print(table(rows))
    bad = [row.file for row in rows if silent(row)]
    print(f"\n{len(rows)} models, {len(bad)} with a blank, constant or crashed result")
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(map(asdict, rows))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

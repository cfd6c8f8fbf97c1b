"""Real commands, killed at random with ``kill -9``: ``python tests/faults/kill.py --kills 200``.

    python tests/faults/kill.py --command audit --kills 10 --photos 10000 \\
        --model sample_models/resnet20.onnx --audit-option=--no-thumbnails

Each command runs as a user runs it, in a folder of its own, and its process is killed after a
random share of the time that it takes. After every kill each file that is there has to be the
whole one; at the end of a series one run without a kill has to leave the same bytes, and nothing
else. Status 1 where that does not hold.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from injection import contents, leftovers

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_models"
MODEL = str(SAMPLES / "all_cnn_c.onnx")
PHOTOS = [str(path) for path in sorted((SAMPLES / "images").glob("*.png"))[:4]]
AUDITED = 96
FACTORY = """from torch import nn


def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
"""
AUDIT = ["audit", MODEL, "data", "--workers", "2", "--timeout", "36000", "-o", "out"]
COMMANDS = {
    "explain": ["explain", MODEL, *PHOTOS[:2], "-m", "cam", "-m", "grad-cam", "-o", "out"],
    "study": ["study", "top-activations", MODEL, *PHOTOS, "--units", "0,1", "-o", "out"],
    "audit": AUDIT,
    "verify": ["verify", MODEL, "-o", "out/certificate.json"],
    "convert": [
        *("convert", "network:net", "--trust", "--input", "?,3,16,16"),
        *("--weights", "weights.pt", "-o", "out/model.onnx"),
    ],
}


def start(arguments: list[str], folder: Path) -> "subprocess.Popen[bytes]":
    """The command, in a process group of its own."""
    environment = {
        **os.environ,
        "INSPECTOR_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder / "tmp"),
    }
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", "inspector", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def prepared(folder: Path, photos: int = AUDITED) -> Path:
    """A folder with what the commands read: photos of an audit under so many names."""
    import torch

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "network.py").write_text(FACTORY)
    (folder / "data").mkdir()
    sources = [folder / Path(path).name for path in PHOTOS]
    for source in sources:  # next to their names, for links need one file system
        shutil.copy2(SAMPLES / "images" / source.name, source)
    for number in range(photos):
        source = sources[number % len(sources)]
        os.link(source, folder / "data" / f"{number:06}{source.suffix}")
    torch.manual_seed(0)
    sys.path.insert(0, str(folder))
    namespace: dict[str, object] = {}
    exec(FACTORY, namespace)  # noqa: S102 - the text above
    network = namespace["net"]()  # type: ignore[operator]
    torch.save(network.state_dict(), folder / "weights.pt")
    return folder


# Documents that say when they were made; of an audit its rows and pictures do not.
DATED = (".certificate.json", "report.json", "report.html", ".xml", ".sarif", ".cdx.json", ".md")


def results(folder: Path, *, journals: bool = False) -> dict[str, bytes]:
    """Files of the results, without the content of those that say when they were made."""
    found = contents(folder / "out", journals=journals)
    return {name: b"" if name.endswith(DATED) else c for name, c in found.items()}


def twice(folder: Path) -> int:
    """How many photos an audit's journal holds more than once."""
    path = folder / "out" / "audit.partial.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)[1:] if path.exists() else []
    keys = [json.loads(line)[0] for line in lines if line.endswith(b"\n")]
    return len(keys) - len(set(keys))


def series(
    name: str, arguments: list[str], kills: int, rng: random.Random, photos: int = AUDITED
) -> int:
    """Kill one command several times, let it end, and count what is wrong."""
    base = Path(tempfile.mkdtemp(prefix=f"kill-{name}-"))
    whole = prepared(base / "whole", photos)
    begin = time.monotonic()
    if start(arguments, whole).wait() != 0:
        sys.stdout.write(f"{name}: fails without a kill\n")
        return 1
    took, wanted = time.monotonic() - begin, results(whole)
    folder, faults = prepared(base / "killed", photos), 0
    journal, done = folder / "out" / "audit.partial.jsonl", []
    for _ in range(kills):
        process = start(arguments, folder)
        try:
            process.wait(rng.random() * took)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.3)  # for the child, which dies with its parent
        faults += not results(folder).items() <= wanted.items()
        faults += twice(folder)
        done.append(journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0)
    faults += start(arguments, folder).wait() != 0
    faults += results(folder, journals=True) != wanted
    left = [*leftovers(folder / "out"), *leftovers(folder / "cache")]
    left += [path.name for path in (folder / "tmp").iterdir()]
    faults += bool(left)
    kept = f", photos kept at each: {done}" if name == "audit" else ""
    sys.stdout.write(
        f"{name}: {kills} kills, {took:.1f} s each at most, {faults} faults, left {left}{kept}\n"
    )
    sys.stdout.flush()
    shutil.rmtree(base, ignore_errors=True)
    return faults


def main() -> int:
    """All commands in turn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", choices=COMMANDS, action="append", help="one of them alone")
    parser.add_argument("--photos", type=int, default=AUDITED, help="of the audit")
    parser.add_argument("--model", type=Path, help="that is audited")
    parser.add_argument("--audit-option", action="append", default=[], help="of `inspector audit`")
    given = parser.parse_args()
    rng = random.Random(given.seed)  # noqa: S311 - for repeating, not for secrets
    names = given.command or list(COMMANDS)
    share = -(-given.kills // len(names))
    audit = [str(given.model.resolve()) if given.model and one == MODEL else one for one in AUDIT]
    commands = {**COMMANDS, "audit": [*audit, *given.audit_option]}
    found = (series(name, commands[name], share, rng, given.photos) for name in names)
    return min(1, sum(found))


if __name__ == "__main__":
    sys.exit(main())

"""Throughput and memory of `inspector audit`, beside the plain forward pass: ratios of one run.

python benchmarks/audit.py MODEL PHOTO... [--photos N] [--workers N] [--rounds N] [-- OPTION...]

The photos are repeated under N names (hard links where the file system has them).  Two baselines
are measured in turn with the audit, block by block, in CPU-seconds on one core and one thread,
because absolute times on a shared machine say little:

    arrays  ONNX Runtime alone, over photos that are decoded and preprocessed already
    files   the same, decoding and preprocessing each photo first: what a deployment does

and then the command itself runs over all photos, with thumbnails off.  Its CPU-seconds hold all
that it does: opening and checking the model, statistics, interventions, the report.  What the set
as a whole costs is printed apart, and the memory of all its processes over time.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

BLOCK = 32
ROOT = Path(__file__).parents[1]


def data_set(photos: Sequence[Path], count: int, folder: Path) -> Path:
    """The photos under ``count`` names."""
    folder.mkdir()
    for number in range(count):
        source = photos[number % len(photos)].resolve()
        name = folder / f"{number:06}{source.suffix}"
        try:
            name.hardlink_to(source)
        except OSError:
            name.write_bytes(source.read_bytes())
    return folder


def contenders(
    model: Path, files: Sequence[Path], options: Sequence[str]
) -> dict[str, Callable[[], object]]:
    """What is timed on a block of photos, by name."""
    import onnxruntime

    from inspector.audit.data_set import Entry
    from inspector.audit.rows import Asked, Auditor
    from inspector.opening import Opening
    from inspector.photos.photo import Photo

    method = options[options.index("-m") + 1] if "-m" in options else "grad-cam"
    auditor = Auditor(Asked(Opening(model, device="cpu"), method))
    settings = onnxruntime.SessionOptions()
    # One thread for the one core: several of them spin there while they wait for each other, which
    # doubles the processor time of the baseline.
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    apply = auditor.opened.preprocessing.preprocess.apply

    def opened() -> Iterator[np.ndarray]:
        for start in range(0, len(files), auditor.batch):
            batch = files[start : start + auditor.batch]
            yield np.stack([apply(Photo.open(path))[0] for path in batch])

    arrays = list(opened())

    def forward(batches: Callable[[], Iterator[np.ndarray]]) -> Callable[[], object]:
        return lambda: [session.run(None, {name: batch}) for batch in batches()]

    entries = [Entry(path.name, path) for path in files]
    return {
        "arrays": forward(lambda: iter(arrays)),
        "files": forward(opened),
        "audit": lambda: list(auditor.rows(entries)),
    }


def per_photo(model: Path, files: Sequence[Path], options: Sequence[str], rounds: int) -> dict:
    """Median CPU-seconds per photo by contender, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    timed = contenders(model, files, options)
    found: dict[str, list[float]] = {name: [] for name in timed}
    for work in timed.values():
        work()
    for _ in range(rounds):
        for name, work in timed.items():
            begin = time.process_time()
            work()
            found[name].append((time.process_time() - begin) / len(files))
    return {name: statistics.median(values) for name, values in found.items()}


def resident(group: int) -> int:
    """Bytes of memory of all processes of a process group that no other shares."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) != group:
                continue
            for line in (entry / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    return total


def whole(model: Path, data: Path, out: Path, options: Sequence[str]) -> tuple[float, list]:
    """CPU-seconds of the command, and (photos done, bytes) over time."""
    journal = out / "audit.partial.jsonl"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(  # noqa: S603 - our own program
        [
            *(sys.executable, "-m", "inspector", "audit", str(model), str(data), "-o", str(out)),
            *("--no-thumbnails", "--timeout", "36000", *options),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    seen = []
    while process.poll() is None:
        time.sleep(2)
        done = journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0
        seen.append((max(done, 0), resident(process.pid)))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(f"the audit ended with status {process.returncode}")
    return sum(getattr(after, n) - getattr(before, n) for n in ("ru_utime", "ru_stime")), seen


def main() -> None:
    """Print the ratios and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--workers", default="2")
    parser.add_argument("--rounds", type=int, default=7)
    own = sys.argv[1:]
    end = own.index("--") if "--" in own else len(own)
    given = parser.parse_args(own[:end])
    options = ["--workers", given.workers, *own[end + 1 :]]
    with tempfile.TemporaryDirectory() as folder:
        data = data_set(given.images, given.photos, Path(folder) / "photos")
        # The command first: the baselines bind this process to one core.
        seconds, seen = whole(given.model, data, Path(folder) / "audit", options)
        files = sorted(data.iterdir())[:BLOCK]
        each = per_photo(given.model, files, options, given.rounds)
    print(f"{given.model.name}, {given.photos} photos; CPU-ms per photo, one core:")
    for name, value in each.items():
        print(
            f"  {name:7} {1e3 * value:8.2f}   throughput of the audit: {value / each['audit']:.0%}"
        )
    share = seconds / given.photos
    rest = share - each["audit"]
    print(f"  command {1e3 * share:8.2f}   of which {1e3 * rest:.2f} for what the whole set costs")
    print(f"  throughput of the command: {each['files'] / share:.0%} of forward passes over files")
    print("memory of all processes, MiB, by photos done:")
    working = [one for one in seen if 0 < one[0] < given.photos]
    for done, memory in working[:: max(1, len(working) // 12)]:
        print(f"  {done:7} {memory / 2**20:8.0f}")
    half = [m for done, m in working if done >= given.photos / 2]
    if len(half) > 1:
        print(f"  second half: {(half[-1] - half[0]) / 2**20:+.0f} MiB")


if __name__ == "__main__":
    main()

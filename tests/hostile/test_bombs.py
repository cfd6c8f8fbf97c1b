"""Models that only native code can tell are hostile end with status 5, under a cap and a clock."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

_SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from inspector.cli import supervise

def work():
    import numpy, onnxruntime
    from hostile_models import bomb
    from converters.onnx_file import from_proto
    opened = from_proto(bomb({kind!r}, {elements}))
    session = onnxruntime.InferenceSession(
        opened.model.SerializeToString(), providers=["CPUExecutionProvider"])
    print(session.run(None, {{"x": numpy.ones((1, 4), dtype=numpy.float32)}})[0].tolist())
    return 0

if __name__ == "__main__":
    sys.exit(supervise.run(work, seconds={seconds}, memory={memory}))
"""
MEMORY = 2 << 30


def supervised(kind, elements=10**12, seconds=60.0):
    folder = str(Path(__file__).parent)
    script = _SCRIPT.format(
        folder=folder, kind=kind, elements=elements, seconds=seconds, memory=MEMORY
    )
    start = time.monotonic()
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return done, time.monotonic() - start


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile"])
def test_constants_of_terabytes(kind):
    done, _ = supervised(kind)
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("\n") == 1
    assert "memory ran out (limit 2.0 GiB); raise the limit with --memory" in done.stderr


def test_constant_that_would_fit_this_machine_but_not_the_cap():
    done, _ = supervised("Expand", elements=10**9)  # 4 GB
    assert done.returncode == 5, done.stderr


def test_endless_loop():
    done, seconds = supervised("Loop", seconds=4.0)
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("\n") == 1
    assert "stopped after 4 s; raise the limit with --timeout" in done.stderr
    assert 4.0 <= seconds < 20.0


def test_the_same_model_of_a_sensible_size_runs_under_the_same_cap():
    done, _ = supervised("Expand", elements=1000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[")
    assert done.stderr == ""

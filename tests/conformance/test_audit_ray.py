"""An audit on a real Ray cluster gives the rows of the local engine, though a worker is killed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

import audit_scenes as scenes  # noqa: E402 - of the unit tests

from inspector.audit.run import AuditOptions, audit  # noqa: E402
from inspector.opening import Opening  # noqa: E402


@pytest.mark.apart
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_the_rows_are_those_of_the_local_engine_though_a_worker_is_killed(tmp_path):
    scenes.saved(tmp_path, cheats=True)
    data = scenes.folder(tmp_path / "data", photos=160)
    options = AuditOptions(workers=1, thumbnails=False)
    opening = Opening(tmp_path / "cheating.onnx", overrides=("mean=0", "std=1"))
    audit(opening, data, tmp_path / "here", options)
    found = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(Path(__file__).with_name("ray_cluster.py")), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-4000:]
    assert json.loads(found.stdout.splitlines()[-1]) == {"nodes": 2, "killed": 1, "refused": 0}
    here, there = (tmp_path / name / "rows.parquet" for name in ("here", "on-ray"))
    assert there.read_bytes() == here.read_bytes()

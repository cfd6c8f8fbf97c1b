"""What looking at a file costs grows as the file does: twice the file, twice the work.

Work is counted in calls, which no busy machine changes; processor time shows what happens inside
one call, and has room for a machine that is busy.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import long_models
import pytest

from converters import onnx_file
from converters.errors import UnsafeModel
from converters.to_torch import Program
from inspector.errors import MethodRefused
from inspector.model import Model
from inspector.network.receptive_fields import receptive_field
from inspector.network.receptive_fields.receptive_field import fields_or_reasons, needed_shapes

KINDS = {
    "relus": 1000,
    "additions": 500,
    "identities": 1000,
    "convolutions": 60,
    "initialisers": 1000,
    "outputs": 200,
    "functions": 500,
    "nested_functions": 1024,
}


def look(path):
    """Everything that `check` finds out about a file without running it."""
    model = Model(onnx_file.read(path), device="cpu")
    graph = model.graph
    found = SimpleNamespace(scores=model.scores, layers=model.layers, head=model.head)
    needed_shapes(graph)
    fields_or_reasons(graph, [layer.tensor for layer in found.layers], "x")
    Program(graph).plan(["x"], ["y"])


def calls(path):
    """Calls of Python and of C functions."""
    counted = Counter()

    def count(_frame, event, _argument):
        counted[event] += 1

    sys.setprofile(count)
    try:
        look(path)
    finally:
        sys.setprofile(None)
    return counted["call"] + counted["c_call"]


def seconds(path):
    """Processor seconds, the least of two attempts."""
    found = []
    for _ in range(2):
        start = time.process_time()
        look(path)
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_file_is_twice_the_work(kind, tmp_path):
    make, count = getattr(long_models, kind), KINDS[kind]
    once, twice, four = (
        make(tmp_path / f"{kind}{n}.onnx", n) for n in (count, 2 * count, 4 * count)
    )
    look(once)  # what is looked up once per process is looked up now
    assert calls(twice) / calls(once) < 2.3
    assert seconds(four) / max(seconds(once), 0.02) < 8


def test_fields_behind_what_enlarges_maps_are_followed_up_to_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(receptive_field, "_MAX_STEPS", 500)
    model = Model(onnx_file.read(long_models.upsamplings(tmp_path / "up.onnx", 20)), device="cpu")
    found = fields_or_reasons(model.graph, [layer.tensor for layer in model.layers], "x")
    refused = [one for one in found.values() if isinstance(one, MethodRefused)]
    assert len(found) == 20
    assert 0 < len(refused) < 20
    assert "enlarges its maps too often" in str(refused[0])


def test_more_outputs_than_anybody_has_are_refused(tmp_path):
    with pytest.raises(UnsafeModel, match=r"5,001 outputs \(limit 1,024\)"):
        onnx_file.read(long_models.outputs(tmp_path / "outputs.onnx", 5000))


def test_what_nobody_reads_is_left_out(tmp_path):
    file = onnx_file.read(long_models.functions(tmp_path / "functions.onnx", 12_000))
    assert len(file.facts.functions) == 12_000
    assert file.facts.nodes == len(file.graph.nodes) == 6_003
    spare = onnx_file.read(long_models.initialisers(tmp_path / "spare.onnx", 100))
    assert spare.facts.initialisers == 101
    assert spare.graph.initialisers == ("head",)


@pytest.mark.conformance
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "short", "long"),
    [("relus", 12_500, 50_000), ("additions", 12_500, 50_000), ("convolutions", 3200, 6400)],
)
def test_check_of_a_long_file_costs_as_a_short_one_does(kind, short, long, tmp_path):
    """By the command itself, with ONNX Runtime: as a ratio, for machines differ in seconds."""
    make = getattr(long_models, kind)
    less, more = (spent(make(tmp_path / f"{n}.onnx", n), "not tried") for n in (short, long))
    assert more / less < 1.6 * long / short


def spent(path, said):
    """Processor seconds of ``inspector check``."""
    resource = pytest.importorskip("resource")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "inspector", "check", path, "--timeout", "300"]
    done = subprocess.run(command, capture_output=True, env=environment, text=True, check=False)  # noqa: S603 - our own program
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

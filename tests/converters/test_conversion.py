"""The frame around every converter: limits, crashes, interruptions; nothing half is left."""

import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper
from waiting import WAIT, ended, soon

from converters import conversion
from converters.conversion import (
    ConversionRecord,
    Trial,
    content_hash,
    convert,
    recognise,
    recorded,
    sandbox,
)
from converters.conversion.inputs import perturbed, pink_noise, trial_inputs
from converters.conversion.record import OFFSET, constant_offset, judged
from converters.conversion.verdict import require_agreement
from converters.errors import ConversionFailed, ConversionLimit, NotTrusted
from converters.source import InputSpec, Options

FACTORIES = """
import os, signal, time
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))

def good():
    return Net()

def slow():
    open("started", "w").write(str(os.getpid()))
    time.sleep(600)

def greedy():
    hold = []
    while True:
        hold.append(bytearray(64 << 20))

def crashing():
    os.kill(os.getpid(), signal.SIGSEGV)

def exiting():
    raise SystemExit("the last word\\nValueError: rank 0 is not supported")

def leaving():
    os._exit(7)

class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.randn(())

def noisy():
    return Noisy()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module of factories, in which the user stands."""
    (tmp_path / "nets.py").write_text(FACTORIES)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name, here, **more):
    return convert(
        f"nets:{name}",
        here / "out" / "m.onnx",
        trust=True,
        options=Options(inputs=((None, 3, 8, 8),)),
        **more,
    )


def test_a_good_source_is_written_whole(here):
    certificate = run("good", here, labels=("a", "b", "c", "d"), preprocess={"size": [8, 8]})
    assert certificate.worst <= 1e-5
    assert certificate.top1 == 1.0
    assert {p.name for p in (here / "out").iterdir()} == {"m.onnx", "m.onnx.certificate.json"}
    model = onnx.load(here / "out" / "m.onnx")  # noqa: TID251 - this test made the file
    metadata = {p.key: p.value for p in model.metadata_props}
    assert json.loads(metadata["inspector.labels"]) == ["a", "b", "c", "d"]
    assert json.loads(metadata["inspector.preprocess"]) == {"size": [8, 8]}
    assert recorded(metadata)["source"]["name"] == "nets:good"
    first = (here / "out" / "m.onnx").read_bytes()
    run("good", here, labels=("a", "b", "c", "d"), preprocess={"size": [8, 8]})
    assert (here / "out" / "m.onnx").read_bytes() == first


def test_programs_need_trust(here):
    with pytest.raises(NotTrusted, match="--trust"):
        convert("nets:slow", here / "out" / "m.onnx")
    assert not list((here / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "error", "words", "limits"),
    [
        ("slow", ConversionLimit, "stopped after 4 s", {"seconds": 4}),
        ("greedy", ConversionLimit, "memory ran out", {"memory": 2 << 30}),
        ("crashing", ConversionFailed, "crashed", {}),
        ("leaving", ConversionFailed, "status 7", {}),
        ("exiting", ConversionFailed, r"PyTorch.*fails.*rank 0 is not supported", {}),
        ("noisy", ConversionFailed, "computes something else", {}),
        ("absent", ConversionFailed, "absent", {}),
    ],
)
@pytest.mark.conformance
def test_nothing_half_is_left(here, name, error, words, limits):
    (here / "out" / "m.onnx").write_bytes(b"what was there before")
    with pytest.raises(error, match=words):
        run(name, here, **limits)
    assert [p.name for p in (here / "out").iterdir()] == ["m.onnx"]
    assert (here / "out" / "m.onnx").read_bytes() == b"what was there before"


class Framework:
    """A child that says what its author likes: ``factor`` times what its file computes."""

    quantised, factor, permute = False, 1.0, False

    def __init__(self, folder, *, where, **_):
        self.folder, self.where = folder, where

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, request):
        if "convert" in request:
            onnx.save(means(), request["draft"])
            return {
                "inputs": [{"name": "x", "shape": [None, 3, 8, 8], "dtype": "float32"}],
                "preprocess": {},
                "labels": [],
                "notes": [],
                "quantised": self.quantised,
                "versions": {},
            }
        with np.load(request["run"]) as stored:
            (x,) = stored.values()
        y = x.mean((2, 3)) * np.float32(self.factor)
        np.savez(request["outputs"], y[:, ::-1] if self.permute else y)
        return {"outputs": 1}


@pytest.mark.parametrize("said", ["x" * 5000, "[" * 100_000 + "\n", "[1]\n", "7\n"])
def test_what_a_child_says_is_bounded_and_of_one_form(tmp_path, monkeypatch, said):
    """A child under a memory cap may send lines without end to its parent."""
    monkeypatch.setattr(sandbox, "_LONGEST", max(1000, len(said) // 2 if said[0] == "x" else 10**6))
    child = sandbox.Sandbox(tmp_path, seconds=None, memory=None, where="net")
    answers = io.StringIO(said)
    child._child = SimpleNamespace(
        stdin=io.StringIO(), stdout=answers, wait=lambda _: 1, poll=lambda: 1
    )
    child._noise = io.BytesIO()
    with pytest.raises(ConversionFailed, match="crashed"):
        child.ask({"run": "x"})
    assert answers.tell() <= 10**6
    assert said[0] != "x" or answers.tell() == 2500


def means():
    """The mean of each channel."""
    return onnx_model(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        {"x": ["n", 3, 8, 8]},
        {"y": ["n", 3]},
    )


@pytest.mark.parametrize("quantised", [False, True])
def test_a_difference_beyond_the_tolerance_is_refused_and_one_within_it_is_not(
    here, monkeypatch, quantised
):
    monkeypatch.setattr(conversion, "Sandbox", Framework)
    monkeypatch.setattr(Framework, "quantised", quantised)
    usual = 0.1 if quantised else 1e-4
    for factor, tolerance, limit in ((3.0, None, usual), (0.8, None, usual), (1.002, 1e-3, 1e-3)):
        monkeypatch.setattr(Framework, "factor", factor)
        with pytest.raises(ConversionFailed, match="computes something else") as caught:
            run("good", here, tolerance=tolerance)
        assert f"at most {limit:g}" in caught.value.hint
        assert "output y at [" in caught.value.what
        assert "in the source and" in caught.value.what
        allowed = re.search(r"--tolerance (\S+) accepts it", caught.value.hint)
        assert (allowed is None) == (factor == 3.0)
        if allowed:  # what the message says does what it says
            run("good", here, tolerance=float(allowed[1]))
            for made in (here / "out").iterdir():
                made.unlink()
        assert not list((here / "out").iterdir())
    for factor, tolerance in ((1.00004, None), (1.002, 3e-3), (1.5, 0.5)):
        monkeypatch.setattr(Framework, "factor", factor)
        found = run("good", here, tolerance=tolerance)
        assert found.worst == pytest.approx(1 - 1 / factor, rel=1e-2)
        assert found.tolerance == (tolerance or usual)
        assert (here / "out" / "m.onnx").exists()


class Rewriting(Framework):
    """A child that writes into its draft after it was examined, and keeps it open for longer."""

    last, again = None, False

    def ask(self, request):
        answer = super().ask(request)
        if "convert" in request:
            Rewriting.last = open(request["draft"], "r+b")  # noqa: PTH123, SIM115 - kept open
        elif self.again:
            write_through(Rewriting.last)
        return answer


def write_through(file):
    file.seek(0)
    file.write(bytes(64))
    file.flush()


def test_a_draft_that_changed_after_it_was_examined_gets_no_name(here, monkeypatch):
    monkeypatch.setattr(conversion, "Sandbox", Rewriting)
    monkeypatch.setattr(Rewriting, "again", True)
    with pytest.raises(ConversionFailed, match="changed after it was examined"):
        run("good", here)
    assert not list((here / "out").iterdir())
    Rewriting.last.close()


def test_who_holds_the_draft_open_cannot_change_the_file(here, monkeypatch):
    monkeypatch.setattr(conversion, "Sandbox", Rewriting)
    run("good", here)
    before = (here / "out" / "m.onnx").read_bytes()
    write_through(Rewriting.last)
    assert (here / "out" / "m.onnx").read_bytes() == before
    Rewriting.last.close()


def test_a_source_that_changes_meanwhile_is_refused(here, monkeypatch):
    monkeypatch.setattr(conversion, "Sandbox", Framework)
    hashes = iter(["one", "another"])
    monkeypatch.setattr(conversion, "content_hash", lambda *_: next(hashes))
    with pytest.raises(ConversionFailed, match="source changed while it was converted"):
        run("good", here)
    assert not list((here / "out").iterdir())


def test_a_quantised_source_must_name_the_same_classes(here, monkeypatch):
    """Values within the tolerance are not enough."""
    monkeypatch.setattr(conversion, "Sandbox", Framework)
    monkeypatch.setattr(Framework, "quantised", True)
    monkeypatch.setattr(Framework, "permute", True)
    with pytest.raises(ConversionFailed, match="computes something else"):
        run("good", here, tolerance=10.0)
    monkeypatch.setattr(Framework, "quantised", False)
    assert run("good", here, tolerance=10.0).top1 < 0.9


def certificate(worst=0.0, *, top1=1.0, quantised=False, tolerance=1e-4, why="", offset=0.0):
    trials = (
        Trial("a", 3, worst, worst, top1, why, limit=tolerance),
        Trial("b", 1, 0.0, 0.0, None, limit=tolerance),
    )
    return ConversionRecord(
        path=Path("m.onnx"),
        source="m",
        source_sha256="",
        framework="PyTorch",
        versions={},
        trials=trials,
        quantised=quantised,
        preprocess={},
        labels=0,
        offset=offset,
    )


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"worst": 1e-4},
        {"worst": 0.1, "tolerance": 0.1},
        {"top1": 0.0},  # unquantised: the values alone are judged
        {"quantised": True, "top1": 0.9},
        {"quantised": True, "top1": None},  # there are no classes
    ],
)
def test_what_is_required_of_a_conversion(good):
    require_agreement(certificate(**good), "m")


@pytest.mark.parametrize(
    "bad",
    [
        {"worst": 1.01e-4},
        {"worst": float("nan")},
        {"why": "shapes differ"},
        {"quantised": True, "worst": 0.11, "tolerance": 0.1},
        {"quantised": True, "top1": 0.89},
        {"quantised": True, "top1": 0.0},  # no class at all agrees
    ],
)
def test_what_is_refused_of_a_conversion(bad):
    with pytest.raises(ConversionFailed, match="computes something else"):
        require_agreement(certificate(**bad), "m")


def script(place, text):
    place.write_text("#!/bin/sh\n" + text)
    place.chmod(0o755)
    return str(place)


@pytest.mark.conformance
def test_another_python_converts(here, monkeypatch):
    """It gets the converters and nothing else of this environment."""
    (here / "own").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(here / "own"))
    monkeypatch.setenv("INSPECTOR_SANDBOX", "off")  # it could not tell otherwise
    (here / "own" / "torch.py").write_text("raise RuntimeError('of the other environment')")
    told = f'echo "$PYTHONPATH" > {here}/path; ls "$PYTHONPATH" > {here}/listing\n'
    python = script(here / "python", f'{told}exec {sys.executable} "$@"\n')
    assert run("good", here, python=python).worst <= 1e-5
    assert str(here / "own") not in (here / "path").read_text()
    assert (here / "listing").read_text().split() == ["converters"]
    assert {p.name for p in (here / "out").iterdir()} == {"m.onnx", "m.onnx.certificate.json"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a program that can be run"),
        (
            "echo \"ModuleNotFoundError: No module named 'numpy'\" >&2; exit 1\n",
            "must bring numpy and onnx",
        ),
    ],
)
def test_a_python_that_cannot_convert(here, text, words):
    python = script(here / "python", text) if text else str(here / "nowhere")
    with pytest.raises(ConversionFailed, match=words):
        run("good", here, python=python)
    assert not list((here / "out").iterdir())


def test_an_interrupted_conversion_leaves_nothing(here):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "inspector",
            "convert",
            "nets:slow",
            "--trust",
            "--input",
            "?,3,8,8",
            "-o",
            "out/m.onnx",
        ],
        cwd=here,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The child marks its start with its number; it is in `slow` then, and the parent waits for it.
    child = int(soon(lambda: [m.read_text() for m in here.rglob("started") if m.read_text()])[0])
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT)
    assert process.returncode == 130, said
    assert not list((here / "out").iterdir())
    assert soon(lambda: ended(child)), "the converting process lives on"


def test_what_nobody_knows(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ConversionFailed, match="not a model that any converter knows"):
        convert(str(tmp_path / "notes.txt"), tmp_path / "m.onnx")
    with pytest.raises(ConversionFailed, match=r"net\.keras: does not exist"):
        convert("net.keras", tmp_path / "m.onnx")
    with pytest.raises(ConversionFailed, match="no framework is called"):
        recognise("x", "theano")
    (tmp_path / "cut.tflite").touch()
    with pytest.raises(ConversionFailed, match=r"cut\.tflite: is empty \(0 bytes\)"):
        convert(str(tmp_path / "cut.tflite"), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(weights="w.pt"), "has its own weights"),
        (Options(signature="serve"), "Keras: has no signatures to choose from"),
    ],
)
def test_options_that_would_change_nothing_are_refused(tmp_path, options, said):
    (tmp_path / "net.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(ConversionFailed, match=said):
        convert(str(tmp_path / "net.keras"), tmp_path / "m.onnx", options=options)


def test_hash_of_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    one = content_hash(str(tmp_path / "a"))
    assert one == content_hash(str(tmp_path / "a"))
    (tmp_path / "a" / "y").write_bytes(b"")
    two = content_hash(str(tmp_path / "a"))
    (tmp_path / "a" / "y").rename(tmp_path / "a" / "z")
    assert len({one, two, content_hash(str(tmp_path / "a"))}) == 3
    assert content_hash("package.module:factory") == ""
    weights = str(tmp_path / "a" / "x")
    assert content_hash("p:f", weights) != content_hash("p:g", weights) != ""


def test_trial_inputs_are_the_same_every_time():
    specs = [InputSpec("x", (None, 3, 16, 12)), InputSpec("y", (None, 4), "int64")]
    one, two = trial_inputs(specs), trial_inputs(specs)
    for name, arrays in one.items():
        assert all(np.array_equal(a, b) for a, b in zip(arrays, two[name], strict=True))
    assert [a.shape for a in one["random, batch of 3"]] == [(3, 3, 16, 12), (3, 4)]
    fixed = trial_inputs([InputSpec("x", (2, 8, 8, 3), "uint8")])
    assert all(arrays[0].shape == (2, 8, 8, 3) for arrays in fixed.values())
    assert all(arrays[0].dtype == np.uint8 for arrays in fixed.values())


def test_noise_falls_with_frequency():
    spec = InputSpec("x", (None, 64, 64, 3))
    noise = pink_noise(spec, 4, np.random.default_rng(0))
    energy = np.abs(np.fft.fft2(noise, axes=(1, 2)))[:, 1:32, 0].mean((0, 2))
    assert energy[:4].mean() > 4 * energy[-8:].mean()
    assert noise.std() == pytest.approx(1, rel=1e-3)


def test_judgement():
    a = np.array([[1.0, 4], [3, 2]], np.float32)
    same = judged("t", [a], [a + np.float32(4e-5)], 1e-4)
    assert same.worst == pytest.approx(1e-5, rel=0.1)
    assert (same.top1, same.samples, same.why) == (1.0, 2, "")
    other = judged("t", [a], [a[:, ::-1]], 1e-4)
    assert (other.top1, other.worst) == (0.0, 0.75)
    assert "shape" in judged("t", [a], [a[:1]], 1e-4).why
    assert "missing" in judged("t", [a, a], [a], 1e-4).why
    assert judged("t", [a], [np.full_like(a, np.nan)], 1e-4).why


def test_a_sigmoid_is_rounded_as_one_is_however_small_it_is():
    """A detector of text on noise: 1e-6 everywhere, and both sides right."""
    a = np.full((4, 8), 1e-6, np.float32)
    b = a + np.float32(1e-7)
    assert judged("t", [a], [b], 1e-4).worst > 0.05
    assert judged("t", [a], [b], 1e-4, squashed={0}).worst == 0
    assert judged("t", [a], [a + np.float32(1e-5)], 1e-4, squashed={0}).worst > 1
    assert "shape" in judged("t", [a], [a[:1]], 1e-4, squashed={0}).why


def test_another_number_of_outputs_has_no_offset_in_common():
    a = np.zeros((4, 2))
    assert constant_offset([[a, a]], [[a]]) == 0


def test_class_numbers_are_judged_by_the_share_that_is_equal():
    a = np.arange(1000).reshape(1, 10, 100) % 21
    b = a.copy()
    b[0, 0, :95] = 20 - b[0, 0, :95]
    few = judged("t", [a], [b], 0.1, 0.9)
    assert few.worst == 0.0
    assert few.equal == pytest.approx(np.mean(a == b))
    assert judged("t", [a], [b], 0.1, 0.99).worst > 0.9  # a float source: too many of them
    assert judged("t", [a], [20 - a], 0.1, 0.9).worst > 0.9
    assert judged("t", [a + 0.0], [b + 0.0], 0.1, 0.9).worst > 0.9  # floats are not class numbers


def test_a_difference_that_all_inputs_share_is_a_lost_constant():
    """Levels may fall the other way by chance; a bias that was dropped never does."""
    generator = np.random.default_rng(0)
    scores = [[generator.normal(size=(n, 5))] for n in (1, 3, 4)]
    step = np.abs(np.concatenate([s[0] for s in scores])).max() / 127
    rounded = [[np.rint(s[0] / step) * step] for s in scores]
    bias = step * np.array([3, -3, 3, -3, 0])
    lost = [[np.rint((s[0] - bias) / step) * step] for s in scores]
    assert constant_offset(scores, scores) == 0
    assert constant_offset(scores, rounded) < 0.01
    assert 0.01 < constant_offset(scores, lost) < 0.1  # within the tolerance of levels
    assert constant_offset(scores[:1], lost[:1]) == 0  # one sample says nothing
    for seed in range(20):  # a level at most, which falls the other way now and then
        generator = np.random.default_rng(seed)
        few = [[generator.normal(size=(n, 5))] for n in (1, 3, 4)]
        step = np.abs(np.concatenate([s[0] for s in few])).max() / 127
        levels = [[np.rint(s[0] / step) * step] for s in few]
        small = [[np.rint((s[0] - step * np.array([1, -1, 1, 1, -1])) / step) * step] for s in few]
        assert constant_offset(few, small) > OFFSET
        assert constant_offset(few, levels) == 0
    flat = [[np.ones_like(s[0])] for s in scores]
    assert constant_offset(flat, [[f[0] + 0.02] for f in flat]) == 0  # these inputs say nothing
    with pytest.raises(ConversionFailed, match="bias was lost"):
        require_agreement(certificate(quantised=True, offset=0.02), "m")


def test_inputs_cover_the_span_that_a_quantised_source_is_made_for():
    """Normal noise into an input of 0 to 255 meets 5 of its 256 levels."""
    for spec in (
        InputSpec("x", (None, 32, 32, 3), "float32", (0.0, 255.0)),
        InputSpec("x", (1, 32, 32, 3), "float32", (-1.0, 1.0)),
    ):
        low, high = spec.span
        for name, (array,) in trial_inputs([spec]).items():
            assert array.min() >= low, name
            assert array.max() <= high, name
            levels = np.unique(np.rint((array - low) / (high - low) * 255))
            assert len(levels) > 200, name
        again = InputSpec.from_dict(json.loads(json.dumps(dataclasses.asdict(spec))))
        assert again == spec


def test_recorded_words_are_plain():
    assert recorded({}) is None
    for text in ("", "[]", "{", '{"source": 3}', "[" * 100_000, "x" * 100_000):
        assert recorded({"inspector.conversion": text}) is None
    hostile = {"source": {"name": "n" * 999, "x": {"y": 1}}, "worst": "1e-9", "mean": True}
    found = recorded({"inspector.conversion": json.dumps(hostile)})
    assert found == {"source": {"name": "n" * 200}}


def test_check_reads_the_certificate_back(tmp_path):
    model = onnx_model(
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        {"x": ["n", 3, 8, 8]},
        {"y": ["n", 3, 1, 1]},
    )
    document = {
        "source": {"framework": "Keras", "name": "a.keras", "sha256": "ab" * 32},
        "worst": 2.5e-7,
        "mean": 1e-8,
        "top1_agreement": 1.0,
    }
    model.metadata_props.add(key="inspector.conversion", value=json.dumps(document))
    onnx.save(model, tmp_path / "m.onnx")
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "inspector", "check", tmp_path / "m.onnx"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    line = next(row for row in done.stdout.splitlines() if row.startswith("converted from"))
    assert "Keras (a.keras), source sha256 abababababababab..." in line
    assert "at most 2.5e-07" in line
    assert "same class on 100%" in line


def test_a_network_that_amplifies_rounding_is_accepted_by_its_own_measure():
    """Inputs are changed by a millionth: what the source makes of that, others make of rounding."""
    inputs = [np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 2, 2)]
    (moved,) = perturbed(inputs)
    assert 0 < np.abs(moved - inputs[0]).max() < 1e-5
    assert perturbed([np.zeros((1, 2), np.uint8)]) is None

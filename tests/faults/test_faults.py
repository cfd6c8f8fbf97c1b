"""A full disk, a broken disk and a kill at each step of writing: nothing half-written or lost."""

import os
import shutil

import numpy as np
import pytest
import torch
from injection import FAULTS, contents, leftovers, run
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

PHOTOS = ["a.png", "b.png"]
MODEL = "model.onnx"
COMMANDS = {
    "explain": ["explain", MODEL, PHOTOS[0], "-m", "cam", "-m", "grad-cam", "-o", "out"],
    "study": ["study", "top-activations", MODEL, *PHOTOS, "--units", "0,1", "-o", "out"],
    "verify": ["verify", MODEL, "-o", "out/certificate.json"],
    "convert": [
        *("convert", "network:net", "--trust", "--input", "?,3,12,12"),
        *("--weights", "weights.pt", "-o", "out/model.onnx"),
    ],
}

FACTORY = """from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""

pytestmark = [
    pytest.mark.timeout(1200),  # as many runs as there are steps
    pytest.mark.conformance,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are injected into forked children"),
]


@pytest.fixture(params=COMMANDS, scope="module")
def command(request, tmp_path_factory):
    """A command, its steps, and what it writes when nothing fails."""
    folder = tmp_path_factory.mktemp("whole")
    inputs(folder)
    arguments = COMMANDS[request.param]
    status, _ = run(arguments, folder)
    assert status == 0
    kept = folder / "cache"
    kept.mkdir(exist_ok=True)
    _, steps = run(arguments, fresh(folder.parent / f"{folder.name}-again", kept))
    assert steps > 2
    return arguments, steps, results(folder), kept


def results(folder, **more):
    """What a command wrote, as ``contents``; the document of a conversion says when it was made."""
    found = contents(folder / "out", **more)
    return {n: b"" if n.endswith(".onnx.certificate.json") else c for n, c in found.items()}


def inputs(folder):
    """A network of two convolutions, two photos, and a program that makes a network."""
    (folder / "out").mkdir(exist_ok=True)
    (folder / "network.py").write_text(FACTORY)
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), folder / "weights.pt")
    rng = np.random.default_rng(0)
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "head": (4, 5), "bias": (5,)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "head", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 12, 12))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [
            numpy_helper.from_array((rng.normal(size=shape) / 3).astype(np.float32), name)
            for name, shape in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / MODEL).write_bytes(model.SerializeToString())
    for name in PHOTOS:
        Image.fromarray(rng.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(folder / name)


def fresh(folder, cache):
    """A folder with the inputs, and with verdicts that would take long to find anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inputs(folder)
    shutil.copytree(cache, folder / "cache")
    return folder


def left_over(folder):
    """Work folders and temporary files, beside the results and in the cache."""
    return [*leftovers(folder / "out"), *leftovers(folder / "cache")]


def _steps(count, fault):
    """Every third step for each of the three faults, so that together they meet all of them."""
    return range(1 + FAULTS.index(fault), count + 1, len(FAULTS))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_new_folder_holds_whole_files_only(command, fault, tmp_path):
    arguments, steps, whole, cache = command
    for at in _steps(steps, fault):
        folder = fresh(tmp_path / "work", cache)
        status, _ = run(arguments, folder, at=at, fault=fault)
        found = results(folder)
        assert found.items() <= whole.items(), f"step {at}"
        assert status == -9 if fault == "kill" else status in (0, 1, 2, 5), f"step {at}"
        if fault != "kill":
            assert not left_over(folder), f"step {at}"
        assert run(arguments, folder)[0] == 0
        assert results(folder, journals=True) == whole, f"after step {at}"
        assert not left_over(folder), f"after step {at}"


@pytest.mark.parametrize("fault", FAULTS)
def test_results_that_are_there_are_not_lost(command, fault, tmp_path):
    arguments, steps, whole, cache = command
    for at in _steps(steps, fault):
        folder = fresh(tmp_path / "work", cache)
        for name, content in whole.items():
            path = folder / "out" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run(arguments, folder, at=at, fault=fault)
        assert results(folder) == whole, f"step {at}"

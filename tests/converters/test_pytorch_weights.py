"""Weights as training programs leave them, put into a module by what fits it."""

import argparse
import pathlib
import shlex
import subprocess
import sys

import pytest
import torch

from converters.errors import ConversionFailed
from converters.to_onnx.pytorch.fit import fill
from converters.to_onnx.pytorch.module import in_float32
from converters.to_onnx.pytorch.weights import state_of


def network():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Sequential(torch.nn.Linear(2, 2)))


def below(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def split(mark, state):
    """Names with a wrapper's part in front of their last: 0._orig_mod.weight."""
    return {name.replace("1.0.", f"1.{mark}0."): value for name, value in state.items()}


BESIDE = {"loss.weight": torch.ones(4), "metric.count": torch.tensor(1)}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        pytest.param(lambda right, wrong: right, "", id="plain"),
        pytest.param(
            lambda right, wrong: below("module.", right), "prefix 'module.'", id="data_parallel"
        ),
        pytest.param(
            lambda right, wrong: below("module._orig_mod.", right), "'module.'", id="compiled"
        ),
        pytest.param(lambda right, wrong: split("_orig_mod.", right), "", id="compiled_in_part"),
        pytest.param(
            lambda right, wrong: {"module": right, "n_averaged": torch.tensor(3)},
            "read from 'module'",
            id="entry",
        ),
        pytest.param(
            lambda right, wrong: below("module.", right) | {"n_averaged": torch.tensor(3)},
            "not used: n_averaged",
            id="averaged_model",
        ),
        pytest.param(
            lambda right, wrong: {"state_dict": below("model.", right) | BESIDE, "epoch": 3},
            "not used: loss.weight, metric.count",
            id="lightning",
        ),
        pytest.param(
            lambda right, wrong: {"state_dict": wrong, "state_dict_ema": right},
            "read from 'state_dict_ema' of the file; so could those of 'state_dict' be",
            id="timm",
        ),
        pytest.param(
            lambda right, wrong: {"params": wrong, "params_ema": right},
            "'params_ema'",
            id="basicsr",
        ),
        pytest.param(
            lambda right, wrong: {
                "student": below("module.backbone.", wrong),
                "teacher": below("backbone.", right),
            },
            "read from 'teacher'",
            id="dino",
        ),
        pytest.param(
            lambda right, wrong: below("model.", wrong) | below("ema_model.", right),
            "not used: model.0.weight",
            id="averaged_beside",
        ),
        pytest.param(
            lambda right, wrong: {"a": {"b": right, "schema": {"x": torch.ones(1)}}},
            "'a.b'",
            id="nested",
        ),
        pytest.param(
            lambda right, wrong: {"optimizer": {"0": torch.ones(2)}, "weights": right},
            "'weights'",
            id="beside_an_optimiser",
        ),
    ],
)
def test_the_entry_and_the_names_that_fit_are_found(wrap, said):
    module, trained, other = network(), network(), network()
    notes = fill(module, wrap(trained.state_dict(), other.state_dict()), "net.pth")
    assert said in " ".join(notes)
    assert bool(notes) is bool(said)
    for name, value in module.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_the_first_of_two_that_nothing_tells_apart_is_taken_aloud():
    module, first, second = network(), network(), network()
    state = {"best": first.state_dict(), "schemata": second.state_dict()}
    assert "so could those of 'schemata'" in fill(module, state, "net.pth")[0]
    assert torch.equal(module.state_dict()["0.weight"], first.state_dict()["0.weight"])


def test_averages_of_a_part_do_not_stand_for_the_whole():
    module, trained = network(), network()
    state = {"ema": {"0.weight": torch.zeros(2, 3, 1, 1)}, "model": trained.state_dict()}
    fill(module, state, "net.pth")
    assert torch.equal(module.state_dict()["0.weight"], trained.state_dict()["0.weight"])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_weights_are_named():
    state = dict(network().state_dict())
    state["0.weight"] = torch.quantize_per_tensor(state["0.weight"], 0.1, 0, torch.qint8)
    with pytest.raises(ConversionFailed, match=r"weights are quantised: 0\.weight"):
        fill(network(), state, "net.pth")


def test_a_file_without_tensors():
    with pytest.raises(ConversionFailed, match="holds no weights"):
        fill(network(), {"epoch": 3, "state_dict": {"a": 1}}, "net.pth")


def test_options_of_a_command_line_beside_the_weights_are_plain(tmp_path):
    """As timm and many others leave them."""
    module, trained = network(), network()
    content = {"state_dict": trained.state_dict(), "args": argparse.Namespace(lr=0.1, model="x")}
    torch.save(content, tmp_path / "last.pth.tar")
    fill(module, state_of(tmp_path / "last.pth.tar"), "last.pth.tar")
    assert torch.equal(module.state_dict()["0.weight"], trained.state_dict()["0.weight"])


@pytest.mark.conformance
def test_the_command_that_takes_weights_out_of_a_file_works(tmp_path):
    """Lightning's files hold paths and whatever else was given to its callbacks."""
    module, trained = network(), network()
    state = below("model.", trained.state_dict())
    beside = {"callbacks": {"best": pathlib.PurePosixPath("a b/best.ckpt")}, "epoch": 3}
    torch.save({"state_dict": state, **beside}, tmp_path / "la st.ckpt")
    with pytest.raises(ConversionFailed, match=r"more than weights \(pathlib\.") as refused:
        state_of(tmp_path / "la st.ckpt")
    command, output = refused.value.hint.partition("author: ")[2].split("; then give ")
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], check=True, timeout=200)  # noqa: S603 - as told
    fill(module, state_of(pathlib.Path(*shlex.split(output))), "weights.pth")
    assert torch.equal(module.state_dict()["0.weight"], trained.state_dict()["0.weight"])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_weights_of_another_type_are_turned_into_float32_aloud(kind):
    module = network().to(getattr(torch, kind))
    assert in_float32(module) == [f"its weights of {kind} were turned into float32"]
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert in_float32(module) == []

"""Units of the truth table: their numbers, and some methods that must be right or refuse."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "truth"))

from exact_units import CELL, UNITS, unit
from oracles import convolutional
from our_maps import METHODS, maps


def test_every_method_of_convolutional_networks_is_asked():
    assert {text.partition(":")[0] for text in METHODS} == set(convolutional())


def shapley(case):
    """Shares by asking the network itself for every set of coloured cells, against black."""
    coloured = [(y, x) for y in range(3) for x in range(3) if case.right[y, x] > 0]
    values = {}
    for chosen in range(1 << len(coloured)):
        image = case.image.clone()
        for bit, (y, x) in enumerate(coloured):
            if not chosen >> bit & 1:
                image[..., y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL] = 0
        with torch.no_grad():
            values[chosen] = float(case.module(image)[0, case.target])
    found = np.zeros((3, 3))
    if len(coloured) == 1:
        found[coloured[0]] = values[1] - values[0]
    else:
        for bit, place in enumerate(coloured):
            own, other = 1 << bit, 3 - (1 << bit)
            found[place] = (values[own] - values[0] + values[3] - values[other]) / 2
    return found / found.sum()


@pytest.mark.parametrize("name", [name for name in UNITS if name not in {"nothing", "xor"}])
def test_the_right_shares_are_what_the_network_says(name):
    """But for xor, where blue is part of the game and has nothing, and where nothing is."""
    case = unit(name, seed=3)
    assert np.allclose(shapley(case), case.right, atol=2e-3)


def test_the_number_is_one_for_the_right_map_alone():
    case = unit("and")
    right = case.right.repeat(CELL, 0).repeat(CELL, 1)
    assert case.number(right) == pytest.approx(1)
    assert case.number(-right) == 0
    assert case.number(np.ones_like(right)) == pytest.approx(2 / 9)
    assert unit("nothing").number(-np.ones_like(right)) == 1
    assert unit("nothing").number(right) == 0


RIGHT = {
    "planted": ["grad-cam", "cam", "occlusion:window=8,stride=8,fill=0", "lrp-epsilon-plus"],
    "suppressor": ["grad-cam", "guided-backprop", "input-x-gradient"],
    "grid": ["hires-cam", "layer-cam"],
    "functional": ["guided-backprop"],
    "or": ["integrated-gradients:baseline=0"],
}
"""Methods whose map must be right."""

SAID = {
    ("or", "grad-cam"): "gradient is zero",
    ("or", "gradient"): "signal at the input is zero",
    ("or", "smooth-grad:samples=4"): "^no signal",
    ("or", "ablation-cam"): "^unchanged score",
    ("and", "score-cam"): "^unchanged score",
    ("and", "recipro-cam"): "^unchanged score",
    ("grid", "grad-cam"): "averages a gradient",
    ("grid", "grad-cam++"): "averages a gradient",
    ("grid", "x-grad-cam"): "averages a gradient",
    ("saturation", "lrp-epsilon-plus"): "picture holds 9% of the score",
    ("silu", "guided-backprop"): "defined for rectifiers",
    ("grid", "cam"): "CAM is not exact",
}
"""Words of a refusal, or with a map that is wrong."""


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_map_is_right_and_nothing_is_said_of_places(name):
    case = unit(name, seed=2)
    for method, one in maps(case, RIGHT[name]).items():
        assert one.values is not None, (method, one.said)
        assert case.number(one.values) > 0.9, method
        assert "averages" not in one.said


def test_what_cannot_be_right_is_refused_or_said():
    for name in dict.fromkeys(name for name, _ in SAID):
        case = unit(name, seed=2)
        methods = [method for own, method in SAID if own == name]
        for method, one in zip(methods, maps(case, methods).values(), strict=True):
            wanted = SAID[name, method]
            parts = one.said.split("; ")
            if wanted.startswith("^"):
                assert any(part.startswith(wanted[1:]) for part in parts), (name, method, one.said)
            else:
                assert wanted in one.said, (name, method, one.said)

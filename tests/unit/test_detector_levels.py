"""Heads that write each level down on its own: the layer of a box is its own level."""

import numpy as np
import pytest
import torch
from detectors import SIDE, pyramid

import inspector
from inspector.overview import overview
from inspector.verify import Verdict

CLOSE = 1e-4
GREY = 60
SQUARES = {"red": (0, 8, 3, 5), "green": (1, 16, 3, 1)}
"""Level, side, and row and column in cells of that side."""


def planted():
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    for colour, (level, side, i, j) in SQUARES.items():
        square = pixels[i * side : (i + 1) * side, j * side : (j + 1) * side]
        square[:] = 10
        square[..., level] = 250 if colour == "red" else 230
    return pixels


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("pyramid") / "net.onnx"
    module = pyramid(path)
    settings = {"device": "cpu", "preprocess": "unit", "unverified": True}
    return module, inspector.load(path, overrides=("resize=squash",), **settings)


def test_both_levels_are_read_and_explained_at_their_own_layer(opened):
    module, model = opened
    assert "SCRFD head, levels of stride 8, 16" in model.meaning
    report = model.explain(planted())
    assert [item["label"] for item in report.images[0].items] == ["class 0#1", "class 0#2"]
    x = torch.from_numpy(planted().transpose(2, 0, 1)[None] / np.float32(255))
    layers = set()
    for item, found, (level, side, i, j) in zip(
        report.images[0].items, report.explanations, SQUARES.values(), strict=True
    ):
        reach = 1.5 * side
        y, x0 = i * side, j * side
        assert item["box"] == pytest.approx([x0 - reach, y - reach, x0 + reach, y + reach])
        A = module.layer(x, level).detach().requires_grad_()
        score = module.logits(A, level)[0, i * (SIDE // side) + j, 0]
        (g,) = torch.autograd.grad(score, A)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        attribution = found.attribution
        assert attribution.values.shape == (SIDE // side, SIDE // side)
        np.testing.assert_allclose(attribution.values, wanted, atol=CLOSE * wanted.max())
        assert np.unravel_index(attribution.values.argmax(), wanted.shape) == (i, j)
        layers.add(attribution.layer)
    assert len(layers) == 2


def test_both_layers_are_listed_as_defaults(opened):
    _, model = opened
    assert sum(row.default for row in overview(model).rows) == 2


def test_a_sum_of_boxes_of_two_levels_says_what_its_layer_shows(opened):
    """The levels share no layer: the one with most of the evidence is drawn, and the rest said."""
    _, model = opened
    first, second = (one.attribution for one in model.explain(planted()).explanations)
    for sign in (1, -1):
        words = f"sum(class 0#1; {'-' if sign < 0 else ''}class 0#2)"
        (found,) = model.explain(planted(), target=words).explanations
        assert found.attribution.score == pytest.approx(first.score + sign * second.score, rel=1e-5)
        assert found.attribution.layer == first.layer
        np.testing.assert_allclose(found.attribution.values, first.values, rtol=1e-5)
        assert any(f"the rest through {second.layer!r}" in n for n in found.attribution.notes)
    words = "occlusion:window=8,stride=8"
    (both,) = model.explain(planted(), words, target="sum(class 0#1; class 0#2)").explanations
    parts = [one.attribution.values for one in model.explain(planted(), words).explanations]
    assert np.all((both.attribution.values > 0) == (parts[0] > 0) | (parts[1] > 0))


def test_a_layer_that_an_uncertified_gradient_chose_is_said_to_be(opened, monkeypatch):
    """Recipro-CAM needs no gradient; the choice between the levels' layers does."""
    _, model = opened
    words, target = "recipro-cam", "sum(class 0#1; class 0#2)"
    (found,) = model.explain(planted(), words, target=target).explanations
    assert not any("not certified" in note for note in found.attribution.notes)
    failed = Verdict(False, "the twin differs", "now")
    monkeypatch.setattr(model, "certificate_of", lambda *_, **__: failed)
    (found,) = model.explain(planted(), words, target=target).explanations
    assert any("not certified (the twin differs)" in note for note in found.attribution.notes)

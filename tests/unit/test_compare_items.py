"""Comparisons of networks that are not classifiers: item by item, each with its own counterpart."""

import numpy as np
import onnx
import pytest
import torch
from detectors import SIDE, exported, traced
from networks import Net
from planted_tasks import load
from test_task_dense import Depth
from test_task_detector import planted
from test_task_segmenter import Segmenter
from test_task_sequence import Reader, line_of

from inspector.compare import Gates, compare
from inspector.errors import UsageError


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    found = {}
    for layout in ("columns", "pairs"):
        exported(layout, folder / f"{layout}.onnx")
        found[layout] = load(folder / f"{layout}.onnx")
    return found


def test_boxes_of_two_heads_are_matched_and_have_one_map(detectors):
    found = compare(
        detectors["columns"], detectors["pairs"], planted(), gates=Gates(min_rank=0.99, max_flips=0)
    )
    (image,) = found.images
    assert [(one["a"], one["b"]) for one in image.items] == [
        ("red#1", "red#1"),
        ("green#1", "green#1"),
        ("blue#1", "blue#1"),
    ]
    assert all(one["overlap"] > 0.95 for one in image.items)
    assert {pair.method for pair in image.maps} == {"hires-cam"}
    assert all(pair.similarity.rank > 0.99 for pair in image.maps)
    assert image.flip is False
    assert found.failures == ()


def test_a_box_is_compared_with_the_one_that_overlaps_it_not_with_the_same_rank(
    detectors, tmp_path
):
    """B's picture is the same but for the first red cell: its red#1 is A's red#2."""
    model = detectors["columns"]
    blind = onnx.ModelProto.FromString(model.path.read_bytes())
    # Hide the upper half from B: the red cell there and the green one are not boxes any more.
    mask = np.ones((1, 1, SIDE, SIDE), np.float32)
    mask[..., : SIDE // 2, :] = 0
    blind.graph.initializer.append(onnx.numpy_helper.from_array(mask, "mask"))
    name = blind.graph.input[0].name
    for node in blind.graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = "seen"
    blind.graph.node.insert(0, onnx.helper.make_node("Mul", [name, "mask"], ["seen"]))
    onnx.save(blind, tmp_path / "blind.onnx")
    other = load(tmp_path / "blind.onnx")
    found = compare(
        model, other, planted(), "occlusion:window=8,stride=8", target="red#2,red#1,blue"
    )
    (image,) = found.images
    assert [(one["a"], one["b"]) for one in image.items] == [
        ("red#2", "red#1"),
        ("red#1", None),
        ("blue#1", "blue#1"),
    ]
    assert image.flip is True
    assert [pair.label for pair in image.maps] == ["red#2", "blue#1"]
    assert all(pair.similarity.rank > 0.9 for pair in image.maps)
    assert compare(model, other, planted(), gates=Gates(max_flips=0)).failures
    gone = compare(model, other, planted(), target="green")
    assert gone.images[0].maps == ()
    assert gone.document()["images"][0]["items"][0]["b"] is None
    gone.save(tmp_path)


def test_dense_networks_are_compared_at_the_same_place(tmp_path):
    models = []
    for seed in (4, 5):
        torch.manual_seed(seed)
        module, path = Depth(channel=True).eval(), tmp_path / f"{seed}.onnx"
        traced(module, torch.rand(1, 3, 40, 48), path, ["depth"])
        models.append(load(path))
    pixels = np.random.default_rng(6).integers(0, 256, (40, 48, 3), np.uint8)
    found = compare(*models, pixels)
    (pair,) = found.images[0].maps
    own = models[0].explain(pixels).explanation.attribution
    there = models[1].explain(pixels, target=pair.label).explanation.attribution
    assert pair.label.startswith("@")
    assert pair.scores == pytest.approx((own.score, there.score), rel=1e-5)
    assert found.images[0].flip is None


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory):
    """A segmenter, and the same one without its class 2."""
    folder = tmp_path_factory.mktemp("segmenters")
    pixels = np.random.default_rng(5).integers(0, 256, (40, 48, 3), np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    torch.manual_seed(2)
    module = Segmenter().eval()
    with torch.no_grad():
        module.out.bias -= module(x).mean((0, 2, 3))
    models = []
    for name in ("whole", "without"):
        traced(module, x, folder / f"{name}.onnx", ["logits"])
        models.append(load(folder / f"{name}.onnx", labels=["soil", "leaf", "fruit"]))
        with torch.no_grad():
            module.out.bias[2] -= 1e4
    return *models, pixels


def test_regions_of_a_class_are_compared_and_a_lost_one_is_a_flip(segmenters):
    whole, without, pixels = segmenters
    same = compare(whole, whole, pixels, target="top3", gates=Gates(min_rank=0.99, max_flips=0))
    (image,) = same.images
    assert {one["a"] for one in image.items} == {"soil", "leaf", "fruit"}
    assert all(one["a"] == one["b"] and one["overlap"] == 1 for one in image.items)
    assert {pair.method for pair in image.maps} == {"grad-cam"}
    assert (image.flip, same.failures) == (False, ())

    lost = compare(whole, without, pixels, target="top3")
    (image,) = lost.images
    found = {one["a"]: one for one in image.items}
    assert found["fruit"]["b"] is None
    assert 0 < found["soil"]["overlap"] <= 1
    assert image.flip is True
    assert "fruit" not in {pair.label for pair in image.maps}


def test_characters_are_compared_at_their_place_in_the_line(tmp_path):
    """Two ways to write down the same reading; and one that takes green for blank."""
    models = {}
    for name, layout in (("a", "probabilities"), ("b", "steps first"), ("blind", "probabilities")):
        module = Reader(layout).eval()
        if name == "blind":
            with torch.no_grad():
                module.stem.weight[2] = -1
        x = torch.from_numpy(line_of("R.G.B").transpose(2, 0, 1)[None] / np.float32(255))
        traced(module, x, tmp_path / f"{name}.onnx", ["text"])
        models[name] = load(tmp_path / f"{name}.onnx", labels=["R", "G", "B"])
    pixels = line_of("R.G.B")
    same = compare(models["a"], models["b"], pixels, gates=Gates(min_rank=0.99, max_flips=0))
    (image,) = same.images
    assert [(one["a"], one["b"]) for one in image.items] == [
        (f"char:{place} {letter}",) * 2 for place, letter in enumerate("RGB", 1)
    ]
    assert {pair.method for pair in image.maps} == {"hires-cam"}
    assert all(pair.similarity.rank > 0.99 for pair in image.maps)
    assert same.failures == ()

    (image,) = compare(models["a"], models["blind"], pixels).images
    assert [(one["a"], one["b"]) for one in image.items][1] == ("char:2 G", None)
    assert image.flip is True


def test_networks_of_different_tasks_are_no_pair(detectors, tmp_path):
    path = tmp_path / "classes.onnx"
    onnx.save(Net(1).proto(), path)
    classifier = load(path)
    with pytest.raises(UsageError, match="not two networks of one task"):
        compare(detectors["columns"], classifier, planted())

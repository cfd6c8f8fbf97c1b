"""Sanity checks and faithfulness over photos: permuted weights, mosaics, and both studies."""

import numpy as np
import onnx
import pytest
from networks import node, onnx_model

import inspector
from converters import onnx_file
from inspector.evidence import local_forward
from inspector.measures import faithfulness as measures
from inspector.measures import imputation
from inspector.network.receptive_fields import local_stages
from inspector.studies import sanity as sanity_module
from inspector.studies import studies
from inspector.studies.faithfulness import measured
from inspector.studies.faithfulness.grid import Pictured, mosaic, pointing
from inspector.surgery.random_weights import permuted_weights, weights_top_down

SIZE = 16
RNG = np.random.default_rng(4)


def network():
    """Two convolutions with a batch normalisation, a pool and a linear head."""
    nodes = [
        node("Conv", "image w1 b1", "c1", pads=[1] * 4),
        node("BatchNormalization", "c1 scale shift mean var", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1] * 4),
        node("Relu", "c2", "r2"),
        node("GlobalAveragePool", "r2", "pooled"),
        node("Flatten", "pooled", "features"),
        node("Gemm", "features head bias", "scores", transB=1),
    ]
    draw = RNG.standard_normal
    constants = {
        "w1": draw((6, 3, 3, 3)),
        "b1": draw(6),
        "scale": draw(6),
        "shift": draw(6),
        "mean": draw(6),
        "var": draw(6) ** 2 + 0.1,
        "w2": draw((5, 6, 3, 3)),
        "head": draw((3, 5)),
        "bias": draw(3),
    }
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    shapes = {"image": ["n", 3, SIZE, SIZE]}, {"scores": ["n", 3]}
    return onnx_model(nodes, *shapes, constants, opset=17)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    found = tmp_path_factory.mktemp("sanity") / "network.onnx"
    onnx.save(network(), found)
    return found


@pytest.fixture(scope="module")
def opened(path):
    recipe = {"size": [SIZE, SIZE], "std": [0.25, 0.25, 0.25]}
    return inspector.load(path, device="cpu", preprocess=recipe)


@pytest.fixture(scope="module")
def photos():
    return [RNG.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8) for _ in range(4)]


def test_layers_from_the_top_with_all_that_belongs_to_them(path):
    found = weights_top_down(onnx_file.read(path).graph)
    assert [tensor for tensor, _ in found] == ["scores", "c2", "c1"]
    assert [set(names) for _, names in found] == [
        {"head", "bias"},
        {"w2"},
        {"w1", "b1", "scale", "shift", "mean", "var"},
    ]


def test_permuted_weights_keep_their_values_and_leave_the_others(path):
    file = onnx_file.read(path)
    changed = permuted_weights(file, ["w2", "head"], seed=1)
    for name in file.graph.initialisers:
        before, after = (one.graph.constant(name) for one in (file, changed))
        assert np.array_equal(np.sort(before, None), np.sort(after, None))
        assert np.array_equal(before, after) == (name not in {"w2", "head"})
    assert changed.sha256 == file.sha256
    again = permuted_weights(file, ["head"], seed=1)
    assert np.array_equal(again.graph.constant("head"), changed.graph.constant("head"))


def test_sanity_compares_each_stage_with_the_network_as_it_is(opened, photos):
    given = {"method": ("gradient",), "count": 1, "stages": 3, "seed": 2}
    found = studies()["sanity"].function(opened, photos, **given)
    assert [one["layers"] for one in found.numbers["stages"]] == [1, 2, 3]
    assert [one["down_to"] for one in found.numbers["stages"]] == ["scores", "c2", "c1"]
    for own in found.numbers["methods"].values():
        assert own["edges"] is not None
        values = [one["value"] for one in own["stages"] if one is not None]
        assert values
        assert all(-1 <= value < 0.999 for value in values)
    assert any("label randomisation" in text for text in found.warnings)
    assert found.images == 1


def test_a_map_that_stays_is_said_not_to_depend_on_the_weights():
    rows = [
        {"method": method, "stage": stage, "reference": "", "rank": rank}
        for method, rank in (("edges-like", 0.97), ("fine", 0.1))
        for stage in (1, 2)
    ]
    rows += [{"method": "fine", "stage": 0, "reference": "edges", "rank": 0.3}]
    first, second = sanity_module._sentences(sanity_module._curves(rows, 2), 1)
    assert first.startswith("edges-like does not depend on the weights")
    assert second.startswith("fine depends on the weights")
    assert "an edge detector has 0.30" in second


def test_faithfulness_stands_beside_maps_that_know_nothing(opened, photos):
    given = {"method": ("input-x-gradient", "grad-cam"), "steps": 3, "subsets": 6, "copies": 1}
    found = studies()["faithfulness"].function(opened, photos, count=1, **given)
    table = found.numbers["methods"]
    assert set(table) == {"input-x-gradient", "grad-cam", "(random)", "(edges)", "(centre)"}
    everybody = {"deletion", "insertion", "road", "sensitivity-n", "infidelity"}
    for label, own in table.items():
        assert everybody <= set(own), label
        assert ("max-sensitivity" in own) == (not label.startswith("("))
    assert "agreement with grad-cam" in table["input-x-gradient"]


def infidelities(opened, photos):
    given = {"method": ("grad-cam", "gradient"), "steps": 1, "subsets": 12, "count": 2}
    found = studies()["faithfulness"].function(opened, photos, **given)
    return {label: own["infidelity"] for label, own in found.numbers["methods"].items()}


def test_squares_run_on_crops_and_give_the_same(path, photos, monkeypatch):
    recipe = {"size": [SIZE, SIZE], "std": [0.25, 0.25, 0.25]}
    wanted = infidelities(inspector.load(path, device="cpu", preprocess=recipe), photos)
    for name in ("PER_SESSION", "PER_WEIGHT", "PER_NODE", "COPIED"):
        monkeypatch.setattr(local_stages, name, 0)
    monkeypatch.setattr(local_stages, "GAIN", 2)
    monkeypatch.setattr(local_forward, "FEWEST", 1)
    opened = inspector.load(path, device="cpu", preprocess=recipe)
    found = infidelities(opened, photos)
    assert any(stages is not None for stages in opened.model.runtime.parts.values())
    for label, own in wanted.items():
        assert found[label]["value"] == pytest.approx(own["value"], abs=1e-5)


def test_what_is_hidden_is_hidden_once_for_all_maps(opened, photos, monkeypatch):
    masks = []
    infill = imputation.neighbours(0)

    def counting(image, mask):
        masks.append(mask.tobytes())
        return infill(image, mask)

    monkeypatch.setattr(measured, "neighbours", lambda seed: counting)
    infidelities(opened, photos[:1])
    assert len(masks) > 50
    squares = 1 + (len(masks) - len(set(masks)))
    assert squares <= 10, "only squares of infidelity may be drawn twice"


def test_a_mosaic_shrinks_each_photo_into_its_cell():
    tensors = [np.full((1, 6, 8), float(value)) for value in range(4)]
    tensors[3][:, ::2] += 1
    found = mosaic(tensors, 2)
    assert found.shape == (1, 6, 8)
    assert np.unique(found[0, :3, :4]).tolist() == [0]
    assert np.unique(found[0, :3, 4:]).tolist() == [1]
    assert np.unique(found[0, 3:, :4]).tolist() == [2]
    assert np.unique(found[0, 3:, 4:]).tolist() == [3.5]


def test_the_game_is_won_by_a_map_of_the_right_cell():
    photos = [Pictured(str(i), np.full((1, 8, 8), i + 1.0), i, 1.0) for i in range(5)]

    def explain(picture, target):
        return {"right": (picture[0] == int(target) + 1).astype(float)}, None

    rows = list(pointing(photos, 2, 8, 0, explain))
    values = {
        name: [r["value"] for r in rows if r["method"] == name] for name in ("right", "(centre)")
    }
    assert values["right"] == [1.0] * 8
    assert np.allclose(values["(centre)"], 0.25)
    assert not list(pointing(photos[:3], 2, 8, 0, explain))


def test_road_is_the_difference_of_the_two_orders():
    image = RNG.normal(size=(2, 12, 12))
    weight = RNG.normal(size=(2, 12, 12))

    def score(images):
        return (images * weight).sum((1, 2, 3))

    exact = (image * weight).sum(0)
    found = measures.road(score, image, exact)
    assert found > 0
    assert found > measures.road(score, image, RNG.random((12, 12)))
    assert measures.road(score, image, -exact) == pytest.approx(-found)
    fill = imputation.neighbours(0)
    masks = [measures.removed(exact, 0.3, least=least) for least in (True, False)]
    least, most = score(np.stack([fill(image, mask) for mask in masks]))
    assert measures.road(score, image, exact, shares=(0.3,)) == pytest.approx(least - most)

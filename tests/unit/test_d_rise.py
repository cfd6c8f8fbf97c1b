"""D-RISE on planted detectors: its formula as loops, where it points, and when it stops."""

import numpy as np
import pytest
import torch
from detectors import BOX, CELL, CELLS, SIDE, exported
from networks import Net
from oracles import literal_upsample

import inspector
from inspector.errors import MethodRefused, UsageError

GREY = 60
PLACES = {"red": (1, 1), "green": (4, 5), "blue": (6, 2)}


def planted():
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    for k, (i, j) in enumerate(PLACES.values()):
        cell = pixels[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL]
        cell[:] = 10
        cell[..., k] = 240
    return pixels


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("detectors"), {}
    for layout in ("columns", "combined", "listed"):
        module = exported(layout, folder / f"{layout}.onnx")
        settings = {"device": "cpu", "preprocess": "unit", "unverified": True}
        path = folder / f"{layout}.onnx"
        found[layout] = module, inspector.load(path, overrides=("resize=squash",), **settings)
    return found


def literal_iou(a, b):
    """Boxes as left, top, right, bottom."""
    inner = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(q[2] - q[0]) * (q[3] - q[1]) for q in (a, b)]
    return inner / (sum(areas) - inner)


def literal_d_rise(module, x, place, masks, cells, keep, seed, fill):
    """Petsiuk et al. 2021, section 3, less the mean weight: one mask and one box at a time."""

    def boxes(image):
        with torch.no_grad():
            scores = module.logits(module.layer(torch.from_numpy(image[None]))).sigmoid()[0]
        found = []
        for i, j in np.ndindex(CELLS, CELLS):
            y, x_ = i * CELL + CELL / 2, j * CELL + CELL / 2
            box = (x_ - BOX / 2, y - BOX / 2, x_ + BOX / 2, y + BOX / 2)
            found.append((box, scores[:, i * CELLS + j].numpy().astype(float)))
        return found

    own_box, own = boxes(x)[place[0] * CELLS + place[1]]
    rng = np.random.default_rng(seed)
    side = -(-SIDE // cells)
    kept, weights = [], []
    for _ in range(masks):
        shown = (rng.random((SIDE // side + 1, SIDE // side + 1)) < keep).astype(float)
        top, left = int(rng.integers(side)), int(rng.integers(side))
        size = shown.shape[0] * side
        mask = literal_upsample(shown, size, size)[top : top + SIDE, left : left + SIDE]
        image = (x * mask + fill * (1 - mask)).astype(np.float32)
        best = 0.0
        for box, scores in boxes(image):
            cosine = scores @ own / np.sqrt((scores @ scores) * (own @ own))
            best = max(best, literal_iou(own_box, box) * cosine * scores.max())
        kept.append(mask)
        weights.append(best)
    mean = sum(weights) / masks
    total = sum((w - mean) * m for w, m in zip(weights, kept, strict=True))
    return total / (masks * keep)


def test_the_map_is_that_of_the_formula(detectors):
    module, model = detectors["columns"]
    x = planted().transpose(2, 0, 1) / np.float32(255)
    method = f"d-rise:masks=5,cells=8,keep=0.6,seed=3,error=0,fill={GREY}"
    found = model.explain(planted(), method, target="green").explanation.attribution
    wanted = literal_d_rise(module, x, PLACES["green"], 5, 8, 0.6, 3, np.float32(GREY / 255))
    np.testing.assert_allclose(found.values[0], wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("layout", ["columns", "combined", "listed"])
def test_the_peak_is_at_the_object_whether_rows_move_or_not(detectors, layout):
    _, model = detectors[layout]
    report = model.explain(
        planted(), f"d-rise:masks=256,cells=8,fill={GREY},error=0", target="red,blue"
    )
    for found, name in zip(report.explanations, ("red", "blue"), strict=True):
        (i, j), values = PLACES[name], found.heatmap.values
        shown = values.reshape(CELLS, CELL, CELLS, CELL).mean((1, 3))
        assert np.unravel_index(shown.argmax(), shown.shape) == (i, j)


def test_it_stops_when_the_error_is_small_and_says_how_it_fell(detectors):
    _, model = detectors["columns"]

    def explained(error):
        method = f"d-rise:masks=600,cells=8,fill={GREY},error={error}"
        return model.explain(planted(), method, target="red").explanation

    early, late = explained(0.9), explained(0.0)
    assert early.facts["d-rise"]["masks"] == 128
    assert not any("error of this map" in text for text in early.warnings)
    assert late.facts["d-rise"]["masks"] == 600
    errors = late.facts["d-rise"]["error_after_masks"]
    assert [masks for masks, _ in errors] == [128, 256, 512, 600]
    assert errors[-1][1] < errors[0][1]
    assert any("the error of this map is" in text for text in late.warnings)
    # The error is what it says: the distance to the map of twice as many masks is of its size.
    few, many = (one.attribution.values for one in (early, late))
    apart = np.linalg.norm(few - many) / np.linalg.norm(many)
    assert 0.3 * errors[0][1] < apart < 2 * errors[0][1]


def test_what_is_no_box_is_refused(detectors, tmp_path):
    _, model = detectors["columns"]
    with pytest.raises(MethodRefused, match="defined for boxes"):
        model.explain(planted(), "d-rise:masks=2", target="output0[4,9]")
    import onnx

    onnx.save(Net(3).proto(), tmp_path / "net.onnx")
    classifier = inspector.load(tmp_path / "net.onnx", device="cpu", unverified=True)
    with pytest.raises(MethodRefused, match="defined for boxes"):
        classifier.explain(planted(), "d-rise:masks=2")


@pytest.mark.parametrize("options", ["masks=1", "keep=1", "error=1", "error=-0.1", "seed=-1"])
def test_options_out_of_range_are_refused(detectors, options):
    _, model = detectors["columns"]
    with pytest.raises(UsageError, match="d-rise"):
        model.explain(planted(), f"d-rise:{options}")


def test_the_opposite_direction_turns_the_map_round(detectors):
    _, model = detectors["columns"]
    method = f"d-rise:masks=8,cells=8,fill={GREY}"
    one, other = (
        model.explain(planted(), method, target=text).explanation.attribution.values
        for text in ("red", "-red")
    )
    np.testing.assert_allclose(one, -other, atol=1e-6)

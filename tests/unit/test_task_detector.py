"""Detectors: boxes of planted networks, and maps that lie at them."""

import numpy as np
import onnx
import pytest
import torch
from detectors import BOX, CELL, CELLS, OUTPUTS, SIDE, exported
from PIL import Image
from planted_tasks import CLOSE, lined, load

import inspector
from inspector.errors import ImageRefused, UnknownTarget, UsageError
from inspector.overview import overview
from inspector.render.drawing.outline import outlined

GREY = 60
PLACES = {"red": (1, 1), "green": (1, 5), "blue": (5, 2), "red#2": (6, 6)}
"""Cells of single colour on the planted photo; the second red one is paler."""


def planted():
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    for name, (i, j) in PLACES.items():
        colour = ("red", "green", "blue").index(name.partition("#")[0])
        cell = pixels[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL]
        cell[:] = 10
        cell[..., colour] = {"red": 250, "green": 235, "blue": 220, "red#2": 200}[name]
    return pixels


@pytest.fixture(scope="module")
def detectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors")
    found = {}
    for layout in OUTPUTS:
        module = exported(layout, folder / f"{layout}.onnx")
        found[layout] = module, load(folder / f"{layout}.onnx")
    return found


def box_of(name):
    """Left, top, right, bottom of the box that a planted cell proposes."""
    i, j = PLACES[name]
    y, x = i * CELL + CELL / 2, j * CELL + CELL / 2
    return [x - BOX / 2, y - BOX / 2, x + BOX / 2, y + BOX / 2]


@pytest.mark.parametrize("layout", OUTPUTS)
def test_boxes_of_every_layout_are_those_that_were_planted(detectors, layout):
    _, model = detectors[layout]
    assert model.reading().task == "detector"
    assert "detector" in model.meaning
    report = model.explain(planted())
    items = report.images[0].items
    assert [item["label"] for item in items] == ["red#1", "green#1", "blue#1", "red#2"]
    for item, name in zip(items, ("red", "green", "blue", "red#2"), strict=True):
        assert item["box"] == pytest.approx(box_of(name), abs=0.01)
    assert [item["explained"] for item in items] == [True, True, True, False]  # top3
    assert report.images[0].predictions == []


@pytest.mark.parametrize("layout", OUTPUTS)
def test_the_default_map_lies_at_the_box_and_is_that_of_the_module(detectors, layout):
    module, model = detectors[layout]
    x = torch.from_numpy(planted().transpose(2, 0, 1)[None] / np.float32(255))
    for name, (i, j) in PLACES.items():
        report = model.explain(planted(), target=name)
        attribution = report.explanation.attribution
        assert attribution.method == "hires-cam"
        assert attribution.values.shape == (CELLS, CELLS)
        assert np.unravel_index(attribution.values.argmax(), (CELLS, CELLS)) == (i, j)
        A = module.layer(x).detach().requires_grad_()
        colour = ("red", "green", "blue").index(name.partition("#")[0])
        score = module.logits(A)[0, colour, i * CELLS + j]
        if layout in {"listed", "combined"}:  # rows that moved are explained as they come out
            score = score.sigmoid()
            assert any("that the graph sorts" in text for text in report.explanation.warnings)
        else:
            assert not report.explanation.warnings
        (g,) = torch.autograd.grad(score, A)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        assert attribution.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(attribution.values, wanted, atol=CLOSE * wanted.max())


@pytest.mark.parametrize("layout", OUTPUTS)
@pytest.mark.parametrize("method", ["hires-cam", "occlusion:window=8,stride=8"])
def test_a_sum_of_boxes_is_explained_together(detectors, layout, method):
    """Two boxes give two peaks; of a difference the second speaks against it."""
    _, model = detectors[layout]
    every = "sum(red; blue),sum(red; -blue),red,blue"
    both, apart, red, blue = model.explain(planted(), method, target=every).explanations
    assert (both.attribution.label, apart.attribution.label) == ("red#1 + blue#1", "red#1 - blue#1")
    for sum_, sign in ((both, 1), (apart, -1)):
        wanted = red.attribution.score + sign * blue.attribution.score
        assert sum_.attribution.score == pytest.approx(wanted, rel=1e-5)
    values = both.attribution.reduced()
    at_blue = (slice(40, 48), slice(16, 24)) if values.shape[0] == SIDE else (5, 2)
    assert np.mean(values[at_blue]) > 0.1 * values.max()
    assert np.mean(apart.attribution.reduced()[at_blue]) <= 0
    outline = both.attribution.region
    for name in ("red", "blue"):
        left, top, right, bottom = (round(edge) for edge in box_of(name))
        assert outline[max(top, 0) : bottom, max(left, 0) : right].all()
    assert not outline.all()


def test_grad_cam_of_a_detector_says_why_not(detectors):
    _, model = detectors["columns"]
    report = model.explain(planted(), "grad-cam", target="red,red#2")
    first, second = (e.attribution.values for e in report.explanations)
    np.testing.assert_allclose(first, second, atol=1e-6)  # the same for both boxes
    assert any("same map" in text for text in report.images[0].warnings)
    assert not any("same map" in text for text in model.explain(planted()).images[0].warnings)


def test_overlapping_boxes_of_a_class_are_one(detectors):
    """A red bar of three cells proposes three boxes; each covers half of the next."""
    _, model = detectors["columns"]
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    pixels[16:24, 16:40] = (240, 10, 10)
    pixels[16:24, 24:32, 0] = 255  # the most certain is the middle one
    (item,) = model.explain(pixels).images[0].items
    assert item["box"] == pytest.approx([28 - BOX / 2, 20 - BOX / 2, 28 + BOX / 2, 20 + BOX / 2])
    pixels[16:24, 32:40] = (10, 240, 10)  # of another class: not suppressed
    labels = [item["label"] for item in model.explain(pixels).images[0].items]
    assert labels == ["red#1", "green#1"]


def test_where_no_box_is_certain_the_best_one_is_explained(detectors):
    _, model = detectors["columns"]
    pixels = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    pixels[20:28, 20:28] = (250, 10, 10)  # between four cells, each a quarter red
    report = model.explain(pixels)
    (item,) = report.images[0].items
    assert item["score"] < 0.25
    said = f"no box is certain: the best one has a score of {item['score']:.2g}"
    assert any(text.startswith(said) for text in report.explanation.warnings)
    (written,) = report.images[0].document()["results"]
    assert any(text.startswith(said) for text in written["warnings"])
    sure = model.explain(planted())
    assert not any("no box is certain" in text for e in sure.explanations for text in e.warnings)
    with pytest.raises(ImageRefused, match="no red"):
        model.explain(pixels, target="red")


@pytest.mark.parametrize("layout", ["columns", "listed", "detr"])
def test_items_are_named_by_class_rank_box_and_point(detectors, layout):
    _, model = detectors[layout]
    i, j = PLACES["blue"]
    left, top, right, bottom = box_of("green")
    for text, label in (
        ("BLUE", "blue#1"),
        ("2", "blue#1"),
        ("red#2", "red#2"),
        (f"box:{left + 2},{top},{right + 2},{bottom + 1}", "green#1"),
        (f"@{j * CELL + 4},{i * CELL + 4}", "blue#1"),
        (f"blue@{j * CELL + 4},{i * CELL + 4}", "blue#1"),
        ("-green", "-green#1"),
    ):
        found = model.explain(planted(), target=text).explanation.attribution
        assert found.label == label, text
    both = model.explain(planted(), target="red#2,green")
    assert [e.attribution.label for e in both.explanations] == ["red#2", "green#1"]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("yellow", UnknownTarget),
        ("7", UnknownTarget),
        ("box:9,9,3,3", UnknownTarget),
        ("mask:roi.png", UnknownTarget),
        ("red#3", ImageRefused),
        ("box:0,50,4,54", ImageRefused),
        ("@63,1", ImageRefused),
    ],
)
def test_what_is_not_there_is_named(detectors, text, refusal):
    _, model = detectors["columns"]
    with pytest.raises(refusal):
        model.explain(planted(), target=text)


@pytest.mark.parametrize("text", ["@64,9", "@-1,3", "@3,900", "box:64,0,90,20", "box:-9,-9,-1,-1"])
def test_a_place_outside_of_the_photo_is_refused_with_the_photo_s_size(detectors, text):
    _, model = detectors["columns"]
    with pytest.raises(ImageRefused, match="lies outside of the photo, which has 64x64 pixels"):
        model.explain(planted(), target=text)


def test_a_point_that_is_cut_away_is_refused_with_what_is_seen(detectors):
    _, model = detectors["columns"]
    cut = inspector.load(model.path, preprocess="unit", overrides=["resize=crop"], unverified=True)
    with pytest.raises(ImageRefused, match="it sees 64,0 to 127,63 of the photo's 192x64"):
        cut.explain(np.zeros((64, 192, 3), np.uint8), target="@3,30")


@pytest.mark.parametrize(
    ("text", "tasks"),
    [("char:2", "reader of text"), ("mask:roi.png", "segmenter or dense"), ("similarity", "embed")],
)
def test_words_of_another_task_are_named_with_it(detectors, text, tasks):
    _, model = detectors["columns"]
    with pytest.raises(UnknownTarget, match="this model is read as a detector") as error:
        model.explain(planted(), target=text)
    assert f"names an item of a {tasks}" in error.value.what or tasks == "embed"


def test_several_targets_are_explained_each_by_a_map(detectors):
    _, model = detectors["columns"]
    report = model.explain(planted(), target=["red#2", "green,blue", "red#2"])
    labels = [e.attribution.label for e in report.explanations]
    assert labels == ["red#2", "green#1", "blue#1"]
    with pytest.raises(UsageError, match="empty list"):
        model.explain(planted(), target=[])


def test_a_class_that_is_not_in_one_photo_of_several_refuses_that_one(detectors):
    _, model = detectors["columns"]
    without = planted()
    i, j = PLACES["blue"]
    without[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL] = GREY
    report = model.explain([planted(), without], target="blue")
    assert len(report.images) == 1
    assert len(report.refused) == 1
    assert "no blue" in str(report.refused[0])
    assert "red#1" in str(report.refused[0])  # what there is instead


def test_boxes_are_given_in_the_photo_s_pixels(detectors, tmp_path):
    """A photo of twice the width in a letterbox: half the input shows it."""
    path = tmp_path / "net.onnx"
    exported("columns", path)
    model = inspector.load(
        path, device="cpu", preprocess="unit", overrides=("resize=letterbox",), unverified=True
    )
    pixels = np.full((SIDE, 2 * SIDE, 3), GREY, np.uint8)
    pixels[16:32, 32:48] = (255, 0, 0)  # cell (3, 2) of the input, whose photo begins in row 16
    (item,) = model.explain(pixels).images[0].items
    assert item["box"] == pytest.approx([16, 0, 64, 48], abs=0.01)
    same = model.explain(pixels, target="box:16,0,64,48").explanation.attribution
    assert same.label == "red#1"


@pytest.mark.parametrize("layout", ["listed", "combined"])
def test_a_box_is_followed_where_rows_of_a_sorted_list_change_places(detectors, layout):
    """Hiding the first object puts another one into its row, and the score hardly changes."""
    _, model = detectors[layout]
    method = f"occlusion:window={CELL},stride={CELL},fill={GREY}"
    found = model.explain(planted(), [method, "rise:masks=400,cells=8"], target="red#1")
    drops = found.explanations[0].attribution.values[0]
    i, j = PLACES["red"]
    inside = drops[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL]
    score = found.images[0].items[0]["score"]
    assert inside.min() > 0.9 * score
    outside = drops.copy()
    outside[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL] = 0
    assert np.abs(outside).max() < 0.01 * score
    shown = found.explanations[1].heatmap.values
    assert shown[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL].mean() > 0
    places = {"listed": ("scores[0]", "boxes[0,1]"), "combined": ("output0[0,4]", "output0[-1,0]")}
    for target in places[layout]:
        row = model.explain(planted(), method, target=target).explanation
        if target in {"scores[0]", "output0[0,4]"}:
            np.testing.assert_allclose(row.attribution.values[0], drops, atol=1e-6)
            assert any("is followed by its box" in text for text in row.warnings)
        else:  # a coordinate is not a score that could be followed
            assert any("change places" in text for text in row.warnings)


def test_lists_without_a_batch_axis_go_through_one_by_one(detectors):
    _, model = detectors["listed"]
    report = model.explain([planted(), planted()[::-1].copy()], target="blue")
    boxes = [image.items[0]["box"] for image in report.images]
    left, top, right, bottom = box_of("blue")
    assert boxes[0] == pytest.approx([left, top, right, bottom], abs=0.01)
    assert boxes[1] == pytest.approx([left, SIDE - bottom, right, SIDE - top], abs=0.01)


def test_an_element_by_name_is_still_one(detectors):
    _, model = detectors["columns"]
    found = model.explain(planted(), target="output0[4,9]").explanation.attribution
    assert found.label == "output0[4,9]"
    assert found.values.argmax() == 9  # cell (1, 1)
    _, model = detectors["listed"]
    score = model.explain(planted(), "gradient", target="scores[0]").explanation.attribution.score
    assert score == pytest.approx(model.explain(planted()).images[0].items[0]["score"], rel=1e-5)


def test_a_task_is_what_the_user_says(detectors):
    _, model = detectors["columns"]
    with pytest.raises(UsageError, match="no task"):
        model.explain(planted(), task="oracle")
    with pytest.raises(UsageError, match="do not fit"):
        model.explain(planted(), task="embedding")


@pytest.mark.parametrize("count", [235, 236])
def test_offsets_from_anchors_are_decoded_or_no_box_is_drawn(tmp_path, count):
    """UltraFace leaves its anchors to the caller; one row more, and nobody knows which they are."""
    from networks import node, onnx_model

    rng = np.random.default_rng(2)
    offsets = rng.standard_normal((1, count, 4)).astype(np.float32)
    logits = np.zeros((1, count, 2), np.float32)
    logits[..., 0], logits[0, 200, 1] = 5, 9  # row 200 is a face
    proto = onnx_model(
        [
            node("ReduceMean", "x", "mean", axes=[1, 2, 3], keepdims=1),
            node("Reshape", "mean shape", "m"),
            node("Mul", "m small", "s"),
            node("Add", "s offsets", "boxes"),
            node("Add", "s logits", "z"),
            node("Softmax", "z", "scores", axis=2),
        ],
        {"x": [1, 3, 64, 64]},
        {"scores": [1, count, 2], "boxes": [1, count, 4]},
        {
            "shape": np.array([1, 1, 1]),
            "small": np.float32(1e-6),
            "offsets": offsets,
            "logits": logits,
        },
        opset=17,
    )
    path = tmp_path / "faces.onnx"
    onnx.save(proto, path)
    model = load(path)
    (item,) = model.explain(planted(), "gradient", target="top1").images[0].items
    if count != 235:
        assert "no box is drawn" in model.reading().why
        assert (item["box"], item["label"]) == (None, "class 0#1")
        return
    # 192 anchors of stride 8 come first, then two per cell of stride 16: row 200 is cell (1, 0).
    side, (x, y) = 32, (0.5 * 16, 1.5 * 16)
    dx, dy, dw, dh = (float(v) for v in offsets[0, 200])
    cx, cy = x + dx * 0.1 * side, y + dy * 0.1 * side
    w, h = side * np.exp(dw * 0.2), side * np.exp(dh * 0.2)
    assert item["box"] == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], abs=0.02)


def test_the_box_is_drawn_on_the_photo_and_on_the_map(detectors):
    _, model = detectors["columns"]
    image = model.explain(planted(), target="green").images[0]
    (explanation,) = image.explanations
    panel = outlined(Image.new("RGB", (SIDE * 4, SIDE * 4)), explanation.heatmap)
    left, top, right, bottom = (round(4 * v) for v in box_of("green"))
    rows, columns = np.nonzero(lined(panel))
    found = (columns.min(), max(rows.min(), top), columns.max(), rows.max())
    assert found == pytest.approx((left, max(top, 0), right, bottom), abs=3)
    middle = lined(panel)[max(top, 0) + 8 : bottom - 8, left + 8 : right - 8]
    assert not middle.any()
    assert lined(image.figure(explanation)).sum() > 100  # both panels
    bare = model.explain(planted(), target="output0[4,9]").images[0]
    assert not lined(bare.figure(bare.explanations[0])).any()


def test_the_overview_names_the_layer_that_explain_takes(detectors):
    rows = overview(detectors["columns"][1]).rows
    taken = detectors["columns"][1].explain(planted()).explanations[0].attribution.layer
    assert [row.tensor for row in rows if row.default] == [taken]

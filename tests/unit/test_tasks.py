"""Readings: what the outputs of planted networks say, and that maps point where they must."""

import numpy as np
import onnx
import pytest
import torch
from detectors import BOX, CELL, CELLS, OUTPUTS, SIDE, exported, traced
from networks import CLASSES, Net
from PIL import Image
from torch import nn

import inspector
from inspector.errors import ImageRefused, MethodRefused, UnknownTarget, UsageError
from inspector.heatmap import Attribution, Heatmap
from inspector.overview import overview
from inspector.photos.geometry import Geometry
from inspector.render.drawing.outline import LINE, outlined
from inspector.tasks.words import Words, pieces, read_words

CLOSE = 1e-4
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


def load(path, **more):
    settings = {"device": "cpu", "preprocess": "unit", "unverified": True, **more}
    return inspector.load(path, overrides=("resize=squash",), **settings)


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


# -- detectors -------------------------------------------------------------------------------------


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
    row = model.explain(
        planted(), method, target="scores[0]" if layout == "listed" else "output0[0,4]"
    )
    assert row.attribution.max() < 0.5 * score  # the row, as a user may still ask for it


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
def test_offsets_from_anchors_are_decoded_or_are_no_boxes(tmp_path, count):
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
    if count != 235:
        assert model.reading() is None
        return
    (item,) = model.explain(planted(), "gradient", target="top1").images[0].items
    # 192 anchors of stride 8 come first, then two per cell of stride 16: row 200 is cell (1, 0).
    side, (x, y) = 32, (0.5 * 16, 1.5 * 16)
    dx, dy, dw, dh = (float(v) for v in offsets[0, 200])
    cx, cy = x + dx * 0.1 * side, y + dy * 0.1 * side
    w, h = side * np.exp(dw * 0.2), side * np.exp(dh * 0.2)
    assert item["box"] == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], abs=0.02)


# -- segmenters ------------------------------------------------------------------------------------


class Segmenter(nn.Module):
    """A small U-Net; its bottleneck is known."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(12, 3, 1)

    def bottleneck(self, x):
        self.skip = torch.relu(self.down1(x))
        return torch.relu(self.down2(self.skip))

    def rest(self, A):
        y = self.out(torch.cat((self.up(A), self.skip), 1))
        return nn.functional.interpolate(y, scale_factor=2, mode="bilinear")

    def forward(self, x):
        return self.rest(self.bottleneck(x))


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    torch.manual_seed(2)
    module = Segmenter().eval()
    pixels = np.random.default_rng(5).integers(0, 256, (40, 48, 3), np.uint8)
    pixels[10:30, 8:28] = (230, 20, 30)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    with torch.no_grad():
        module.out.bias -= module(x).mean((0, 2, 3))
    path = tmp_path_factory.mktemp("segmenter") / "unet.onnx"
    traced(module, x, path, ["logits"])
    return module, load(path, labels=["soil", "leaf", "fruit"]), pixels, x


def seg_grad_cam(module, x, number, mask):
    """Vinogradova et al. 2020: the sum of a class's logits over a region."""
    A = module.bottleneck(x).detach().requires_grad_()
    score = (module.rest(A)[0, number] * torch.from_numpy(mask)).sum()
    (g,) = torch.autograd.grad(score, A)
    found = (g.mean((2, 3), keepdim=True) * A).sum(1)[0].detach().numpy()
    return np.maximum(found, 0), float(score.detach())


def test_regions_of_classes_at_the_bottleneck(segmented):
    module, model, pixels, x = segmented
    won = module(x)[0].argmax(0).numpy()
    assert "segmenter" in model.meaning
    drawn = 0
    for number, name in enumerate(("soil", "leaf", "fruit")):
        wanted, score = seg_grad_cam(module, x, number, won == number)
        report = model.explain(pixels, target=name)
        found = report.explanation.attribution
        assert found.layer == model.layers[1].tensor
        assert found.score == pytest.approx(score, rel=1e-3)
        np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-6))
        drawn += wanted.max() > 0
        mine = next(i for i in report.images[0].items if i["label"] == name)
        assert mine["pixels"] == (won == number).sum()
    assert drawn
    default = model.explain(pixels).explanation.attribution.label
    assert default == ("soil", "leaf", "fruit")[np.bincount(won.ravel()).argmax()]


def test_a_point_names_the_connected_region_and_a_mask_is_the_region(segmented, tmp_path):
    from scipy import ndimage

    module, model, pixels, x = segmented
    won = module(x)[0].argmax(0).numpy()
    parts, _ = ndimage.label(won == won[20, 18])
    wanted, score = seg_grad_cam(module, x, int(won[20, 18]), parts == parts[20, 18])
    found = model.explain(pixels, target="@18,20").explanation.attribution
    assert found.score == pytest.approx(score, rel=1e-3)
    np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-6))
    mask = np.zeros((40, 48), bool)
    mask[5:25, 4:30] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    own = int(np.bincount(won[mask]).argmax())
    _, score = seg_grad_cam(module, x, own, mask)
    found = model.explain(pixels, target=f"mask:{tmp_path / 'roi.png'}").explanation.attribution
    assert found.score == pytest.approx(score, rel=1e-3)
    Image.fromarray(mask[:20].astype(np.uint8) * 255).save(tmp_path / "small.png")
    with pytest.raises(ImageRefused, match="48x20"):
        model.explain(pixels, target=f"mask:{tmp_path / 'small.png'}")
    other = ("soil", "leaf", "fruit")[(int(won[20, 18]) + 1) % 3]
    with pytest.raises(ImageRefused, match="given to"):
        model.explain(pixels, target=f"{other}@18,20")
    with pytest.raises(UnknownTarget):
        model.explain(pixels, target="stone")


# -- embeddings ------------------------------------------------------------------------------------


class Embedding(nn.Module):
    def __init__(self, *, unit=True):
        super().__init__()
        self.unit = unit
        self.features, self.head = nn.Conv2d(3, 8, 6, 6), nn.Linear(8 * 16, 12)

    def rest(self, A):
        y = self.head(A.flatten(1))
        return nn.functional.normalize(y, dim=1) if self.unit else y

    def forward(self, x):
        return self.rest(torch.relu(self.features(x)))


@pytest.mark.parametrize("unit", [True, False])
def test_the_cosine_to_a_reference_is_explained(tmp_path, unit):
    torch.manual_seed(1)
    module = Embedding(unit=unit).eval()
    rng = np.random.default_rng(3)
    photos = [rng.integers(0, 256, (24, 24, 3), np.uint8) for _ in range(2)]
    inputs = [torch.from_numpy(p.transpose(2, 0, 1)[None] / np.float32(255)) for p in photos]
    path = tmp_path / "face.onnx"
    traced(module, inputs[0], path, ["fc1"])
    model = load(path)
    assert model.scores.classifier is not unit
    if unit:
        assert "embedding" in model.meaning
        with pytest.raises(UnknownTarget, match="similar-to"):
            model.explain(photos[0])
    report = model.explain(photos[0], similar_to=inspector.Photo.of(photos[1]))
    A = torch.relu(module.features(inputs[0])).detach().requires_grad_()
    reference = module(inputs[1]).detach()
    score = nn.functional.cosine_similarity(module.rest(A), reference)[0]
    (g,) = torch.autograd.grad(score, A)
    wanted = np.maximum((g.mean((2, 3), keepdim=True) * A).sum(1)[0].detach().numpy(), 0)
    found = report.explanation.attribution
    assert found.score == pytest.approx(float(score.detach()), abs=1e-5)
    assert report.images[0].predictions == []
    np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-9))
    drawn = np.asarray(report.images[0].figure(report.explanations[0])).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(drawn, axis=0).tolist()}
    assert {tuple(colour) for colour in photos[1].reshape(-1, 3).tolist()} <= colours  # beside it
    assert report.images[0].document()["reference"]["size"] == [24, 24]
    with pytest.raises(UsageError, match=r"--similar-to has nothing to do: .*'fc1\[3\]'"):
        model.explain(photos[0], target="fc1[3]", similar_to=inspector.Photo.of(photos[1]))
    reference = inspector.Photo.of(photos[1])
    with pytest.raises(UsageError, match="--similar-to has nothing to do"):
        model.explain(photos[0], target="1", task="classifier", similar_to=reference)
    swapped = model.explain(photos[1], similar_to=inspector.Photo.of(photos[0]))
    assert swapped.explanation.attribution.score == pytest.approx(found.score, abs=1e-5)


def test_what_is_called_an_embedding_has_no_classes(tmp_path):
    from networks import node, onnx_model

    rng = np.random.default_rng(0)
    proto = onnx_model(
        [
            node("Conv", "x w", "c"),
            node("GlobalAveragePool", "c", "m"),
            node("Flatten", "m", "embedding"),
        ],
        {"x": [1, 3, 16, 16]},
        {"embedding": [1, 64]},
        {"w": rng.standard_normal((64, 3, 3, 3)).astype(np.float32)},
        opset=17,
    )
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    model = load(path)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    with pytest.raises(UnknownTarget, match="embedding"):
        model.explain(pixels)
    same = model.explain(pixels, "occlusion", similar_to=pixels).explanation.attribution
    assert same.score == pytest.approx(1)
    for method in ("grad-cam", "gradient"):  # a cosine of 1 has no slope: all would be rounding
        with pytest.raises(MethodRefused, match="the similarity is saturated"):
            model.explain(pixels, method, similar_to=pixels)
    assert model.explain(pixels, "gradient", target="embedding[3]").attribution.any()
    report = model.explain(pixels, "gradient", task="classifier")
    assert report.images[0].predictions[0]["probability"] is None


# -- what is none of these -------------------------------------------------------------------------


def test_a_classifier_is_read_as_before(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(Net(1, softmax=True).proto(), path)
    model = inspector.load(path, device="cpu")
    assert model.reading() is None
    assert model.meaning.startswith(f"classifier ({CLASSES} classes")
    assert model.reading("classifier") is None


def test_pictures_of_the_input_s_size_are_not_classes(tmp_path):
    """Three channels that nothing calls classes: style transfer."""
    from networks import node, onnx_model

    proto = onnx_model(
        [node("Conv", "x w", "picture", pads=[1, 1, 1, 1])],
        {"x": [1, 3, 16, 16]},
        {"picture": [1, 3, 16, 16]},
        {"w": np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)},
        opset=17,
    )
    path = tmp_path / "style.onnx"
    onnx.save(proto, path)
    model = inspector.load(path, device="cpu")
    assert model.reading().task == "dense"
    assert model.meaning.startswith("dense prediction ('picture', a picture of 3 channels")
    assert model.reading("segmenter").task == "segmenter"


# -- the words -------------------------------------------------------------------------------------


def test_words_are_taken_apart():
    listed = "person, dog#2,box:1,2,30,40,-cat@3,4,top2,mask:a b.png,output0[4,219]"
    found = ["person", "dog#2", "box:1,2,30,40", "-cat@3,4", "top2", "mask:a b.png"]
    assert list(pieces(listed)) == [*found, "output0[4,219]"]
    assert read_words("dog#2") == Words(name="dog", rank=2)
    assert read_words("box:1,2,30,40") == Words(box=(1, 2, 30, 40))
    assert read_words("cat@3,4.5") == Words(name="cat", point=(3, 4.5))
    assert read_words("@3,4") == Words(point=(3, 4))
    assert read_words("top2") == Words(top=2)
    assert read_words("mask:a b.png") == Words(mask="a b.png")
    assert read_words("C#") == Words(name="C#")


# -- pictures ----------------------------------------------------------------------------------


def _lined(picture):
    return (np.asarray(picture, int) == LINE).all(axis=2)


def test_the_box_is_drawn_on_the_photo_and_on_the_map(detectors):
    _, model = detectors["columns"]
    image = model.explain(planted(), target="green").images[0]
    (explanation,) = image.explanations
    panel = outlined(Image.new("RGB", (SIDE * 4, SIDE * 4)), explanation.heatmap)
    left, top, right, bottom = (round(4 * v) for v in box_of("green"))
    rows, columns = np.nonzero(_lined(panel))
    found = (columns.min(), max(rows.min(), top), columns.max(), rows.max())
    assert found == pytest.approx((left, max(top, 0), right, bottom), abs=3)
    middle = _lined(panel)[max(top, 0) + 8 : bottom - 8, left + 8 : right - 8]
    assert not middle.any()
    assert _lined(image.figure(explanation)).sum() > 100  # both panels
    bare = model.explain(planted(), target="output0[4,9]").images[0]
    assert not _lined(bare.figure(bare.explanations[0])).any()


def test_the_border_of_a_region_is_drawn(segmented):
    module, model, pixels, x = segmented
    won = module(x)[0].argmax(0).numpy()
    (explanation,) = model.explain(pixels, target="leaf").images[0].explanations
    panel = outlined(Image.new("RGB", (won.shape[1], won.shape[0])), explanation.heatmap)
    mask = np.pad(won == 1, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    np.testing.assert_array_equal(_lined(panel), (won == 1) & ~inner)


# -- sequences and planes -------------------------------------------------------------------------


class Reader(nn.Module):
    """Colours of columns as characters: class 0 is blank, 1 red, 2 green, 3 blue."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.stem = nn.Conv2d(3, 4, (16, 8), (16, 8))
        with torch.no_grad():
            self.stem.weight.fill_(0)
            self.stem.bias.copy_(torch.tensor([3.0, 0, 0, 0]))
            for k in range(3):
                for c in range(3):
                    self.stem.weight[1 + k, c] = (8.0 if c == k else -4.0) / 128

    def layer(self, x):
        return torch.relu(self.stem(x))

    def scores(self, A):
        return 2 * A.mean(2).transpose(1, 2)  # (N, T, 4)

    def forward(self, x):
        z = self.scores(self.layer(x))
        if self.layout == "steps first":
            return z.transpose(0, 1).log_softmax(2)
        return z.softmax(2) if self.layout == "probabilities" else z


def line_of(text):
    """A picture whose columns of 8 pixels have the colours of a text; a dot is grey."""
    pixels = np.full((16, 8 * len(text), 3), 90, np.uint8)
    for step, letter in enumerate(text):
        if letter != ".":
            pixels[:, 8 * step : 8 * step + 8] = 20
            pixels[:, 8 * step : 8 * step + 8, "RGB".index(letter)] = 240
    return pixels


@pytest.mark.parametrize("layout", ["probabilities", "steps first", "scores"])
def test_characters_are_read_and_explained_one_by_one(tmp_path, layout):
    module, path = Reader(layout).eval(), tmp_path / "reader.onnx"
    pixels = line_of("RR.R.GB..B")
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    traced(module, x, path, ["text"])
    model = load(path, labels=["R", "G", "B"])
    task = "sequence" if layout == "scores" else None  # nothing says that these are classes
    report = model.explain(pixels, task=task)
    assert [i["label"] for i in report.images[0].items] == [
        "char:1 R",
        "char:2 R",
        "char:3 G",
        "char:4 B",
        "char:5 B",
    ]
    steps = [0, 3, 5, 6, 9]
    A = module.layer(x).detach().requires_grad_()
    for found, step, number in zip(report.explanations, steps, (1, 1, 2, 3, 3), strict=True):
        score = module.scores(A)[0, step, number]
        (g,) = torch.autograd.grad(score, A)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        assert found.attribution.method == "hires-cam"
        assert found.attribution.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(found.attribution.values, wanted, atol=CLOSE * wanted.max())
        assert found.attribution.values.argmax() == step
    for text, label in (("char:3", "char:3 G"), ("R#2", "char:2 R"), ("B", "char:4 B")):
        one = model.explain(pixels, target=text, task=task).explanation.attribution
        assert one.label == label
    with pytest.raises(ImageRefused, match="RRGBB"):
        model.explain(pixels, target="char:6", task=task)
    with pytest.raises(ImageRefused, match="no character"):
        model.explain(line_of(".........."), task=task)


class Depth(nn.Module):
    def __init__(self, *, channel):
        super().__init__()
        self.channel = channel
        self.down, self.deep = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 1, 1)

    def bottleneck(self, x):
        return torch.relu(self.deep(torch.relu(self.down(x))))

    def rest(self, A):
        found = self.out(torch.relu(self.up(A)))
        return found if self.channel else found[:, 0]

    def forward(self, x):
        return self.rest(self.bottleneck(x))


@pytest.mark.parametrize("channel", [True, False])
def test_the_maximum_a_point_and_a_mask_of_a_plane(tmp_path, channel):
    torch.manual_seed(4)
    module, path = Depth(channel=channel).eval(), tmp_path / "depth.onnx"
    pixels = np.random.default_rng(6).integers(0, 256, (40, 48, 3), np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    traced(module, x, path, ["depth"])
    model = load(path)
    assert model.reading().task == "dense"
    A = module.bottleneck(x).detach().requires_grad_()
    plane = module.rest(A).reshape(20, 24)
    mask = np.zeros((40, 48), bool)
    mask[10:20, 20:40] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    top = np.unravel_index(plane.detach().numpy().argmax(), (20, 24))
    for text, score in (
        (None, plane[top]),
        ("@21,11", plane[5, 10]),
        (f"mask:{tmp_path / 'roi.png'}", plane[5:10, 10:20].sum()),
    ):
        (g,) = torch.autograd.grad(score, A, retain_graph=True)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        found = model.explain(pixels, target=text).explanation.attribution
        assert found.layer == model.layers[1].tensor
        assert found.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-9))
    with pytest.raises(UnknownTarget):
        model.explain(pixels, target="sky")


class Painter(Depth):
    """A picture of three channels at the size of the photo, channels first or last."""

    def __init__(self, *, last):
        super().__init__(channel=True)
        self.last, self.out = last, nn.ConvTranspose2d(6, 3, 2, 2)

    def rest(self, A):
        found = super().rest(A)
        return found.permute(0, 2, 3, 1) if self.last else found


@pytest.mark.parametrize("last", [False, True])
def test_squares_and_masks_of_a_picture_over_all_its_channels(tmp_path, last):
    torch.manual_seed(5)
    module, path = Painter(last=last).eval(), tmp_path / "painter.onnx"
    pixels = np.full((40, 48, 3), 90, np.uint8)
    pixels[20:28, 12:20] = np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    traced(module, x, path, ["picture"])
    model = load(path)
    assert "a picture of 3 channels" in model.meaning
    A = module.bottleneck(x).detach().requires_grad_()
    planes = module.rest(A)[0]
    planes = planes.permute(2, 0, 1) if last else planes
    mask = np.zeros((40, 48), bool)
    mask[4:12, 30:40] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    for text, score in (
        ("@30,10", planes[:, 8:13, 27:33].sum()),
        ("@0,39", planes[:, 35:40, 0:6].sum()),
        (f"mask:{tmp_path / 'roi.png'}", planes[:, 4:12, 30:40].sum()),
        (
            f"sum(mask:{tmp_path / 'roi.png'}; -@0,39)",
            planes[:, 4:12, 30:40].sum() - planes[:, 35:40, 0:6].sum(),
        ),
    ):
        (g,) = torch.autograd.grad(score, A, retain_graph=True)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        found = model.explain(pixels, target=text).explanation.attribution
        assert found.layer == model.layers[1].tensor
        assert found.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-9))
    found = model.explain(pixels).explanation.attribution
    assert found.label == "detail"
    top, left, bottom, right = found.box
    assert (bottom - top, right - left) == (5, 6)
    assert 15 <= top <= 27  # where the noise is
    assert 8 <= left <= 20
    with pytest.raises(UnknownTarget, match="detail, @X,Y or mask:FILE"):
        model.explain(pixels, target="sky")


def test_a_small_item_is_outlined_by_a_box_that_can_be_seen():
    attribution = Attribution(np.ones((2, 2)), "layer", "x", box=(10.0, 10.0, 10.5, 10.5))
    heatmap = Heatmap.of(attribution, Geometry.identity((40, 40)))
    panel = np.asarray(outlined(Image.new("RGB", (40, 40), (90, 90, 90)), heatmap))
    assert (panel == LINE).all(2).sum() >= 16
    assert (panel[9:12, 9:12] == 90).all()


def test_the_overview_names_the_layers_that_explain_takes(detectors, segmented):
    for model, pixels in ((detectors["columns"][1], planted()), (segmented[1], segmented[2])):
        rows = overview(model).rows
        taken = model.explain(pixels).explanations[0].attribution.layer
        assert [row.tensor for row in rows if row.default] == [taken]

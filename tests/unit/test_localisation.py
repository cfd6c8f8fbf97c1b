"""The study of localisation, against the papers' measures written out in loops."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper
from PIL import Image
from test_boxes import flooded

import inspector
from inspector.errors import ImageRefused, MethodRefused, UnknownLayer, UnknownMethod, UsageError
from inspector.heatmap import Heatmap
from inspector.measures.boxes import box_of_map
from inspector.passes.journal import Journal
from inspector.studies.localisation import localisation
from inspector.studies.localisation.maps import raster, seen_shares

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
BOXES = SAMPLES / "images" / "boxes.csv"
COLOURS = ("red", "green", "blue")
FAST = {"resamples": 50, "examples": 0}


# -- a network whose maps are the photo's own channels --------------------------------------------


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Conv 1x1 (identity), Relu, mean, identity: the CAM of a class is the photo's channel."""
    path = tmp_path_factory.mktemp("colours") / "colours.onnx"
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    onnx.save(
        onnx_model(
            nodes,
            {"x": ["n", 3, 16, 16]},
            {"y": ["n", 3]},
            {
                "one": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
                "w": np.eye(3, dtype=np.float32),
            },
        ),
        path,
    )
    return inspector.load(path, preprocess="unit", labels=list(COLOURS))


def planted(folder, blocks_by_photo, lines):
    """Photos of 16x16 with blocks (channel, level, y0, x0, y1, x1), and their table."""
    for name, blocks in blocks_by_photo.items():
        pixels = np.zeros((16, 16, 3), np.uint8)
        for channel, level, y0, x0, y1, x1 in blocks:
            pixels[y0:y1, x0:x1, COLOURS.index(channel)] = level
        Image.fromarray(pixels).save(folder / f"{name}.png")
    table = folder / "boxes.csv"
    table.write_text("image,label,x0,y0,x1,y1\n" + "\n".join(lines) + "\n")
    return table


def of_photo(found, name):
    return next(p for p in found.numbers["photo_results"] if p["name"] == name)


def value(found, measure, method="cam"):
    entries = {one["method"]: one for one in found.numbers["methods"]}
    return (found.numbers["centre"] if method == "centre" else entries[method])[measure]["value"]


@pytest.fixture
def shapes(colours, tmp_path):
    """Four photos on which everything is known."""
    table = planted(
        tmp_path,
        {
            "hit": [("red", 255, 2, 3, 10, 9)],
            # Green is stronger: red is the second best class, and its box is right.
            "second": [("red", 250, 0, 0, 4, 4), ("green", 255, 8, 0, 16, 16)],
            # The class is right, the box too small: 4x4 of 8x8.
            "small": [("blue", 255, 4, 4, 8, 8)],
            # Nothing red at all.
            "empty": [("green", 255, 0, 0, 8, 16)],
        },
        [
            "hit.png,red,3,2,9,10",
            "second.png,red,0,0,4,4",
            "small.png,blue,4,4,12,12",
            "empty.png,red,0,8,16,16",
        ],
    )
    return localisation(
        colours,
        boxes=table,
        method=("cam", "grad-cam"),
        top=2,
        tolerance=1.0,
        connectivity=4,
        **FAST,
    )


@pytest.mark.parametrize("method", ["cam", "grad-cam"])
def test_planted_maps(shapes, method):
    assert value(shapes, "top1_error", method) == 0.75
    assert value(shapes, "topk_error", method) == 0.5
    assert value(shapes, "gt_known", method) == 0.5
    assert value(shapes, "max_box_acc", method) == 0.5
    # 0.3: two of four hit; 4x4 of 8x8 is an overlap of a quarter, too little for all three.
    assert value(shapes, "max_box_acc_v2", method) == 0.5
    assert value(shapes, "pointing", method) == 0.75
    entry = next(one for one in shapes.numbers["methods"] if one["method"] == method)
    assert entry["empty_maps"] == 1
    assert entry["threshold"] == {"cam": 0.2, "grad-cam": 0.15}[method]
    photo = of_photo(shapes, "hit.png")["methods"][method]["objects"][0]
    assert photo["box"] == [2, 3, 10, 9]
    assert photo["iou"] == 1
    empty = of_photo(shapes, "empty.png")["methods"][method]["objects"][0]
    assert (empty["box"], empty["iou"], empty["point"], empty["gap"]) == (None, 0, None, None)
    assert of_photo(shapes, "small.png")["methods"][method]["objects"][0]["iou"] == 16 / 64
    assert any(f"{method}: 1 of 4 maps without positive" in one for one in shapes.sentences)


def test_planted_classes(shapes):
    assert shapes.numbers["classification"]["top1_accuracy"]["value"] == 0.5
    # "empty": red and blue both score nothing; of equal ones the first is ranked first.
    assert shapes.numbers["classification"]["topk_accuracy"]["value"] == 1
    assert of_photo(shapes, "second.png")["predicted"] == [1, 0]
    assert of_photo(shapes, "second.png")["methods"]["cam"]["ranks"] == [0, 1]
    assert "cam and grad-cam hit the same objects at every threshold" in shapes.sentences


def test_planted_baseline(shapes):
    # A centred box of half the area is 11.31 wide: 2.34 to 13.66.
    edge = 8 - 16 * math.sqrt(0.5) / 2
    for name, (x0, y0, x1, y1) in {"hit": (3, 2, 9, 10), "small": (4, 4, 12, 12)}.items():
        found = of_photo(shapes, f"{name}.png")["methods"]["centre"]["objects"][0]
        assert found["box"] == pytest.approx([edge, edge, 16 - edge, 16 - edge])
        width = min(x1, 16 - edge) - max(x0, edge)
        height = min(y1, 16 - edge) - max(y0, edge)
        union = 128 + (x1 - x0) * (y1 - y0) - width * height
        assert found["iou"] == pytest.approx(width * height / union)
        assert found["gap"] == 0
    assert value(shapes, "gt_known", "centre") == 0.25  # small alone: 64 of 128, an IoU of 0.5
    assert value(shapes, "pointing", "centre") == 0.75  # on the edge of the lower half, too


def test_several_boxes_and_alternatives(colours, tmp_path):
    table = planted(
        tmp_path,
        {
            "two": [("red", 255, 0, 0, 6, 6)],
            "either": [("green", 255, 8, 8, 16, 16), ("blue", 200, 0, 0, 4, 4)],
            "both": [("red", 255, 0, 0, 8, 8), ("green", 254, 8, 8, 16, 16)],
        },
        [
            "two.png,red,10,10,16,16",
            "two.png,red,0,0,6,6",
            "either.png,1-2,8,8,16,16",
            "both.png,red,0,0,8,8",
            "both.png,green|blue,0,0,8,8",
        ],
    )
    found = localisation(colours, boxes=table, method=("cam",), top=2, tolerance=0, **FAST)
    assert found.numbers["objects"] == 4
    assert of_photo(found, "two.png")["methods"]["cam"]["objects"][0]["iou"] == 1
    assert of_photo(found, "either.png")["objects"][0]["class"] == 1
    first, second = of_photo(found, "both.png")["methods"]["cam"]["objects"]
    assert (first["iou"], second["iou"]) == (1, 0)
    # The two labels of "both" share its vote.
    assert value(found, "gt_known") == pytest.approx((1 + 1 + 0.5) / 3)
    assert value(found, "top1_error") == 0
    assert of_photo(found, "both.png")["methods"]["cam"]["ranks"] == [1, 0]


def test_v2_takes_the_best_component(colours, tmp_path):
    table = planted(
        tmp_path,
        {"p": [("red", 255, 0, 0, 8, 8), ("red", 255, 10, 10, 16, 16)]},
        ["p.png,red,10,10,16,16"],
    )
    found = localisation(colours, boxes=table, method=("cam",), tolerance=0, **FAST)
    assert value(found, "max_box_acc") == 0
    assert value(found, "max_box_acc_v2") == 1


# -- a real network, against the definitions ------------------------------------------------------


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (a, b)]
    return height * width / (sum(areas) - height * width)


def slow(model, rows, method, share, top, tolerance):
    """All measures of one method, photo by photo and threshold by threshold."""
    thresholds = [step / 100 for step in range(100)]
    errors, known, pointing = {1: [], top: []}, [], []
    largest = np.zeros((3, len(thresholds)))
    every = np.zeros_like(largest)
    for path, label, box in rows:
        report = model.explain(path, method, target=f"top{top}")
        true = model.class_labels.names.index(label)
        image = report.images[0]
        hits = []
        for explanation in image.explanations:  # the map and the box of each predicted class
            values = explanation.heatmap.values.astype(np.float64)
            boxes = flooded(values > share * values.max(), 8) if values.max() > 0 else []
            right = explanation.heatmap.attribution.index == true
            hits.append(right and bool(boxes) and iou(boxes[0], box) >= 0.5)
        errors[1].append(not hits[0])
        errors[top].append(not any(hits))
        values = model.explain(path, method, target=str(true)).images[0].explanations[0]
        values = values.heatmap.values.astype(np.float64)
        boxes = flooded(values > share * values.max(), 8)
        known.append(iou(boxes[0], box) >= 0.5)
        at = [(y, x) for y in range(32) for x in range(32) if values[y, x] == values.max()]
        mean = [sum(one[axis] for one in at) / len(at) for axis in (0, 1)]
        y, x = min(at, key=lambda one: math.dist(one, mean))
        inside = (min(max(y + 0.5, box[0]), box[2]), min(max(x + 0.5, box[1]), box[3]))
        pointing.append(math.dist((y + 0.5, x + 0.5), inside) <= tolerance)
        for place, threshold in enumerate(thresholds):
            found = [iou(one, box) for one in flooded(values > threshold * values.max(), 8)]
            for row, least in enumerate((0.3, 0.5, 0.7)):
                largest[row, place] += found[0] >= least
                every[row, place] += max(found) >= least
    return {
        "top1_error": np.mean(errors[1]),
        "topk_error": np.mean(errors[top]),
        "gt_known": np.mean(known),
        "pointing": np.mean(pointing),
        "max_box_acc": max(largest[1]) / len(rows),
        "max_box_acc_v2": np.mean([max(one) for one in every]) / len(rows),
    }, largest[1] / len(rows)


def chosen_table(folder, names):
    """A table of some of the sample photos, whose files it links to."""
    lines = BOXES.read_text().splitlines()
    kept = [line for line in lines[1:] if line.split(".")[0] in names]
    for name in names:
        (folder / f"{name}.png").symlink_to(SAMPLES / "images" / f"{name}.png")
    (folder / "boxes.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    return folder / "boxes.csv"


def test_a_real_network_equals_the_definitions(tmp_path):
    model = inspector.load(SAMPLES / "resnet20.onnx")
    names = ["airplane_1", "bird_2", "cat_2", "deer_2", "horse_2"]
    table = chosen_table(tmp_path, names)
    found = localisation(
        model, boxes=table, method=("cam", "grad-cam++"), top=3, tolerance=2.0, **FAST
    )
    rows = []
    for line in table.read_text().splitlines()[1:]:
        name, label, x0, y0, x1, y1 = line.split(",")
        rows.append((tmp_path / name, label, tuple(map(float, (y0, x0, y1, x1)))))
    for method, share in (("cam", 0.2), ("grad-cam++", 0.15)):
        expected, curve = slow(model, rows, method, share, 3, 2.0)
        for measure, number in expected.items():
            assert value(found, measure, method) == pytest.approx(number, abs=1e-9), measure
        entry = next(one for one in found.numbers["methods"] if one["method"] == method)
        np.testing.assert_allclose(entry["max_box_acc_curve"], curve, atol=1e-6)
    # The case is worth something: right and wrong photos, hits and misses.
    assert 0 < value(found, "top1_error") < 1
    assert 0 < value(found, "gt_known") < 1


def test_intervals_equal_a_bootstrap_in_loops(colours, tmp_path):
    """Photos are drawn with the same seed; then everything is counted one by one."""
    rng = np.random.default_rng(3)
    photos, lines = {}, []
    for place in range(7):
        y, x = rng.integers(0, 8, 2)
        photos[f"p{place}"] = [("red", 255, y, x, y + 8, x + 8)]
        dy, dx = rng.integers(0, 4, 2)
        lines.append(f"p{place}.png,red,{x},{y},{x + 8 - dx},{y + 8 - dy}")
    table = planted(tmp_path, photos, lines)
    found = localisation(
        colours,
        boxes=table,
        method=("cam",),
        tolerance=0,
        resamples=400,
        seed=9,
        threshold=0.5,
        examples=0,
    )
    hits = {
        name: [
            p["methods"][name]["objects"][0]["iou"] >= 0.5 for p in found.numbers["photo_results"]
        ]
        for name in ("cam", "centre")
    }
    drawn = np.random.default_rng(9).integers(0, 7, (400, 7))
    means = {name: [sum(one[at] for at in row) / 7 for row in drawn] for name, one in hits.items()}
    assert 0 < np.mean(hits["cam"]) < 1
    interval = found.numbers["methods"][0]["gt_known"]
    assert interval["low"] == pytest.approx(np.percentile(means["cam"], 2.5))
    assert interval["high"] == pytest.approx(np.percentile(means["cam"], 97.5))
    better = found.numbers["methods"][0]["better_than_centre"]["gt_known"]
    apart = [a - b for a, b in zip(means["cam"], means["centre"], strict=True)]
    assert better["value"] == pytest.approx(np.mean(hits["cam"]) - np.mean(hits["centre"]))
    assert better["low"] == pytest.approx(np.percentile(apart, 2.5))
    assert better["high"] == pytest.approx(np.percentile(apart, 97.5))


def test_the_seed_decides(colours, tmp_path):
    table = planted(
        tmp_path,
        {f"p{k}": [("red", 255, k, k, k + 6, k + 6)] for k in range(9)},
        [f"p{k}.png,red,2,2,10,10" for k in range(9)],
    )
    runs = [
        localisation(colours, boxes=table, method=("cam",), resamples=30, seed=seed, examples=0)
        for seed in (1, 1, 2)
    ]
    numbers = [json.dumps(run.numbers["methods"]) for run in runs]
    assert numbers[0] == numbers[1]
    assert numbers[0] != numbers[2]


# -- geometry -------------------------------------------------------------------------------------


def test_maps_of_cropped_photos_lie_on_the_photo(colours, tmp_path):
    """A photo twice as wide as high: the network sees its middle alone."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[8:24, 24:40, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (tmp_path / "boxes.csv").write_text(
        "image,label,x0,y0,x1,y1\nwide.png,red,24,8,40,24\nwide.png,blue,0,0,20,32\n"
    )
    found = localisation(
        colours, boxes=tmp_path / "boxes.csv", method=("cam",), tolerance=0, threshold=0.5, **FAST
    )
    photo = of_photo(found, "wide.png")
    # One pixel of the input is two of the photo; bilinear laying back blurs the edge.
    assert (
        np.abs(np.subtract(photo["methods"]["cam"]["objects"][0]["box"], [8, 24, 24, 40])).max()
        <= 1
    )
    assert [one["seen"] for one in photo["objects"]] == [[1.0], [pytest.approx(4 / 20)]]
    assert any("1 object(s) cannot be hit" in one for one in found.sentences)


def test_large_photos_are_measured_on_a_coarser_grid():
    model = inspector.load(SAMPLES / "resnet20.onnx")
    with Image.open(SAMPLES / "images" / "horse_2.png") as small:
        photo = inspector.Photo.of(np.asarray(small.convert("RGB").resize((1500, 1100))))
    heatmap = model.explain(photo, "grad-cam").images[0].explanations[0].heatmap
    grid, cell = raster(heatmap.geometry)
    assert max(grid.photo) == 640
    coarse = Heatmap.of(heatmap.attribution, grid)
    for share in (0.15, 0.5, 0.8):
        box = box_of_map(coarse.values, share)[0] * (*cell, *cell)
        assert np.abs(box - box_of_map(heatmap.values, share)[0]).max() <= max(cell)
    assert raster(grid) == (grid, (1.0, 1.0))
    assert next(seen_shares(grid, [(0, 0, 10, 10)])) == pytest.approx(
        next(seen_shares(heatmap.geometry, [(0, 0, 10 * cell[0], 10 * cell[1])]))
    )


# -- what goes wrong ------------------------------------------------------------------------------


def test_bad_rows_are_named_and_the_others_done(colours, tmp_path):
    table = planted(
        tmp_path,
        {name: [("red", 255, 0, 0, 8, 8)] for name in ("a", "b", "c")},
        [
            "a.png,red,0,0,8,8",
            "b.png,red,0,0,8,17",
            "c.png,purple,0,0,8,8",
            "gone.png,red,0,0,8,8",
            "a.png,red,1,0,8,8",
        ],
    )
    found = localisation(colours, boxes=table, method=("cam",), tolerance=0, **FAST)
    assert found.images == 1
    told = sorted(map(str, found.refused))
    assert len(told) == 3
    assert "line 3: the box 0,0,8,17 reaches outside the photo of 16x16" in told[0]
    assert "b.png" in told[0]
    assert "line 4: 'purple' is not a class of the model" in told[1]
    assert "gone.png" in told[2]
    table.write_text("image,label,x0,y0,x1,y1\nb.png,red,0,0,8,17\n")
    with pytest.raises(ImageRefused, match="reaches outside"):
        localisation(colours, boxes=table, method=("cam",), **FAST)


def test_photos_that_are_not_given_are_left_out(colours, tmp_path):
    table = planted(
        tmp_path,
        {name: [("red", 255, 0, 0, 8, 8)] for name in ("a", "b")},
        ["a.png,red,0,0,8,8", "b.png,red,0,0,8,8"],
    )
    other = tmp_path / "elsewhere.csv"
    other.write_bytes(table.read_bytes())
    found = localisation(colours, [tmp_path / "b.png"], boxes=other, method=("cam",), **FAST)
    assert [p["name"] for p in found.numbers["photo_results"]] == ["b.png"]
    assert "1 photo(s) of the table are not among those given" in found.warnings
    assert localisation(colours, [tmp_path], boxes=other, method=("cam",), **FAST).images == 2
    with pytest.raises(UsageError, match="no box for any"):
        localisation(colours, [tmp_path / "c.png"], boxes=other, method=("cam",), **FAST)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"boxes": ""}, UsageError, "--boxes"),
        ({"top": 0}, UsageError, "top"),
        ({"threshold": 1.0}, UsageError, "threshold"),
        ({"connectivity": 6}, UsageError, "4 or 8"),
        ({"tolerance": -1.0}, UsageError, "pixels"),
        ({"tolerance": math.nan}, UsageError, "pixels"),
        ({"centre": 0.0}, UsageError, "centre"),
        ({"resamples": 0}, UsageError, "resamples"),
        ({"examples": 99}, UsageError, "examples"),
        ({"method": ("lime",)}, UnknownMethod, "lime"),
        ({"method": ("grad-cam",), "layer": "nowhere"}, UnknownLayer, "nowhere"),
    ],
)
def test_options_that_cannot_be_meant(colours, options, error, said):
    with pytest.raises(error) as caught:
        localisation(colours, **{"boxes": BOXES, **options})
    assert said in f"{caught.value} {caught.value.hint}"


def test_methods_that_the_model_rules_out():
    model = inspector.load(SAMPLES / "zfnet.onnx")  # three linear layers: no CAM
    found = localisation(model, [SAMPLES / "images" / "dog_1.png"], boxes=BOXES, **FAST)
    assert [one["method"] for one in found.numbers["methods"]] == ["grad-cam", "grad-cam++"]
    assert [one["method"] for one in found.numbers["refused_methods"]] == ["cam"]
    assert any("cam is left out: " in one and "CAM is not exact" in one for one in found.warnings)
    with pytest.raises(MethodRefused, match="no method works"):
        localisation(model, boxes=BOXES, method=("cam",), **FAST)


def test_a_model_without_classes(shared):
    model = inspector.load(shared / "zoo" / "pytorch_super_resolution.onnx")
    with pytest.raises(MethodRefused, match="asks for classes"):
        localisation(model, boxes=BOXES)


# -- resumption and output ------------------------------------------------------------------------


def test_a_resumed_run_ends_alike(tmp_path):
    model = inspector.load(SAMPLES / "resnet20.onnx")
    options = {"boxes": BOXES, "method": ("cam", "grad-cam"), **FAST}
    photos = sorted((SAMPLES / "images").glob("*_1.png"))
    path = tmp_path / "run.jsonl"
    first = Journal(path, "id")
    whole = localisation(model, photos, **options, journal=first)
    first.close()
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + len(photos)
    path.write_text("".join(lines[:5]) + lines[5][:40])
    steps = []
    resumed = Journal(path, "id")
    assert resumed.found == 4
    again = localisation(
        model, photos, **options, journal=resumed, progress=lambda *step: steps.append(step)
    )
    resumed.close()
    assert len([step for step in steps if step[0] == "photos"]) == len(photos) - 4
    assert json.dumps(again.numbers, default=list) == json.dumps(whole.numbers, default=list)
    assert again.sentences == whole.sentences


def test_a_photo_or_box_that_changed_is_measured_again(colours, tmp_path):
    table = planted(tmp_path, {"a": [("red", 255, 0, 0, 8, 8)]}, ["a.png,red,0,0,8,8"])
    journal = Journal()
    options = {"boxes": table, "method": ("cam",), "journal": journal, **FAST}
    assert value(localisation(colours, **options), "gt_known") == 1
    planted(tmp_path, {"a": [("red", 255, 0, 0, 8, 8)]}, ["a.png,red,8,8,16,16"])
    assert value(localisation(colours, **options), "gt_known") == 0
    assert journal.kept == 2


def test_what_is_written(colours, tmp_path):
    table = planted(
        tmp_path,
        {
            "a": [("red", 255, 0, 0, 8, 8)],
            "b": [("green", 255, 0, 0, 9, 9)],
            "empty": [("green", 255, 0, 0, 8, 16)],
        },
        ["a.png,red,0,0,8,8", "b.png,green,4,4,13,13", "empty.png,red,0,0,4,4"],
    )
    many = (
        "cam",
        "grad-cam",
        "grad-cam++",
        "gradient",
        "guided-backprop",
        "deconvnet",
        "guided-grad-cam",
    )
    widest = localisation(colours, boxes=table, method=many, top=1, resamples=20, examples=1)
    assert {len(one["methods"]) for one in widest.numbers["photo_results"]} == {8}
    found = localisation(colours, boxes=table, resamples=20, examples=3)
    names = [path.name for path in found.save(tmp_path / "out")]
    assert names == ["localisation.png", "localisation.csv", "localisation.json"]
    with (tmp_path / "out" / "localisation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["cam", "grad-cam", "grad-cam++", "centre"]
    report = json.loads((tmp_path / "out" / "localisation.json").read_text())
    cam = report["result"]["methods"][0]
    assert float(rows[0]["gt_known"]) == cam["gt_known"]["value"]
    assert cam["gt_known"]["low"] <= cam["gt_known"]["value"] <= cam["gt_known"]["high"]
    assert report["result"]["conventions"]["connectivity"] == 8
    assert any("a tolerance of 15 pixels is much" in one for one in report["warnings"])


def test_no_method_beats_the_centre_is_said(colours, tmp_path):
    table = planted(tmp_path, {"a": [("red", 255, 0, 0, 2, 2)]}, ["a.png,red,2,2,14,14"])
    found = localisation(colours, boxes=table, method=("cam",), tolerance=0, **FAST)
    assert any(
        one.startswith("no method localises better than the centre") for one in found.sentences
    )


# -- other people's models ------------------------------------------------------------------------


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("winml_squeezenet_fp16_opset7", {"preprocess": "caffe"}),
        ("mobilenetv2_qdq_int8_244", {}),
    ],
)
def test_boxed_photos(shared, name, options):
    model = inspector.load(shared / "zoo" / f"{name}.onnx", **options)
    folder = shared / "photos" / "boxed"
    photos = [folder / f"{n:012d}.jpg" for n in (260, 650, 5037)]
    found = localisation(model, photos, boxes=folder / "boxes.csv", resamples=20, examples=1)
    assert found.images == 3
    assert not found.refused
    assert [one["method"] for one in found.numbers["methods"]] == ["cam", "grad-cam", "grad-cam++"]
    cat = of_photo(found, "000000000650.jpg")
    assert cat["objects"][0]["class"] in range(281, 286)
    for method in ("cam", "grad-cam"):
        assert cat["methods"][method]["objects"][0]["gap"] == 0


def test_nhwc_and_no_names(shared, tmp_path):
    model = inspector.load(shared / "zoo" / "tf2onnx_resnet50thin_nhwc.onnx")
    table = tmp_path / "boxes.csv"
    with Image.open(shared / "photos" / "cat.jpg") as cat:
        size = cat.size
    table.write_text(f"image,label,x0,y0,x1,y1\ncat.jpg,0,0,0,{size[0]},{size[1]}\n")
    found = localisation(model, [shared / "photos"], boxes=table, resamples=20, examples=1)
    assert found.images == 1
    assert any("so one of the best 2 is always right" in one for one in found.warnings)
    table.write_text("image,label,x0,y0,x1,y1\ncat.jpg,cat,0,0,9,9\n")
    with pytest.raises(ImageRefused, match="not a class of the model") as caught:
        localisation(model, [shared / "photos"], boxes=table)
    assert "--labels" in caught.value.hint

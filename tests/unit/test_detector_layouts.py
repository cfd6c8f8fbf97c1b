"""Layouts of detectors' outputs: planted boxes are read back, whatever the head writes down."""

from types import SimpleNamespace

import detector_heads as heads
import numpy as np
import pytest
from detector_heads import NAMES, OBJECTS, SIZE

from inspector.errors import UsageError
from inspector.photos.geometry import Geometry
from inspector.tasks import Outputs, Sample, find_reading
from inspector.tasks.detector import Detector
from inspector.tasks.detector.layouts import find_layout

PIXEL = 1e-3
FACES = ("scrfd", "yunet", "retinaface", "centerface")

ONE_CLASS = {
    "scrfd": (heads.scrfd, "SCRFD"),
    "scrfd, one anchor": (lambda: heads.scrfd(anchors=1), "SCRFD"),
    "scrfd, numbered": (lambda: heads.numbered(heads.scrfd()), "SCRFD"),
    "yunet": (heads.yunet, "YuNet"),
    "retinaface": (heads.retinaface, "RetinaFace"),
    "centerface": (heads.centerface, "CenterFace"),
    "yolox, one class": (lambda: heads.yolox_rows(classes=1), "YOLOX head (N, 252, 5 + 1)"),
}
SEVERAL = {
    "yolox": (heads.yolox_rows, "offsets from the cells"),
    "yolox, decoded": (lambda: heads.yolox_rows(decoded=True), "YOLOX head (N, 252, 5 + 3)"),
    "yolox, maps": (heads.yolox_maps, "YOLOX head, levels of stride 8, 16, 32"),
    "yolov5, levels": (heads.yolov5_levels, "YOLOv5 head, levels of stride 8, 16, 32"),
    "yolox, parts": (heads.yolox_parts, "YOLOX head, levels of stride 8, 16, 32"),
    "nanodet": (heads.nanodet_parts, "NanoDet head, levels of stride 8, 16, 32"),
    "nanodet-plus": (heads.nanodet_plus, "NanoDet head (N, 256, 3 + 32)"),
    "yolov8, maps": (heads.yolov8_maps, "YOLOv8 head, levels of stride 8, 16, 32"),
    "yolov8": (heads.columns, "YOLOv8 head (N, 4 + 3, 252)"),
    "yolov8, corners": (lambda: heads.with_corners(heads.columns()), "corners of boxes"),
    "yolox, corners": (
        lambda: heads.with_corners(heads.yolox_rows(decoded=True)),
        "5 + 3), corners of boxes",
    ),
    "pairs": (heads.boxes_and_scores, "(N, 252, 3), corners"),
    "pairs, an axis between": (lambda: heads.boxes_and_scores(form="between"), "252, 3), corners"),
    "pairs, turned round": (lambda: heads.boxes_and_scores(form="turned"), "252, 3), corners"),
    "yolov8-seg": (heads.masked, "4 + 3 + 32, 252), masks"),
    "yolov8-obb": (heads.turned, "oriented boxes"),
    "yolov8-pose": (heads.posed, "4 + 3 + 51"),
    "rt-detr": (heads.rt_detr, "(N, 300, 4 + 3)"),
    "centernet": (heads.centernet, "CenterNet"),
    "fastestdet": (heads.fastestdet, "FastestDet"),
    "end to end": (heads.end_to_end, "(N, D, 6)"),
    "end to end, masks": (heads.end_to_end_masks, "(N, D, 6 + 32)"),
    "batch index": (heads.batch_index, "(M, 7)"),
    "detection output": (heads.detection_output, "(M, 7)"),
    "tensorflow": (heads.tensorflow, "boxes, scores and labels"),
    "tensorflow, raw": (heads.tensorflow_raw, "(N, 50, 4)"),
    "torchvision": (heads.torchvision, "boxes, scores and labels"),
    "mmdeploy": (heads.mmdeploy, "boxes, scores and labels"),
}
EVERY = ONE_CLASS | SEVERAL


def known(values, labels=NAMES, task="", layout="", size=SIZE):
    """What is known of a model whose outputs are these, of one sample each."""
    scores = SimpleNamespace(
        outputs=[SimpleNamespace(name=name, shape=(1, *v.shape)) for name, v in values.items()],
        measure=lambda names: {name: values[name][None] for name in names},
        graph=None,
        classifier=False,
        classifies=False,
        why="planted",
    )
    return Outputs(scores, tuple(labels), {"task": task} if task else {}, size, layout=layout)


def read(values, labels=NAMES, task=""):
    outputs = known(values, labels, task)
    layout = find_layout(outputs)
    sample = Sample(values, Geometry.identity(SIZE))
    return layout, Detector(outputs, layout).items(sample)


@pytest.mark.parametrize("case", EVERY)
def test_planted_boxes_are_read_back(case):
    make, name = EVERY[case]
    values = make()
    several = case in SEVERAL
    layout, items = read(values, NAMES if several else (), "obb" if case == "yolov8-obb" else "")
    assert name in layout.name
    assert len(items) == len(OBJECTS)
    for item, one in zip(items, OBJECTS, strict=True):
        left, top, right, bottom = one.box
        assert item.box == pytest.approx((top, left, bottom, right), abs=PIXEL)
        assert item.score == pytest.approx(one.score, abs=1e-6)
        assert item.index == (one.kind if several else 0)
        # The element that is explained is that of this object and no other.
        element = values[item.target.tensor][item.target.index]
        shown = element if 0 <= element <= 1 else 1 / (1 + np.exp(-element))
        assert shown > 0.4


@pytest.mark.parametrize("rectified", [False, True])
def test_the_features_of_a_pyramid_are_no_class_scores(rectified):
    rng = np.random.default_rng(0)
    values = {f"p{n}": rng.normal(size=(256, n, n)) for n in (8, 4, 2)}
    values = {n: np.maximum(v, 0) if rectified else v for n, v in values.items()}
    assert find_layout(known(values, (), size=(64, 64))) is None
    for value in values.values():
        value[64:] = rng.uniform(-12, -2, size=value[64:].shape)
    assert find_layout(known(values, (), size=(64, 64))).classes == 192


@pytest.mark.parametrize("form", ["columns", "pairs"])
def test_boxes_in_percent_of_the_sides_are_told_by_where_they_end(form):
    """A head proposes boxes all over the input: percents end at 100 of 640 pixels."""
    rows, columns = np.mgrid[:20, :20].reshape(2, -1)
    centres = np.stack([columns, rows], axis=1) * 5 + 2.5
    own = np.hstack([centres, np.full((400, 2), 4.0)])
    scores = np.full((400, 2), 0.01)
    scores[45, 1] = 0.9  # column 5, row 2
    values = {"out": np.hstack([own, scores]).T}
    if form == "pairs":
        values = {"boxes": np.hstack([centres - 2, centres + 2]), "scores": scores}
    for factor, size in ((1, (320, 640)), (1, (100, 100)), (6.4, (640, 640))):
        given = {n: v * factor if n == "boxes" else v.copy() for n, v in values.items()}
        if form == "columns":
            given["out"][:4] *= factor
        asked = known(given, ("a", "b"), size=size)
        (item,) = Detector(asked, find_layout(asked)).items(Sample(given, Geometry.identity(size)))
        down, across = size[0] / 100, size[1] / 100
        wanted = (10.5 * down, 25.5 * across, 14.5 * down, 29.5 * across)
        assert item.box == pytest.approx(wanted, abs=0.01)


def test_rows_without_names_say_that_an_objectness_is_taken_for_granted():
    """(A, 4 + K) turned round and (A, 5 + K) look alike: where no name tells, it is said."""
    values = {"out": heads.columns()["output0"].T}
    layout, _ = read(values, ())
    assert "--task detector:yolov8" in layout.caution
    found = find_layout(known(values, (), layout="yolov8"))
    assert (found.key, found.classes, found.caution) == ("yolov8", 3, "")


def test_scores_of_one_class_need_no_axis_of_classes():
    values = heads.boxes_and_scores()
    one = {"boxes": values["boxes"], "confs": values["confs"][:, OBJECTS[0].kind]}
    layout, items = read(one, ())
    assert layout.classes == 1
    assert items[0].target.tensor == "confs"
    (row,) = items[0].target.index
    assert one["confs"][row] == items[0].score


def test_a_first_column_that_is_sure_everywhere_says_nothing_there():
    values = heads.boxes_and_scores()
    shares = np.hstack([1 - values["confs"].max(axis=1, keepdims=True), values["confs"]])
    layout, items = read({"boxes": values["boxes"], "confs": shares}, ())
    assert layout.classes == 3
    assert [item.index for item in items] == [one.kind for one in OBJECTS]
    assert all(
        item.target.index[1] == one.kind + 1 for item, one in zip(items, OBJECTS, strict=True)
    )


def test_lists_with_class_and_score_first_are_read():
    """PaddleDetection's rows; -1 ends the list."""
    rows = [[one.kind, one.score, *one.box] for one in OBJECTS] + [[-1, -1, -1, -1, -1, -1]]
    layout, items = read({"out": np.array(rows)}, ())
    assert "class and score first" in layout.name
    for place, (item, one) in enumerate(zip(items, OBJECTS, strict=True)):
        left, top, right, bottom = one.box
        assert item.box == pytest.approx((top, left, bottom, right))
        assert (item.index, item.target.index) == (one.kind, (place, 1))


def test_rows_whose_sizes_are_negative_are_no_boxes():
    values = {"out": np.random.default_rng(0).normal(size=(20, 100))}
    values["out"][4] = 0.5
    assert find_layout(known(values, (), size=(32, 100))) is None


def test_offsets_from_unknown_anchors_beside_their_scores_are_a_detector_without_boxes():
    rng = np.random.default_rng(0)
    values = {"bbox": rng.normal(size=(32, 4)), "score": rng.uniform(size=(32, 1)) * 0.2}
    values["score"][7] = 0.9
    layout, items = read(values, ())
    assert "no box is drawn" in layout.caution
    (item,) = items
    assert (item.box, item.target.tensor, item.target.index) == (None, "score", (7, 0))
    assert find_layout(known({"a": values["bbox"], "b": values["score"]}, ())) is None


@pytest.mark.parametrize("scale", [1, 64])
def test_centres_and_sizes_of_large_boxes_are_no_corners(scale):
    """One object that fills the photo, at every query: each size is larger than its centre."""
    rng = np.random.default_rng(0)
    boxes = np.array([0.5, 0.5, 0.9, 0.8]) + rng.normal(size=(30, 4)) * 0.01
    values = {"out": np.hstack([boxes * scale, rng.uniform(size=(30, 2)) * 0.1])}
    layout = find_layout(known(values, ("a", "b"), size=(64, 64)))
    assert layout.key == "yolov8"
    np.testing.assert_allclose(
        layout.read(values).boxes.mean(axis=0), [6.4, 3.2, 57.6, 60.8], atol=0.5
    )


@pytest.mark.parametrize("scale", [1, 64])
def test_centres_and_sizes_beside_their_scores_are_no_corners_either(scale):
    rng = np.random.default_rng(0)
    boxes = np.array([0.5, 0.5, 0.9, 0.8]) + rng.normal(size=(30, 4)) * 0.01
    values = {"boxes": boxes * scale, "scores": rng.uniform(size=(30, 2)) * 0.1}
    layout = find_layout(known(values, ("a", "b"), size=(64, 64)))
    assert (layout.key, "centres and sizes" in layout.name) == ("pairs", True)
    np.testing.assert_allclose(
        layout.read(values).boxes.mean(axis=0), [6.4, 3.2, 57.6, 60.8], atol=0.5
    )


@pytest.mark.parametrize("case", ["scrfd", "yunet", "nanodet", "yolox, maps", "yolov8, maps"])
def test_each_level_s_scores_are_explained_in_its_own_output(case):
    values = EVERY[case][0]()
    layout, items = read(values, NAMES if case in SEVERAL else ())
    assert len({item.target.tensor for item in items}) == len(OBJECTS)
    tensors = Detector(known(values), layout).tensors
    assert set(tensors) == {item.target.tensor for item in items}


def test_every_level_is_found_however_small():
    """The smallest of four levels has four rows of 256."""
    outputs = known(heads.nanodet_plus())
    layout = find_layout(outputs)
    asked = []

    def element(row, number):
        asked.append(row)
        level = int(np.searchsorted([192, 240, 252], row, side="right"))
        return f"level{level}", (row, number)

    object.__setattr__(layout, "element", element)
    assert Detector(outputs, layout).tensors == ("level0", "level1", "level2", "level3")
    assert len(asked) < 60


@pytest.mark.parametrize(
    ("make", "index", "name"),
    [
        (heads.yolov3_raw, lambda k, i, j: (8 + 5 + k, i, j), "YOLOv3"),
        (lambda: heads.yolov3_raw(last=True), lambda k, i, j: (i, j, 8 + 5 + k), "YOLOv3"),
        (heads.retinanet_raw, lambda k, i, j: (5 * 3 + k, i, j), "RetinaNet or EfficientDet"),
        (lambda: heads.retinanet_raw(anchors=3), lambda k, i, j: (2 * 3 + k, i, j), "RetinaNet"),
        (heads.ssd_raw, lambda k, i, j: (2 * 4 + 1 + k, i, j), "SSD"),
        (lambda: heads.ssd_raw(last=True), lambda k, i, j: (i, j, 2 * 4 + 1 + k), "SSD"),
    ],
)
@pytest.mark.parametrize("labels", [NAMES, ()])
def test_anchors_side_by_side_among_the_channels_are_told_apart(make, index, name, labels):
    layout, items = read(make(), labels)
    assert name in layout.name
    assert "cannot be decoded" in layout.caution
    assert layout.classes == 3
    for item, one in zip(items, OBJECTS, strict=True):
        i, j = heads.cell(one)
        s = one.stride
        assert item.box == pytest.approx((i * s, j * s, (i + 1) * s, (j + 1) * s))
        assert (item.score, item.index) == (pytest.approx(one.score), one.kind)
        assert item.target.index == index(one.kind, i, j)
        assert item.target.tensor.endswith(str(s))


V2 = {
    "folded": lambda k, i, j: (3 * 8 + 5 + k, i, j),
    "last": lambda k, i, j: (i, j, 3 * 8 + 5 + k),
    "anchored": lambda k, i, j: (3, i, j, 5 + k),
    "split": lambda k, i, j: (3, 5 + k, i, j),
    "cells": lambda k, i, j: (i, j, 3, 5 + k),
}


@pytest.mark.parametrize("order", V2)
def test_one_raw_level_of_several_anchors_is_no_map_of_classes(order):
    """YOLOv2; where the names do not say it, and it is not a published head, it is asked."""
    apart = (OBJECTS[0], OBJECTS[1], OBJECTS[2])
    layout, items = read(heads.yolov2_raw(apart, order=order))
    assert "YOLOv2" in layout.name
    assert "cannot be decoded" in layout.caution
    for item, one in zip(items, apart, strict=True):
        i, j = heads.cell(one, 32)
        assert item.box == pytest.approx((32 * i, 32 * j, 32 * (i + 1), 32 * (j + 1)))
        assert (item.score, item.index) == (pytest.approx(one.score, abs=1e-6), one.kind)
        assert item.target.index == V2[order](one.kind, i, j)


def test_a_coarse_map_without_names_is_asked_about():
    grid, size = np.random.default_rng(0).normal(size=(40, 8, 8)), (256, 256)
    asked = known({"grid": grid}, (), size=size)
    with pytest.raises(UsageError, match="as a segmenter with 40 classes") as caught:
        find_reading(asked)
    assert "--task detector:yolov2-raw or --task segmenter" in caught.value.hint
    assert find_reading(asked, "segmenter").task == "segmenter"
    assert find_reading(asked, "detector:yolov2-raw").layout.classes == 3
    assert find_reading(known({"grid": grid}, ["a"] * 40, size=size)).task == "segmenter"
    assert find_reading(known({"grid": grid[:, :3]}, ())) is None
    published = np.repeat(grid, 4, axis=0)[:125]
    assert find_reading(known({"grid": published}, (), size=size)).layout.classes == 20


def test_distances_of_an_unknown_unit_are_cells_and_it_is_said():
    layout, items = read(heads.fcos())
    assert "FCOS" in layout.name
    assert "in which unit" in layout.caution
    for item, one in zip(items, OBJECTS, strict=True):
        i, j = heads.cell(one)
        s = one.stride
        assert item.box == pytest.approx((i * s, j * s, (i + 1) * s, (j + 1) * s))
        assert (item.score, item.index) == (pytest.approx(one.score), one.kind)
        assert item.target.index == (one.kind, i, j)


@pytest.mark.parametrize("names", [0, 3, 4])
def test_the_first_column_of_ssd_is_nothing_unless_a_name_says_otherwise(names):
    """TensorFlow's has a column for nothing and sigmoids: no column is sure everywhere."""
    values = heads.ssd_raw()
    for value in values.values():
        value[value == 6.0] = -7.0
    layout, _ = read(values, ["a"] * names)
    assert layout.classes == (3 if names == 3 else 4)
    column = layout.element(0, 0)[1][0]
    assert column == (1 if names == 3 else 0)
    assert np.allclose(layout.read(values).table.sum(axis=1).max(), 0.36, atol=0.7)


def _raw(width):
    return {f"o{s}": np.full((width, *heads.grid(s)), -6.0) for s in (8, 16, 32)}


def test_one_wide_map_per_level_is_read_by_names_or_asked_for():
    """255 = 3 (5 + 80), 144 = 64 + 80; 75 is 3 (5 + 20) or 64 + 11."""
    assert find_layout(known(_raw(255), ())).key == "yolov3-raw"
    assert find_layout(known(_raw(144), ())).key == "yolov8"
    assert find_layout(known(_raw(75), ["a"] * 20)).key == "yolov3-raw"
    assert find_layout(known(_raw(75), ["a"] * 11)).key == "yolov8"
    with pytest.raises(UsageError, match="2 ways") as caught:
        find_layout(known(_raw(75), ()))
    for key in ("yolov3-raw", "yolov8"):
        assert f"detector:{key}" in caught.value.hint
        assert find_layout(known(_raw(75), (), layout=key)).key == key


def test_boxes_of_unknown_anchors_are_cells_and_it_is_said():
    layout, items = read(heads.yolov5_raw())
    assert "cannot be decoded" in layout.caution
    for item, one in zip(items, OBJECTS, strict=True):
        i, j = heads.cell(one)
        s = one.stride
        assert item.box == pytest.approx((i * s, j * s, (i + 1) * s, (j + 1) * s))
        assert item.score == pytest.approx(one.score)
        assert item.target.tensor == f"output{s}"
        assert item.target.index == (1, i, j, 5 + one.kind)
        assert "cannot be decoded" in item.target.note
    assert "cannot be decoded" in Detector(known(heads.yolov5_raw()), layout).why


@pytest.mark.parametrize("make", [heads.masked, heads.end_to_end_masks])
def test_masks_are_sums_of_prototypes_within_the_box(make):
    _, items = read(make())
    for item, one in zip(items, OBJECTS, strict=True):
        left, top, right, bottom = (int(v) for v in one.box)
        wanted = np.zeros(SIZE, bool)
        wanted[top:bottom, left : min(right, SIZE[1] // 2)] = True
        np.testing.assert_array_equal(item.mask, wanted)


def test_a_second_peak_beside_the_first_is_not_an_object():
    _, items = read(heads.centernet())
    assert [item.label for item in items] == ["red#1", "green#1", "blue#1"]


@pytest.mark.parametrize("names", [NAMES, ("background", *NAMES)])
def test_ids_of_tensorflow_begin_at_one_unless_the_names_say_background(names):
    _, items = read(heads.tensorflow(), names)
    assert [item.label for item in items] == ["red#1", "green#1", "blue#1"]


def test_two_heads_of_one_kind_are_asked_about():
    values = {"street": heads.columns()["output0"], "sky": heads.columns()["output0"]}
    with pytest.raises(UsageError, match="2 ways") as refused:
        find_reading(known(values))
    assert "--task detector:sky" in refused.value.hint
    found = find_reading(known(values), "detector:sky")
    assert found.outputs == ("sky",)
    assert refused.value.exit_status == 2


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("detector:centernet", "do not fit the layout"),
        ("detector:", "not a task"),
        ("dense:yolox", "not a task"),
        ("detektor:yolox", "no task"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(wanted, words):
    with pytest.raises(UsageError, match=words):
        find_reading(known(heads.columns()), wanted)


@pytest.mark.parametrize("case", ["yolox", "scrfd", "centernet", "torchvision"])
def test_a_named_layout_is_taken(case):
    values = EVERY[case][0]()
    outputs = known(values, NAMES if case in SEVERAL else ())
    assert find_reading(outputs, f"detector:{find_layout(outputs).key}").layout.name


def test_what_is_no_detector_is_not_read_as_one():
    rng = np.random.default_rng(3)
    for values in (
        {"logits": rng.normal(size=(3, 96, 128))},  # a segmenter
        {"depth": rng.normal(size=(1, 96, 128))},
        {"embedding": rng.normal(size=128)},
        {"text": rng.normal(size=(32, 97))},
        {"a": rng.normal(size=(8, 12, 16)), "b": rng.normal(size=(8, 6, 8))},  # feature maps
        {"hidden": rng.normal(size=(48, 64))},
        {"scores": rng.random(1000)},
    ):
        assert find_layout(known(values, ())) is None, list(values)


def test_a_box_is_found_again_by_place_classes_and_objectness():
    """IoU x cosine of the class scores x objectness, over all boxes, written out."""
    values = heads.yolox_rows()
    outputs = known(values)
    layout = find_layout(outputs)
    (red, *_) = Detector(outputs, layout).items(Sample(values, Geometry.identity(SIZE)))
    rng = np.random.default_rng(5)
    changed = {"output": values["output"].copy()}
    changed["output"][:, 4:] = rng.random(changed["output"][:, 4:].shape)
    own = values["output"][int(red.target.index[0])]
    best = 0.0
    boxes = layout.read(changed).boxes
    for row, box in enumerate(boxes):
        top, left = max(box[0], red.box[0]), max(box[1], red.box[1])
        bottom, right = min(box[2], red.box[2]), min(box[3], red.box[3])
        inner = max(bottom - top, 0) * max(right - left, 0)
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, red.box)]
        p, q = own[4] * own[5:], changed["output"][row, 4] * changed["output"][row, 5:]
        cosine = (p * q).sum() / np.sqrt((p * p).sum() * (q * q).sum())
        best = max(best, inner / (sum(areas) - inner) * cosine * changed["output"][row, 4])
    assert red.target.similarity(changed) == pytest.approx(best, rel=1e-6)
    assert red.target.similarity(values) == pytest.approx(own[4], rel=1e-6)

"""Planted detections in the numbers of each head, by the formulas that its own project publishes.

Boxes are left, top, right, bottom in pixels.  Every encoder is the literal inverse of a decoder:
one object at a time, one number at a time.  Nothing of the project is used.
"""

from dataclasses import dataclass

import numpy as np

SIZE = (96, 128)
"""Height and width of the input."""

NAMES = ("red", "green", "blue")


@dataclass(frozen=True)
class Planted:
    """One object: its class, box and score, and the stride of the level that finds it."""

    kind: int
    box: tuple
    score: float
    stride: int


OBJECTS = (
    Planted(0, (8.0, 10.0, 40.0, 34.0), 0.9, 8),
    Planted(1, (60.0, 20.0, 110.0, 76.0), 0.8, 16),
    Planted(2, (30.0, 34.0, 90.0, 94.0), 0.7, 32),
)


def logit(p):
    return float(np.log(p / (1 - p)))


def grid(stride, size=SIZE):
    return -(-size[0] // stride), -(-size[1] // stride)


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def cell(one, stride=None):
    """Row and column of the cell that holds an object's centre."""
    x, y = centre(one.box)
    return int(y // (stride or one.stride)), int(x // (stride or one.stride))


def levels(strides, width, anchors=1, fill=0.0):
    """Zeros (cells x anchors, width) per level, and where an object's row is."""
    found = {s: np.full((grid(s)[0] * grid(s)[1] * anchors, width), fill) for s in strides}

    def row(one):
        i, j = cell(one)
        return (i * grid(one.stride)[1] + j) * anchors

    return found, row


def scrfd(objects=OBJECTS, anchors=2):
    """Distances in strides from the cell's upper left corner; two anchors per cell."""
    objects = [Planted(0, o.box, o.score, o.stride) for o in objects]
    scores, row = levels((8, 16, 32), 1, anchors, 0.01)
    boxes, _ = levels((8, 16, 32), 4, anchors, 1.0)
    points, _ = levels((8, 16, 32), 10, anchors)
    for one in objects:
        s, (i, j) = one.stride, cell(one)
        x, y = j * s, i * s
        left, top, right, bottom = one.box
        scores[s][row(one)] = one.score
        boxes[s][row(one)] = [(x - left) / s, (y - top) / s, (right - x) / s, (bottom - y) / s]
    found = {f"score_{s}": scores[s] for s in scores}
    found |= {f"bbox_{s}": boxes[s] for s in boxes}
    return found | {f"kps_{s}": points[s] for s in points}


def numbered(found):
    """The same outputs under the numbers that an exporter gives."""
    return {str(440 + 3 * i): value for i, value in enumerate(found.values())}


def offsets(one):
    """YOLOX and YuNet: centre minus cell, and logarithm of the size, in strides."""
    s, (i, j), (x, y) = one.stride, cell(one), centre(one.box)
    width, height = one.box[2] - one.box[0], one.box[3] - one.box[1]
    return [x / s - j, y / s - i, np.log(width / s), np.log(height / s)]


def yunet(objects=OBJECTS):
    """cls, obj, bbox and kps per level; the score is the root of cls x obj."""
    kinds, row = levels((8, 16, 32), 1, 1, 0.01)
    sure, boxes, points = (levels((8, 16, 32), n, 1, 0.01)[0] for n in (1, 4, 10))
    for one in objects:
        s = one.stride
        kinds[s][row(one)], sure[s][row(one)] = 0.95, one.score**2 / 0.95
        boxes[s][row(one)] = offsets(one)
    return {
        f"{name}_{s}": part[s]
        for name, part in (("cls", kinds), ("obj", sure), ("bbox", boxes), ("kps", points))
        for s in part
    }


def yolox_rows(objects=OBJECTS, *, decoded=False, classes=3):
    """(A, 5 + K) of three levels: offsets, or boxes in pixels."""
    strides = (8, 16, 32)
    rows, row = levels(strides, 5 + classes, 1, 0.01)
    for s in strides:
        for r in range(len(rows[s])):
            i, j = divmod(r, grid(s)[1])
            rows[s][r, :4] = [0.4, 0.6, 0.1, -0.1]
            if decoded:
                rows[s][r, :4] = [(j + 0.4) * s, (i + 0.6) * s, s * 1.1, s * 0.9]
    for one in objects:
        own = rows[one.stride][row(one)]
        own[:4] = offsets(one)
        if decoded:
            width, height = one.box[2] - one.box[0], one.box[3] - one.box[1]
            own[:4] = [*centre(one.box), width, height]
        own[4], own[5 + min(one.kind, classes - 1)] = 0.95, one.score / 0.95
    return {"output": np.concatenate([rows[s] for s in strides])}


def yolox_maps(objects=OBJECTS):
    """(5 + K, h, w) per level."""
    rows, row = levels((8, 16, 32), 8, 1, 0.01)
    for one in objects:
        own = rows[one.stride][row(one)]
        own[:4] = offsets(one)
        own[4], own[5 + one.kind] = 0.95, one.score / 0.95
    return {f"out{s}": rows[s].reshape(*grid(s), 8).transpose(2, 0, 1) for s in rows}


def yolox_parts(objects=OBJECTS):
    """Class scores, boxes and objectness in maps of their own."""
    found = {}
    for s, value in zip((8, 16, 32), yolox_maps(objects).values(), strict=True):
        found |= {f"cls{s}": value[5:], f"reg{s}": value[:4], f"obj{s}": value[4:5]}
    return found


def bins(one, steps, offset):
    """Distances in strides as a distribution over two neighbouring steps, in logarithms."""
    s, (i, j) = one.stride, cell(one)
    x, y = (j + offset) * s, (i + offset) * s
    left, top, right, bottom = one.box
    found = np.full((4, steps), -30.0)
    for side, distance in enumerate((x - left, y - top, right - x, bottom - y)):
        low = int(distance / s)
        share = distance / s - low
        found[side, low] = np.log(max(1 - share, 1e-12))
        found[side, low + 1] = np.log(max(share, 1e-12))
    return found.ravel()


def distributed(objects, strides, steps, offset):
    """Class scores (A_l, 3) and distances (A_l, 4 steps) per level."""
    scores, row = levels(strides, 3, 1, 0.01)
    boxes, _ = levels(strides, 4 * steps, 1, -1.0)
    for one in objects:
        scores[one.stride][row(one), one.kind] = one.score
        boxes[one.stride][row(one)] = bins(one, steps, offset)
    return scores, boxes


def nanodet_parts(objects=OBJECTS):
    """NanoDet: three levels, from the middle of the cell."""
    scores, boxes = distributed(objects, (8, 16, 32), 8, 0.5)
    found = {f"cls_pred_stride_{s}": scores[s] for s in scores}
    return found | {f"dis_pred_stride_{s}": boxes[s] for s in boxes}


def nanodet_plus(objects=OBJECTS):
    """NanoDet-Plus: four levels in one output, from the corner of the cell."""
    scores, boxes = distributed(objects, (8, 16, 32, 64), 8, 0.0)
    both = [np.hstack([scores[s], boxes[s]]) for s in scores]
    return {"output": np.concatenate(both)}


def yolov8_maps(objects=OBJECTS):
    """(64 + K, h, w) per level, scores before the sigmoid."""
    scores, boxes = distributed(objects, (8, 16, 32), 16, 0.5)
    logits = {s: np.log(v / (1 - v)) for s, v in scores.items()}
    return {
        f"o{s}": np.hstack([boxes[s], logits[s]]).reshape(*grid(s), -1).transpose(2, 0, 1)
        for s in boxes
    }


def yolov5_raw(objects=OBJECTS):
    """(3, h, w, 5 + K) per level, all before the sigmoid; the second anchor finds the object."""
    found = {}
    for s in (8, 16, 32):
        value = np.full((3, *grid(s), 8), -6.0)
        for one in objects:
            if one.stride == s:
                value[1, *cell(one), 4] = logit(0.95)
                value[1, *cell(one), 5 + one.kind] = logit(one.score / 0.95)
        found[f"output{s}"] = value
    return found


def yolov3_raw(objects=OBJECTS, *, last=False):
    """(3 (5 + K), h, w) per level, or with its channels last: three anchors side by side."""
    found = yolov5_raw(objects)
    folded = {n: v.transpose(0, 3, 1, 2).reshape(-1, *v.shape[1:3]) for n, v in found.items()}
    return {n: v.transpose(1, 2, 0) for n, v in folded.items()} if last else folded


def with_corners(found):
    """The same rows or columns with left, top, right, bottom in the place of centre and size."""
    ((name, value),) = found.items()
    rows = value if value.shape[0] > value.shape[1] else value.T
    for row in rows:
        x, y, width, height = row[:4]
        row[:4] = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return {name: value}


def boxes_and_scores(objects=OBJECTS, *, form="rows"):
    """Corners in pixels beside shares per class: (A, 4), (A, 1, 4) or (4, A)."""
    value = columns(objects)["output0"].T
    boxes, scores = np.tile([1.0, 2.0, 9.0, 8.0], (len(value), 1)), value[:, 4:]
    for place, one in enumerate(objects):
        boxes[20 * place] = one.box
    if form == "turned":
        return {"boxes": boxes.T, "scores": scores.T}
    return {"boxes": boxes[:, None] if form == "between" else boxes, "confs": scores}


def yolov2_raw(objects=OBJECTS, *, order="folded"):
    """(5 (5 + K), h, w) of one level, objectness before the sigmoid, classes before the softmax."""
    value = np.full((5, *grid(32), 8), -6.0)
    for one in objects:
        own = value[3, *cell(one, 32)]
        others = (1 - one.score / 0.95) / 2
        own[4], own[5:] = logit(0.95), np.log(others)
        own[5 + one.kind] = np.log(one.score / 0.95)
    folded = value.transpose(0, 3, 1, 2).reshape(-1, *grid(32))
    return {
        "grid": {
            "folded": folded,
            "last": folded.transpose(1, 2, 0),
            "anchored": value,
            "split": value.transpose(0, 3, 1, 2),
            "cells": value.transpose(1, 2, 0, 3),
        }[order]
    }


def ssd_raw(objects=OBJECTS, *, last=False):
    """(n K, h, w) and (4 n, h, w) per level, n from level to level; column 0 is nothing."""
    found = {}
    for s, anchors in ((8, 4), (16, 6), (32, 6)):
        scores = np.full((anchors, 4, *grid(s)), -2.0)
        scores[:, 0] = 6.0
        for one in objects:
            if one.stride == s:
                scores[2, :, *cell(one)] = np.log((1 - one.score) / 3)
                scores[2, 1 + one.kind, *cell(one)] = np.log(one.score)
        found[f"conf{s}"] = scores.reshape(-1, *grid(s))
        found[f"loc{s}"] = np.zeros((4 * anchors, *grid(s)))
    return {n: v.transpose(1, 2, 0) for n, v in found.items()} if last else found


def fcos(objects=OBJECTS):
    """Class scores, distances to the edges and centreness: the score is their geometric mean."""
    found = {}
    for s in (8, 16, 32):
        kinds, centreness = np.full((3, *grid(s)), -6.0), np.full((1, *grid(s)), -6.0)
        for one in objects:
            if one.stride == s:
                kinds[one.kind, *cell(one)] = logit(0.95)
                centreness[0, *cell(one)] = logit(one.score**2 / 0.95)
        boxes = np.full((4, *grid(s)), 1.5)
        found |= {f"cls{s}": kinds, f"bbox{s}": boxes, f"centerness{s}": centreness}
    return found


def yolov5_levels(objects=OBJECTS):
    """(h, w, 3, 5 + K) per level: boxes in pixels, shares."""
    found = {}
    for s in (8, 16, 32):
        value = np.full((*grid(s), 3, 8), 0.01)
        for i, j in np.ndindex(*grid(s)):
            value[i, j, :, :4] = [(j + 0.4) * s, (i + 0.7) * s, 2 * s, 3 * s]
        for one in objects:
            if one.stride == s:
                width, height = one.box[2] - one.box[0], one.box[3] - one.box[1]
                own = value[*cell(one), 1]
                own[:4] = [*centre(one.box), width, height]
                own[4], own[5 + one.kind] = 0.95, one.score / 0.95
        found[f"out{s}"] = value
    return found


def retinanet_raw(objects=OBJECTS, *, anchors=9):
    """(n K, h, w) and (4 n, h, w) per level; anchor 5, or the last one, finds the object."""
    found = {}
    for s in (8, 16, 32):
        scores = np.full((anchors, 3, *grid(s)), -6.0)
        for one in objects:
            if one.stride == s:
                scores[min(5, anchors - 1), one.kind, *cell(one)] = logit(one.score)
        found[f"score{s}"] = scores.reshape(-1, *grid(s))
        found[f"box{s}"] = np.zeros((4 * anchors, *grid(s)))
    return found


def columns(objects=OBJECTS, *, extra=0):
    """(4 + K + extra, A): YOLOv8."""
    count = sum(grid(s)[0] * grid(s)[1] for s in (8, 16, 32))
    value = np.full((7 + extra, count), 0.01)
    value[:4] = 10.0
    for place, one in enumerate(objects):
        width, height = one.box[2] - one.box[0], one.box[3] - one.box[1]
        value[:4, 20 * place] = [*centre(one.box), width, height]
        value[4 + one.kind, 20 * place] = one.score
    return {"output0": value}


def masked(objects=OBJECTS):
    """YOLOv8-seg: each object's mask is the left half of the input, by one prototype."""
    found = columns(objects, extra=32)
    found["output0"][7:] = 0.0
    proto = np.zeros((32, SIZE[0] // 4, SIZE[1] // 4))
    proto[3] = -1.0
    proto[3, :, : SIZE[1] // 8] = 1.0
    for place in range(len(objects)):
        found["output0"][7 + 3, 20 * place] = 5.0
    return found | {"output1": proto}


def turned(objects=OBJECTS):
    """YOLOv8-obb: centre, width, height, classes, angle; by 90 degrees, sides exchanged."""
    found = columns(objects, extra=1)
    value = found["output0"]
    value[2:4] = value[[3, 2]]
    value[7] = np.pi / 2
    return found


def posed(objects=OBJECTS):
    """YOLOv8-pose: 17 points of three numbers behind the classes."""
    found = columns(objects, extra=51)
    found["output0"][7:] = np.linspace(0, 90, 51)[:, None]
    return found


def rt_detr(objects=OBJECTS):
    """(D, 4 + K) in shares of the input."""
    value = np.full((300, 7), 0.01)
    height, width = SIZE
    for place, one in enumerate(objects):
        x, y = centre(one.box)
        w, h = one.box[2] - one.box[0], one.box[3] - one.box[1]
        value[5 * place, :4] = [x / width, y / height, w / width, h / height]
        value[5 * place, 4 + one.kind] = one.score
    return {"output0": value}


def centernet(objects=OBJECTS):
    """Scores, sizes and offsets over cells of four pixels."""
    h, w = grid(4)
    heat = np.full((3, h, w), 0.01)
    size, shift = np.ones((2, h, w)), np.full((2, h, w), 0.5)
    for one in objects:
        i, j = cell(one, 4)
        x, y = centre(one.box)
        heat[one.kind, i, j] = one.score
        heat[one.kind, i, j + 1] = one.score - 0.1  # not a peak
        size[:, i, j] = (one.box[2] - one.box[0]) / 4, (one.box[3] - one.box[1]) / 4
        shift[:, i, j] = x / 4 - j, y / 4 - i
    return {"hm": heat, "wh": size, "reg": shift}


def centerface(objects=OBJECTS):
    """Rows before columns, logarithms of the sizes, landmarks; offsets from the middle."""
    h, w = grid(4)
    heat = np.full((1, h, w), 0.01)
    size, shift = np.zeros((2, h, w)), np.zeros((2, h, w))
    for one in objects:
        i, j = cell(one, 4)
        x, y = centre(one.box)
        heat[0, i, j] = one.score
        size[:, i, j] = np.log((one.box[3] - one.box[1]) / 4), np.log((one.box[2] - one.box[0]) / 4)
        shift[:, i, j] = y / 4 - i - 0.5, x / 4 - j - 0.5
    return {"537": heat, "538": size, "539": shift, "540": np.zeros((10, h, w))}


def fastestdet(objects=OBJECTS):
    """Objectness, tanh of the offsets, sigmoid of the sizes in shares, softmax over classes."""
    h, w = grid(16)
    value = np.zeros((8, h, w))
    value[0], value[1:5], value[5:] = 0.01, -2.0, 1 / 3
    for one in objects:
        i, j = cell(one, 16)
        x, y = centre(one.box)
        value[0, i, j] = (one.score / 0.9**0.4) ** (1 / 0.6)
        value[1:3, i, j] = np.arctanh(x / 16 - j), np.arctanh(y / 16 - i)
        value[3, i, j] = logit((one.box[2] - one.box[0]) / SIZE[1])
        value[4, i, j] = logit((one.box[3] - one.box[1]) / SIZE[0])
        value[5:, i, j] = 0.05
        value[5 + one.kind, i, j] = 0.9
    return {"output": value}


def sorted_list(objects=OBJECTS):
    """Left, top, right, bottom, score and class per object, the most certain first."""
    return np.array([[*o.box, o.score, o.kind] for o in objects])


def end_to_end(objects=OBJECTS):
    """(D, 6) padded with zeros."""
    return {"output0": np.vstack([sorted_list(objects), np.zeros((5, 6))])}


def end_to_end_masks(objects=OBJECTS):
    """(D, 6 + 32) beside prototypes."""
    coefficients = np.zeros((len(objects), 32))
    coefficients[:, 3] = 5.0
    return {
        "output0": np.hstack([sorted_list(objects), coefficients]),
        "output1": masked(objects)["output1"],
    }


def batch_index(objects=OBJECTS):
    """YOLOv7: image, box, class, score."""
    return {"output": np.array([[0, *o.box, o.kind, o.score] for o in objects])}


def detection_output(objects=OBJECTS):
    """OpenVINO: image, class, score, box in shares; ends with -1; (1, D, 7)."""
    shares = np.array([SIZE[1], SIZE[0]] * 2)
    rows = [[0, o.kind, o.score, *(np.array(o.box) / shares)] for o in objects]
    return {"detection_out": np.array([[*rows, [-1, 0, 0, 0, 0, 0, 0]]])[0][None]}


def tensorflow(objects=OBJECTS):
    """TensorFlow's Object Detection API: rows before columns, in shares, ids from 1, padded."""
    height, width = SIZE
    boxes = [
        (t / height, a / width, b / height, r / width) for a, t, r, b in (o.box for o in objects)
    ]
    pad = len(objects)
    return {
        "detection_boxes": np.array([*boxes, *[(0, 0, 1, 1)] * pad]),
        "detection_classes": np.array([*(o.kind + 1 for o in objects), *[1] * pad], float),
        "detection_scores": np.array([*(o.score for o in objects), *[0.5] * pad]),
        "num_detections": np.array([float(len(objects))]),
    }


def tensorflow_raw(objects=OBJECTS):
    """The same with the boxes before suppression, and background as class 0."""
    found = tensorflow(objects)
    height, width = SIZE
    raw, scores = np.zeros((50, 4)), np.full((50, 4), 0.01)
    for place, one in enumerate(objects):
        a, t, r, b = one.box
        raw[7 * place] = t / height, a / width, b / height, r / width
        scores[7 * place, 1 + one.kind] = one.score
    return found | {"raw_detection_boxes": raw, "raw_detection_scores": scores}


def torchvision(objects=OBJECTS):
    """boxes, labels and scores without telling names."""
    own = sorted_list(objects)
    return {"3076": own[:, :4], "3077": own[:, 5].astype(np.int64), "3078": own[:, 4]}


def mmdeploy(objects=OBJECTS):
    """dets (D, 5) with a score, and labels."""
    own = sorted_list(objects)
    return {"dets": own[:, :5], "labels": own[:, 5].astype(np.int64)}


def retinaface(objects=OBJECTS):
    """Offsets from two squares per cell, variances 0.1 and 0.2, softmax over face and none."""
    sides = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
    boxes, scores, points = [], [], []
    for s, lengths in sides.items():
        for i, j in np.ndindex(*grid(s)):
            for place, side in enumerate(lengths):
                own, sure = [0.3, 0.2, -0.1, -0.2], 0.01
                for one in objects:
                    if one.stride == s and cell(one) == (i, j) and place == 0:
                        x, y = centre(one.box)
                        w, h = one.box[2] - one.box[0], one.box[3] - one.box[1]
                        own = [
                            (x - (j + 0.5) * s) / side / 0.1,
                            (y - (i + 0.5) * s) / side / 0.1,
                            np.log(w / side) / 0.2,
                            np.log(h / side) / 0.2,
                        ]
                        sure = one.score
                boxes.append(own)
                scores.append([1 - sure, sure])
                points.append([0.0] * 10)
    return {"output0": np.array(boxes), "586": np.array(scores), "585": np.array(points)}

"""Signals of pooled regions: RoiAlign.

A mean of bilinear samples on a lattice is linear in the rows and in the columns, one after the
other: Y = R X C, with one matrix R (height of the grid, height of the image) and one matrix C per
region.  The signal goes back by the same matrices, and is added up over the regions of an image.
"""

from collections.abc import Mapping

import numpy as np

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []


@RULES.register("RoiAlign", since=10)
def roi_align(b: Builder, step: Step) -> Mapping[int, str]:
    """Every cell's signal to the pixels that it samples; the regions are taken as given."""
    if 0 not in step.wanted:
        return {}
    X, rois, which = (step.input(i) for i in range(3))
    attributes = step.node.attributes
    if attributes.get("mode", "avg") != "avg":
        raise CannotDifferentiate(f"mode {attributes['mode']!r}")
    default = "half_pixel" if b.opset >= 16 else "output_half_pixel"
    half = attributes.get("coordinate_transformation_mode", default) == "half_pixel"
    scale = float(attributes.get("spatial_scale", 1.0))
    ratio = int(attributes.get("sampling_ratio", 0))
    cells = [int(attributes.get(name, 1)) for name in ("output_height", "output_width")]
    _, channels, height, width = b.dims(X)
    corners = b.scaled(b.value(rois), scale)
    if half:
        corners = b.op("Sub", [corners, b.constant(0.5)])
    rows, columns = (
        _matrix(b, _span(b, corners, axis, clamped=not half), size, cells[axis], ratio)
        for axis, size in enumerate((height, width))
    )
    # (R, C, h, w) by (R, 1, w, W), then (C, R h, W)
    spread = b.op("MatMul", [step.signal, b.unsqueeze(columns, [1])])
    spread = b.reshape(b.transpose(spread, [1, 0, 2, 3]), (channels, -1, width))
    zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
    count = b.op("Gather", [b.shape(X), zero])
    images = b.unsqueeze(b.op("Range", [zero, count, one]), [1, 2, 3])
    theirs = b.reshape(b.op("Cast", [which], to=7), (1, -1, 1, 1))
    of_image = b.mask(b.equal(images, theirs))  # (N, R, 1, 1)
    placed = b.mul(of_image, rows)  # (N, R, h, H)
    placed = b.transpose(b.op("Reshape", [placed, b.ints([0, -1, height])]), [0, 2, 1])
    return {0: b.op("MatMul", [b.unsqueeze(placed, [1]), spread])}


def _span(b: Builder, corners: str, axis: int, *, clamped: bool) -> tuple[str, str]:
    """Start and length (R, 1, 1, 1) of regions x1, y1, x2, y2 along an axis, in pixels."""
    start, end = (
        b.unsqueeze(b.slice(corners, [i], [i + 1], [1]), [2, 3]) for i in (1 - axis, 3 - axis)
    )
    length = b.op("Sub", [end, start])
    return start, b.op("Clip", [length, b.constant(1.0)]) if clamped else length


def _matrix(b: Builder, span: tuple[str, str], size: int, cells: int, ratio: int) -> str:
    """Weights of the pixels of an axis in each cell of each region, (R, cells, size).

    Args:
        b: Where it is written.
        span: Start and length of the regions along the axis.
        size: Pixels along it.
        cells: Cells along it.
        ratio: Samples of a cell; 0 for one per pixel.
    """
    start, length = span
    cell = b.op("Div", [length, b.constant(float(cells))])  # rounded as the runtime rounds it
    if ratio > 0:
        number = b.constant(np.arange(ratio))
        count = b.constant(float(ratio))
        used = ""
    else:
        samples = b.op("Floor", [b.op("Neg", [cell])])  # less the number, rounded up
        samples = b.rectified(b.op("Neg", [samples]))
        most = b.op("Cast", [b.op("ReduceMax", [samples], keepdims=0)], to=7)
        zero, one = b.constant(0, np.int64), b.constant(1, np.int64)
        number = b.op("Cast", [b.op("Range", [zero, most, one])], to=1)
        count = b.op("Clip", [samples, b.constant(1.0)])
        used = b.mask(b.op("Less", [number, samples]))  # (R, 1, 1, samples)
    share = b.op("Div", [b.op("Add", [number, b.constant(0.5)]), count])
    place = b.op("Add", [b.constant(np.arange(cells)[:, None]), share])
    at = b.op("Add", [start, b.mul(place, cell)])  # (R, 1, cells, samples)
    after = b.op("Not", [b.op("Less", [at, b.constant(-1.0)])])
    before = b.op("Not", [b.op("Greater", [at, b.constant(float(size))])])
    weight = b.op("Div", [b.mul(b.mask(after), b.mask(before)), count])
    if used:
        weight = b.mul(weight, used)
    at = b.op("Clip", [at, b.constant(0.0), b.constant(size - 1.0)])
    # A bilinear sample gives a pixel 1 less its distance.
    far = b.op("Abs", [b.op("Sub", [b.unsqueeze(at, [4]), b.constant(np.arange(size))])])
    hat = b.rectified(b.op("Sub", [b.constant(1.0), far]))
    total = b.sum(b.mul(hat, b.unsqueeze(weight, [4])), [3], keep=False)
    return b.op("Reshape", [total, b.ints([-1, cells, size])])

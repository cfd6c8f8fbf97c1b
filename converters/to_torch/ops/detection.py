"""What detectors are built from: regions of interest, and non-maximum suppression."""

import math

import torch
from torch import Tensor

from converters.to_torch.ops.sampling import weighted_corners
from converters.to_torch.optable import OPS

__all__ = ["max_roi_pool", "non_max_suppression", "roi_align"]


@OPS.register("RoiAlign", since=16)
def roi_align(
    X: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Pool bilinear samples of each region (x1, y1, x2, y2) into a grid (He et al. 2017).

    With ``mode="max"`` the maximum is over the weighted corner pixels, as ONNX Runtime has it.
    """
    half_pixel = coordinate_transformation_mode == "half_pixel"
    offset = 0.5 if half_pixel else 0.0
    size = (output_height, output_width)
    pooled = []
    for roi, image in zip(rois.detach().to(torch.float32), batch_indices.tolist(), strict=True):
        # In float32, as ONNX Runtime: the number of samples in a cell is rounded up.
        start = roi[:2] * spatial_scale - offset
        span = roi[2:] * spatial_scale - offset - start
        if not half_pixel:
            span = span.clamp(min=1.0)
        cells = span / torch.tensor(size[::-1], dtype=torch.float32, device=span.device)
        pooled.append(_align(X[image], start.tolist(), cells.tolist(), size, sampling_ratio, mode))
    return torch.stack(pooled) if pooled else X.new_zeros(0, X.shape[1], *size)


@OPS.register("RoiAlign", since=10)
def roi_align_10(
    X: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Pool each region into a grid, with the pixel centres of the first version."""
    return roi_align(
        X,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


def _align(
    image: Tensor,
    start: list[float],
    cell: list[float],
    size: tuple[int, int],
    ratio: int,
    mode: str,
) -> Tensor:
    """One region of one image (C, H, W), pooled to (C, height, width).

    Args:
        image: The image.
        start: Left and upper end of the region, in pixels.
        cell: Width and height of one cell.
        size: Number of cells, (height, width).
        ratio: Samples along each side of a cell; 0 for one a pixel.
        mode: ``avg`` or ``max``.
    """
    points, samples = [], []
    for axis in range(2):
        begin, step = start[1 - axis], cell[1 - axis]
        count = ratio if ratio > 0 else max(0, math.ceil(step))
        places = torch.arange(size[axis], device=image.device)[:, None] * step
        inner = (torch.arange(count, device=image.device) + 0.5) * (step / max(count, 1))
        points.append((begin + places + inner).flatten())
        samples.append(count)
    if 0 in samples:
        return image.new_zeros(image.shape[0], *size)
    rows, columns = torch.meshgrid(points[0], points[1], indexing="ij")
    height, width = image.shape[1:]
    valid = (rows >= -1) & (rows <= height) & (columns >= -1) & (columns <= width)
    terms = weighted_corners(
        image[None],
        rows.clamp(0, height - 1).reshape(1, -1).to(image.dtype),
        columns.clamp(0, width - 1).reshape(1, -1).to(image.dtype),
    )
    kept = torch.stack(terms)[:, 0] * valid.flatten()
    bins = kept.reshape(4, image.shape[0], size[0], samples[0], size[1], samples[1])
    if mode == "avg":
        return bins.sum(dim=(0, 3, 5)) / (samples[0] * samples[1])
    return bins.permute(1, 2, 4, 0, 3, 5).flatten(3).max(dim=3).values


@OPS.register("MaxRoiPool")
def max_roi_pool(
    X: Tensor, rois: Tensor, *, pooled_shape: tuple[int, ...], spatial_scale: float = 1.0
) -> Tensor:
    """Maximum of each cell of each region (image, x1, y1, x2, y2) (Girshick 2015)."""
    height, width = pooled_shape
    results = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (_round(corner * spatial_scale) for corner in corners)
        rows = _cells(y1, y2, height, X.shape[2])
        columns = _cells(x1, x2, width, X.shape[3])
        cells = [
            X[int(image), :, top:bottom, left:right].flatten(1).max(dim=1).values
            if top < bottom and left < right
            else X.new_zeros(X.shape[1])
            for top, bottom in rows
            for left, right in columns
        ]
        results.append(torch.stack(cells, dim=1).reshape(-1, height, width))
    return torch.stack(results) if results else X.new_zeros(0, X.shape[1], height, width)


def _round(x: float) -> int:
    """Round half away from zero, as C does."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))


def _cells(first: int, last: int, count: int, limit: int) -> list[tuple[int, int]]:
    """Begin and end of each cell along one axis, inside the image."""
    step = max(last - first + 1, 1) / count
    return [
        (
            min(max(math.floor(i * step) + first, 0), limit),
            min(max(math.ceil((i + 1) * step) + first, 0), limit),
        )
        for i in range(count)
    ]


@OPS.register("NonMaxSuppression", since=10)
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: int = 0,
    iou_threshold: float = 0.0,
    score_threshold: float | None = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """Keep the best boxes of each class that do not overlap a better one.

    Returns:
        One row (image, class, box) for each box kept.
    """
    low, high = _corners(boxes.detach(), bool(center_point_box))
    rows = []
    for image in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            kept = _suppress(
                low[image],
                high[image],
                scores[image, label].detach(),
                max_output_boxes_per_class,
                iou_threshold,
                score_threshold,
            )
            rows += [(image, label, box) for box in kept]
    return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """Lower and upper corners of boxes that are given by two corners, or by centre and size."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred:
        return first - second / 2, first + second / 2
    return torch.minimum(first, second), torch.maximum(first, second)


def _suppress(
    low: Tensor, high: Tensor, scores: Tensor, limit: int, overlap: float, threshold: float | None
) -> list[int]:
    """Indices of the boxes of one class that are kept, best first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    if threshold is not None:
        order = order[scores[order] > threshold]
    areas = (high - low).prod(dim=-1)
    kept: list[int] = []
    while len(kept) < limit and len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        sides = torch.minimum(high[best], high[order]) - torch.maximum(low[best], low[order])
        shared = sides.clamp(min=0).prod(dim=-1)
        union = areas[best] + areas[order] - shared
        alone = (areas[best] <= 0) | (areas[order] <= 0) | (union <= 0)
        order = order[alone | (shared / union.masked_fill(union == 0, 1) <= overlap)]
    return kept

"""Values between the pixels: GridSample, AffineGrid, and the corners that bilinear sums."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own idiom

from converters.errors import ConverterError
from converters.to_torch.optable import OPS

__all__ = ["affine_grid", "grid_sample", "weighted_corners"]


@OPS.register("GridSample", since=20)
def grid_sample(
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    """Sample X at the positions of a grid, which reaches from -1 to 1 along each axis."""
    if mode == "cubic" and X.dim() != 4:
        raise ConverterError(f"GridSample, cubic, over {X.dim() - 2} spatial axes")
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(X, grid, torch_mode, padding_mode, align_corners=bool(align_corners))


@OPS.register("GridSample", since=16)
def grid_sample_16(
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    """Sample X at the positions of a grid, with the modes under their first names."""
    return F.grid_sample(X, grid, mode, padding_mode, align_corners=bool(align_corners))


@OPS.register("AffineGrid", since=20)
def affine_grid(theta: Tensor, size: tuple[int, ...], *, align_corners: int = 0) -> Tensor:
    """Grid of an affine transformation, in the coordinates of GridSample."""
    return F.affine_grid(theta, list(size), align_corners=bool(align_corners))


def weighted_corners(images: Tensor, y: Tensor, x: Tensor) -> list[Tensor]:
    """The four terms whose sum is the bilinear value at y, x; zero outside of the image.

    Args:
        images: Images (N, C, H, W).
        y: Rows in pixels (N, P), differentiable.
        x: Columns in pixels (N, P), differentiable.

    Returns:
        Four tensors (N, C, P): pixel times weight, from the upper left to the lower right.
    """
    height, width = images.shape[2:]
    flat = images.flatten(2)
    top, left = y.floor(), x.floor()
    terms = []
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            index = index.to(torch.int64).unsqueeze(1).expand(-1, flat.shape[1], -1)
            terms.append(flat.gather(2, index) * (weight_y * weight_x * inside).unsqueeze(1))
    return terms

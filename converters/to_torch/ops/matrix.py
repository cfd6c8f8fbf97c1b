"""Products of matrices and tensors."""

import torch
from torch import Tensor

from converters.to_torch.ops.unsigned import widened
from converters.to_torch.optable import OPS


@OPS.register("MatMul")
@widened
def mat_mul(A: Tensor, B: Tensor) -> Tensor:
    """Matrix product over the last two axes, with numpy's rules for one axis and for batches."""
    return torch.matmul(A, B)


def _gemm(
    A: Tensor, B: Tensor, C: Tensor | None, alpha: float, beta: float, transA: int, transB: int
) -> Tensor:
    A = A.T if transA else A
    B = B.T if transB else B
    if not A.is_floating_point():
        return _gemm_integers(A, B, C, alpha, beta)
    if C is None:
        product = A @ B
        return product if alpha == 1.0 else alpha * product
    return torch.addmm(C, A, B, beta=beta, alpha=alpha)


@widened
def _gemm_integers(A: Tensor, B: Tensor, C: Tensor | None, alpha: float, beta: float) -> Tensor:
    product = A @ B
    if C is None and alpha == 1.0:
        return product
    if alpha == beta == 1.0 and C is not None:
        return product + C
    result = alpha * product.to(torch.float64)
    return (result if C is None else result + beta * C.to(torch.float64)).to(A.dtype)


@OPS.register("Gemm")
def gemm_with_broadcast(
    A: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    broadcast: int = 0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """``alpha A B + beta C``, where ``broadcast`` said whether ``C`` had to be repeated."""
    return _gemm(A, B, C, alpha, beta, transA, transB)


@OPS.register("Gemm", since=7)
def gemm(
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """``alpha A B + beta C``."""
    return _gemm(A, B, C, alpha, beta, transA, transB)


@OPS.register("Einsum", since=12)
@widened
def einsum(*Inputs: Tensor, equation: str) -> Tensor:
    """Sum of products, by Einstein's convention."""
    return torch.einsum(equation, *Inputs)


@OPS.register("Det", since=11)
def det(X: Tensor) -> Tensor:
    """Determinant of each matrix."""
    determinant: Tensor = torch.linalg.det(X)
    return determinant


@OPS.register("Col2Im", since=18)
def col2im(
    input: Tensor,
    image_shape: tuple[int, ...],
    block_shape: tuple[int, ...],
    *,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Add up columns of blocks to an image of any number of axes: the adjoint of im2col."""
    rank, n = len(image_shape), input.shape[0]
    dilations, strides = dilations or (1,) * rank, strides or (1,) * rank
    pads = pads or (0,) * (2 * rank)
    padded = [image_shape[i] + pads[i] + pads[i + rank] for i in range(rank)]
    # Position in the padded image of block element x block, axis by axis, as one flat index.
    flat = torch.zeros((), dtype=torch.int64)
    for i in range(rank):
        count = (padded[i] - dilations[i] * (block_shape[i] - 1) - 1) // strides[i] + 1
        element = torch.arange(block_shape[i]) * dilations[i]
        positions = element[:, None] + torch.arange(count) * strides[i]
        axes = [1] * (2 * rank)
        axes[i], axes[rank + i] = positions.shape
        flat = flat * padded[i] + positions.reshape(axes)
    channels = input.shape[1] // torch.Size(block_shape).numel()
    columns = input.reshape(n, channels, -1)
    image = input.new_zeros(n, channels, torch.Size(padded).numel())
    image = image.index_add(2, flat.reshape(-1).to(input.device), columns)
    image = image.reshape(n, channels, *padded)
    for i in range(rank):
        image = image.narrow(2 + i, pads[i], image_shape[i])
    return image

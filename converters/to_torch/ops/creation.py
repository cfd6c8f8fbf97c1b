"""Tensors made from nothing but numbers."""

import math

import torch
from torch import Tensor

from converters.to_torch.optable import OPS

Ints = tuple[int, ...]


@OPS.register("Constant")
def constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: Ints | None = None,
) -> Tensor:
    """Return the tensor, the numbers or the number that the node holds."""
    if value is not None:
        return value
    if value_float is not None or value_floats is not None:
        return torch.tensor(value_floats if value_float is None else value_float)
    numbers = value_ints if value_int is None else value_int
    return torch.tensor(numbers, dtype=torch.int64)


@OPS.register("ConstantOfShape", since=9)
def constant_of_shape(input: Ints, *, value: Tensor | None = None) -> Tensor:
    """Fill a shape with one value, by default a float zero."""
    if value is None:
        return torch.zeros(input)
    return value.reshape(()).expand(input).clone()


@OPS.register("Range", since=11)
def range_(start: Tensor, limit: Tensor, delta: Tensor, *, stash_type: int = 1) -> Tensor:
    """Numbers from ``start`` to below ``limit`` in steps of ``delta``."""
    first, last, step = start.item(), limit.item(), delta.item()
    if isinstance(step, int):
        count = max(-((first - last) // step), 0)
    else:
        count = max(math.ceil((last - first) / step), 0)
    places = torch.arange(count, device=start.device)
    return start.reshape(()) + places.to(start.dtype) * delta.reshape(())


@OPS.register("EyeLike", since=9)
def eye_like(input: Tensor, *, dtype: torch.dtype | None = None, k: int = 0) -> Tensor:
    """Ones on the ``k``-th diagonal, in the shape of the input."""
    rows, columns = (torch.arange(n, device=input.device) for n in input.shape)
    return (columns[None, :] - rows[:, None] == k).to(dtype or input.dtype)


def _window(size: int, periodic: int, dtype: torch.dtype, terms: tuple[float, ...]) -> Tensor:
    """Sum of cosines ``(-1)^j a_j cos(2 pi j n / N)`` over n = 0 ... size - 1."""
    period = size if periodic else size - 1
    angle = 2 * math.pi * torch.arange(size, dtype=torch.float64) / max(period, 1)
    total = torch.zeros(size, dtype=torch.float64)
    for j, factor in enumerate(terms):
        total = total + (-1) ** j * factor * torch.cos(j * angle)
    return total.to(dtype)


@OPS.register("HannWindow", since=17)
def hann_window(
    size: int, *, output_datatype: torch.dtype = torch.float32, periodic: int = 1
) -> Tensor:
    """Hann window: a raised cosine."""
    return _window(size, periodic, output_datatype, (0.5, 0.5))


@OPS.register("HammingWindow", since=17)
def hamming_window(
    size: int, *, output_datatype: torch.dtype = torch.float32, periodic: int = 1
) -> Tensor:
    """Hamming window, with the exact coefficients 25/46 and 21/46."""
    return _window(size, periodic, output_datatype, (25 / 46, 21 / 46))


@OPS.register("BlackmanWindow", since=17)
def blackman_window(
    size: int, *, output_datatype: torch.dtype = torch.float32, periodic: int = 1
) -> Tensor:
    """Blackman window."""
    return _window(size, periodic, output_datatype, (0.42, 0.5, 0.08))


@OPS.register("MelWeightMatrix", since=17)
def mel_weight_matrix(
    num_mel_bins: int,
    dft_length: int,
    sample_rate: int,
    lower_edge_hertz: float,
    upper_edge_hertz: float,
    *,
    output_datatype: torch.dtype = torch.float32,
) -> Tensor:
    """Triangular filters, evenly spaced on the mel scale, one column each."""
    bins = dft_length // 2 + 1
    low, high = (2595 * math.log10(1 + f / 700) for f in (lower_edge_hertz, upper_edge_hertz))
    step = (high - low) / (num_mel_bins + 2)
    mel = torch.arange(num_mel_bins + 2, dtype=torch.float64) * step + low
    hertz = 700 * (torch.pow(10.0, mel / 2595) - 1)
    corner = ((dft_length + 1) * hertz / sample_rate).floor()
    low_, centre, high_ = corner[:-2], corner[1:-1], corner[2:]
    place = torch.arange(bins, dtype=torch.float64)[:, None]
    # A side of no width is the peak alone.
    rising = torch.where(centre > low_, (place - low_) / (centre - low_), 1.0)
    falling = torch.where(high_ > centre, (high_ - place) / (high_ - centre), 0.0)
    filters = torch.where((place >= low_) & (place <= centre), rising, 0.0)
    filters = torch.where((place > centre) & (place < high_), falling, filters)
    return filters.to(output_datatype)

"""The spatial frequencies of convolution filters; NumPy only.

Frequencies are in cycles per pixel of the image, 0 to 0.5 along each axis; that of a direction is
f = sqrt(fy^2 + fx^2).

    band    f                     finest pattern in it
    low     below 1/8             a stripe every 8 pixels
    mid     from 1/8, below 1/4   every 4 pixels
    high    from 1/4              every pixel
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BANDS",
    "aliased_share",
    "band_shares",
    "dilated",
    "energy",
    "flat_aliased_share",
    "flat_band_shares",
    "folded_energy",
    "transform_size",
]

BANDS = ("low", "mid", "high")

BOUNDS = (1 / 8, 1 / 4)
"""Where mid and high begin, in cycles per pixel."""

Float64 = NDArray[np.float64]


def transform_size(height: int, width: int) -> int:
    """Side of the square that filters are padded to: 64, or a larger power of two.

    At least four times the filter, so that the bins lie dense beside its lobes.
    """
    return max(64, 1 << math.ceil(math.log2(4 * max(height, width))))


def dilated(filters: NDArray[Any], dilations: Sequence[int]) -> Float64:
    """Filters with the zeros between their taps that a dilation means.

    Args:
        filters: (K, C, h, w).
        dilations: Down and across.
    """
    count, channels, height, width = filters.shape
    size = [(n - 1) * step + 1 for n, step in zip((height, width), dilations, strict=True)]
    found = np.zeros((count, channels, *size))
    found[:, :, :: dilations[0], :: dilations[1]] = filters
    return found


def energy(filters: NDArray[Any], size: int) -> Float64:
    """Energy |DFT|^2 of filters padded with zeros, summed over channels.

    Args:
        filters: (K, C, h, w).
        size: Side P of the padded square.

    Returns:
        (K, P, P); bin (i, j) is at the frequencies of ``numpy.fft.fftfreq(P)``. Its sum is P^2
        times the sum of the filter's squares (Parseval).
    """
    # One filter at a time: all at once would hold K C P^2 complex numbers.
    rows = [(np.abs(np.fft.fft2(f.astype(np.float64), (size, size))) ** 2).sum(0) for f in filters]
    return np.stack(rows)


def band_shares(energies: Float64) -> Float64:
    """Shares (K, 3) of each filter's energy in the bands; NaN for a filter of zeros."""
    return _shares(energies, _bands(energies.shape[-1]))


def flat_band_shares(size: int) -> Float64:
    """What white noise, which has all frequencies alike, has in the bands."""
    return np.array([mask.mean() for mask in _bands(size)])


def aliased_share(energies: Float64, strides: Sequence[int]) -> Float64:
    """Share (K,) of each filter's energy that its output grid cannot carry.

    That is what lies, along either axis, above the Nyquist frequency 1 / (2 stride) of the
    outputs. The stride folds it down onto lower frequencies. 0 at stride 1.

    Args:
        energies: (K, P, P).
        strides: Down and across, in pixels of the image.
    """
    return _shares(energies, [_beyond(energies.shape[-1], strides)])[:, 0]


def flat_aliased_share(size: int, strides: Sequence[int]) -> float:
    """`aliased_share` of white noise."""
    return float(_beyond(size, strides).mean())


def folded_energy(
    images: NDArray[Any], filters: NDArray[Any], strides: Sequence[int]
) -> tuple[Float64, Float64, Float64]:
    """Energy of filters' responses to images, and what of it a stride folds.

    A convolution of stride s keeps every s-th value of the one of stride 1. What of the latter
    lies above 1 / (2 s) cycles per pixel, along either axis, comes out at a lower frequency and
    cannot be told from what belongs there. An image's mean says nothing of patterns and is taken
    off; the rest fades out at the border (Hann), for a border is an edge to a Fourier transform.
    So a response of energy E(f) is |sum over c of X_c(f) conj(W_c(f))|^2, the power spectrum of
    Welch (1967) with one window an image.

    Args:
        images: (N, C, H, W), what the convolution reads.
        filters: (K, C / groups, h, w), with the zeros that a dilation means.
        strides: Down and across.

    Returns:
        (N, K) energy at stride 1, (N, K) what of it is folded, and (N, 2) the same two of the
        images themselves, over all channels.
    """
    size = _room(images.shape, filters.shape)
    spectra = _half_plane(_faded(images), size)
    beyond = _beyond(size, strides)[:, : size // 2 + 1]
    # Half a plane stands for the whole: all columns but the first and the last occur twice.
    times = np.full(size // 2 + 1, 2.0)
    times[[0, -1]] = 1
    own = (np.abs(spectra) ** 2).sum(1) * times
    channels = filters.shape[1]
    filters_in_group = len(filters) * channels // images.shape[1]
    total, folded = (np.zeros((len(images), len(filters))) for _ in range(2))
    for k, one in enumerate(filters):
        first = k // filters_in_group * channels
        read = spectra[:, first : first + channels]
        response = (read * _half_plane(one.astype(np.float64), size).conj()).sum(1)
        power = (response.real**2 + response.imag**2) * times
        total[:, k], folded[:, k] = power.sum((1, 2)), (power * beyond).sum((1, 2))
    return total, folded, np.stack([own.sum((1, 2)), (own * beyond).sum((1, 2))], axis=1)


def _room(images: Sequence[int], filters: Sequence[int]) -> int:
    """Side of a square in which no response runs over the edge; a multiple of 16 is fast."""
    return -(-(max(images[2:]) + max(filters[2:]) - 1) // 16) * 16


def _half_plane(values: NDArray[Any], size: int) -> NDArray[np.complex128]:
    found: NDArray[np.complex128] = np.fft.rfft2(values, (size, size))
    return found


def _faded(images: NDArray[Any]) -> Float64:
    """Images without their mean under the window, fading out at the border."""
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in images.shape[2:])
    window = rows[:, None] * columns
    values = images.astype(np.float64)
    means = (values * window).sum((2, 3), keepdims=True) / window.sum()
    found: Float64 = (values - means) * window
    return found


def _shares(energies: Float64, masks: Sequence[NDArray[np.bool_]]) -> Float64:
    inside = np.stack([(energies * mask).sum((1, 2)) for mask in masks], axis=1)
    total = energies.sum((1, 2))[:, None]
    shares: Float64 = np.divide(inside, total, out=np.full_like(inside, np.nan), where=total > 0)
    return shares


def _axes(size: int) -> tuple[Float64, Float64]:
    frequency = np.abs(np.fft.fftfreq(size))
    return frequency[:, None], frequency[None, :]


def _bands(size: int) -> list[NDArray[np.bool_]]:
    radius = np.hypot(*_axes(size))
    place = np.searchsorted(BOUNDS, radius, side="right")
    return [place == index for index in range(len(BANDS))]


def _beyond(size: int, strides: Sequence[int]) -> NDArray[np.bool_]:
    rows, columns = _axes(size)
    # Multiplied, so that a bin at the bound itself (1/8 for stride 4) is exactly at it.
    return (rows * 2 * strides[0] > 1) | (columns * 2 * strides[1] > 1)

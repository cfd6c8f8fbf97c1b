"""Fourier transforms.

A complex number is a pair in the last axis; a real signal has a last axis of size 1.
"""

import torch
from torch import Tensor

from converters.to_torch.optable import OPS


def _complex(x: Tensor) -> Tensor:
    """Read the last axis as a number, real or complex."""
    return x.squeeze(-1) if x.shape[-1] == 1 else torch.view_as_complex(x.contiguous())


def _pairs(x: Tensor) -> Tensor:
    """Write complex numbers as pairs; the transform of a real signal may be a lazy conjugate."""
    return torch.view_as_real(x.resolve_conj())


def _dft(input: Tensor, length: int | None, axis: int, inverse: int, onesided: int) -> Tensor:
    axis %= input.ndim
    signal = _complex(input)
    if not onesided:
        transform = torch.fft.ifft if inverse else torch.fft.fft
        return _pairs(transform(signal, length, axis))
    if inverse:
        real: Tensor = torch.fft.irfft(signal, length, axis)
        return real.unsqueeze(-1)
    return _pairs(torch.fft.rfft(signal, length, axis))


@OPS.register("DFT", since=17)
def dft_axis_attribute(
    input: Tensor,
    dft_length: int | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """Discrete Fourier transform along an axis, which an attribute names."""
    return _dft(input, dft_length, axis, inverse, onesided)


@OPS.register("DFT", since=20)
def dft(
    input: Tensor,
    dft_length: int | None = None,
    axis: int = -2,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    """Discrete Fourier transform along an axis."""
    return _dft(input, dft_length, axis, inverse, onesided)


@OPS.register("STFT", since=17)
def stft(
    signal: Tensor,
    frame_step: int,
    window: Tensor | None = None,
    frame_length: int | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    """Discrete Fourier transform of each windowed frame of a signal."""
    if frame_length is None:
        frame_length = signal.shape[1] if window is None else window.shape[0]
    frames = _complex(signal).unfold(1, frame_length, frame_step)
    if window is not None:
        frames = frames * window.to(frames.device)
    if onesided and not frames.is_complex():
        return _pairs(torch.fft.rfft(frames))
    return _pairs(torch.fft.fft(frames))

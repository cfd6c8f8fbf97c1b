"""Inputs with a photo's colours and none of its content, to hold a similarity against.

The mean colour; pixels in random order, which keep the colours; random phases, which keep the
spectrum.  What pads the photo stays in its place.
"""

from typing import Any

import numpy as np

from inspector.photos.geometry import Geometry

__all__ = ["contentless", "of_one_colour"]

Array = np.ndarray[Any, Any]

_DRAWS = 3
"""Random inputs of each kind."""


def of_one_colour(tensor: Array, geometry: Geometry) -> Array:
    """An input (C, H, W) with the photo's mean in its place; what pads it stays."""
    place, found = _place(tensor, geometry), tensor.copy()
    found[place] = tensor[place].mean((1, 2), keepdims=True)
    return found


def contentless(tensor: Array, geometry: Geometry, seed: int = 0) -> list[Array]:
    """Inputs (C, H, W) without the photo's content: one of one colour, three of each random kind.

    Args:
        tensor: The photo as the network takes it.
        geometry: How the photo and the input lie on each other.
        seed: Of the random orders and phases.

    Example:
        >>> tensor = np.random.default_rng(0).random((3, 8, 8), np.float32)
        >>> [one.shape for one in contentless(tensor, Geometry.identity((8, 8)))][:2]
        [(3, 8, 8), (3, 8, 8)]
    """
    generator = np.random.default_rng(seed)
    place = _place(tensor, geometry)
    found = [of_one_colour(tensor, geometry)]
    for _ in range(_DRAWS):
        for kind in (_pixels, _phases):
            other = tensor.copy()
            other[place] = kind(tensor[place], generator)
            found.append(other)
    return found


def _place(tensor: Array, geometry: Geometry) -> tuple[slice, ...]:
    """Where the photo lies in an input."""
    place = [slice(None)]
    for start, scale, photo, whole in zip(
        geometry.shift, geometry.scale, geometry.photo, tensor.shape[1:], strict=True
    ):
        ends = np.clip(np.rint([start, start + scale * photo]), 0, whole).astype(int)
        place.append(slice(*ends.tolist()))
    return tuple(place)


def _pixels(photo: Array, generator: "np.random.Generator") -> Array:
    flat = photo.reshape(len(photo), -1)
    return flat[:, generator.permutation(flat.shape[1])].reshape(photo.shape)


def _phases(photo: Array, generator: "np.random.Generator") -> Array:
    """The photo's spectrum with the phases of noise, alike in all channels; its range stays."""
    noise = generator.standard_normal(photo.shape[1:])
    phase = np.exp(1j * np.angle(np.fft.fft2(noise)))
    phase[0, 0] = 1
    found = np.fft.ifft2(np.fft.fft2(photo.astype(np.float64)) * phase).real
    return np.clip(found, photo.min(), photo.max()).astype(photo.dtype)

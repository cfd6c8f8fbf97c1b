"""Inputs on which a source and its converted file are compared, by kind.

Random ones in batches of 1 and 3, and for images noise with the spectrum of photographs.  Further
ones of each kind are for a quantised source, whose kernels are compared where the file differs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.source import InputSpec, concrete, random_input

__all__ = ["KINDS", "further_inputs", "kind_of", "perturbed", "pink_noise", "trial_inputs"]

Array = NDArray[Any]

KINDS = ("photo-like", "random")
"""Kinds of inputs: rounding does more to a network on some than on others."""
_PHOTOS = "photo"
"""What the names of trials on images have in them."""

_FURTHER = 12
"""Further inputs of a kind on which a quantised source's kernels are compared where the file
differs on inputs of that kind."""


def kind_of(name: str) -> str:
    """Kind of inputs, of ``KINDS``, by the name of their trial."""
    return KINDS[_PHOTOS not in name]


def trial_inputs(specs: Sequence[InputSpec], seed: int = 0) -> dict[str, list[Array]]:
    """Inputs by name of the trial: random ones, and noise like photographs for images."""
    generator = np.random.default_rng(seed)
    free = specs[0].shape[:1] == (None,)
    fixed = specs[0].shape[0] if specs[0].shape and not free else 1
    trials = {
        f"random, batch of {n}": [random_input(spec, n or 1, generator) for spec in specs]
        for n in ((1, 3) if free else (fixed,))
    }
    if len(specs) == 1 and len(specs[0].shape) == 4:
        name = f"noise with the spectrum of {_PHOTOS}graphs"
        if free:
            trials[name] = [pink_noise(specs[0], 4, generator)]
        else:
            # Several, because no verdict should hang on one sample.
            trials |= {f"{name}, {n}": [pink_noise(specs[0], 1, generator)] for n in range(1, 5)}
    return trials


def further_inputs(specs: Sequence[InputSpec], seed: int = 2) -> dict[str, list[Array]]:
    """Further inputs by name, of the kinds that the trial has, sample by sample."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[Array]] = {}
    for number in range(1, _FURTHER + 1):
        name = f"further random inputs, {number}"
        found[name] = [random_input(spec, 1, generator) for spec in specs]
    if len(specs) == 1 and len(specs[0].shape) == 4:
        batch = specs[0].shape[0] or 1
        for number in range(1, _FURTHER + 1):
            name = f"further noise with the spectrum of {_PHOTOS}graphs, {number}"
            found[name] = [pink_noise(specs[0], batch, generator)]
    return found


def pink_noise(spec: InputSpec, batch: int, generator: np.random.Generator) -> Array:
    """Noise with amplitudes of 1 / frequency along the two longest axes: natural images' own.

    Of a standard deviation of 1, or around the middle of the values that the input is made for.
    """
    shape = concrete(spec.shape, batch)
    last = sorted(sorted(range(1, 4), key=lambda axis: -shape[axis])[:2])
    white = np.fft.fft2(generator.standard_normal(shape), axes=last)
    rows, columns = (np.fft.fftfreq(shape[axis]) for axis in last)
    radius = np.hypot(rows[:, None], columns[None])
    radius[0, 0] = 1 / max(shape[axis] for axis in last)
    weights = np.expand_dims(1 / radius, [axis for axis in range(4) if axis not in last])
    noise = np.fft.ifft2(white * weights, axes=last).real
    noise /= max(noise.std(), 1e-12)
    dtype = np.dtype(spec.dtype)
    span = spec.span
    if dtype.kind in "iu":
        span = (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if span is not None:
        noise = np.clip(noise * (span[1] - span[0]) / 5 + (span[1] + span[0]) / 2, *span)
    return np.rint(noise).astype(dtype) if dtype.kind in "iu" else noise.astype(dtype)


def perturbed(inputs: Sequence[Array], seed: int = 1) -> list[Array] | None:
    """The same inputs, each number changed by about a millionth; None where one is of integers."""
    if any(array.dtype.kind != "f" for array in inputs):
        return None
    generator = np.random.default_rng(seed)
    return [
        (array * (1 + 1e-6 * generator.standard_normal(array.shape))).astype(array.dtype)
        for array in inputs
    ]

"""Same inputs through two sides: how far apart are the results, and where do they part first.

The question comes up after every conversion (framework against ONNX Runtime), for the twin
(ONNX Runtime against PyTorch, tensor by tensor) and for two versions of one model.  It is
answered here once, on NumPy arrays, so that neither side needs to be importable.

A tensor's difference is ``max |other - reference| / max |reference|``: relative to the tensor's
peak, because a single small value says nothing about the tensor it stands in.

    reference      other          worst
    0 everywhere   0 everywhere   0
    0 everywhere   anything else  inf   (no peak to be relative to)
    NaN            NaN            0     (same place)
    +inf           +inf           0     (same place and sign)
    NaN or inf     anything else  inf
    shape (2, 3)   shape (3, 2)   inf
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Parity", "TensorParity", "compare", "top1_agreement"]

Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorParity:
    """How one tensor differs between the two sides.

    Attributes:
        name: The tensor's name.
        worst: Largest difference over the reference's peak; 0 when equal, inf when the shapes
            or the places of NaN and infinity differ.
        at: Index of the largest difference; None when there is none or no common shape.
        peak: Largest finite magnitude in the reference.
        reference: The reference's shape.
        other: The other side's shape.
        why: What makes ``worst`` infinite, in words; empty when it is finite.
    """

    name: str
    worst: float
    at: tuple[int, ...] | None
    peak: float
    reference: tuple[int, ...]
    other: tuple[int, ...]
    why: str = ""

    def __str__(self) -> str:
        """Say it in one line, for an error message or a terminal."""
        if self.why:
            return f"{self.name}: {self.why}"
        place = f" at {list(self.at)}" if self.at else ""
        return f"{self.name}: {self.worst:.2e} of its peak {self.peak:.3g}{place}"


@dataclass(frozen=True)
class Parity:
    """The comparison of many tensors, in the order in which they are computed.

    Attributes:
        tensors: One entry per tensor that both sides have.
        tolerance: Largest ``worst`` that counts as equal.
        missing: Tensors of the order that one side (or both) does not have.
    """

    tensors: tuple[TensorParity, ...]
    tolerance: float
    missing: tuple[str, ...] = field(default=())

    @cached_property
    def divergent(self) -> tuple[TensorParity, ...]:
        """The tensors beyond the tolerance, in order."""
        return tuple(entry for entry in self.tensors if not entry.worst <= self.tolerance)

    @property
    def first(self) -> TensorParity | None:
        """The first tensor beyond the tolerance: where to look for the cause."""
        return self.divergent[0] if self.divergent else None

    @property
    def worst(self) -> TensorParity | None:
        """The tensor that differs most; None when nothing was compared."""
        return max(self.tensors, key=lambda entry: entry.worst, default=None)

    @property
    def holds(self) -> bool:
        """Whether every tensor of the order is there and within the tolerance."""
        return bool(self.tensors) and not self.missing and not self.divergent

    def __str__(self) -> str:
        """Say it in one line, for an error message or a terminal."""
        absent = f"; missing: {', '.join(self.missing)}" if self.missing else ""
        if not self.tensors:
            return "nothing to compare" + absent
        if self.first is None:
            return f"{len(self.tensors)} tensors agree; worst {self.worst}" + absent
        count = f"{len(self.divergent)} of {len(self.tensors)} tensors differ"
        return f"{count} by more than {self.tolerance:g}; first {self.first}" + absent


def compare(
    reference: Mapping[str, Array],
    other: Mapping[str, Array],
    order: Sequence[str],
    *,
    tolerance: float = 1e-4,
) -> Parity:
    """Compare two runs tensor by tensor.

    Args:
        reference: Arrays of any shape by tensor name: the side that is held to be right.
        other: Arrays of the side under test.  Types may differ (float32 against float64).
        order: Names in the order in which the network computes them; only these are compared.
        tolerance: Largest difference, relative to a tensor's peak, that counts as equal.

    Returns:
        One entry per name of ``order`` that both sides have; the others in ``missing``.
    """
    both = [name for name in order if name in reference and name in other]
    missing = tuple(name for name in order if name not in reference or name not in other)
    entries = tuple(_tensor(name, reference[name], other[name]) for name in both)
    return Parity(entries, tolerance, missing)


def top1_agreement(reference: Array, other: Array) -> float:
    """Share of samples for which both sides name the same class.

    Args:
        reference: (N, K) scores.
        other: (N, K) scores of the side under test.

    Returns:
        Between 0 and 1.  Of equal scores the first counts; a row with NaN agrees with nothing.

    Raises:
        ValueError: The shapes differ, are not (N, K), or hold no sample.
    """
    a, b = np.asarray(reference), np.asarray(other)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        msg = f"two tables of scores (N, K) are needed, not {a.shape} and {b.shape}"
        raise ValueError(msg)
    a, b = a.astype(np.float64), b.astype(np.float64)
    known = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
    return float(np.mean((a.argmax(axis=1) == b.argmax(axis=1)) & known))


def _tensor(name: str, reference: Array, other: Array) -> TensorParity:
    """Compare one tensor; see the table at the top of the module."""
    a, b = np.asarray(reference), np.asarray(other)

    def entry(
        worst: float, at: tuple[int, ...] | None = None, peak: float = 0.0, why: str = ""
    ) -> TensorParity:
        return TensorParity(name, worst, at, peak, a.shape, b.shape, why)

    if a.shape != b.shape:
        return entry(np.inf, why=f"shape {list(b.shape)} instead of {list(a.shape)}")
    if a.dtype.kind in "OSTU" or b.dtype.kind in "OSTU":
        unequal = np.asarray(a != b)
        why = "strings differ" if unequal.any() else ""
        return entry(np.inf if why else 0.0, _first(unequal), why=why)
    return _numbers(entry, _wide(a), _wide(b))


def _numbers(
    entry: Callable[..., TensorParity], a: NDArray[np.inexact], b: NDArray[np.inexact]
) -> TensorParity:
    """Compare the values of two tensors of one shape."""
    finite = np.isfinite(a)
    peak = float(np.abs(a[finite]).max(initial=0.0))
    # Values that are not finite must be the same ones in the same places.
    strange = ~np.where(finite, np.isfinite(b), (a == b) | (np.isnan(a) & np.isnan(b)))
    if strange.any():
        at = _first(strange) or ()
        return entry(np.inf, at, peak, f"{b[at]} instead of {a[at]} at {list(at)}")
    with np.errstate(over="ignore"):  # an overflow in the difference is an infinite one
        difference = np.abs(np.subtract(b, a, out=np.zeros_like(a), where=finite))
    at = _first(difference == difference.max(initial=0.0)) or ()
    if not difference.any():
        return entry(0.0, None, peak)
    if not peak:
        return entry(np.inf, at, peak, f"{b[at]} instead of 0 everywhere")
    return entry(float(difference[at]) / peak, at, peak)


def _wide(array: Array) -> NDArray[np.inexact]:
    """The array in double precision, so that the difference itself is exact enough."""
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.float64)


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Index of the first true element."""
    if not mask.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(mask.argmax()), mask.shape))

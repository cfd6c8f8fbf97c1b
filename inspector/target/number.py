"""One number per sample: an element of a tensor, or the sum of several."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inspector.errors import UnknownTarget

__all__ = ["Sampled", "Target"]

_Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Target:
    """One number per sample, to be explained.

    Attributes:
        tensor: The tensor that is differentiated.
        index: Where in it, without the batch axis; axes that the index leaves out, and slices,
            are summed over.
        label: How it is shown.
        class_index: Place of the class in the scores, when it is one.
        sign: -1 for the opposite direction: the number is -S.
        number: The class as it is counted, where one unit scores two: 1 or 0; else
            ``class_index``.
        note: What must be known of how the name was read.
        base: -1 where the class itself is -S: an output of 1 minus a sigmoid.
    """

    tensor: str
    index: _Index
    label: str
    class_index: int | None = None
    sign: int = 1
    number: int | None = None
    note: str = ""
    base: int = 1

    @property
    def read_from(self) -> tuple[str, ...]:
        """Tensors that the number is measured by when the image is changed."""
        return (self.tensor,)

    @property
    def moves(self) -> bool:
        """Whether what is explained changes its place in the tensor when the image is changed."""
        return False

    @property
    def seen_in(self) -> tuple[str, ...]:
        """Outputs by which what is explained is found again; empty where it is only a number."""
        return ()

    def similarity(self, values: Mapping[str, Any]) -> float:
        """How alike it is to what a changed image has most like it, from those of one sample."""
        del values
        return 0.0

    def measured(self, values: Mapping[str, Any]) -> float:
        """The number on a changed image, from the tensors of one sample (1, ...)."""
        return float(np.sum(self.of(np.asarray(values[self.tensor]))))

    @property
    def shown_index(self) -> int | None:
        """The class as reports count it."""
        return self.class_index if self.number is None else self.number

    @property
    def opposed(self) -> bool:
        """Whether it is the opposite direction of ``shown_index``."""
        return self.sign != self.base and self.number is None

    @property
    def terms(self) -> tuple[tuple[int, int], ...]:
        """Classes that the number is the sum of, each with its sign; empty for other numbers."""
        return () if self.class_index is None else ((self.class_index, self.sign),)

    def opposite(self, label: str) -> "Target":
        """The same number in the opposite direction, under another label."""
        number = None if self.number is None else 1 - self.number
        return replace(self, sign=-self.sign, label=label, number=number)

    def of(self, array: Any) -> Any:
        """The target's value for each sample.

        Args:
            array: The tensor's values (N, ...), numpy or torch.

        Returns:
            (N,) values, of the same kind and data type; differentiable in torch.

        Raises:
            UnknownTarget: The index lies outside of the array, or selects nothing.
        """
        # One number per sample is element 0 of itself.
        index = () if array.ndim == 1 and self.index in {(0,), (-1,)} else self.index
        try:
            values = array[(slice(None), *index)]
        except IndexError as error:
            raise UnknownTarget(
                f"{self.label!r} lies outside of a tensor of shape {tuple(array.shape)}"
            ) from error
        if 0 in tuple(values.shape)[1:]:
            raise UnknownTarget(f"{self.label!r} selects no element of {tuple(array.shape)}")
        axes = tuple(range(1, values.ndim))
        values = values.sum(axes) if axes else values
        return values if self.sign > 0 else -values

    @property
    def linear(self) -> bool:
        """Whether the number is a sum of elements with weights that no value changes."""
        return True

    def slope(self, array: Any) -> Any:
        """Derivative of each sample's number by the tensor.

        Args:
            array: The tensor's values (N, ...), NumPy; of a linear target the shape is enough.

        Returns:
            (N, ...) float32, NumPy.
        """
        found = np.zeros(array.shape, np.float32)
        index = () if array.ndim == 1 and self.index in {(0,), (-1,)} else self.index
        found[(slice(None), *index)] = self.sign
        return found


@dataclass(frozen=True)
class Sampled:
    """A target on the tensors of an engine, which holds them as the graph does.

    Attributes:
        target: What is explained.
        with_samples: Puts the axis of samples in front of a tensor that has none.
    """

    target: Target
    with_samples: Callable[[str, Any], Any]

    @property
    def tensor(self) -> str:
        """Name of the tensor."""
        return self.target.tensor

    def of(self, array: Any) -> Any:
        """The number of each sample, (N,)."""
        return self.target.of(self.with_samples(self.tensor, array))

    @property
    def linear(self) -> bool:
        """Whether the number is a sum of elements with weights that no value changes."""
        return self.target.linear

    def slope(self, array: Any, row: int) -> Any:
        """Derivative of one sample's number by the tensor, in the tensor's shape as it is held."""
        # Of which element of the tensor each element with an axis of samples is.
        places = np.arange(array.size).reshape(array.shape)
        of = self.with_samples(self.tensor, places)
        own = self.target.slope(self.with_samples(self.tensor, array))
        found = np.zeros(array.size, np.float32)
        found[of[row].reshape(-1)] = own[row].reshape(-1)
        return found.reshape(array.shape)

"""One number per sample: an element of a tensor, or the sum of several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from inspector.errors import UnknownTarget

__all__ = ["Sampled", "Target", "scores_of"]

_Array = np.ndarray[Any, Any]
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
    def tensors(self) -> tuple[str, ...]:
        """Tensors that the number is an element of, or the sum of elements of."""
        return (self.tensor,)

    @property
    def elements(self) -> "tuple[Target, ...]":
        """The targets of one tensor each that the number is the sum of, up to its sign."""
        return (self,)

    @property
    def read_from(self) -> tuple[str, ...]:
        """Tensors that the number is measured by when the image is changed."""
        return self.tensors

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
        own = {name: np.asarray(values[name]) for name in self.tensors}
        return float(np.sum(self.of(own)))

    def noted(self, text: str) -> Self:
        """The same number with one more sentence in its note."""
        return replace(self, note="; ".join(filter(None, (self.note, text))))

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

    def of(self, values: Mapping[str, Any]) -> Any:
        """The target's value for each sample.

        Args:
            values: Values (N, ...) of its tensors by name, numpy or torch.

        Returns:
            (N,) values, of the same kind and data type; differentiable in torch.

        Raises:
            UnknownTarget: The index lies outside of the array, or selects nothing.

        Example:
            >>> Target("y", (1,), "dog").of({"y": np.array([[0.5, 2.0], [1.0, 3.0]])})
            array([2., 3.])
        """
        return self._of(values[self.tensor])

    def _of(self, array: Any) -> Any:
        """The value for each sample from the one tensor (N, ...)."""
        values = array[self._place(array)]
        axes = tuple(range(1, values.ndim))
        values = values.sum(axes) if axes else values
        return values if self.sign > 0 else -values

    def _place(self, array: Any) -> tuple[Any, ...]:
        """The index into the one tensor (N, ...); refused where the tensor has no such element."""
        # One number per sample is element 0 of itself.
        index = () if array.ndim == 1 and self.index in {(0,), (-1,)} else self.index
        place = (slice(None), *index)
        try:
            found = array[place]
        except IndexError as error:
            raise UnknownTarget(
                f"{self.label!r} lies outside of a tensor of shape {tuple(array.shape)}"
            ) from error
        if 0 in tuple(found.shape)[1:]:
            raise UnknownTarget(f"{self.label!r} selects no element of {tuple(array.shape)}")
        return place

    @property
    def linear(self) -> bool:
        """Whether the number is a sum of elements with weights that no value changes."""
        return True

    def slope(self, values: Mapping[str, Any], tensor: str) -> Any:
        """Derivative of each sample's number by one of its tensors.

        Args:
            values: Values (N, ...) of its tensors, NumPy; of a linear target the shape is enough.
            tensor: The tensor that is differentiated by.

        Returns:
            (N, ...) float32, NumPy.

        Raises:
            UnknownTarget: The index lies outside of the array, or selects nothing.
        """
        return self._slope(values[tensor])

    def _slope(self, array: Any) -> Any:
        """The derivative by the one tensor (N, ...)."""
        found = np.zeros(array.shape, np.float32)
        found[self._place(array)] = self.sign
        return found


def scores_of(values: Mapping[str, Any], targets: Sequence[Target]) -> _Array:
    """Numbers of some samples, each of its own target, (N,) float64.

    Args:
        values: Tensors by name, N rows each, NumPy.
        targets: One per sample.

    Raises:
        UnknownTarget: A tensor holds no numbers, or an index lies outside of it.
    """
    for name in dict.fromkeys(one for target in targets for one in target.tensors):
        if np.asarray(values[name]).dtype.kind not in "biuf":
            raise UnknownTarget("a target is a number, and this tensor holds none", where=name)
    whole: dict[int, _Array | None] = {}
    rows = []
    for row, target in enumerate(targets):
        if id(target) not in whole:
            whole[id(target)] = _elements(values, target)
        together = whole[id(target)]
        if together is not None:
            rows.append(together[row])
            continue
        own = {name: np.asarray(values[name][row : row + 1]) for name in target.tensors}
        rows.append(np.sum(target.of(own)))
    return np.asarray(rows, dtype=np.float64)


def _elements(values: Mapping[str, Any], target: Target) -> _Array | None:
    """A target of all samples at once (N,); None where something is added up for it.

    Sums of several samples are rounded in another order than those of one.
    """
    if type(target) is not Target:
        return None
    array = np.asarray(values[target.tensor])
    alone = array[target._place(array)].ndim == 1  # noqa: SLF001 - of this module
    return np.asarray(target.of({target.tensor: array})) if alone else None


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
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that the number is read from."""
        return self.target.tensors

    def of(self, values: Mapping[str, Any]) -> Any:
        """The number of each sample, (N,)."""
        return self.target.of(
            {name: self.with_samples(name, values[name]) for name in self.tensors}
        )

    @property
    def linear(self) -> bool:
        """Whether the number is a sum of elements with weights that no value changes."""
        return self.target.linear

    def slope(self, values: Mapping[str, Any], tensor: str, rows: Sequence[int]) -> Any:
        """Derivative of some samples' numbers by a tensor, in the tensor's shape as it is held."""
        # Of which element of the tensor each element with an axis of samples is.
        array = values[tensor]
        places = np.arange(array.size).reshape(array.shape)
        of = self.with_samples(tensor, places)
        own = self.target.slope({tensor: self.with_samples(tensor, array)}, tensor)
        found = np.zeros(array.size, np.float32)
        found[of[rows].reshape(-1)] = own[rows].reshape(-1)
        return found.reshape(array.shape)

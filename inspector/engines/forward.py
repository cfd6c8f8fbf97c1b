"""Forward passes of one network: images together or one by one, an axis of samples in front."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from converters.graph import Graph
from inspector.engines.copies import Copies, FixedBatch
from inspector.engines.independence import (
    alike,
    by_chance,
    mixing_node,
    probe_pair,
    rounding_of,
    samples_alone,
    stochastic_node,
)
from inspector.engines.runtime import Runtime
from inspector.engines.samples import as_sample, in_passes, joined, rows, stacked
from inspector.errors import ModelRefused
from inspector.network.inputs.image import ImageInput

__all__ = ["FREE_SIZE", "Arrays", "ForwardPasses"]

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

FREE_SIZE = 224
"""Height and width, in pixels, where neither the model nor the preprocessing names one."""


class ForwardPasses:
    """Runs a network in ONNX Runtime, and learns which of its tensors have an axis of samples.

    Args:
        graph: The network.
        image: Its image input.
        runtime: The file, opened; another one may take its place.

    Attributes:
        fixed: Of a file that fixes a batch of several images, where its tensors hold the copies of
            one; None for others.
    """

    def __init__(self, graph: Graph, image: ImageInput, runtime: Runtime) -> None:
        self.graph, self.input, self.runtime = graph, image, runtime
        self._alone: set[str] = set()  # tensors in which samples are known not to act on each other
        self._repeatable: set[str] = set()  # tensors that come out the same twice
        self._certain: set[str] = set()  # tensors that no random operator lies before
        self._unbatched: set[str] = set()  # tensors without an axis of samples
        self.fixed = None if image.batch in (None, 1) else self._fixed_batch()
        self.free_size = (FREE_SIZE, FREE_SIZE)
        """Height and width that stand in for those that the model leaves free."""

    def size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Input size in pixels: the model's own, else the one given, else `free_size`."""
        return (
            self.input.height or height or self.free_size[0],
            self.input.width or width or self.free_size[1],
        )

    def feeds(self, feed: Array) -> Arrays:
        """Graph inputs by name for an image batch that is already in the model's layout."""
        return {self.input.name: feed}

    @property
    def batches(self) -> bool:
        """Whether several images can go through at once, as far as file and runs have shown."""
        return self.input.batch is None and self.runtime.batches

    def forward(self, images: Array, fetch: Sequence[str]) -> Arrays:
        """Run ONNX Runtime.

        Args:
            images: (N, C, H, W), preprocessed.
            fetch: Names of any tensors.

        Returns:
            The tensors by name, first axis N, in the model's own layout.  A tensor without a
            batch axis gets one: (N, ...) of whatever one image gives.  Image by image run models
            with a fixed batch, and those whose samples act on each other.
        """
        feed = self.input.arrange(images)
        known = self._require_one_answer(feed[:1], fetch)
        if len(feed) > 1 and self.batches:
            self._settle_batching(feed[0], fetch)
        if len(feed) > 1 and self.batches:
            run = partial(self._run, fetch=fetch)
            if (found := in_passes(run, feed, fetch, self.runtime.provider)) is not None:
                return found
            self.runtime.batches = False
        if len(feed) == 1 and known.keys() >= set(fetch):
            parts = [known]
        else:
            parts = [self._run(feed[i : i + 1], fetch) for i in range(len(feed))]
        for part in parts:
            self._unbatched |= {name for name, value in part.items() if rows(value) != 1}
        return {name: joined([self._led(name, part[name]) for part in parts]) for name in fetch}

    def folds(self, name: str) -> bool:
        """Whether a tensor's first axis counts parts of one image, as `forward` has shown."""
        return name in self._unbatched

    def with_samples(self, name: str, value: Any) -> Any:
        """A tensor of one image as the graph holds it, with the axis of samples in front.

        Where the file fixes a batch, that of the first copy of the image.
        """
        copies = self._copies(name)
        return self._led(name, value if copies is None else copies.first(value))

    def as_in_graph(self, name: str, value: Array) -> Array:
        """A tensor (N, ...) of ``forward`` as the graph holds it; the inverse of `with_samples`."""
        own = value[0] if name in self._unbatched else value
        copies = self._copies(name)
        return own if copies is None else copies.filled(own)

    def gathered(self, name: str, signal: Array) -> Array:
        """The gradient at a tensor of the graph, with respect to what one image gives of it.

        Where the file fixes a batch, the sum over the copies of the image.
        """
        copies = self._copies(name)
        own: Array = signal if copies is None else copies.total(signal)
        return own[None] if name in self._unbatched else own

    def refuse_chance(self, tensors: Sequence[str]) -> None:
        """Refuse tensors that a random operator lies before, without running anything.

        Raises:
            ModelRefused: There is one.
        """
        unknown = [name for name in tensors if name not in self._certain]
        if rolled := stochastic_node(self.graph, unknown):
            raise by_chance(rolled)
        self._certain |= set(unknown)

    def _run(self, feed: Array, fetch: Sequence[str]) -> Arrays:
        if self.fixed is not None:
            # A file that fixes another batch size: fill it up with the same image.
            self.fixed.settle(fetch)
            filled = np.repeat(feed[:1], self.fixed.batch, axis=0)
            found = self.runtime.run(self.feeds(filled), fetch)
            return {name: self._first(name, value) for name, value in found.items()}
        try:
            return self.runtime.run(self.feeds(feed), fetch)
        except ModelRefused as error:
            if len(feed) == 1:
                size = self.input.restore(feed).shape[2:]
                raise self._at_size(error, (size[0], size[1])) from error
            # Declared free, but a Reshape inside fixes it.
            self.runtime.batches = False
            parts = [self._run(feed[i : i + 1], fetch) for i in range(len(feed))]
            return {name: stacked([part[name] for part in parts]) for name in fetch}

    def _first(self, name: str, value: Any) -> Any:
        """What the first copy of the image gives of a tensor, in a file that fixes a batch."""
        if not isinstance(value, np.ndarray):
            return value[:1] if isinstance(value, list) else value
        copies = self._copies(name)
        return value if copies is None else copies.first(value)

    def _at_size(self, error: ModelRefused, size: tuple[int, int]) -> ModelRefused:
        """A refusal that names the size that was tried, where the model leaves one free."""
        if self.input.height and self.input.width:
            return error
        signal = self.input.space == 1
        places = f"{size[1]} places" if signal else f"{size[0]} x {size[1]} pixels"
        sizes = "1,LENGTH" if signal else "HEIGHT,WIDTH"
        return ModelRefused(
            f"{error.what} (tried with an input of {places}, which the file leaves free)",
            where=error.where,
            hint=error.hint or f"name the size that it takes with --set size={sizes}",
        )

    def _require_one_answer(self, image: Array, fetch: Sequence[str]) -> Arrays:
        """Refuse tensors that depend on chance, by structure and by one repeated pass.

        Returns:
            Those that were not known yet, of this image.

        Raises:
            ModelRefused: A random operator lies before them, or two passes differ.
        """
        unknown = [name for name in dict.fromkeys(fetch) if name not in self._repeatable]
        if not unknown:
            return {}
        self.refuse_chance(unknown)
        self.runtime.prepare(fetch)
        first, second = (self._run(image, unknown) for _ in range(2))
        changed = [n for n in unknown if not alike(first[n], second[n], self._rounding)]
        if changed:
            raise by_chance(f"tensor {changed[0]!r}")
        self._repeatable |= set(unknown)
        return first

    def _settle_batching(self, image: Array, fetch: Sequence[str]) -> None:
        """Switch batching off where samples act on each other in tensors not tried before."""
        unknown = [name for name in dict.fromkeys(fetch) if name not in self._alone]
        if not unknown:
            return
        self.runtime.prepare(fetch)
        alone = not mixing_node(self.graph, unknown) and samples_alone(
            lambda pair: self._run(pair, unknown), probe_pair(image), tolerance=self._rounding
        )
        self.runtime.batches = self.runtime.batches and alone
        self._alone |= set(unknown)

    @cached_property
    def _rounding(self) -> float:
        return rounding_of(self.graph)

    def _led(self, name: str, value: Any) -> Any:
        """What one image gives of a tensor, with the axis of samples in front."""
        return as_sample(value) if name in self._unbatched else value

    def _copies(self, name: str) -> Copies | None:
        """Where a tensor holds the copies of one image, in a file that fixes a batch."""
        if self.fixed is None:
            return None
        return Copies(self.fixed.batch) if name == self.input.name else self.fixed.of(name)

    def _fixed_batch(self) -> FixedBatch:
        def run(numbers: Array, names: list[str]) -> Mapping[str, Any]:
            images = np.concatenate([self._noise(int(number)) for number in numbers])
            return self.runtime.run(self.feeds(self.input.arrange(images)), names)

        return FixedBatch(int(self.input.batch or 1), run, lambda: self._rounding)

    def _noise(self, seed: int) -> Array:
        """An image of noise, (1, C, H, W)."""
        at = (1, self.input.channels, *self.size())
        noise = np.random.default_rng(seed).random(at) * (255 if self.input.integer else 1)
        return noise.astype(np.float32)

    def _fill(self, feed: Array) -> Array:
        return np.repeat(feed, self.input.batch or 1, axis=0)

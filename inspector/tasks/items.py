"""What a user asks of a photo's items: read before the pass, resolved for every photo after it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from inspector.errors import ImageRefused, UnknownTarget
from inspector.printable import clean_text
from inspector.target import either, parts_of, pieces_with_sums, summed, target_texts, tasks_named
from inspector.tasks import Item, Reading, Sample, laid_out
from inspector.tasks.words import pieces

__all__ = ["ItemSpec"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ItemSpec:
    """Items of a reading, as a user names them.

    Attributes:
        reading: What the outputs mean.
        pieces: The user's words, one selection each; with a leading ``-`` the opposite direction.
    """

    reading: Reading
    pieces: tuple[str, ...]

    @classmethod
    def parse(cls, text: str | Sequence[str] | None, reading: Reading) -> Self:
        """Read the user's words; None for what the task explains by default.

        Raises:
            UnknownTarget: There are none.
        """
        found: list[str] = []
        for wanted in target_texts(reading.wanted if text is None else text):
            several = pieces_with_sums(wanted, lambda part: list(pieces(part)))
            if not several:
                usual = f"for a {reading.task}: {reading.wanted}"
                raise UnknownTarget("an empty target", hint=usual)
            found += several
        return cls(reading, tuple(found))

    def tensors(self) -> tuple[str, ...]:
        """Tensors that the targets are read from."""
        return self.reading.tensors

    def together(self) -> tuple[tuple[str, ...], ...]:
        """Tensors of each item; those of a sum of items are known with the photo."""
        return tuple((name,) for name in self.tensors())

    def resolve(self, sample: Sample) -> tuple[tuple[Item, ...], Sequence[Item]]:
        """The items of one photo that are asked for, each once, and all that there are.

        Raises:
            UnknownTarget: The words name nothing, whatever the photo.
            ImageRefused: They name nothing of this photo.
        """
        every = self.every(sample)
        found: dict[tuple[str, str], Item] = {}
        for piece in self.pieces:
            with laid_out(sample.photo):
                named = self._named(piece, every, sample)
            for own in _finite(named, sample):
                found.setdefault((own.label, own.target.tensor), own)
        if not found:
            raise ImageRefused(
                f"the {self.reading.task} finds nothing in it that could be explained",
                where=sample.photo,
                hint="check the preprocessing, or name an element, OUTPUT[i,j,...], as the target",
            )
        return tuple(found.values()), every

    def every(self, sample: Sample) -> Sequence[Item]:
        """All items of one photo, the most certain first.

        Raises:
            ImageRefused: The outputs cannot be read as those of other photos.
        """
        with laid_out(sample.photo):
            return _finite(self.reading.items(sample), sample)

    def _named(self, piece: str, every: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """The items of one piece; of a sum one item, outlined as all its parts are."""
        words = piece.removeprefix("-").strip()
        parts = parts_of(words)
        if parts is None:
            found = self._selected(words, every, sample)
        else:
            named = [(part, own) for part in parts for own in self._named(part, every, sample)]
            target = summed([(part, own.target) for part, own in named])
            region = _together([own for _, own in named], sample.geometry.input)
            found = [Item(target.label, target, mask=region)]
        if not piece.startswith("-"):
            return found
        return [
            replace(one, label=f"-{one.label}", target=one.target.opposite(f"-{one.label}"))
            for one in found
        ]

    def _selected(self, words: str, every: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """What the task finds for some words.

        Raises:
            UnknownTarget: They name nothing; it is said where they are words of another task.
        """
        try:
            return self.reading.select(words, every, sample)
        except UnknownTarget as error:
            tasks = tasks_named(words)
            if not tasks or self.reading.task in tasks:
                raise
            raise UnknownTarget(
                f"{clean_text(words)!r} names an item of a {either(tasks)}, and this model is "
                f"read as a {self.reading.task}",
                hint=error.hint,
            ) from None


def _finite(items: Sequence[Item], sample: Sample) -> Sequence[Item]:
    """Items with a score and a box of finite numbers: others can be neither sorted nor drawn.

    Raises:
        ImageRefused: There are some, and none of them is finite.
    """
    found = [
        item
        for item in items
        if all(map(math.isfinite, (*(item.box or ()), 0.0 if item.score is None else item.score)))
    ]
    if items and not found:
        raise ImageRefused(
            "the network's scores or boxes for it are not finite",
            where=sample.photo,
            hint="check the preprocessing, or the network",
        )
    return found


def _together(items: Sequence[Item], size: tuple[int, int]) -> Array | None:
    """Places (H, W) of the input in which any of some items lies; None where none has a place."""
    found = np.zeros(size, np.bool_)
    for item in items:
        if item.mask is not None:
            found |= item.mask
        elif item.box is not None:
            top, left, bottom, right = (max(round(edge), 0) for edge in item.box)
            found[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return found if found.any() else None

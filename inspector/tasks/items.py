"""What a user asks of a photo's items: read before the pass, resolved for every photo after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from inspector.errors import UnknownTarget
from inspector.target import parts_of, pieces_with_sums, summed
from inspector.tasks import Item, Reading, Sample
from inspector.tasks.words import pieces

__all__ = ["ItemSpec"]


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
    def parse(cls, text: str | None, reading: Reading) -> Self:
        """Read the user's words; None for what the task explains by default.

        Raises:
            UnknownTarget: There are none.
        """
        wanted = reading.wanted if text is None else text
        found = tuple(pieces_with_sums(wanted, lambda part: list(pieces(part))))
        if not found:
            raise UnknownTarget("an empty target", hint=f"for a {reading.task}: {reading.wanted}")
        return cls(reading, found)

    def tensors(self) -> tuple[str, ...]:
        """Tensors that the targets are read from."""
        return self.reading.tensors

    def resolve(self, sample: Sample) -> tuple[tuple[Item, ...], Sequence[Item]]:
        """The items of one photo that are asked for, each once, and all that there are.

        Raises:
            UnknownTarget: The words name nothing, whatever the photo.
            ImageRefused: They name nothing of this photo.
        """
        every = self.reading.items(sample)
        found: dict[tuple[str, str], Item] = {}
        for piece in self.pieces:
            for own in self._named(piece, every, sample):
                found.setdefault((own.label, own.target.tensor), own)
        return tuple(found.values()), every

    def _named(self, piece: str, every: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """The items of one piece; of a sum one item, whose outline is that of its first part."""
        words = piece.removeprefix("-").strip()
        parts = parts_of(words)
        if parts is None:
            found = self.reading.select(words, every, sample)
        else:
            named = [(part, own) for part in parts for own in self._named(part, every, sample)]
            target = summed([(part, own.target) for part, own in named])
            first = named[0][1]
            found = [Item(target.label, target, box=first.box, mask=first.mask)]
        if not piece.startswith("-"):
            return found
        return [
            replace(one, label=f"-{one.label}", target=one.target.opposite(f"-{one.label}"))
            for one in found
        ]

"""What a user asks of a photo's items: read before the pass, resolved for every photo after it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from inspector.errors import UnknownTarget
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
        found = tuple(pieces(reading.wanted if text is None else text))
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
            opposite = piece.startswith("-")
            for item in self.reading.select(piece.removeprefix("-").strip(), every, sample):
                own = item
                if opposite:
                    label = f"-{item.label}"
                    own = replace(item, label=label, target=item.target.opposite(label))
                found.setdefault((own.label, own.target.tensor), own)
        return tuple(found.values()), every

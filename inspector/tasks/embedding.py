"""Embeddings: a vector per photo, which means something beside another photo's only.

What is explained is the cosine of the angle between the photo's vector and that of a reference
photo; the gradient passes through the normalisation.  Swapping the two photos leaves it unchanged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from inspector.errors import ImageRefused, UnknownTarget
from inspector.network.outputs.embedding import normalised_outputs
from inspector.printable import clean_text
from inspector.tasks import Item, Outputs, Reading, Sample, others_said, task
from inspector.tasks.numbers import Similarity

__all__ = ["Embedding", "require_seen"]

Array = np.ndarray[Any, Any]

UNSEEN = 1e-4
"""Distance of two vectors, of their length, below which they are of the same image."""

TINY = 1e-6
"""Length of a vector, of another's, below which its direction is rounding."""

_NAMES = ("embed", "feature", "descriptor")


@dataclass(frozen=True, eq=False)
class Embedding:
    """The reading of an embedding's output; see ``Reading``.

    Attributes:
        known: What is known of the outputs.
        output: Name of the vector.
        length: How many numbers it has.
        evidence: What it was recognised by.
        others: Further vectors, which are not explained.
        chance: (V, K) vectors of pictures without the reference photo's content; None without one.
    """

    known: Outputs
    output: str
    length: int
    evidence: str
    others: tuple[str, ...] = ()
    chance: Array | None = field(default=None, repr=False)
    task: str = "embedding"
    method: str = "grad-cam"
    wanted: str = "similarity"
    cautions: Mapping[str, str] = field(default_factory=dict)

    @property
    def why(self) -> str:
        """What the model is, in one line."""
        return (
            f"embedding ({clean_text(self.output)!r}, {self.length} numbers, {self.evidence}"
            f"{others_said(self.task, self.others)}): "
            "--similar-to PHOTO explains the cosine to a photo"
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The vector."""
        return (self.output,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The vector."""
        return (self.output,)

    def items(self, sample: Sample) -> Sequence[Item]:
        """The similarity to the reference photo."""
        reference = self.known.references.get(self.output)
        if reference is None:
            raise UnknownTarget(
                "the model is an embedding: its numbers are not classes",
                where=clean_text(self.output),
                hint="give a photo to compare with, --similar-to PHOTO, or an element, "
                f"{clean_text(self.output)}[i]",
            )
        vector = np.asarray(reference, np.float64).reshape(-1)
        _require_direction(vector, "the photo to compare with")
        target = Similarity(self.output, (), "similarity", reference=vector)
        own = np.asarray(sample.values[self.output], np.float64).reshape(1, -1)
        _require_direction(own, sample.photo, float(np.linalg.norm(vector)))
        found = float(target.of({self.output: own})[0])
        note = self._by_chance(found, own[0])
        return [Item("similarity", replace(target, note=note) if note else target, found)]

    def _by_chance(self, found: float, own: Array) -> str:
        """What must be known of a similarity that pictures without content have too; or nothing."""
        lengths = 0 if self.chance is None else np.linalg.norm(self.chance, axis=1)
        if self.chance is None or not np.all(lengths > 0):
            return ""
        alike = self.chance.astype(np.float64) @ own / (lengths * np.linalg.norm(own))
        if found > alike.max() + TINY:
            return ""
        return (
            f"the similarity {found:.2f} is no higher than to {len(alike)} pictures with the "
            "colours and without the content of the photo to compare with ("
            f"{alike.min():.2f} to "
            f"{alike.max():.2f}): what the network compares (a face) may not be in it, and the map "
            "may show chance"
        )

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``similarity`` or ``top1``: there is one.

        Raises:
            UnknownTarget: Anything else.
        """
        del sample
        if text not in ("similarity", "top1"):
            raise UnknownTarget(
                f"an embedding has no {clean_text(text)!r}",
                hint=f"leave the target out, or name an element, {clean_text(self.output)}[i]",
            )
        return items

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """None: the last map, or the tokens, before the vector."""
        del maps
        return None


def require_seen(vector: Array, blank: Array, name: str) -> None:
    """Refuse a photo to compare with in which the network sees nothing.

    Args:
        vector: The photo's vector.
        blank: The vector of an image of one colour, the photo's mean.
        name: The photo's name.

    Raises:
        ImageRefused: The vector has no direction, or is that of the image of one colour.
    """
    own, other = (np.asarray(v, np.float64).reshape(-1) for v in (vector, blank))
    _require_direction(own, name)
    if np.linalg.norm(own - other) <= UNSEEN * np.linalg.norm(own):
        raise ImageRefused(
            "the network sees nothing in the photo to compare with: its vector is that of an image "
            "of one colour",
            where=name,
            hint="give --similar-to another photo, or check the preprocessing",
        )


def _require_direction(vector: Array, name: str, beside: float = 0.0) -> None:
    """Refuse a vector that is 0, next to nothing beside another one's length, or not finite."""
    length = float(np.linalg.norm(vector))
    if not TINY * beside < length < np.inf:  # also where it is not a number
        raise ImageRefused(
            f"its vector has no direction: its length is {length:.3g}",
            where=name,
            hint="check the preprocessing, or take another photo",
        )


@task("embedding", rank=2, words=("embedding", "feature-extraction", "face-recognition"))
def embedding(outputs: Outputs, asked: bool) -> Reading | None:
    """One vector per photo: divided by its length, or called an embedding; with a reference any."""
    graph = outputs.scores.graph
    found = {n: v for n, v in outputs.read().items() if v.ndim >= 1 and v.dtype.kind == "f"}
    vectors = {n: v for n, v in found.items() if v.size == max(v.shape) > 1}
    unit = normalised_outputs(graph) if graph is not None else ()
    divided = [n for n in vectors if n in unit]
    if divided:
        # Of a photo and of words (CLIP) the photo's; else the first one.
        name = next((n for n in divided if "image" in n.lower()), divided[0])
        others = tuple(n for n in divided if n != name and "text" not in n.lower())
        return Embedding(outputs, name, vectors[name].size, "divided by its length", others)
    named = [n for n in vectors if any(word in n.lower() for word in _NAMES)]
    if named and len(vectors) == len(found):
        return Embedding(outputs, named[0], vectors[named[0]].size, "by its name")
    if asked and vectors:
        name = next(iter(vectors))
        return Embedding(outputs, name, vectors[name].size, "as you say")
    return None

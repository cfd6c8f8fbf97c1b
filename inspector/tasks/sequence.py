"""Readers of text: a class per step along the width, collapsed to characters (CTC).

What is explained of a character is the score of its class at the step where it is most certain,
before the softmax.  Greedy decoding: the best class of every step, repeats made one, blanks left
out (Graves et al. 2006).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from converters.plain_values import whole_number
from inspector.errors import ImageRefused
from inspector.printable import clean_text
from inspector.target import element_target
from inspector.tasks import Item, Outputs, Reading, Sample, place_lost, task, unknown
from inspector.tasks.words import read_words

__all__ = ["Sequences"]

Array = np.ndarray[Any, Any]

MOST = 64
"""Characters that are listed of one photo."""

_STEPS, _CLASSES = 4, 3


@dataclass(frozen=True, eq=False)
class Sequences:
    """The reading of a sequence of classes; see ``Reading``.

    Attributes:
        known: What is known of the outputs.
        output: Name of the scores.
        classes: Number of classes.
        blank: The class of no character.
        characters: Of the classes; empty when unknown.
        single: Whether samples are the middle axis, (T, N, K).
        turned: Whether classes come before the steps, (N, K, T).
    """

    known: Outputs
    output: str
    classes: int
    blank: int
    characters: tuple[str, ...]
    single: bool
    turned: bool = False
    task: str = "sequence"
    method: str = "hires-cam"
    wanted: str = "all"
    cautions: Mapping[str, str] = field(
        default_factory=lambda: place_lost("characters of one class may get the same map")
    )

    @property
    def why(self) -> str:
        """What the model is, in one line."""
        known = f"{len(self.characters)} characters" if self.characters else "characters not known"
        return (
            f"sequence ({clean_text(self.output)!r}, {self.classes} classes per step, {known}, "
            f"class {self.blank} is blank)"
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Scores or probabilities per step."""
        return (self.output,)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensor before the softmax."""
        return (self._element(0, 0, "").tensor,)

    def items(self, sample: Sample) -> Sequence[Item]:
        """Characters from left to right."""
        table = _probabilities(self._table(sample.values[self.output]))
        best = table.argmax(axis=1)
        found: list[Item] = []
        start = 0
        for number, run in groupby(best.tolist()):
            stop = start + len(list(run))
            if number != self.blank and len(found) < MOST:
                step = start + int(table[start:stop, number].argmax())
                label = f"char:{len(found) + 1} {self._name(number)}"
                height, width = sample.geometry.input
                box = (0.0, start * width / len(best), float(height), stop * width / len(best))
                target = self._element(step, number, label)
                found.append(Item(label, target, float(table[step, number]), number, box))
            start = stop
        return found

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``all``, ``char:3`` for the third one, ``top2`` for the most certain, or a character.

        Raises:
            UnknownTarget: Anything else.
            ImageRefused: There is no such character in this photo.
        """
        words = read_words(text)
        if words.box is not None or words.point is not None or words.mask:
            raise unknown(clean_text(text), self, "write all, char:3 or a character")
        if not items:
            raise ImageRefused("no character is read", where=sample.photo)
        if text == "all":
            return items
        if words.top is not None:
            return sorted(items, key=lambda item: -(item.score or 0))[: words.top]
        if text.startswith("char:"):
            place = whole_number(text.removeprefix("char:"))
            if place is None:
                raise unknown(clean_text(text), self, "write char:1 for the first")
            among = items[place - 1 : place] if place > 0 else []
        else:
            named = [item for item in items if self._name(item.index or 0) == words.name]
            rank = words.rank or 1
            among = named[rank - 1 : rank]
        if not among:
            read = "".join(self._name(item.index or 0) for item in items)
            raise ImageRefused(
                f"there is no {clean_text(text)!r}", where=sample.photo, hint=f"it reads {read!r}"
            )
        return among

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """None: the last map before the scores."""
        del maps
        return None

    def _table(self, values: Array) -> Array:
        table = np.asarray(values, np.float64)
        table = table[:, 0] if self.single else table
        return table.T if self.turned else table

    def _element(self, step: int, number: int, label: str) -> Any:
        index = (step, 0, number) if self.single else (step, number)
        index = (number, step) if self.turned else index
        return element_target(self.output, index, label, self.known.scores)

    def _name(self, number: int) -> str:
        """Character of a class: those of a list that leaves the blank out move up behind it."""
        count, names = len(self.characters), self.characters
        if not count:
            return f"[{number}]"
        place = number if count >= self.classes or number < self.blank else number - 1
        return clean_text(names[place]) if 0 <= place < count else " "


def _probabilities(table: Array) -> Array:
    """Scores, logarithms or probabilities per step as probabilities."""
    if _sums_to_one(table):
        return table
    powers = np.exp(table - table.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sums_to_one(table: Array) -> bool:
    return bool((table >= -1e-6).all() and np.allclose(table.sum(axis=1), 1, atol=1e-3))


def _is_certain(table: Array) -> bool:
    """Whether each step (T, K) holds probabilities, or logarithms of them."""
    return _sums_to_one(table) or bool(np.allclose(np.exp(table).sum(axis=1), 1, atol=1e-3))


def _characters(outputs: Outputs) -> tuple[str, ...]:
    """Characters from the metadata (one per line), else the class names."""
    told = next((v for k, v in outputs.metadata.items() if k.lower() == "character"), "")
    return tuple(told.splitlines()) or outputs.labels


@task("sequence", rank=0, words=("ocr", "text-recognition", "image-to-text"))
def sequence(outputs: Outputs, asked: bool) -> Reading | None:
    """One output (N, T, K), (T, N, K) or (N, K, T) whose steps are each a softmax over classes."""
    found = outputs.read()
    if len(found) != 1 or not (outputs.layout or len(outputs.names) == 1):
        return None
    value: Array = next(iter(found.values()), np.zeros(0))
    single = value.ndim == 3 and value.shape[1] == 1
    if value.dtype.kind != "f" or not (value.ndim == 2 or single):
        return None
    table: Array = np.asarray(value[:, 0] if single else value, np.float64)
    turned = not single and not _is_certain(table) and _is_certain(table.T)
    table = table.T if turned else table
    steps, classes = len(table), table.shape[-1]
    characters = _characters(outputs)
    fits = bool(characters) and classes - len(characters) in (0, 1, 2)
    certain = _is_certain(table)
    told = any(key.lower() == "character" for key in outputs.metadata) and fits
    if steps < _STEPS or classes < _CLASSES or not (asked or told or certain):
        return None
    if steps > max(outputs.size) and not (asked or told):
        return None  # more than one per column: the pixels of a map, one after the other
    best = table.argmax(axis=1)
    blank = classes - 1 if (best == classes - 1).sum() > (best == 0).sum() else 0
    return Sequences(outputs, next(iter(found)), classes, blank, characters, single, turned)

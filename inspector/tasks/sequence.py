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
from inspector.network.outputs.class_evidence import is_score_like
from inspector.network.outputs.places import Steps, steps_along
from inspector.printable import clean_text
from inspector.target import element_target
from inspector.tasks import Box, Item, Outputs, Reading, Sample, place_lost, task, unknown
from inspector.tasks.words import read_words

__all__ = ["Sequences"]

Array = np.ndarray[Any, Any]

MOST = 64
"""Characters that are listed of one photo."""

_STEPS, _CLASSES = 4, 3

_FEWEST = 2
"""Rows of a table of softmaxes, and classes of each."""

_LETTERS = 10
"""Classes from which steps along the image are text, where no softmax says that these are classes.

Fewer are distances or corners per column of the image.
"""

_HALVED, _NEAR = 6, 2
"""Times that the steps of a reader are half of the width's pixels, and how many more or fewer."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """The reading of a sequence of classes; see ``Reading``.

    Attributes:
        known: What is known of the outputs.
        output: Name of the scores.
        classes: Number of classes.
        blank: The class of no character; -1 of slots.
        characters: Of the classes; empty when unknown.
        single: Whether samples are the middle axis, (T, N, K).
        turned: Whether classes come before the steps, (N, K, T).
        steps: Where the steps lie on the image; None where it is not known.
        slots: Whether the rows are not steps along the image but heads of their own: the classes of
            all are read, repeated or not.
        sure: Whether the file says that the numbers are those of classes.
    """

    known: Outputs
    output: str
    classes: int
    blank: int
    characters: tuple[str, ...]
    single: bool
    turned: bool = False
    steps: Steps | None = field(default=None, repr=False)
    slots: bool = False
    sure: bool = True
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
        if self.slots:
            return (
                f"sequence ({clean_text(self.output)!r}, rows of {self.classes} classes that do "
                f"not follow the image: each row's own class is read, {known})"
            )
        sure = "" if self.sure else "; read as text because its steps follow the image"
        return (
            f"sequence ({clean_text(self.output)!r}, {self.classes} classes per step, {known}, "
            f"class {self.blank} is blank{sure})"
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
        runs = [(n, 1) for n in best.tolist()] if self.slots else _runs(best)
        found: list[Item] = []
        start = 0
        for number, length in runs:
            stop = start + length
            if number != self.blank and len(found) < MOST:
                step = start + int(table[start:stop, number].argmax())
                label = f"{self._word}:{len(found) + 1} {self._name(number)}"
                box = self._box(start, stop, len(best), sample.geometry.input)
                target = self._element(step, number, label)
                found.append(Item(label, target, float(table[step, number]), number, box))
            start = stop
        return found

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``all``, ``char:3`` for the third one, ``top2`` for the most certain, or a character.

        Of rows that are not steps, ``row:3`` names the third one.

        Raises:
            UnknownTarget: Anything else.
            ImageRefused: There is no such character in this photo.
        """
        words = read_words(text)
        if words.box is not None or words.point is not None or words.mask:
            raise unknown(clean_text(text), self, f"write all, {self._word}:3 or a character")
        if not items:
            raise ImageRefused("no character is read", where=sample.photo)
        if text == "all":
            return items
        if words.top is not None:
            return sorted(items, key=lambda item: -(item.score or 0))[: words.top]
        if text.startswith(f"{self._word}:"):
            place = whole_number(text.removeprefix(f"{self._word}:"))
            if place is None:
                raise unknown(clean_text(text), self, f"write {self._word}:1 for the first")
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

    @property
    def _word(self) -> str:
        return "row" if self.slots else "char"

    def _box(self, start: int, stop: int, count: int, size: Sequence[int]) -> Box | None:
        """Where steps lie on the input; None of rows without a place."""
        if self.slots:
            return None
        height, width = map(float, size)
        line = None if self.steps is None else self.steps.line
        if self.steps is None or line is None or len(line) != count:
            return 0.0, start * width / count, height, stop * width / count
        half = abs(float(np.median(np.diff(line)))) / 2
        ends = sorted((float(line[start]), float(line[stop - 1])))
        low, high = ends[0] + 0.5 - half, ends[1] + 0.5 + half
        if self.steps.columns is None:
            return max(low, 0.0), 0.0, min(high, height), width
        return 0.0, max(low, 0.0), height, min(high, width)

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
        if not count or (self.slots and count != self.classes):
            return f"[{number}]"
        place = number if count >= self.classes or number < self.blank else number - 1
        return clean_text(names[place]) if 0 <= place < count else " "


def _runs(best: Array) -> list[tuple[int, int]]:
    """Classes of the steps and how often each stands in a row."""
    return [(number, len(list(run))) for number, run in groupby(best.tolist())]


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
    """One output (N, T, K), (T, N, K) or (N, K, T) of classes per step along the image (CTC).

    Each step is a softmax; or the steps follow the image, which nothing but a reader's do.  Rows of
    softmaxes that have no place on it are heads of their own, and no text that could be collapsed.
    """
    found = outputs.read()
    if len(found) != 1 or not (outputs.layout or len(outputs.names) == 1):
        return None
    ((name, value),) = found.items()
    single = value.ndim == 3 and value.shape[1] == 1
    if value.dtype.kind != "f" or not (value.ndim == 2 or single):
        return None
    table: Array = np.asarray(value[:, 0] if single else value, np.float64)
    turned = not single and _is_turned(table, name, outputs)
    table = table.T if turned else table
    count, classes = table.shape
    steps = steps_along(outputs.places, name, -3 if single else -1 if turned else -2, count)
    characters = _characters(outputs)
    fits = bool(characters) and classes - len(characters) in (0, 1, 2)
    told = asked or (any(key.lower() == "character" for key in outputs.metadata) and fits)
    certain = _is_certain(table)
    if steps is not None and not steps.placed:
        if min(count, classes) < _FEWEST or not (told or certain):
            return None
        return Sequences(outputs, name, classes, -1, characters, single, turned, slots=True)
    if count < _STEPS or classes < _CLASSES or not (told or _is_text(table, name, outputs, steps)):
        return None
    best = table.argmax(axis=1)
    blank = classes - 1 if (best == classes - 1).sum() > (best == 0).sum() else 0
    return Sequences(
        outputs, name, classes, blank, characters, single, turned, steps, sure=told or certain
    )


def _is_turned(table: Array, name: str, outputs: Outputs) -> bool:
    """Whether classes come before the steps: by their sums, else by the axis along the image."""
    sums = _is_certain(table), _is_certain(table.T)
    if any(sums):
        return not sums[0]
    first, last = (steps_along(outputs.places, name, axis, table.shape[axis]) for axis in (-2, -1))
    return last is not None and last.line is not None and (first is None or first.line is None)


def _is_text(table: Array, name: str, outputs: Outputs, steps: Steps | None) -> bool:
    """Whether a table (T, K) is text, of which the file says nothing.

    Where its places are not known, as many steps as the width has pixels, halved some times over.
    """
    count, classes = table.shape
    certain, width = _is_certain(table), max(outputs.size)
    if steps is None:
        halved = any(abs(count - width / 2**power) <= _NEAR for power in range(_HALVED))
        return certain and halved and count <= width
    if steps.line is None:
        return False  # the pixels of a map, one after the other
    sure = is_score_like(name) >= 0 and classes >= _LETTERS and count <= width / 2
    return certain or sure

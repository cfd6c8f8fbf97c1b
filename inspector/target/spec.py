"""How a user names what is explained.

A target is an element (or a sum of elements) of one tensor, so a class of a classifier and a
box of a detector are the same thing to everybody else.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from converters.errors import first_few
from converters.plain_values import whole_number
from inspector.errors import UnknownTarget, nearest
from inspector.network.classifier.before_activation import Stuck, before_activation
from inspector.network.classifier.scores import Scores
from inspector.network.outputs.elements import (
    example_element,
    has_no_batch,
    listing,
    measured_shape,
    sample_shape,
)
from inspector.printable import clean_text
from inspector.target.combined import Sum, parts_of, pieces_with_sums, summed
from inspector.target.item_words import either, tasks_named
from inspector.target.number import Target
from inspector.target.plain_words import target_texts

__all__ = [
    "TargetSpec",
    "best_targets",
    "element_target",
    "names_elements",
    "parse_target",
]

_TOP = re.compile(r"top(\d{1,9})", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_ELEMENT = re.compile(r"(?P<name>.+)\[(?P<index>[^\[\]]*)\]", re.DOTALL)
_Index = tuple[int | slice, ...]


def element_target(output: str, index: Sequence[int | slice], label: str, scores: Scores) -> Target:
    """An element of an output under a label of its own, before its softmax or sigmoid.

    Args:
        output: The output.
        index: Where in one sample of it; axes that are left out stay whole.
        label: How it is shown.
        scores: What is known of the model.
    """
    found = _before(Target(output, tuple(index), label), scores)
    # Of an item nobody thinks of the element by name: only what could not be followed is said.
    return found if found.tensor == output else replace(found, note="")


def names_elements(text: str, scores: Scores) -> bool:
    """Whether every piece of a user's words is a tensor of the graph or an element of one."""
    found = [
        p for piece in pieces_with_sums(text) for p in parts_of(piece.removeprefix("-")) or [piece]
    ]
    for piece in found:
        own = piece if piece in scores.tensors else piece.removeprefix("-")
        element = _ELEMENT.fullmatch(own)
        if (own if element is None else element["name"]) not in scores.tensors:
            return False
    return bool(found)


@dataclass(frozen=True)
class TargetSpec:
    """What the user wants explained: read once, before the pass; resolved for every photo after it.

    Tried in this order: ``OUTPUT[i,j,...]`` for an element of any tensor (integers, negative
    ones from the end, ``a:b`` and ``:`` whose elements are summed; the batch axis is left out;
    axes left out at the end are summed), ``sum(A; -B)`` for several together, ``top1`` / ``top3``,
    a class index, a label, and a list of these with commas.  A label is matched without regard to
    case: first whole, then one of its synonyms ("tabby" of "tabby, tabby cat"), then as a part of
    exactly one label.  A leading ``-`` asks for the opposite direction: what lowers the score.

    An element of a tensor that ends in a softmax or a sigmoid stands for the element before it.
    One unit with two labels scores both classes: class 1 by its score, class 0 by the negative;
    ``top1`` of one sigmoid unit is the side that the model predicts.

    Attributes:
        pieces: The user's words, one target or ``topK`` each.
        scores: The classifier's scores, from :func:`find_scores`.
        labels: Class names in the order of the scores; empty when unknown.
    """

    pieces: tuple[str, ...]
    scores: Scores
    labels: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        wanted: str | int | Sequence[str | int],
        *,
        scores: Scores,
        labels: Sequence[str] = (),
    ) -> Self:
        """Read the user's words, and refuse what no photo could resolve.

        Args:
            wanted: The words, or a class index; or a list of them.
            scores: The classifier's scores.
            labels: Class names in the order of the scores.

        Raises:
            UnknownTarget: There is no such class, label or element.
            UsageError: It is neither text nor a whole number.
        """
        found: list[str] = []
        for given in target_texts(wanted):
            text = given.strip()
            pieces = pieces_with_sums(text)
            if not pieces:
                raise UnknownTarget("an empty target", hint="give top1, a class index or a label")
            if len(pieces) == 1 or _is_one(text, scores, labels):
                pieces = [text]
            try:
                for piece in pieces:
                    if not _waits(piece, scores, labels):
                        _single(piece, scores, labels, None)
            except UnknownTarget as error:
                raise _of_other_task(text, scores) or error from None
            found += pieces
        return cls(tuple(found), scores, tuple(labels))

    def tensors(self) -> tuple[str, ...]:
        """Tensors that the targets are read from, known before any photo is."""
        return tuple(dict.fromkeys(name for own in self.together() for name in own))

    def together(self) -> tuple[tuple[str, ...], ...]:
        """Tensors of each target: one, or all those that a sum is read from."""
        return self._together

    @cached_property
    def _together(self) -> tuple[tuple[str, ...], ...]:
        found: dict[tuple[str, ...], None] = {}
        for piece in self.pieces:
            found |= dict.fromkeys(_read_from(piece, self.scores, self.labels))
        return tuple(found)

    @cached_property
    def _best(self) -> dict[str, int]:
        """Pieces that ask for the best classes, and for how many."""
        words = [piece for piece in self.pieces if _is_top(piece, self.scores, self.labels)]
        free = [piece for piece in words if not _is_taken(piece, self.scores, self.labels)]
        asked = {piece: _TOP.fullmatch(piece) for piece in free}
        return {piece: int(match[1]) for piece, match in asked.items() if match is not None}

    def _targets(self, piece: str, values: ArrayLike | None) -> tuple[Target, ...]:
        """Targets of one piece for one photo."""
        count = self._best.get(piece)
        if count is None:
            return _single(piece, self.scores, self.labels, values)
        return best_targets(
            count, scores=self.scores, labels=self.labels, values=values, known=self._known
        )

    @cached_property
    def _known(self) -> dict[int, Target]:
        """Classes that were the best of some photo."""
        return {}

    def resolve(self, values: ArrayLike | None = None) -> tuple[Target, ...]:
        """The targets of one photo, each once, in the order asked for.

        Args:
            values: (K,) scores of the photo; needed for ``top1`` and its like.

        Raises:
            UnknownTarget: There is no such class, label or element.
        """
        unique: dict[Any, Target] = {}
        for piece in self.pieces:
            for target in self._targets(piece, values):
                parts = target.label if isinstance(target, Sum) else repr(target.index)
                unique.setdefault((target.tensor, parts, target.sign), target)
        return tuple(unique.values())


def parse_target(
    text: str | int,
    *,
    scores: Scores,
    labels: Sequence[str] = (),
    values: ArrayLike | None = None,
) -> tuple[Target, ...]:
    """Targets of one photo whose scores are known; see ``TargetSpec``.

    Args:
        text: The user's words.
        scores: The classifier's scores, from :func:`find_scores`.
        labels: Class names in the order of the scores; empty when unknown.
        values: (K,) scores of the image at hand; needed for ``top1`` and its like.

    Raises:
        UnknownTarget: There is no such class, label or element.
    """
    return TargetSpec.parse(text, scores=scores, labels=labels).resolve(values)


def _read_from(text: str, scores: Scores, labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Tensors of each target that a text names, before any photo is known."""
    if not _waits(text, scores, labels):
        return tuple(target.tensors for target in _single(text, scores, labels, None))
    parts = None if _is_top(text, scores, labels) else parts_of(text.removeprefix("-"))
    if parts is None:
        return ((scores.tensor,),)
    every = [name for part in parts for own in _read_from(part, scores, labels) for name in own]
    return (tuple(dict.fromkeys(every)),)


def _waits(text: str, scores: Scores, labels: Sequence[str]) -> bool:
    """Whether a photo's scores decide what a text names."""
    if _is_top(text, scores, labels):
        return True
    parts = None if _is_taken(text, scores, labels) else parts_of(text.removeprefix("-"))
    return any(_waits(part, scores, labels) for part in parts or ())


def _is_one(text: str, scores: Scores, labels: Sequence[str]) -> bool:
    """Whether a text with commas is one label or one element of a tensor."""
    if not _keys(labels).isdisjoint({_key(text), _key(text.removeprefix("-"))}):
        return True
    matches = map(_ELEMENT.fullmatch, (text, text.removeprefix("-")))
    return any(match is not None and match["name"] in scores.tensors for match in matches)


def _is_top(text: str, scores: Scores, labels: Sequence[str]) -> bool:
    """Whether a text asks for the best classes, or the opposite of them."""
    if not scores.classifier or _key(text) in _keys(labels):
        return False
    return _TOP.fullmatch(text.removeprefix("-").strip()) is not None


def _single(
    text: str, scores: Scores, labels: Sequence[str], values: ArrayLike | None
) -> tuple[Target, ...]:
    if not text.startswith("-") or _is_taken(text, scores, labels):
        return _upward(text, scores, labels, values)
    found = _upward(text[1:].strip(), scores, labels, values)
    return tuple(one.opposite(_other_label(one, scores, labels)) for one in found)


def _is_taken(text: str, scores: Scores, labels: Sequence[str]) -> bool:
    """Whether a text is a name as it stands."""
    element = _ELEMENT.fullmatch(text)
    name = text if element is None else element["name"]
    return name in scores.tensors or _key(text) in _keys(labels)


def _other_label(target: Target, scores: Scores, labels: Sequence[str]) -> str:
    """Label of the opposite direction."""
    if target.number is not None:
        return _name_of(1 - target.number, scores, labels)
    name = None if target.class_index is None else _name_of(target.class_index, scores, labels)
    if target.opposed and target.label == f"not {name}":
        return str(name)
    return f"not {name}" if target.label == name else f"-{target.label}"


def _upward(
    text: str, scores: Scores, labels: Sequence[str], values: ArrayLike | None
) -> tuple[Target, ...]:
    element = _ELEMENT.fullmatch(text)
    if element is not None and (
        element["name"] in scores.tensors or _index(element["index"]) is not None
    ):
        return (_element(element["name"], element["index"], scores, labels),)
    parts = None if _is_taken(text, scores, labels) else parts_of(text)
    if parts is not None:
        every = [(p, one) for p in parts for one in _single(p, scores, labels, values)]
        return (summed(every),)
    if text in scores.tensors and _key(text) not in _keys(labels):
        shape = sample_shape(text, scores)
        if shape is not None and all(size == 1 for size in shape):  # one number per sample
            return (_element(text, None, scores, labels),)
        raise UnknownTarget(
            f"{clean_text(text)!r} is a tensor, not one number",
            hint=f"say which of its elements: {example_element(scores, text)}",
        )
    if not scores.classifier:
        raise _no_classes(text, scores)
    if top := _TOP.fullmatch(text):
        return best_targets(int(top[1]), scores=scores, labels=labels, values=values)
    count = scores.classes
    if count is None and values is not None:
        count = np.asarray(values).size
    count = 2 if _unit_of(scores, labels) is not None else count
    index = int(text) if _INTEGER.fullmatch(text) else _by_label(text, labels, count)
    if index < 0 or (count is not None and index >= count):
        raise UnknownTarget(
            f"there is no class {index}",
            hint=f"classes run from 0 to {count - 1}" if count else "classes start at 0",
        )
    return (_class(index, scores, labels),)


def best_targets(
    k: int,
    *,
    scores: Scores,
    labels: Sequence[str] = (),
    values: ArrayLike | None,
    known: dict[int, Target] | None = None,
) -> tuple[Target, ...]:
    """The best classes of one photo, as ``top`` and a number names them.

    Args:
        k: How many.
        scores: The classifier's scores.
        labels: Class names in the order of the scores.
        values: (K,) scores of the photo; None where it is not known yet.
        known: Classes by index that were made before, of these scores and names; gets new ones.

    Raises:
        UnknownTarget: There are not so many, or the scores are not numbers.
    """
    if values is None:
        raise UnknownTarget(f"top{k} needs the scores of an image", hint="give a class index")
    z = np.asarray(values, dtype=np.float64).ravel()
    unit = _unit_of(scores, labels)
    count = z.size if unit is None else 2
    if not 1 <= k <= count:
        raise UnknownTarget(
            f"there is no top{k} among {count} classes", hint=f"give top1 to top{count}"
        )
    if np.isnan(z).any():
        raise UnknownTarget(
            "the model's scores for this image are not numbers (NaN), so none is the highest",
            where=clean_text(scores.tensor),
            hint="check the preprocessing",
        )
    known = {} if known is None else known
    if unit is not None:
        first = unit if z[0] >= 0 else 1 - unit
        return tuple(_class_in(known, i, scores, labels) for i in (first, 1 - first)[:k])
    # Ties: the first index, as ArgMax does.
    order = [z.argmax()] if k == 1 else np.argsort(-z, kind="stable")[:k]
    found = tuple(_class_in(known, int(i), scores, labels) for i in order)
    if z.size == 1 and z[0] * found[0].sign < 0 and scores.activation == "sigmoid":
        return (found[0].opposite(_other_label(found[0], scores, labels)),)
    return found


def _unit_of(scores: Scores, labels: Sequence[str]) -> int | None:
    """Which of two classes the one unit scores; None where each class has its own score.

    One unit with two names scores the second one (Keras' convention); 1 minus it the first.
    """
    if scores.unit is not None:
        return scores.unit
    second = 0 if scores.flipped else 1
    return second if scores.classes == 1 and len(labels) == 2 else None


def _class_in(
    known: dict[int, Target], index: int, scores: Scores, labels: Sequence[str]
) -> Target:
    if index not in known:
        known[index] = _class(index, scores, labels)
    return known[index]


def _class(index: int, scores: Scores, labels: Sequence[str]) -> Target:
    label = _name_of(index, scores, labels)
    unit = _unit_of(scores, labels)
    place = index if unit is None else 0
    where: _Index = (*(slice(None) for _ in range(scores.axis - 1)), place)
    if unit is None:
        base = -1 if scores.flipped else 1
        return Target(scores.tensor, where, label, place, base, base=base)
    return Target(scores.tensor, where, label, place, 1 if index == unit else -1, index)


def _name_of(index: int, scores: Scores, labels: Sequence[str]) -> str:
    """Name of a class; of numbers that are not known to be classes, the element."""
    if index < len(labels) and labels[index]:
        return clean_text(labels[index])
    known = scores.classifies or any(labels)
    return f"class {index}" if known else f"{clean_text(scores.output)}[{index}]"


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _keys(labels: Sequence[str]) -> frozenset[str]:
    """All labels as they are compared; made once, for every photo asks."""
    return _keys_of(tuple(labels))


@lru_cache(maxsize=8)
def _keys_of(labels: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(_key, labels))


def _by_label(text: str, labels: Sequence[str], count: int | None) -> int:
    """Index of the one class that a text names."""
    labels = labels if count is None else labels[:count]
    wanted = _key(text)
    keys = [_key(label) for label in labels]
    ways = (
        [i for i, key in enumerate(keys) if key == wanted],
        [i for i, key in enumerate(keys) if wanted in (p.strip() for p in key.split(","))],
        [i for i, key in enumerate(keys) if wanted in key],
    )
    for found in ways:
        if len(found) == 1:
            return found[0]
        if found:
            shown = first_few([f"{i} ({clean_text(labels[i])})" for i in found], 5)
            raise UnknownTarget(
                f"{clean_text(text)!r} names {len(found)} classes",
                hint=f"give the index of one: {shown}",
            )
    # A class without a name is printed as "class 3", and taken as it is printed.
    printed = whole_number(wanted.removeprefix("class ")) if wanted.startswith("class ") else None
    if printed is not None and printed >= 0 and (count is None or printed < count):
        return printed
    if not labels:
        raise UnknownTarget(
            f"{clean_text(text)!r} is not a class index, and the class names are not known",
            hint="give an index, or the names with --labels FILE",
        )
    parts = {part.strip() for label in labels for part in (label, *label.split(","))}
    raise UnknownTarget(
        f"no class is called {clean_text(text)!r}", hint=nearest(text, map(clean_text, parts))
    )


def _element(name: str, index: str | None, scores: Scores, labels: Sequence[str]) -> Target:
    if name not in scores.tensors:
        raise UnknownTarget(
            f"the model has no tensor {clean_text(name)!r}",
            hint=nearest(name, map(clean_text, scores.tensors)) or listing(scores),
        )
    where = () if index is None else _index(index)
    label = clean_text(name if index is None else f"{name}[{index.strip()}]")
    if where is None:
        raise UnknownTarget(
            f"{clean_text(str(index))!r} is not an index",
            where=label,
            hint="write integers, a:b and : with commas, without the batch axis",
        )
    shape = sample_shape(name, scores)
    if shape == () and where in {(0,), (-1,)}:  # one number is element 0 of itself
        where = ()
    if shape is not None:
        _check(where, shape, label)
        if len(where) < len(shape) and has_no_batch(name, scores):
            _refuse_partial(where, shape, name, label)
    target = Target(name, where, label, note=_summed(where, shape, label))
    return _named_class(_before(target, scores), scores, labels)


def _refuse_partial(where: _Index, shape: Sequence[int | None], name: str, label: str) -> None:
    """Refuse an index that could be read with and without a batch axis."""
    given = label[len(clean_text(name)) + 1 : -1]
    rest = len(shape) - len(where)
    more = ",".join("ijklmn"[:rest]), ",".join(":" * rest)
    sizes = ", ".join("?" if d is None else str(d) for d in shape)
    raise UnknownTarget(
        f"{clean_text(name)!r} of shape ({sizes}) has no batch axis, and {len(where)} of its "
        f"{len(shape)} axes are named",
        where=label,
        hint=f"write {clean_text(name)}[{given},{more[0]}] for one element, "
        f"{clean_text(name)}[{given},{more[1]}] for the sum",
    )


def _summed(where: _Index, shape: Sequence[int | None] | None, label: str) -> str:
    """A sentence where an index leaves out axes of several elements; else empty."""
    left = (shape or ())[len(where) :]
    if not left or all(size == 1 for size in left):
        return ""
    known = math.prod(size for size in left if size is not None) if None not in left else 0
    return f"{label} is the sum of {known or 'all'} elements: axes that an index leaves out"


def _before(target: Target, scores: Scores) -> Target:
    """The element before the softmax or sigmoid that a named element ends in."""
    if scores.graph is None:
        return target
    found = before_activation(
        scores.graph, target.tensor, target.index, lambda name: measured_shape(name, scores)
    )
    if found is None:
        return target
    if isinstance(found, Stuck):
        note = (
            f"{target.label} is a probability behind {clean_text(found.activation)}; the score "
            f"before it cannot be found through {clean_text(found.node)}, so the probability "
            "itself is explained"
        )
        return target.noted(note)
    note = (
        f"{target.label} ends in {clean_text(found.node)}: explained is the score before it, "
        f"in {clean_text(found.tensor)!r}" + (", downwards" if found.sign < 0 else "")
    )
    return replace(
        target.noted(note),
        tensor=found.tensor,
        index=found.index,
        sign=target.sign * found.sign,
    )


def _named_class(target: Target, scores: Scores, labels: Sequence[str]) -> Target:
    """The classifier's own score, written the long way, is that class."""
    if not scores.classifier or target.tensor != scores.tensor:
        return target
    own = (*target.index, *([0] if scores.classes == 1 and not target.index else []))
    last = own[-1] if len(own) == scores.axis else None
    if not isinstance(last, int) or last < 0:
        return target
    unit = _unit_of(scores, labels)
    number = None if unit is None else unit if target.sign > 0 else 1 - unit
    base = -1 if scores.flipped and unit is None else 1
    return replace(target, index=own, class_index=last, number=number, base=base)


def _index(text: str) -> _Index | None:
    """Integers and slices of an index; None when it is none."""
    parts: list[int | slice] = []
    for item in (piece.strip() for piece in text.split(",")):
        if _INTEGER.fullmatch(item):
            parts.append(int(item))
            continue
        ends = [end.strip() for end in item.split(":")]
        if len(ends) != 2 or any(end and not _INTEGER.fullmatch(end) for end in ends):
            return None
        parts.append(slice(*(int(end) if end else None for end in ends)))
    return tuple(parts)


def _check(where: _Index, shape: Sequence[int | None], label: str) -> None:
    if len(where) > len(shape):
        raise UnknownTarget(
            f"{len(where)} indices for {len(shape)} axes", where=label, hint="leave out the batch"
        )
    for axis, (part, size) in enumerate(zip(where, shape, strict=False)):
        if not isinstance(size, int):
            continue
        fits = (
            len(range(*part.indices(size))) > 0 if isinstance(part, slice) else -size <= part < size
        )
        if not fits:
            raise UnknownTarget(
                f"index {axis} selects nothing of an axis of size {size}", where=label
            )


def _of_other_task(text: str, scores: Scores) -> UnknownTarget | None:
    """The refusal of words that name an item of a detector or another task; None for others."""
    tasks = tasks_named(text)
    if not tasks:
        return None
    read = "is read as a classifier" if scores.classifier else f"has no known task: {scores.why}"
    usual = "give top1, a class index or a label" if scores.classifier else "give OUTPUT[i,j,...]"
    return UnknownTarget(
        f"{clean_text(text)!r} names an item of a {either(tasks)}, and this model {read}",
        hint=f"{usual}; `inspector check` says what the model is, --task {tasks[0]} what it is "
        "where that is wrong",
    )


def _no_classes(text: str, scores: Scores) -> UnknownTarget:
    return UnknownTarget(
        f"{clean_text(text)!r} needs class scores, and this model has none: {scores.why}",
        hint="name an element, OUTPUT[i,j,...] without the batch axis, such as "
        f"{example_element(scores)}; {listing(scores)}",
    )

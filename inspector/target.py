"""What is explained: one score of the network, and how a user names it.

A target is an element (or a sum of elements) of one tensor, so a class of a classifier and a
box of a detector are the same thing to everybody else.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inspector.errors import UnknownTarget, UsageError, nearest
from inspector.network.scores import Activation, Scores, find_scores
from inspector.printable import clean_text

__all__ = [
    "Probabilities",
    "Scores",
    "Target",
    "TargetSpec",
    "find_scores",
    "looks_like_probabilities",
    "parse_target",
    "probabilities",
    "target_text",
]

_TOP = re.compile(r"top(\d{1,9})", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_ELEMENT = re.compile(r"(?P<name>.+)\[(?P<index>[^\[\]]*)\]", re.DOTALL)
_Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Target:
    """One number a sample, to be explained.

    Attributes:
        tensor: The tensor that is differentiated.
        index: Where in it, without the batch axis; axes that the index leaves out, and slices,
            are summed over.
        label: How it is shown.
        class_index: The class, when it is one.
    """

    tensor: str
    index: _Index
    label: str
    class_index: int | None = None

    def of(self, array: Any) -> Any:
        """The target's value for each sample.

        Args:
            array: The tensor's values (N, ...), numpy or torch.

        Returns:
            (N,) values, of the same kind and data type; differentiable in torch.

        Raises:
            UnknownTarget: The index lies outside of the array, or selects nothing.
        """
        try:
            values = array[(slice(None), *self.index)]
        except IndexError as error:
            raise UnknownTarget(
                f"{self.label!r} lies outside of a tensor of shape {tuple(array.shape)}"
            ) from error
        if 0 in tuple(values.shape)[1:]:
            raise UnknownTarget(f"{self.label!r} selects no element of {tuple(array.shape)}")
        axes = tuple(range(1, values.ndim))
        return values.sum(axes) if axes else values


@dataclass(frozen=True)
class Probabilities:
    """Probabilities, and whether the model itself says so.

    Attributes:
        values: float64, the shape of the scores.
        assumed: The network ends without an activation; "softmax of the logits" is a reading.
    """

    values: NDArray[np.float64]
    assumed: bool


def target_text(target: object) -> str:
    """The words that name a target; a class index may be an integer.

    Raises:
        UsageError: The value is neither a text nor an integer.
    """
    if isinstance(target, str):
        return target
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        return str(int(target))
    raise UsageError(
        f"target: a value of type {type(target).__name__}",
        hint="give top1, a class index, a label, or OUTPUT[i,j,...]",
    )


@dataclass(frozen=True)
class TargetSpec:
    """What the user wants explained: read once, before the pass; resolved for every photo after it.

    Tried in this order: ``OUTPUT[i,j,...]`` for an element of any tensor (integers, negative
    ones from the end, ``a:b`` and ``:`` whose elements are summed; the batch axis is left out;
    axes left out at the end are summed), ``top1`` / ``top3``, a class index, a label, and a
    list of these with commas.  A label is matched without regard to case: first whole, then one
    of its synonyms ("tabby" of "tabby, tabby cat"), then as a part of exactly one label.

    Attributes:
        pieces: The user's words, one target or ``topK`` each.
        scores: The classifier's scores, from :func:`find_scores`.
        labels: Class names in the order of the scores; empty when unknown.
    """

    pieces: tuple[str, ...]
    scores: Scores
    labels: tuple[str, ...] = ()

    @classmethod
    def parse(cls, wanted: str | int, *, scores: Scores, labels: Sequence[str] = ()) -> Self:
        """Read the user's words, and refuse what no photo could resolve.

        Args:
            wanted: The words, or a class index.
            scores: The classifier's scores.
            labels: Class names in the order of the scores.

        Raises:
            UnknownTarget: There is no such class, label or element.
            UsageError: It is neither text nor a whole number.
        """
        text = target_text(wanted).strip()
        pieces = _pieces(text)
        if not pieces:
            raise UnknownTarget("an empty target", hint="give top1, a class index or a label")
        if len(pieces) == 1 or _is_one(text, scores, labels):
            pieces = [text]
        for piece in pieces:
            if not (scores.classifier and _TOP.fullmatch(piece)):
                _single(piece, scores, labels, None)
        return cls(tuple(pieces), scores, tuple(labels))

    def tensors(self) -> tuple[str, ...]:
        """Tensors that the targets are read from, known before any photo is."""
        found: dict[str, None] = {}
        for piece in self.pieces:
            if self.scores.classifier and _TOP.fullmatch(piece):
                found[self.scores.tensor] = None
            else:
                found |= {t.tensor: None for t in _single(piece, self.scores, self.labels, None)}
        return tuple(found)

    def resolve(self, values: ArrayLike | None = None) -> tuple[Target, ...]:
        """The targets of one photo, each once, in the order asked for.

        Args:
            values: (K,) scores of the photo; needed for ``top1`` and its like.

        Raises:
            UnknownTarget: There is no such class, label or element.
        """
        unique: dict[Any, Target] = {}
        for piece in self.pieces:
            for target in _single(piece, self.scores, self.labels, values):
                unique.setdefault((target.tensor, repr(target.index)), target)
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


def probabilities(
    values: ArrayLike, activation: Activation | None, *, assume_softmax: bool = False
) -> Probabilities | None:
    """Probabilities that the network gives, from its scores.

    Args:
        values: (..., K) scores before the activation.
        activation: The network's own, from :class:`Scores`.
        assume_softmax: Without an activation, read the scores as logits of a softmax.

    Returns:
        None when the network has no final activation and none is assumed, or when there is
        only one class to take a softmax over.
    """
    z = np.asarray(values, dtype=np.float64)
    if activation == "sigmoid":
        # exp of a non-positive number only: never an overflow.
        e = np.exp(-np.abs(z))
        return Probabilities(np.where(z >= 0, 1.0, e) / (1.0 + e), assumed=False)
    if activation is None and (not assume_softmax or z.shape[-1] < 2):
        return None
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return Probabilities(e / e.sum(axis=-1, keepdims=True), assumed=activation is None)


def looks_like_probabilities(values: ArrayLike) -> str:
    """A warning when scores are a softmax's result already; empty when they are not.

    Such a graph hides its softmax (in a custom or fused form): gradients of its scores vanish
    on confident images.

    Args:
        values: (K,) scores of one image.
    """
    z = np.asarray(values, dtype=np.float64).ravel()
    if z.size < 2 or not np.all((z >= 0) & (z <= 1)) or abs(z.sum() - 1) > 2e-3:
        return ""
    return (
        "the scores lie between 0 and 1 and sum to 1: they are probabilities, not logits, so "
        "gradients are those of a saturated softmax; name the logits with --target TENSOR[i]"
    )


def _pieces(text: str) -> list[str]:
    """Split at commas that are not inside brackets."""
    pieces = [piece.strip() for piece in re.split(r",(?![^\[\]]*\])", text)]
    return [piece for piece in pieces if piece]


def _is_one(text: str, scores: Scores, labels: Sequence[str]) -> bool:
    """Whether a text with commas is one label or one element of a tensor."""
    if any(_key(label) == _key(text) for label in labels):
        return True
    match = _ELEMENT.fullmatch(text)
    return match is not None and match["name"] in scores.tensors


def _single(
    text: str, scores: Scores, labels: Sequence[str], values: ArrayLike | None
) -> tuple[Target, ...]:
    element = _ELEMENT.fullmatch(text)
    if element is not None and (
        element["name"] in scores.tensors or _index(element["index"]) is not None
    ):
        return (_element(element["name"], element["index"], scores),)
    if text in scores.tensors and _key(text) not in {_key(label) for label in labels}:
        raise UnknownTarget(
            f"{clean_text(text)!r} is a tensor, not one number",
            hint=f"say which of its elements: {_example(text, scores)}",
        )
    if not scores.classifier:
        raise _no_classes(text, scores)
    labels = _unit_labels(labels, scores)
    if top := _TOP.fullmatch(text):
        return _best(int(top[1]), scores, labels, values)
    count = scores.classes
    if count is None and values is not None:
        count = np.asarray(values).size
    index = int(text) if _INTEGER.fullmatch(text) else _by_label(text, labels, count)
    if index < 0 or (count is not None and index >= count):
        raise UnknownTarget(
            f"there is no class {index}",
            hint=f"classes run from 0 to {count - 1}" if count else "classes start at 0",
        )
    return (_class(index, scores, labels),)


def _best(
    k: int, scores: Scores, labels: Sequence[str], values: ArrayLike | None
) -> tuple[Target, ...]:
    if values is None:
        raise UnknownTarget(f"top{k} needs the scores of an image", hint="give a class index")
    z = np.asarray(values, dtype=np.float64).ravel()
    if not 1 <= k <= z.size:
        raise UnknownTarget(
            f"there is no top{k} among {z.size} classes", hint=f"give top1 to top{z.size}"
        )
    if np.isnan(z).any():
        raise UnknownTarget(
            "the model's scores for this image are not numbers (NaN), so none is the highest",
            where=clean_text(scores.tensor),
            hint="check the preprocessing",
        )
    order = np.argsort(-z, kind="stable")[:k]  # ties: the first index, as ArgMax does
    return tuple(_class(int(i), scores, labels) for i in order)


def _class(index: int, scores: Scores, labels: Sequence[str]) -> Target:
    known = index < len(labels) and labels[index]
    label = clean_text(labels[index]) if known else f"class {index}"
    where: _Index = (*(slice(None) for _ in range(scores.axis - 1)), index)
    return Target(scores.tensor, where, label, index)


def _unit_labels(labels: Sequence[str], scores: Scores) -> Sequence[str]:
    # One sigmoid unit with two names scores the second one (Keras' convention).
    return labels[1:] if scores.classes == 1 and len(labels) == 2 else labels


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


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
            shown = ", ".join(f"{i} ({clean_text(labels[i])})" for i in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise UnknownTarget(
                f"{clean_text(text)!r} names {len(found)} classes",
                hint=f"give the index of one: {shown}{more}",
            )
    if not labels:
        raise UnknownTarget(
            f"{clean_text(text)!r} is no class index, and the class names are not known",
            hint="give an index, or the names with --labels FILE",
        )
    parts = {part.strip() for label in labels for part in (label, *label.split(","))}
    raise UnknownTarget(
        f"no class is called {clean_text(text)!r}", hint=nearest(text, map(clean_text, parts))
    )


def _element(name: str, index: str, scores: Scores) -> Target:
    if name not in scores.tensors:
        raise UnknownTarget(
            f"the model has no tensor {clean_text(name)!r}",
            hint=nearest(name, map(clean_text, scores.tensors)) or _outputs(scores),
        )
    where = _index(index)
    label = clean_text(f"{name}[{index.strip()}]")
    if where is None:
        raise UnknownTarget(
            f"{clean_text(index)!r} is no index",
            where=label,
            hint="write integers, a:b and : with commas, without the batch axis",
        )
    shape = next((v.shape for v in scores.outputs if v.name == name), None)
    if shape is not None:
        _check(where, shape[1:], label)
    # The classifier's own score, written the long way, is that class.
    plain = where if name == scores.tensor and len(where) == scores.axis else ()
    last = plain[-1] if plain and scores.classifier else None
    class_index = last if isinstance(last, int) and last >= 0 else None
    return Target(name, where, label, class_index)


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


def _check(where: _Index, shape: Sequence[int | str | None], label: str) -> None:
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


def _no_classes(text: str, scores: Scores) -> UnknownTarget:
    example = _example(scores.output, scores)
    return UnknownTarget(
        f"{clean_text(text)!r} needs class scores, and this model has none: {scores.why}",
        hint=f"name an element, OUTPUT[i,j,...] without the batch axis, such as {example}; "
        + _outputs(scores),
    )


def _outputs(scores: Scores) -> str:
    shown = []
    for value in scores.outputs[:8]:
        sizes = ", ".join("?" if d is None else clean_text(str(d)) for d in value.shape or ())
        shape = f" ({sizes})" if value.shape is not None else ""
        shown.append(f"{clean_text(value.name)}{shape}")
    return "outputs: " + ", ".join(shown) if shown else ""


def _example(name: str, scores: Scores) -> str:
    """An index that fits the output: its middle element."""
    shape = next((v.shape for v in scores.outputs if v.name == name), None)
    middle = ",".join(str(d // 2 if isinstance(d, int) else 0) for d in (shape or (1, 1))[1:])
    return f"{clean_text(name)}[{middle or 0}]"

"""The outputs of a network as a user names their elements: shapes of one sample, and an example."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.errors import ConverterError, InspectorError
from inspector.network.classifier.scores import Scores, ends_in_activation
from inspector.network.outputs.class_evidence import is_score_like
from inspector.network.shapes import Shapes
from inspector.printable import clean_text

__all__ = [
    "example_element",
    "has_no_batch",
    "listing",
    "measured_shape",
    "probability_before",
    "sample_shape",
]

Array = np.ndarray[Any, Any]

_FEW_AXES = 2
"""Axes of boxes (D, 4), scores (D,) and labels (D,) of one image."""

_NEAR = 1_000
"""Tensors that are looked through on the way to a probability."""

_ATTRIBUTES = 512
"""Longest axis that may hold a row's attributes: box, objectness and classes."""


def probability_before(graph: Graph, tensor: str) -> Node | None:
    """The nearest softmax or sigmoid before a tensor, behind the last learned layer.

    Whatever stands between (a suppression of boxes, products with an objectness) is passed.

    Args:
        graph: The graph.
        tensor: Any tensor.

    Returns:
        None where a convolution or a matrix product comes first.
    """
    waiting, seen = [tensor], {tensor}
    while waiting and len(seen) < _NEAR:
        node = graph.producer(waiting.pop(0))
        if node is None or facts(node).weighted:
            continue
        if facts(node).scores:
            return node
        fresh = [name for name in graph.reads(node) if name and name not in seen]
        seen.update(fresh)
        waiting += fresh
    return None


def has_no_batch(name: str, scores: Scores) -> bool:
    """Whether an output has no batch axis: the file fixes another first axis, or a run shows it.

    A free first axis may count detections of one image, as torchvision's detectors export them; one
    of another name than the batch may count steps or cells.
    """
    shape = next((value.shape for value in scores.outputs if value.name == name), None)
    if shape is None or scores.graph is None:
        return False
    batches = {
        value.shape[0]
        for value in scores.graph.inputs.values()
        if value.shape is not None and len(value.shape) > 2
    }
    if not shape:
        return True
    known = batches if all(isinstance(batch, int) for batch in batches) else {1}
    if isinstance(shape[0], int):
        return shape[0] not in known
    if len(shape) > _FEW_AXES and (shape[0] is None or shape[0] in batches):
        return False
    value = _measured([name], scores).get(name)
    return value is not None and value.ndim == len(shape) + 1


def sample_shape(name: str, scores: Scores) -> tuple[int | None, ...] | None:
    """Declared shape of an output without its batch axis; None where it is not declared."""
    shape = next((value.shape for value in scores.outputs if value.name == name), None)
    if shape is None:
        return None
    own = shape if has_no_batch(name, scores) else shape[1:]
    return tuple(size if isinstance(size, int) else None for size in own)


def measured_shape(name: str, scores: Scores) -> tuple[int, ...] | None:
    """Shape of one sample of any tensor: as the file tells it, else measured."""
    declared = sample_shape(name, scores)
    if declared is None and scores.graph is not None:
        found = Shapes(scores.graph).of(name)
        declared = None if found is None else tuple(found[1:])
    if declared is not None and None not in declared:
        return tuple(int(size or 0) for size in declared)
    values = _measured([name], scores)
    return tuple(values[name].shape[1:]) if name in values else None


def listing(scores: Scores) -> str:
    """The outputs with the shapes that an index counts, most like scores first."""
    values = _outputs(scores)
    shown = []
    for value in _ordered(scores)[:8]:
        shape: Sequence[int | None] | None = sample_shape(value, scores)
        shape = values[value].shape[1:] if value in values else shape
        sizes = ", ".join("?" if size is None else str(size) for size in shape or ())
        text = "one number" if shape == () else f"({sizes})"
        shown.append(clean_text(value) + (f" {text}" if shape is not None else ""))
    return "outputs: " + ", ".join(shown) if shown else ""


def example_element(scores: Scores, name: str = "") -> str:
    """An element that can be explained: the largest of an output on a probe image.

    Outputs whose names or ends are those of scores come first; of rows that hold coordinates
    and scores, the scores.

    Args:
        scores: What is known of the model.
        name: The output; chosen when empty.
    """
    values = _outputs(scores) if not name else _measured([name], scores)
    for output in [name] if name else _ordered(scores):
        index = (
            _largest(values[output][0], sample_shape(output, scores)) if output in values else None
        )
        if index is not None:
            return _element(output, index)
    first = name or next(iter(_ordered(scores)), scores.output)
    shape = sample_shape(first, scores)
    # Nothing is measured: the middle element.
    return _element(first, [0] if shape is None else [(size or 1) // 2 for size in shape])


def _element(name: str, index: Sequence[int]) -> str:
    return f"{clean_text(name)}[{','.join(map(str, index)) or 0}]"


def _ordered(scores: Scores) -> list[str]:
    """Names of the outputs, most like scores first."""
    names = [value.name for value in scores.outputs]
    return sorted(names, key=lambda name: -_likeness(name, scores))


def _likeness(name: str, scores: Scores) -> int:
    ends = scores.graph is not None and ends_in_activation(scores.graph, name)
    return 2 * ends + is_score_like(name)


def _largest(values: Array, declared: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """Index of the largest element of one sample, among scores where others are not scores.

    At the ends of an axis of free length stands what padding has made.
    """
    if values.dtype.kind not in "fiu" or not values.size:
        return None
    wanted = np.where(np.isfinite(values), values.astype(np.float64), -np.inf)
    if values.ndim > 1:
        axis = min(range(values.ndim), key=lambda a: values.shape[a])
        others = tuple(a for a in range(values.ndim) if a != axis)
        within = np.asarray(((wanted >= 0) & (wanted <= 1)).all(axis=others))
        if 1 < values.shape[axis] <= _ATTRIBUTES and within.any() and not within.all():
            wanted = np.where(_along(within, axis, values.ndim), wanted, -np.inf)
    for axis, size in enumerate(declared or ()):
        if size is None and axis < values.ndim and values.shape[axis] > 2:
            inner = np.arange(values.shape[axis]) % (values.shape[axis] - 1) > 0
            wanted = np.where(_along(inner, axis, values.ndim), wanted, -np.inf)
    return tuple(int(i) for i in np.unravel_index(int(wanted.argmax()), values.shape))


def _along(values: Array, axis: int, rank: int) -> Array:
    """Values (n,) laid along one axis of several."""
    return values.reshape([-1 if place == axis else 1 for place in range(rank)])


def _outputs(scores: Scores) -> Mapping[str, Array]:
    return _measured([value.name for value in scores.outputs], scores)


def _measured(names: Sequence[str], scores: Scores) -> Mapping[str, Array]:
    """Values on a probe image; empty where the model does not run on one."""
    if scores.measure is None:
        return {}
    try:
        found = scores.measure(names)
    except (ConverterError, InspectorError):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}

"""Branches that a network always takes: ``If`` nodes whose condition no image decides."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from converters.graph import Graph, Node
from converters.graph.activations import data_tensors
from converters.onnx_file import OnnxFile
from inspector.engines.runtime import Runtime
from inspector.errors import ExplainedError
from inspector.network.inputs.image import FREE_DEPTH, find_image_input
from inspector.network.lengths import lengths_by_image
from inspector.surgery.branches import BODIES, with_branches

__all__ = ["with_known_branches"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

_DEEPEST = 16
"""Branches within branches that are looked into."""

_MOVES = frozenset(
    (
        *("Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Concat", "Cast"),
        *("Identity", "Split", "Transpose"),
    )
)
"""Operators that hand on some of the numbers that they read as they are."""


def with_known_branches(file: OnnxFile, side: int) -> OnnxFile:
    """A model in which ``If`` nodes that always take the same branch are that branch.

    A condition is known where it is made of constants, or of lengths of axes that are the same for
    every input that the file takes: images of other sizes, and more of them, are tried.

    Args:
        file: The model, which is left as it is.
        side: Height and width in pixels that are tried where the file leaves them free.

    Returns:
        The model itself where no condition is known.
    """
    for _ in range(_DEEPEST):
        known = _known(file, side)
        if not known:
            return file
        file = with_branches(file, known)
    return file


def _known(file: OnnxFile, side: int) -> dict[int, bool]:
    """Conditions by the index of their node."""
    graph = file.graph
    branches = [node for node in graph.nodes if node.is_op("If") and {*node.attributes} >= BODIES]
    if not branches:
        return {}
    of_image = data_tensors(graph) | lengths_by_image(graph)
    asked = {node.index: node.inputs[0] for node in branches if node.inputs[0] not in of_image}
    fixed = {index: name for index, name in asked.items() if not _of_lengths(graph, name)}
    found = _conditions(_values(file, fixed.values(), {}), fixed)
    if found or not asked:  # the image may lie in one of them
        return found
    first, *others = _trials(graph, side)
    checked = {index: [*_computed_from(graph, name)] for index, name in asked.items()}
    names = [name for some in checked.values() for name in some]
    usual = _values(file, names, first)
    known = _conditions(usual, asked)
    for feeds in others:
        changed = _values(file, names, feeds)
        for index in [*known]:  # nothing where it does not run at all
            if any(not _same(usual[name], changed[name]) for name in checked[index] if changed):
                del known[index]
    return known


def _trials(graph: Graph, side: int) -> list[Arrays]:
    """Blank images, and for each length that the file leaves free some of another length."""
    image = find_image_input(graph)
    side = side if image.space < 3 else FREE_DEPTH
    height = image.height or side * image.depth  # slices lie below each other
    usual = [image.batch or 1, height, image.width or side]
    found = [usual]
    for axis, known in enumerate((image.batch, image.height, image.width)):
        if known is None:
            found.append([n * (2 if i == axis else 1) for i, n in enumerate(usual)])
    return [
        {image.name: image.arrange(np.zeros((n, image.channels, h, w), np.float32))}
        for n, h, w in found
    ]


def _conditions(values: Arrays, asked: Mapping[int, str]) -> dict[int, bool]:
    return {
        index: bool(np.asarray(values[name]).reshape(-1)[0])
        for index, name in asked.items()
        if name in values and np.size(values[name]) == 1
    }


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other)


def _values(file: OnnxFile, names: Iterable[str], feeds: Arrays) -> Arrays:
    """Tensors, from a pass over the nodes before them alone; nothing where it does not run."""
    # Importing it loads all rules of gradients, which few files need to be opened.
    from inspector.surgery.gradient.program import forward_model

    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    model = forward_model(file.graph, (), tuple(feeds), wanted)
    try:
        runtime = Runtime(replace(file, model=model), device="cpu", optimise=False, once=True)
        return runtime.run(feeds, wanted)
    except ExplainedError:
        return {}


def _before(graph: Graph, tensor: str) -> Iterator[Node]:
    """Nodes that make a tensor of constants and of lengths of axes."""
    todo, seen = [tensor], set[int]()
    while todo:
        node = graph.producer(todo.pop())
        if node is not None and node.index not in seen:
            seen.add(node.index)
            yield node
            if not node.is_op("Shape", "Size"):
                todo += graph.reads(node)


def _of_lengths(graph: Graph, tensor: str) -> bool:
    """Whether lengths of axes decide a tensor."""
    return any(node.is_op("Shape", "Size") for node in _before(graph, tensor))


def _computed_from(graph: Graph, tensor: str) -> dict[str, None]:
    """A tensor, and the numbers that it is computed from: lengths, of all that a Shape gives."""
    found = {tensor: None}
    for node in _before(graph, tensor):
        if not node.is_op("Shape", *_MOVES):
            made = (name for name in node.inputs if name and graph.producer(name) is not None)
            found |= dict.fromkeys(made if not node.is_op("Size") else node.outputs)
    return found

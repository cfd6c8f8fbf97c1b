"""The item of a model's reading that its own graph can choose: a class, a box, a region."""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from converters.graph import Graph
from inspector.errors import MethodRefused
from inspector.opened import Opened
from inspector.printable import clean_text
from inspector.surgery.embedded import HEATMAP
from inspector.surgery.embedded_target import BestBox, BestClass, BestRegion, Seed
from inspector.tasks import Reading
from inspector.tasks.detector import Detector
from inspector.tasks.detector.rows import Layout
from inspector.tasks.segmenter import LEAST, Segmenter

__all__ = ["Choice", "choice_of", "element_hint"]

Array = np.ndarray[Any, Any]

_DRAWS = 6


@dataclass(frozen=True)
class Choice:
    """What ``top1`` means in a file.

    Attributes:
        output: Tensor among whose elements is chosen.
        seed: How.
        passed: Outputs of sigmoids and softmaxes between the explained number and that tensor.
        reading: The reading whose first item it is; None for a classifier.
    """

    output: str
    seed: Seed
    passed: frozenset[str] = frozenset()
    reading: Reading | None = None


def choice_of(opened: Opened) -> Choice:
    """The best item of every photo, chosen while the file runs.

    Args:
        opened: The opened model.

    Raises:
        MethodRefused: The model is not a classifier, detector or segmenter; or its boxes are sorted
            or suppressed in the graph; or its scores lie in several outputs.
    """
    reading = opened.sure_reading
    if reading is None and opened.scores.classifier:
        return Choice(opened.scores.tensor, BestClass())
    if isinstance(reading, Segmenter):
        names = range(len(reading.known.labels))
        background = [n for n in names if n < reading.classes and reading.is_background(n)]
        axis = 0 if reading.channel is None else reading.channel + 1  # 0 counts samples
        seed: Seed = BestRegion(background, LEAST, axis)
        passed = _activations(opened.graph, reading.tensors, reading.output)
        return Choice(reading.output, seed, passed, reading)
    if isinstance(reading, Detector):
        return _of_boxes(opened, reading)
    what = "not a classifier" if reading is None else f"read as: {reading.why}"
    raise MethodRefused(
        f"top1 is chosen of classes, boxes and regions; it is {what}", hint=element_hint(opened)
    )


def element_hint(opened: Opened) -> str:
    """How a number that is the same for every image is named: by the first element of an output."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    outputs = opened.graph.outputs.values()
    found = next((one for one in outputs if one.elem_type in floats and one.name != HEATMAP), None)
    name = "OUTPUT" if found is None else clean_text(found.name)
    rank = 0 if found is None or found.shape is None else len(found.shape)
    place = ",".join(["0"] * (rank - 1)) if rank > 1 else "i,j"
    return f"name an element for all images: --target '{name}[{place}]'"


def _of_boxes(opened: Opened, reading: Detector) -> Choice:
    layout = reading.layout
    if layout.final:
        found = next((n for n in opened.graph.nodes if n.op_type.startswith("NonMaxSup")), None)
        raise MethodRefused(
            "the graph itself sorts or suppresses its boxes, and a place in such a list has no "
            "gradient of its own",
            where=f"node {found.name!r} ({found.op_type})" if found else "",
            hint="export the model without it",
        )
    output = layout.element(0, 0)[0]
    shape = np.shape(opened.scores.measure([output])[output]) if opened.scores.measure else ()
    seed = _surest(layout, output, tuple(shape[1:]), opened)
    if seed is None:
        raise MethodRefused(
            f"the scores of its boxes ({layout.name}) are not columns of one output",
            hint=element_hint(opened),
        )
    passed = _activations(opened.graph, reading.tensors, output)
    return Choice(output, seed, passed, reading)


def _surest(layout: Layout, output: str, shape: tuple[int, ...], opened: Opened) -> BestBox | None:
    """The formula that picks the box that the reading picks, tried on random outputs."""
    if len(shape) != 2 or not layout.candidates or not layout.classes:
        return None
    count, classes = layout.candidates, layout.classes
    start, end = (layout.element(row, 0) for row in (0, count - 1))
    if start[0] != end[0] or len(start[1]) != 2:
        return None
    moved = [i for i in range(2) if start[1][i] != end[1][i]]
    if len(moved) != 1 or end[1][moved[0]] - start[1][moved[0]] != count - 1:
        return None
    axis = 1 - moved[0]
    at, width = start[1][axis], shape[axis]
    explained = BestBox(at, classes, axis + 1)
    tried = [explained, replace(explained, shares=True)]
    if at:
        tried += [replace(explained, sure=at - 1), replace(explained, shares=True, least=at)]
    if at + 1 < width:
        tried.append(replace(explained, sure=at + 1))
    if not opened.scores.measure:
        return None
    known = {n: v[0, ...] for n, v in opened.scores.measure(list(layout.outputs)).items()}
    rng = np.random.default_rng(0)
    for one in tried:
        if all(_agrees(layout, one, output, known, rng) for _ in range(_DRAWS)):
            return one
    return None


def _agrees(
    layout: Layout, one: BestBox, output: str, known: dict[str, Array], rng: np.random.Generator
) -> bool:
    """Whether a formula names the element of the reading's surest box of random outputs."""
    drawn = {
        n: np.asarray(rng.uniform(0.02, 0.98, v.shape), np.float32) if v.dtype.kind == "f" else v
        for n, v in known.items()
    }
    try:
        rows = layout.read(drawn)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return False
    row = int(np.argmax(rows.scores))
    wanted = layout.element(row, int(rows.classes[row]))[1]
    value = drawn[output] if one.columns == 2 else drawn[output].T
    if one.shares:
        powers = np.exp(value[:, one.least :])
        shares = powers / powers.sum(1, keepdims=True)
        scores = shares[:, one.first - one.least :][:, : one.classes]
    else:
        scores = value[:, one.first : one.first + one.classes]
    if one.sure is not None:
        scores = scores * value[:, [one.sure]]
    place, number = np.unravel_index(int(np.argmax(scores)), scores.shape)
    found = (int(place), one.first + int(number))
    return wanted == (found if one.columns == 2 else found[::-1])


def _activations(graph: Graph, tensors: tuple[str, ...], output: str) -> frozenset[str]:
    """Sigmoids and softmaxes right behind some tensors, on the way to an output."""
    found, todo, seen = set(), deque(t for t in tensors if t != output), set[str]()
    while todo:
        name = todo.popleft()
        if name in seen:
            continue
        seen.add(name)
        for node in graph.consumers(name):
            if node.is_op("Sigmoid", "Softmax", "HardSigmoid"):
                found.add(node.outputs[0])
            elif node.is_op("Cast", "Identity", "Reshape", "Transpose", "Flatten"):
                todo.append(node.outputs[0])
    return frozenset(found)

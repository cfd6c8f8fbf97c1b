"""Scores of a classifier: the tensor before the softmax or sigmoid that ends the network.

Gradients are taken of the score, not of the probability: behind a softmax they vanish on
confident images (Selvaraju et al. 2017, section 3.1, "before the softmax").
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from converters.graph import Graph, Node, Value
from converters.graph.operators import facts
from inspector.network.classifier.monotone import Monotone, monotone
from inspector.network.outputs.class_evidence import class_evidence
from inspector.network.outputs.embedding import is_normalised
from inspector.network.shapes import Shape, Shapes, merge
from inspector.printable import clean_text

__all__ = [
    "INTEGERS",
    "Activation",
    "Scores",
    "activation_of",
    "before_rounding",
    "ends_in_activation",
    "find_scores",
    "is_doubtful",
]

Activation = Literal["softmax", "sigmoid", "log_softmax"]

_ML = "ai.onnx.ml"
_ACTIVATIONS: Mapping[str, Activation] = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
}
_TAKES_BEST = ("ArgMax", "TopK", "Hardmax")
INTEGERS = {2, 3, 4, 5, 6, 7, 9, 12, 13}
"""Types of whole numbers, and of truth values, as ``Cast`` counts them."""

_MAX_STEPS = 64
_SEVERAL = 2


@dataclass(frozen=True)
class Scores:
    """The tensor that holds one score per class.

    Attributes:
        tensor: The scores before softmax or sigmoid; the first output when the model is no
            classifier.
        output: The graph output that they end in.
        activation: What stands between the two; None when the output is the score itself.
        classes: K; None when it is not declared, or when the model is not a classifier.
        axis: Axis of the classes in ``tensor``; all other axes but the first have size 1.
        classifier: Whether there is a score per class at all.
        why: A sentence: how the tensor was found, or why the model is not a classifier.
        outputs: All outputs of the graph.
        tensors: Names of all tensors that a target may name.
        unit: Which of two classes one unit scores, where the output holds p and 1 - p; the other
            class is its negative side.  None where each class has a score of its own.
        flipped: The output is one number that falls where the score rises, as 1 minus a sigmoid.
        heads: Other outputs that hold one score per class, with the number of their classes.
        classifies: Whether something says that these are class scores and not other numbers.
        graph: The graph that the scores are of.
        measure: Tensors of one probe image by name, (1, ...); costs a forward pass.
    """

    tensor: str
    output: str
    activation: Activation | None
    classes: int | None
    why: str
    axis: int = 1
    classifier: bool = True
    outputs: tuple[Value, ...] = field(default=(), repr=False)
    tensors: frozenset[str] = field(default=frozenset(), repr=False)
    unit: int | None = None
    flipped: bool = False
    heads: tuple[tuple[str, int | None], ...] = ()
    classifies: bool = True
    graph: Graph | None = field(default=None, repr=False, compare=False)
    measure: Callable[[Sequence[str]], Mapping[str, Any]] | None = field(
        default=None, repr=False, compare=False
    )


@dataclass(frozen=True)
class _Candidate:
    output: str
    tensor: str
    activation: Activation | None
    shape: Shape | None
    named: bool  # a table of class names hangs on it
    reason: str  # why it is not a classifier; empty when it is one
    depth: int
    unit: int | None = None
    flipped: bool = False

    @property
    def classes(self) -> int | None:
        """K; None where it is not known."""
        axis = _class_axis(self.shape)
        return self.shape[axis] if self.shape is not None and axis is not None else None

    @property
    def one_number(self) -> bool:
        """Whether it is one number without a sigmoid: an age, an angle."""
        return self.classes == 1 and self.activation is None


# Outputs of a network whose nodes are counted; of more, the order in the file has to tell.
_COUNTED = 32


def find_scores(graph: Graph, shapes: Mapping[str, Sequence[int]] | None = None) -> Scores:
    """Find the scores of the classifier, walking back from the graph's outputs.

    Passed on the way: ``Identity``, ``Cast``, ``Reshape`` and the like, rounding by
    ``QuantizeLinear``, ``ArgMax``, ``TopK``, and what ``ai.onnx.ml`` makes of scores
    (``ZipMap``, ``ArrayFeatureExtractor``, ``Normalizer``).  Stripped: ``Softmax``,
    ``LogSoftmax``, ``Sigmoid``, and a softmax written out as Exp, ReduceSum, Div.  A final
    ``Relu`` (SqueezeNet) is part of the score.

    A classifier has the shape (N, K), or more axes of size 1, such as (N, K, 1, 1).  Of several,
    the one that carries class names wins, then several classes over one number, then the one with
    the most nodes before it: auxiliary heads branch off early, and embeddings stand before the
    logits.

    Args:
        graph: The graph.
        shapes: Concrete shapes of tensors, where they are known.
    """
    known = Shapes(graph, shapes)
    found = [_beside(_candidate(graph, known, name), known, graph) for name in graph.outputs]
    outputs = tuple(graph.outputs.values())
    names = frozenset((*graph.tensors, *graph.outputs))
    good = [c for c in found if not c.reason]
    if not good:
        why = "; ".join(dict.fromkeys(c.reason for c in found)) or "the graph has no output"
        first = next(iter(graph.outputs), "")
        return Scores(
            first, first, None, None, why, 1, False, outputs, names, classifies=False, graph=graph
        )
    best = max(good, key=lambda c: (c.named, not c.one_number, c.depth, c.activation is not None))
    axis = _class_axis(best.shape)
    heads = {c.output: (c.tensor, c.classes) for c in good if c.tensor != best.tensor}
    scores = Scores(
        best.tensor,
        best.output,
        best.activation,
        best.classes,
        _reason(best, good),
        1 if axis is None else axis,
        True,
        outputs,
        names,
        unit=best.unit,
        flipped=best.flipped,
        heads=tuple((output, classes) for output, (_, classes) in heads.items()),
        graph=graph,
    )
    said = best.activation is not None or best.named or bool(class_evidence(scores))
    return replace(scores, classifies=said)


def is_doubtful(scores: Scores, batch: int | None) -> bool:
    """Whether only a forward pass can say if an output has one row of scores per image.

    Args:
        scores: What the file makes of itself.
        batch: Fixed number of images; None when it is free.
    """
    shape = next((value.shape for value in scores.outputs if value.name == scores.output), None)
    if not scores.classifier:  # Paddle's exporter declares outputs without any axes
        return len(scores.outputs) <= _COUNTED and any(not v.shape for v in scores.outputs)
    if shape is None:
        return False
    free = batch is not None and len(shape) > 1 and not isinstance(shape[0], int)
    return free or len(shape) == 3 or scores.classes is None


def _beside(candidate: _Candidate, shapes: Shapes, graph: Graph) -> _Candidate:
    """A candidate, refused where another output holds several numbers for each of its scores."""
    own = shapes.of(candidate.output)
    count = candidate.classes
    if candidate.reason or count in (None, 1) or own is None:
        return candidate
    for name in graph.outputs:
        other = shapes.of(name)
        if name == candidate.output or other is None or not _rows_of(other, len(own), count):
            continue
        score, rows = clean_text(candidate.output), clean_text(name)
        reason = (
            f"{score!r} holds one score for each of the {count} rows of {rows!r}, as a "
            "detector's anchors do"
        )
        return replace(candidate, reason=reason, depth=0)
    return candidate


def _rows_of(shape: Shape, rank: int, count: int | None) -> bool:
    """Whether an output has as many rows as another one, of a rank, has numbers.

    Rows (N, A, C); beside numbers without an axis of samples rows (A, C), or as many numbers.
    """
    if rank == 1:
        return shape[:1] == (count,) or (len(shape) == 3 and shape[:2] == (1, count))
    return len(shape) == 3 and shape[1] == count and shape[2] is not None and shape[2] > 1


def _reason(best: _Candidate, good: Sequence[_Candidate]) -> str:
    what = {
        "softmax": f"the input of the softmax behind output {clean_text(best.output)!r}",
        "log_softmax": f"the input of the log-softmax behind output {clean_text(best.output)!r}",
        "sigmoid": f"the input of the sigmoid behind output {clean_text(best.output)!r}",
        None: f"what output {clean_text(best.output)!r} is made from"
        if best.tensor != best.output
        else f"output {clean_text(best.output)!r} itself, which no softmax or sigmoid ends",
    }[best.activation]
    if best.flipped:
        what += ", which falls where they rise"
    others = list(dict.fromkeys(c.output for c in good if c.tensor != best.tensor))
    if not others:
        return f"scores are {what}"
    shown = ", ".join(repr(clean_text(name)) for name in others[:5])
    return f"scores are {what}; other outputs that could be scores: {shown}"


def _candidate(graph: Graph, shapes: Shapes, output: str) -> _Candidate:
    """Follow one output back to the scores it is made from."""
    tensor, shape, named, unit = output, shapes.of(output), False, None
    flipped = False
    # (tensor, activation behind it, shape), the most wanted last.
    options: list[tuple[str, Activation | None, Shape | None]] = [(output, None, shape)]
    for _ in range(_MAX_STEPS):
        node = graph.producer(tensor)
        if node is None:
            break
        found = activation_of(graph, node)
        if found is not None and _over_classes(graph, shapes, node, found[0]):
            before = before_rounding(graph, found[1])
            # An activation keeps the shape, which is often declared behind it only.
            options.append((before, found[0], merge(shapes.of(before), shape)))
            break
        pair = _pair(graph, node, shape)
        if pair is not None:
            tensor, unit = pair
            options.append((tensor, "sigmoid", (shape[0] if shape else None, 1)))
            break
        wrapped = _wrapped(graph, shapes, node, shape)
        if wrapped is not None:
            kind, before, flipped = wrapped
            options.append((before, kind, merge(shapes.of(before), shape)))
            break
        step = _step(graph, node, tensor)
        if step is None:
            break
        tensor, keeps_values = step
        named = named or node.domain == _ML
        shape = merge(shapes.of(tensor), shape if _keeps_shape(node) else None)
        # The outermost tensor with the same values is the one that the user knows.
        options = [(tensor, None, shape), *options] if keeps_values else [(tensor, None, shape)]
    measured = output in shapes.measured
    options = [(t, kind, _with_samples(graph, s, kind)) for t, kind, s in options]
    reasons = [_no_classifier(graph, t, s, measured=measured) for t, _, s in options]
    chosen = max((i for i, reason in enumerate(reasons) if not reason), default=len(options) - 1)
    tensor, activation, shape = options[chosen]
    depth = 0 if reasons[chosen] else _depth(graph, tensor)
    unit = unit if activation == "sigmoid" else None
    flipped = flipped and activation is not None
    reason = reasons[chosen]
    return _Candidate(output, tensor, activation, shape, named, reason, depth, unit, flipped)


def _with_samples(graph: Graph, shape: Shape | None, kind: Activation | None) -> Shape | None:
    """Shape of scores that the graph holds without an axis of samples, with that axis in front.

    It takes one image, and gives several numbers; or one, which a sigmoid says is a class's.
    """
    if shape is None or len(shape) != 1 or shape[0] is None or (shape[0] < _SEVERAL and not kind):
        return shape
    images = [v.shape for v in graph.inputs.values() if v.shape is not None and len(v.shape) > 2]
    single = all(len(s) == 3 or s[0] == 1 for s in images)
    return (1, *shape) if images and single else shape


def _wrapped(
    graph: Graph, shapes: Shapes, node: Node, shape: Shape | None
) -> tuple[Activation, str, bool] | None:
    """A final activation behind which numbers keep their order: 100 p, log p, a clamp.

    A multiple of a sigmoid may be an age; of a softmax it is a percentage.

    Returns:
        Its kind, the scores before it, and whether the order is turned round, as in 1 - p, which
        is followed for one number alone.
    """
    sign, bounded = 1, True
    for _ in range(_MAX_STEPS):
        found = activation_of(graph, node)
        if found is not None:
            kind, before = found
            one = shape is not None and shape[1:] == (1,)
            fits = bounded and (sign > 0 or one) if kind == "sigmoid" else sign > 0
            if not fits or not _over_classes(graph, shapes, node, kind):
                return None
            return kind, before_rounding(graph, before), sign < 0
        step = monotone(graph, node)
        if step is None and facts(node).reshapes:
            step = Monotone(node.inputs[0])
        made = None if step is None else graph.producer(step.tensor)
        if step is None or made is None:
            return None
        sign, bounded, node = sign * step.sign, bounded and step.bounded, made
    return None


def _pair(graph: Graph, node: Node, shape: Shape | None) -> tuple[str, int] | None:
    """Unit before two probabilities (1 - p, p) of one sigmoid, and which class it scores."""
    if not node.is_op("Concat") or len(node.inputs) != 2:
        return None
    if shape is None or len(shape) != 2 or shape[1] not in (2, None):
        return None
    if int(node.attributes.get("axis", 0)) not in (1, -1):
        return None
    for place in (0, 1):
        own, other = node.inputs[place], graph.producer(node.inputs[1 - place])
        made = graph.producer(own)
        while made is not None and (facts(made).copies or facts(made).reshapes):
            made = graph.producer(made.inputs[0])
        if made is None or other is None or not other.is_op("Sub") or other.inputs[1] != own:
            continue
        found = activation_of(graph, made)
        if _is_one(graph, other.inputs[0]) and found is not None and found[0] == "sigmoid":
            return before_rounding(graph, found[1]), place
    return None


def _keeps_shape(node: Node) -> bool:
    return facts(node).copies or node.is_op("DequantizeLinear")


def _step(graph: Graph, node: Node, tensor: str) -> tuple[str, bool] | None:
    """Tensor before a node that only repackages scores, and whether the values stay the same."""
    if node.domain == _ML:
        if node.op_type in {"ZipMap", "Normalizer"}:
            return node.inputs[0], False
        return (node.inputs[1], False) if node.op_type == "ArrayFeatureExtractor" else None
    if node.is_op(*_TAKES_BEST):
        return node.inputs[0], False
    if node.is_op("Cast"):
        return node.inputs[0], node.attributes.get("to") not in INTEGERS
    known = facts(node)
    if known.copies or known.reshapes:
        return node.inputs[0], True
    before = before_rounding(graph, tensor)
    return (before, False) if before != tensor else None


def before_rounding(graph: Graph, tensor: str) -> str:
    """Tensor before QuantizeLinear, Cast, DequantizeLinear, however often they repeat.

    Rounded scores tie, and the rounding has no gradient.
    """
    while (node := graph.producer(tensor)) is not None and node.is_op("DequantizeLinear"):
        behind = graph.producer(node.inputs[0])
        while behind is not None and behind.is_op("Cast", "Identity"):
            behind = graph.producer(behind.inputs[0])
        if behind is None or not behind.is_op("QuantizeLinear"):
            break
        tensor = behind.inputs[0]
    return tensor


def activation_of(graph: Graph, node: Node) -> tuple[Activation, str] | None:
    """Kind and input of the final activation that ends in this node."""
    if node.domain == "" and node.op_type in _ACTIVATIONS:
        return _ACTIVATIONS[node.op_type], node.inputs[0]
    if node.is_op("Div"):
        exp = graph.producer(node.inputs[0])
        if exp is not None and exp.is_op("Exp") and _summed(graph, node.inputs[1]) is exp:
            return "softmax", _before_shift(graph, exp.inputs[0])
    if node.is_op("Exp"):
        inner = graph.producer(node.inputs[0])
        found = None if inner is None else activation_of(graph, inner)
        return ("softmax", found[1]) if found is not None and found[0] == "log_softmax" else None
    if (z := _written_sigmoid(graph, node)) is not None:
        return "sigmoid", z
    if node.is_op("Log"):
        inner = graph.producer(node.inputs[0])
        found = None if inner is None else activation_of(graph, inner)
        return ("log_softmax", found[1]) if found is not None and found[0] == "softmax" else None
    if node.is_op("Sub"):  # z - log(sum(exp(z)))
        log = graph.producer(node.inputs[1])
        exp = _summed(graph, log.inputs[0]) if log is not None and log.is_op("Log") else None
        if exp is not None and exp.is_op("Exp") and exp.inputs[0] == node.inputs[0]:
            return "log_softmax", _before_shift(graph, node.inputs[0])
    return None


def ends_in_activation(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is a softmax or sigmoid, as a whole, behind what only repackages it."""
    for _ in range(_MAX_STEPS):
        node = graph.producer(before_rounding(graph, tensor))
        if node is None:
            return False
        if activation_of(graph, node) is not None:
            return True
        if not (facts(node).copies or facts(node).moves or facts(node).reshapes):
            return False
        tensor = node.inputs[0]
    return False


def _written_sigmoid(graph: Graph, node: Node) -> str | None:
    """The tensor z of 1 / (1 + exp(-z))."""
    if node.is_op("Div") and _is_one(graph, node.inputs[0]):
        below = graph.producer(node.inputs[1])
    else:
        below = graph.producer(node.inputs[0]) if node.is_op("Reciprocal") else None
    if below is None or not below.is_op("Add"):
        return None
    for one, other in (below.inputs, reversed(below.inputs)):
        exp = graph.producer(other)
        if _is_one(graph, one) and exp is not None and exp.is_op("Exp"):
            negative = graph.producer(exp.inputs[0])
            return negative.inputs[0] if negative is not None and negative.is_op("Neg") else None
    return None


def _is_one(graph: Graph, tensor: str) -> bool:
    value = graph.constant(tensor)
    return value is not None and value.dtype.kind == "f" and bool(np.all(value == 1))


def _summed(graph: Graph, tensor: str) -> Node | None:
    """Node whose output is summed up into this tensor."""
    node = graph.producer(tensor)
    while node is not None and node.is_op("Unsqueeze", "Reshape", "Expand"):
        node = graph.producer(node.inputs[0])
    if node is None or not node.is_op("ReduceSum"):
        return None
    return graph.producer(node.inputs[0])


def _before_shift(graph: Graph, tensor: str) -> str:
    """The scores before their maximum is subtracted."""
    node = graph.producer(tensor)
    if node is None or not node.is_op("Sub"):
        return tensor
    shift = graph.producer(node.inputs[1])
    while shift is not None and shift.is_op("Unsqueeze", "Reshape", "Expand", "Identity"):
        shift = graph.producer(shift.inputs[0])
    same = shift is not None and shift.is_op("ReduceMax") and shift.inputs[0] == node.inputs[0]
    return node.inputs[0] if same else tensor


def _over_classes(graph: Graph, shapes: Shapes, node: Node, kind: Activation) -> bool:
    """Whether a softmax runs over the classes; over an axis of size 1 it is not an activation."""
    if kind == "sigmoid" or not node.is_op("Softmax", "LogSoftmax"):
        return True
    old = graph.opset() < 13
    axis = node.attributes.get("axis", 1 if old else -1)
    shape = shapes.of(node.inputs[0])
    if shape is None or not -len(shape) <= axis < len(shape):
        return True
    axis %= len(shape)
    classes = _class_axis(shape)
    # Before opset 13 the softmax runs over all axes from ``axis`` on.
    return classes is None or classes == axis or (old and classes > axis)


def _class_axis(shape: Shape | None) -> int | None:
    """The one axis that is not 1 (axis 1 when all are); None when no such axis is known."""
    if shape is None or len(shape) < 2:
        return None
    wide = [axis for axis, size in enumerate(shape) if axis and size != 1]
    if len(wide) > 1:
        return None
    axis = wide[0] if wide else 1
    # An axis of unknown size is the classes only where nothing else could be meant.
    return axis if shape[axis] is not None or len(shape) == 2 else None


def _no_classifier(graph: Graph, tensor: str, shape: Shape | None, *, measured: bool) -> str:
    """Why a tensor does not hold one score per class; empty when it does."""
    name = repr(clean_text(tensor))
    if shape is None:
        return f"the shape of {name} is not declared"
    shown = "(" + ", ".join("?" if d is None else str(d) for d in shape) + ")"
    if _class_axis(shape) is None:
        return f"{name} of shape {shown} is not a list of one score per class"
    batches = {
        v.shape[0] for v in graph.inputs.values() if v.shape is not None and len(v.shape) > 2
    }
    if shape[0] is not None and (measured or len(batches) == 1):
        batch = next(iter(batches), None) if len(batches) == 1 else None
        rows = {batch, 1} if measured else {batch}  # what is measured is of one image
        if (measured or isinstance(batch, int)) and shape[0] not in rows:
            sequence = measured and len(shape) == 3 and shape[1] == 1
            more = f": it is a sequence of {shape[0]} steps" if sequence else ""
            return f"{name} of shape {shown} does not have one row per image{more}"
    suppresses = any(node.is_op("NonMaxSuppression") for node in graph.nodes)
    if suppresses and any(node.is_op("NonMaxSuppression") for node in _walk(graph, tensor)):
        return f"{name} lists detections"
    if _class_axis(shape) is not None and _are_winners(graph, tensor, shape):
        return f"{name} holds the numbers of classes, and no scores"
    if is_normalised(graph, tensor):
        return f"{name} is divided by its own length: an embedding, not scores"
    return ""


def _are_winners(graph: Graph, tensor: str, shape: Shape) -> bool:
    """Whether several numbers of one image are those of the best classes, as a reader's steps."""
    axis = _class_axis(shape)
    for _ in range(_MAX_STEPS if axis is not None and shape[axis] != 1 else 0):
        node = graph.producer(tensor)
        if node is None:
            return False
        if node.is_op("ArgMax"):
            return True
        if not (facts(node).copies or facts(node).moves or facts(node).reshapes):
            return False
        tensor = node.inputs[0]
    return False


def _depth(graph: Graph, tensor: str) -> int:
    """How many nodes a tensor depends on, for telling a main head from auxiliary ones."""
    if len(graph.outputs) <= _COUNTED:
        return len(set(_walk(graph, tensor)))
    maker = graph.producer(tensor)
    return 0 if maker is None else maker.index


def _walk(graph: Graph, tensor: str) -> Iterator[Node]:
    seen: set[str] = set()
    todo = [tensor]
    while todo:
        name = todo.pop()
        node = None if name in seen else graph.producer(name)
        seen.add(name)
        if node is not None:
            yield node
            todo += graph.reads(node)

"""Linear head of a classifier: where it is linear in the mean of feature maps, CAM is exact.

    logit_c = sum_k w_k^c mean_xy A_k(x, y) + b_c = mean_xy M_c(x, y) + b_c

(Zhou et al. 2016, equations 1 and 2; M_c leaves the bias out.)  The head is found by walking
back from the scores through affine nodes to the pooling, and its weights by following the same
nodes forward in numbers, so folded normalisations and rearranged channels need no special case.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from converters.graph import Graph, Node
from converters.graph.operators import Facts, facts
from inspector.errors import MethodRefused
from inspector.network.classifier.affine import (
    Affine,
    NotAffine,
    apply,
    data_input,
    folded,
    is_constant,
    is_rounded,
)
from inspector.network.classifier.global_pooling import Pooling, find_pooling
from inspector.network.classifier.scores import Scores
from inspector.network.shapes import Shapes
from inspector.network.space import plane, space_axes
from inspector.printable import clean_text

__all__ = ["LinearHead", "NoHead", "find_head", "require_linear"]

_REASONS: Sequence[tuple[Callable[[Facts], bool], str]] = (
    (
        lambda known: known.pools == "max",
        "pools by the maximum: the score is not a sum over positions",
    ),
    (
        lambda known: known.pools == "norm",
        "pools by a generalised mean: the score is not a sum over positions",
    ),
    (
        lambda known: known.normalises in {"statistics", "norm"},
        "normalises each sample behind the pooling, which is not linear",
    ),
    (
        lambda known: known.joins,
        "joins several tensors (poolings, branches) into the head's features",
    ),
    (
        lambda known: bool(known.activation) and not known.softmax,
        "is a non-linearity between the feature maps and the scores: it has two layers or more",
    ),
)
_MAX_STEPS = 200


@dataclass(frozen=True)
class NoHead:
    """Why CAM is not exact for a model.

    Attributes:
        node: Name of the node that forbids it; empty when the model is not a classifier.
        reason: A sentence.
    """

    node: str
    reason: str


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A head that is affine in the mean (or sum) of each feature map.

    Attributes:
        kind: ``linear``: weights after the pooling; ``class map``: the pooled tensor holds one
            map per class already (a 1x1 convolution before the pooling).
        features: The tensor A that is pooled, (N, C, h, w), or (N, h, w, C) when
            ``channel_axis`` is 3.
        pooled: What the pooling makes of it.
        logits: The scores.
        weights: (K, C) float64, in the channel order of ``features``.
        bias: (K,) float64.
        channel_axis: 1 or 3.
        summed: Positions are summed up, not averaged.
        scale: Constant factor on the mean, from padding that the pooling counts.
        nodes: Names of the nodes from the pooling to the scores.
        quantised: Weights or values are rounded on the way: exact up to that rounding.
        notes: What a user should know about the maps.
    """

    kind: Literal["linear", "class map"]
    features: str
    pooled: str
    logits: str
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    channel_axis: int
    summed: bool
    scale: float
    nodes: tuple[str, ...]
    quantised: bool
    notes: tuple[str, ...]

    def cam(self, A: ArrayLike, class_index: int) -> NDArray[np.float64]:
        """Class activation map sum_k w_k A_k, without the bias.

        Its mean and the bias are the score: where the network sums positions up instead of
        averaging them, the map is multiplied by their number.  So it does not depend on whether
        an exporter spells the mean as a mean or as a sum and a division.

        Args:
            A: Values of ``features``, in that tensor's own layout.
            class_index: c, 0 <= c < K.

        Returns:
            (N, h, w) float64; of a signal (N, 1, l), of a volume (N, d h, w).

        Raises:
            IndexError: There is no such class.
        """
        if not 0 <= class_index < len(self.bias):
            raise IndexError(f"class {class_index} of {len(self.bias)}")
        maps = self._channels_first(A)
        weights = self.weights[class_index] * self.factor(math.prod(maps.shape[2:]))
        found: NDArray[np.float64] = np.einsum("k,nkhw->nhw", weights, plane(maps))
        return found

    def cam_of(self, A: ArrayLike, terms: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
        """The map of a sum of classes: CAM is linear in the weights.

        Args:
            A: Values of ``features``, in that tensor's own layout.
            terms: Classes and their signs; at least one.

        Returns:
            (N, h, w) float64, as ``cam``.
        """
        maps = [sign * self.cam(A, index) for index, sign in terms]
        return reduce(np.add, maps)

    def logits_of(self, A: ArrayLike) -> NDArray[np.float64]:
        """Scores (N, K) that the head gives for values of ``features``."""
        maps = self._channels_first(A)
        space = tuple(range(2, maps.ndim))
        pooled = maps.mean(axis=space) * self.factor(math.prod(maps.shape[2:]))
        scores: NDArray[np.float64] = pooled @ self.weights.T + self.bias
        return scores

    def residual(self, A: ArrayLike, class_index: int, logit: ArrayLike) -> NDArray[np.float64]:
        """How far the network's score is from the mean of the map plus the bias.

        Args:
            A: Values of ``features``, in that tensor's own layout.
            class_index: c.
            logit: (N,) scores of class c that the network gave.

        Returns:
            (N,) absolute differences, in the units of the score.
        """
        return self.residual_of(A, [(class_index, 1)], logit)

    def residual_of(
        self, A: ArrayLike, terms: Sequence[tuple[int, int]], score: ArrayLike
    ) -> NDArray[np.float64]:
        """How far a sum of scores is from the mean of the sum of the maps plus the biases.

        Args:
            A: Values of ``features``, in that tensor's own layout.
            terms: Classes and their signs.
            score: (N,) sums that the network gave.

        Returns:
            (N,) absolute differences, in the units of the score.
        """
        expected = np.zeros(())
        for index, sign in terms:
            mean = self.cam(A, index).mean(axis=(1, 2))
            expected = expected + sign * (mean + self.bias[index])
        given = np.asarray(score, dtype=np.float64).reshape(-1)
        return np.asarray(np.abs(given - expected), dtype=np.float64)

    def factor(self, positions: int) -> float:
        """What the mean over this many positions is multiplied by before the weights."""
        return self.scale * (positions if self.summed else 1)

    def _channels_first(self, A: ArrayLike) -> NDArray[np.float64]:
        maps = np.asarray(A, dtype=np.float64)
        return np.moveaxis(maps, self.channel_axis, 1)


def require_linear(head: LinearHead | NoHead) -> LinearHead:
    """The head, where CAM is exact.

    Args:
        head: What was found of a model.

    Raises:
        MethodRefused: It rules an exact CAM out.
    """
    if isinstance(head, LinearHead):
        return head
    raise MethodRefused(
        f"CAM is not exact for this head: {head.reason}",
        where=f"node {head.node!r}" if head.node else "",
        hint="grad-cam needs no such head",
    )


def find_head(
    graph: Graph, scores: Scores, shapes: Mapping[str, Sequence[int]] | None = None
) -> LinearHead | NoHead:
    """Find the linear head behind the global pooling, or the node that forbids it.

    Args:
        graph: The graph.
        scores: The classifier's scores, from :func:`inspector.target.find_scores`.
        shapes: Concrete shapes of tensors, where they are known: an ``AveragePool`` is global
            only when its kernel is the whole map.
    """
    if not scores.classifier:
        return NoHead("", f"there is no classifier: {scores.why}")
    known = Shapes(graph, shapes)
    path: list[Node] = []
    tensor = scores.tensor
    try:
        pooling = find_pooling(graph, known, tensor)
        while pooling is None:
            node = graph.producer(tensor)
            if node is None or len(path) >= _MAX_STEPS:
                return NoHead("", f"no pooling stands before {clean_text(scores.tensor)!r}")
            tensor = data_input(graph, node)
            path.append(node)
            pooling = find_pooling(graph, known, tensor)
        return _head(graph, known, scores, pooling, path[::-1])
    except NotAffine as error:
        return NoHead(error.node.name, _explained(graph, known, error, path))


def _head(
    graph: Graph, shapes: Shapes, scores: Scores, pooling: Pooling, path: Sequence[Node]
) -> LinearHead | NoHead:
    channels = pooling.channels or _fan_in(graph, path) or scores.classes
    if channels is None:
        return NoHead(pooling.nodes[0].name, "the number of pooled channels is not known")
    state = Affine.pooled(tuple(channels if d == 0 else d for d in pooling.layout))
    for node in path:
        state = apply(graph, shapes, node, state)
    linear = any(node.is_op("Gemm", "MatMul", "Conv") for node in path)
    if pooling.assumed and (not linear or pooling.channels is None):
        raise NotAffine(pooling.nodes[0], pooling.assumed)
    weights, bias = state.matrix()
    if scores.classes is not None and scores.classes != len(bias):
        return NoHead(
            path[-1].name if path else pooling.nodes[0].name,
            f"{len(bias)} values are pooled for {scores.classes} classes",
        )
    quantised = any(is_rounded(graph, node) for node in path)
    return LinearHead(
        kind="linear" if linear else "class map",
        features=pooling.features,
        pooled=pooling.pooled,
        logits=scores.tensor,
        weights=weights,
        bias=bias,
        channel_axis=pooling.channel_axis,
        summed=pooling.summed,
        scale=pooling.scale,
        nodes=tuple(node.name for node in (*pooling.nodes, *path)),
        quantised=quantised,
        notes=_notes(graph, pooling, linear=linear, quantised=quantised),
    )


def _notes(graph: Graph, pooling: Pooling, *, linear: bool, quantised: bool) -> tuple[str, ...]:
    notes = []
    maker = graph.producer(pooling.features)
    if not linear:
        notes.append(
            f"each class has its own map in {clean_text(pooling.features)!r}: CAM is that map"
        )
        if maker is not None and maker.is_op("Relu"):
            notes.append(
                f"the map is not negative: {clean_text(maker.name)!r} (Relu) stands before the "
                "pooling, so evidence against the class does not show"
            )
    if quantised:
        notes.append("the head is quantised: the map sums up to the score but for its rounding")
    return tuple(notes)


def _fan_in(graph: Graph, path: Sequence[Node]) -> int | None:
    """Inputs of the first linear layer."""
    for node in path:
        if node.is_op("Conv"):
            return int(folded(graph, node.inputs[1]).shape[1])
        if node.is_op("Gemm", "MatMul"):
            left = not is_constant(graph, node.inputs[0])
            weights = folded(graph, node.inputs[1 if left else 0])
            flipped = node.attributes.get("transB" if left else "transA", 0)
            return int(weights.shape[-1 if bool(flipped) == left else -2])
    return None


def _explained(graph: Graph, shapes: Shapes, error: NotAffine, path: Sequence[Node]) -> str:
    """A sentence for the node that ends the walk; ``path`` runs back from the scores."""
    node = error.node
    shown = f"{node.op_type} node {clean_text(node.name)!r}"
    linear = [n for n in path if n.is_op("Gemm", "MatMul", "Conv")]
    if node in path or node.is_op("Gemm", "MatMul", "Conv"):
        return f"{shown} is not linear in the mean of the feature maps: {error}"
    if linear and _is_map(graph, shapes, node, linear[-1]):
        flat = f"{linear[-1].op_type} node {clean_text(linear[-1].name)!r}"
        return (
            f"{flat} gives every position of the feature map its own weight: the map that "
            f"{shown} makes is flattened, not averaged"
        )
    for holds, reason in _REASONS:
        if holds(facts(node)) or (node.is_op("Pow") and "generalised mean" in reason):
            return f"{shown} {reason}"
    return f"{shown} stands between the scores and a global mean: {error}"


def _is_map(graph: Graph, shapes: Shapes, node: Node, linear: Node) -> bool:
    """Whether a node's output is a map with several positions that a linear layer flattens."""
    shape = shapes.of(node.outputs[0])
    if shape is None or len(shape) != space_axes(graph) + 2:
        return False
    if None not in shape[1:]:
        return sum(size != 1 for size in shape[1:]) > 1  # pooled: only the channels are left
    fan_in = _fan_in(graph, [linear]) if not linear.is_op("Conv") else None
    return fan_in is not None and shape[1] is not None and fan_in not in shape[1:]

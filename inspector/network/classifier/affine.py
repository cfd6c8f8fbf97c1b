"""Affine map from the pooled channels to the scores, computed node by node.

A tensor T of one sample is written as T = gain · x + offset, with x (C,) the pooled channels.
Until the first linear layer every element of T depends on one channel only, so ``gain`` holds
one number per element instead of a matrix.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from converters.graph import Graph, Node
from converters.graph.operators import facts
from inspector.network.shapes import Shapes
from inspector.printable import clean_text

__all__ = ["Affine", "NotAffine", "apply", "data_input", "folded", "is_constant", "is_rounded"]

Array = NDArray[np.float64]

_MAX_FILLED = 1 << 26
_INTEGERS = {2, 3, 4, 5, 6, 7, 9, 12, 13}


class NotAffine(Exception):
    """A node that does not continue the affine map; ``str(error)`` says why."""

    def __init__(self, node: Node, reason: str) -> None:
        """Keep the node."""
        super().__init__(reason)
        self.node = node


@dataclass(frozen=True)
class Affine:
    """A tensor of shape (N, *S) as an affine function of the pooled channels x (N, C).

    Attributes:
        offset: (*S) the value at x = 0.
        gain: (*S, C); or (*S, 1) while each element depends on one channel.
        channel: (*S) that channel; None once ``gain`` is a full matrix.
        channels: C.
        batch_last: The tensor is (*S, N): a 2-D transpose put the batch behind.
    """

    offset: Array
    gain: Array
    channel: NDArray[np.int64] | None
    channels: int
    batch_last: bool = False

    @classmethod
    def pooled(cls, shape: tuple[int, ...]) -> "Affine":
        """The pooled channels themselves, laid out as ``shape`` (one axis is not 1)."""
        count = int(np.prod(shape))
        gain = np.ones((*shape, 1))
        return cls(np.zeros(shape), gain, np.arange(count).reshape(shape), count)

    @property
    def shape(self) -> tuple[int, ...]:
        """S, without the batch axis."""
        return self.offset.shape

    def matrix(self) -> tuple[Array, Array]:
        """Weights (K, C) and bias (K,)."""
        bias = self.offset.ravel()
        if self.channel is None:
            return self.gain.reshape(bias.size, self.channels), bias
        weights = np.zeros((bias.size, self.channels))
        weights[np.arange(bias.size), self.channel.ravel()] = self.gain.ravel()
        return weights, bias

    def reshaped(self, shape: tuple[int, ...]) -> "Affine":
        """The same elements in another shape."""
        channel = None if self.channel is None else self.channel.reshape(shape)
        gain = self.gain.reshape(*shape, self.gain.shape[-1])
        return replace(self, offset=self.offset.reshape(shape), gain=gain, channel=channel)

    def transposed(self, axes: tuple[int, ...]) -> "Affine":
        """The same elements with the axes of S permuted."""
        channel = None if self.channel is None else self.channel.transpose(axes)
        gain = self.gain.transpose(*axes, len(axes))
        return replace(self, offset=self.offset.transpose(axes), gain=gain, channel=channel)

    def scaled(self, factor: Array, shift: Array) -> "Affine":
        """Elementwise factor * T + shift, both of shape S or broadcasting to it."""
        gain = self.gain * np.broadcast_to(factor, self.shape)[..., None]
        return replace(self, gain=gain, offset=self.offset * factor + shift)

    def linear(self, weights: Array, shape: tuple[int, ...]) -> "Affine":
        """A linear layer over all elements: weights (K, size of S), result of shape ``shape``."""
        flat = self.gain.reshape(self.offset.size, -1)
        if self.channel is None:
            gain = weights @ flat
        else:
            gain = np.zeros((len(weights), self.channels))
            gain[:, self.channel.ravel()] = weights * flat[:, 0]
        return replace(
            self,
            offset=(weights @ self.offset.ravel()).reshape(shape),
            gain=gain.reshape(*shape, self.channels),
            channel=None,
        )


def apply(graph: Graph, shapes: Shapes, node: Node, state: Affine) -> Affine:
    """The map behind a node, from the map before it.

    Raises:
        NotAffine: The node is not an affine function of one tensor that this module knows.
    """
    try:
        if node.is_op("Gemm", "MatMul"):
            return _matrix_product(graph, node, state)
        if node.is_op("Conv"):
            return _convolution(graph, node, state)
        if facts(node).arithmetic:
            return _arithmetic(graph, node, state)
        if node.is_op("BatchNormalization"):
            return _batch_normalisation(graph, node, state)
        if _is_unchanged(node):
            return state
        return _rearranged(graph, shapes, node, state)
    except (ValueError, TypeError, IndexError) as error:
        reason = f"its sizes do not fit the {state.channels} pooled channels ({error})"
        raise NotAffine(node, reason) from error


def _is_unchanged(node: Node) -> bool:
    """Whether values stay as they are, up to rounding."""
    return node.domain == "" and facts(node).carries


def _is_foldable(node: Node) -> bool:
    """Whether a constant is followed through a node."""
    known = facts(node)
    return known.copies or known.reshapes or node.is_op("Transpose", "DequantizeLinear")


def data_input(graph: Graph, node: Node) -> str:
    """The one input that the affine map runs through.

    Raises:
        NotAffine: The node is not affine in one computed tensor.
    """
    if node.is_op("Cast") and node.attributes.get("to") in _INTEGERS:
        before = graph.producer(node.inputs[0])
        if before is None or not before.is_op("QuantizeLinear", "Cast"):
            raise NotAffine(node, "it rounds to integers")
    if node.is_op("Gemm", "MatMul") or facts(node).arithmetic:
        return _one_computed(graph, node)
    if node.is_op("Conv", "BatchNormalization"):
        if not all(is_constant(graph, name) for name in node.inputs[1:] if name):
            raise NotAffine(node, "its weights are computed")
        kernel = node.attributes.get("kernel_shape") or []
        if any(k != 1 for k in kernel):
            size = "x".join(str(k) for k in kernel)
            raise NotAffine(node, f"its {size} kernel gives every position its own weight")
        return node.inputs[0]
    if _is_unchanged(node) or facts(node).reshapes or node.is_op("Transpose"):
        return node.inputs[0]
    raise NotAffine(node, "it is not an affine operator")


def _one_computed(graph: Graph, node: Node) -> str:
    """The one operand that is not constant."""
    computed = [name for name in node.inputs if name and not is_constant(graph, name)]
    if len(computed) != 1:
        raise NotAffine(node, "it joins two computed tensors")
    if node.is_op("Div") and computed[0] == node.inputs[1]:
        raise NotAffine(node, "it divides by what was computed")
    if node.is_op("Gemm") and computed[0] not in node.inputs[:2]:
        raise NotAffine(node, "its product is constant")
    return computed[0]


def is_constant(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is a constant, or weights dequantised, cast or rearranged."""
    for _ in range(16):
        if graph.initialiser(tensor) is not None:
            return True
        node = graph.producer(tensor)
        if node is None:
            return False
        if node.is_op("Constant"):
            return True
        if not _is_foldable(node) and not node.is_op("ConstantOfShape"):
            return False
        tensor = node.inputs[0]
    return False


def is_rounded(graph: Graph, node: Node) -> bool:
    """Whether the node rounds, or its weights were rounded to integers."""
    if node.is_op("QuantizeLinear", "DequantizeLinear"):
        return True
    for name in node.inputs:
        maker = graph.producer(name)
        while maker is not None and _is_foldable(maker) and is_constant(graph, name):
            if maker.is_op("DequantizeLinear"):
                return True
            maker = graph.producer(maker.inputs[0])
    return False


def folded(graph: Graph, tensor: str) -> Array:
    """Value of a tensor for which :func:`is_constant` holds.

    Raises:
        ValueError: It cannot be computed.
    """
    value = graph.constant(tensor)
    if value is not None:
        return value.astype(np.float64)
    node = graph.producer(tensor)
    if node is None or not (_is_foldable(node) or node.is_op("ConstantOfShape")):
        raise ValueError(f"{clean_text(tensor)!r} is not constant")
    if node.is_op("DequantizeLinear"):
        return _dequantised(graph, node)
    value = folded(graph, node.inputs[0])
    if node.is_op("ConstantOfShape"):
        return _filled(node, value)
    return _moved(graph, node, value)


def _moved(graph: Graph, node: Node, value: Array) -> Array:
    """A constant behind a node that rearranges it, or leaves it alone."""
    if node.is_op("Transpose"):
        return value.transpose(node.attributes.get("perm"))
    if node.is_op("Reshape"):
        return value.reshape(_integers(graph, node, "shape") or ())
    if node.is_op("Flatten"):
        axis = node.attributes.get("axis", 1)
        return value.reshape(int(np.prod(value.shape[:axis])), -1)
    axes = tuple(_integers(graph, node, "axes") or ())
    if node.is_op("Squeeze"):
        return value.squeeze(axes or None)
    return np.expand_dims(value, axes) if node.is_op("Unsqueeze") else value


def _filled(node: Node, shape: Array) -> Array:
    """``ConstantOfShape``; a few bytes of a file may ask for any amount of memory."""
    if float(np.prod(shape)) > _MAX_FILLED:
        raise ValueError("a constant of too many elements")
    fill = node.attributes.get("value")
    value = 0.0 if fill is None else float(numpy_helper.to_array(fill).ravel()[0])
    return np.full([int(d) for d in shape], value)


def _dequantised(graph: Graph, node: Node) -> Array:
    """(q - zero point) * scale, per tensor or along ``axis``."""
    if node.attributes.get("block_size", 0):
        raise ValueError("weights quantised in blocks")
    q = folded(graph, node.inputs[0])
    scale = folded(graph, node.inputs[1])
    has_zero = len(node.inputs) > 2 and node.inputs[2]
    zero = folded(graph, node.inputs[2]) if has_zero else np.zeros(())
    if scale.size > 1:
        shape = [1] * q.ndim
        shape[node.attributes.get("axis", 1)] = scale.size
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if zero.size > 1 else zero.reshape(())
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    return (q - zero) * scale


def _integers(graph: Graph, node: Node, name: str) -> list[int] | None:
    """An attribute that later opsets made the second input; None when it is not constant."""
    if name in node.attributes:
        return [int(v) for v in node.attributes[name]]
    if len(node.inputs) < 2 or not node.inputs[1]:
        return []
    value = graph.constant(node.inputs[1])
    return None if value is None else [int(v) for v in value.ravel()]


def _matrix_product(graph: Graph, node: Node, state: Affine) -> Affine:
    data = data_input(graph, node)
    left = data == node.inputs[0]
    other = folded(graph, node.inputs[1 if left else 0])
    flip_data = node.attributes.get("transA" if left else "transB", 0)
    if node.attributes.get("transB" if left else "transA", 0):
        other = other.T
    other = other.reshape(other.shape[-2:])
    # x·B needs the batch in front, A·x behind.
    batch_last = state.batch_last != bool(flip_data)
    if batch_last == left:
        raise NotAffine(node, "it multiplies along the batch axis")
    weights = (other.T if left else other) * node.attributes.get("alpha", 1.0)
    if left and state.shape[-1] != state.offset.size:
        raise NotAffine(node, "it multiplies along an axis that is not the channels")
    shape = (*state.shape[:-1], len(weights)) if left else (len(weights),)
    result = replace(state.linear(weights, shape), batch_last=batch_last)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = folded(graph, node.inputs[2]) * node.attributes.get("beta", 1.0)
        result = result.scaled(np.ones(()), _aligned(node, bias, result))
    return result


def _convolution(graph: Graph, node: Node, state: Affine) -> Affine:
    weights = folded(graph, node.inputs[1])
    if weights[0, 0].size != 1 or any(node.attributes.get("pads", [])):
        size = "x".join(map(str, weights.shape[2:]))
        raise NotAffine(node, f"its {size} kernel gives every position its own weight")
    if node.attributes.get("group", 1) != 1:
        raise NotAffine(node, "it is a grouped convolution")
    if state.shape[0] != state.offset.size or len(state.shape) != weights.ndim - 1:
        raise NotAffine(node, "its input is not the pooled channels in front")
    result = state.linear(weights.reshape(len(weights), -1), (len(weights), *state.shape[1:]))
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = folded(graph, node.inputs[2]).reshape(result.shape)
        result = result.scaled(np.ones(()), bias)
    return result


def _arithmetic(graph: Graph, node: Node, state: Affine) -> Affine:
    data = data_input(graph, node)
    first = data == node.inputs[0]
    constant = _aligned(node, folded(graph, node.inputs[1 if first else 0]), state)
    zero, one = np.zeros(()), np.ones(())
    if node.is_op("Add"):
        return state.scaled(one, constant)
    if node.is_op("Sub"):
        return state.scaled(one, -constant) if first else state.scaled(-one, constant)
    return state.scaled(constant if node.is_op("Mul") else 1.0 / constant, zero)


def _aligned(node: Node, constant: Array, state: Affine) -> Array:
    """A constant operand without its batch axis, ready to broadcast against S."""
    rank = len(state.shape) + 1
    if constant.size == 1:
        return constant.reshape(())
    if state.batch_last:
        if constant.shape[-1] != 1:
            raise ValueError("a constant along the batch axis")
        return constant.reshape(state.shape)
    if node.attributes.get("broadcast") and "axis" in node.attributes:  # before opset 7
        after = rank - node.attributes["axis"] - constant.ndim
        constant = constant.reshape(*constant.shape, *(1 for _ in range(after)))
    while constant.ndim > 1 and constant.ndim >= rank and constant.shape[0] == 1:
        constant = constant[0]
    if constant.ndim >= rank or np.broadcast_shapes(constant.shape, state.shape) != state.shape:
        raise ValueError(f"a constant of shape {constant.shape}")
    return constant


def _batch_normalisation(graph: Graph, node: Node, state: Affine) -> Affine:
    if node.attributes.get("training_mode", 0):
        raise NotAffine(node, "it normalises by the statistics of the batch")
    scale, shift, mean, variance = (folded(graph, name) for name in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    column = (-1, *(1 for _ in state.shape[1:]))
    return state.scaled(factor.reshape(column), (shift - mean * factor).reshape(column))


def _rearranged(graph: Graph, shapes: Shapes, node: Node, state: Affine) -> Affine:
    rank = len(state.shape) + 1
    if node.is_op("Transpose"):
        perm = node.attributes.get("perm", list(range(rank))[::-1])
        if list(perm) == [1, 0] and rank == 2:
            return replace(state, batch_last=not state.batch_last)
        if perm[0] != 0 or len(perm) != rank:
            raise NotAffine(node, "it moves the batch axis")
        return state.transposed(tuple(p - 1 for p in perm[1:]))
    if state.batch_last:
        raise NotAffine(node, "it rearranges a transposed batch")
    return state.reshaped(_new_shape(graph, shapes, node, state))


def _new_shape(graph: Graph, shapes: Shapes, node: Node, state: Affine) -> tuple[int, ...]:
    """Shape behind a reshaping node, without the batch axis."""
    size, rank = state.offset.size, len(state.shape) + 1
    if node.is_op("Flatten"):
        if node.attributes.get("axis", 1) % rank != 1:
            raise NotAffine(node, "it folds channels into the batch")
        return (size,)
    if node.is_op("Reshape"):
        target = _integers(graph, node, "shape")
        if target:
            target = [state.shape[i - 1] if i and not v else v for i, v in enumerate(target)]
        else:
            declared = shapes.of(node.outputs[0]) or ()
            target = [-1 if d is None else d for d in declared]
        fixed = abs(int(np.prod(target[1:]))) if len(target) > 1 else size
        if fixed != size and -1 not in target[1:]:
            raise NotAffine(node, f"it cuts {size} values a sample into rows of {fixed}")
        # Only the place of axes of size 1 is lost when a computed shape is not declared.
        return tuple(target[1:]) if target[1:].count(-1) < 2 and target[1:] else (size,)
    axes = _integers(graph, node, "axes")
    if axes is None:
        raise NotAffine(node, "its axes are computed")
    if node.is_op("Unsqueeze"):
        axes = [a % (rank + len(axes)) for a in axes]
        if 0 in axes:
            raise NotAffine(node, "it adds an axis before the batch")
        return tuple(np.expand_dims(np.empty((1, *state.shape)), tuple(axes)).shape[1:])
    axes = [a % rank for a in axes] or [i + 1 for i, d in enumerate(state.shape) if d == 1]
    if 0 in axes:
        raise NotAffine(node, "it drops the batch axis")
    return tuple(d for i, d in enumerate(state.shape, start=1) if i not in axes)

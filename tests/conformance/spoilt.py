"""Int8 networks spoilt at one layer, as slips of a quantiser or of a hand spoil them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Array = np.ndarray[Any, Any]


class QdqFile:
    """A QDQ file whose constants can be changed: names by the tensor that they quantise."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load_model(path)
        self.graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}

    def value(self, name: str) -> Array:
        return numpy_helper.to_array(self.constants[name]).copy()

    def put(self, name: str, value: Array) -> None:
        old = self.value(name)
        assert old.shape == value.shape
        fixed = np.ascontiguousarray(value).astype(old.dtype)
        assert not np.array_equal(fixed, old), f"{name} is as it was"
        self.constants[name].CopyFrom(numpy_helper.from_array(fixed, name))

    def save(self, path: Path) -> Path:
        onnx.save(self.model, path)
        return path

    def weighted(self) -> list[tuple[Any, str, str, str]]:
        """Convolutions and matrix products: node, constants of its weights, scale and zero."""
        makers = {name: node for node in self.graph.node for name in node.output}
        found = []
        for node in self.graph.node:
            if node.op_type not in {"Conv", "Gemm", "MatMul"}:
                continue
            maker = makers.get(node.input[1])
            if maker is not None and maker.op_type == "DequantizeLinear":
                found.append((node, *maker.input[:3]))
        return found

    def activations(self) -> list[tuple[Any, str, str]]:
        """Quantisers of what the network computes: node, scale and zero point."""
        return [
            (node, *node.input[1:3])
            for node in self.graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] not in self.constants
        ]

    def quantiser_behind(self, tensor: str) -> tuple[str, str]:
        """Scale and zero point of a tensor."""
        return next(names for node, *names in self.activations() if node.input[0] == tensor)  # type: ignore[return-value]

    def rename(self, scale: str, zero: str, tensor: str) -> tuple[str, str]:
        """Constants of their own for the pair of one tensor, in both of its nodes."""
        names = f"{tensor}.own_scale", f"{tensor}.own_zero"
        for old, new in zip((scale, zero), names, strict=True):
            added = self.graph.initializer.add()
            added.CopyFrom(numpy_helper.from_array(self.value(old), new))
            self.constants[new] = added
        quantiser = next(n for n, *_ in self.activations() if n.input[0] == tensor)
        for node in self.graph.node:
            if node is quantiser or (
                node.op_type == "DequantizeLinear" and node.input[0] == quantiser.output[0]
            ):
                node.input[1], node.input[2] = names
        return names


Spoil = Callable[[QdqFile, int], str]
"""Spoils the layer of a number, and returns the tensor of the float network that it makes."""


def _output(file: QdqFile, place: int) -> str:
    return str(file.weighted()[place][0].output[0])


def zero_point(file: QdqFile, place: int) -> str:
    """The zero point of a layer's output is a fifth of the levels too high."""
    tensor = _output(file, place)
    _, zero = file.rename(*file.quantiser_behind(tensor), tensor)
    file.put(zero, (file.value(zero).astype(int) + 50) % 256)
    return tensor


def narrow_range(file: QdqFile, place: int) -> str:
    """The range of a layer's output is a quarter of what it needs: it saturates."""
    tensor = _output(file, place)
    scale, _ = file.rename(*file.quantiser_behind(tensor), tensor)
    file.put(scale, file.value(scale) / 4)
    return tensor


def wide_range(file: QdqFile, place: int) -> str:
    """The range of a layer's output is sixteen times too wide: levels are coarse."""
    tensor = _output(file, place)
    scale, _ = file.rename(*file.quantiser_behind(tensor), tensor)
    file.put(scale, file.value(scale) * 16)
    return tensor


def lost_relu(file: QdqFile, place: int) -> str:
    """The clamp that was the ReLU lets negative values through."""
    tensor = _output(file, place)
    scale, zero = file.rename(*file.quantiser_behind(tensor), tensor)
    assert file.value(zero) == 0
    file.put(zero, file.value(zero) + 128)
    file.put(scale, file.value(scale) * 2)
    return tensor


def wrong_scale(file: QdqFile, place: int) -> str:
    """The scale of a layer's weights is a third too large."""
    node, _, scale, _ = file.weighted()[place]
    file.put(scale, file.value(scale) * 1.33)
    return str(node.output[0])


def one_scale_for_all(file: QdqFile, place: int) -> str:
    """Every channel's weights are taken with the first channel's scale."""
    node, _, scale, _ = file.weighted()[place]
    old = file.value(scale)
    file.put(scale, np.full_like(old, old.reshape(-1)[0]))
    return str(node.output[0])


def wrong_axis(file: QdqFile, place: int) -> str:
    """The scales of the output channels are laid on the input channels."""
    node, weights, _, _ = file.weighted()[place]
    shape = file.value(weights).shape
    assert shape[0] == shape[1]
    maker = next(n for n in file.graph.node if n.output[0] == node.input[1])
    (axis,) = [one for one in maker.attribute if one.name == "axis"]
    assert axis.i == 0
    axis.i = 1
    return str(node.output[0])


def weight_zero_point(file: QdqFile, place: int) -> str:
    """The weights' zero point is not 0."""
    node, _, _, zero = file.weighted()[place]
    file.put(zero, file.value(zero) + 12)
    return str(node.output[0])


def few_bits(file: QdqFile, place: int) -> str:
    """The weights keep three of their eight bits."""
    node, weights, _, _ = file.weighted()[place]
    file.put(weights, np.round(file.value(weights) / 32.0).clip(-3, 3) * 32)
    return str(node.output[0])


def swapped_channels(file: QdqFile, place: int) -> str:
    """The scales of the channels stand in another order."""
    node, _, scale, _ = file.weighted()[place]
    file.put(scale, np.roll(file.value(scale), 1))
    return str(node.output[0])


def wrong_bias(file: QdqFile, place: int) -> str:
    """The bias counts twice as much."""
    node = file.weighted()[place][0]
    maker = next(n for n in file.graph.node if n.output[0] == node.input[2])
    file.put(maker.input[0], file.value(maker.input[0]) * 2)
    return str(node.output[0])


def wrong_layout(file: QdqFile, place: int) -> str:
    """The kernels are turned: rows for columns."""
    node, weights, _, _ = file.weighted()[place]
    file.put(weights, file.value(weights).swapaxes(-1, -2))
    return str(node.output[0])


@dataclass(frozen=True)
class Case:
    """One spoilt file."""

    network: str
    spoil: Spoil
    place: int

    @property
    def name(self) -> str:
        return f"{self.network}-{self.spoil.__name__}-{self.place}"


def cases() -> Iterator[Case]:
    yield Case("resnet20", zero_point, 3)
    yield Case("resnet20", lost_relu, 7)
    yield Case("resnet20", wrong_axis, 12)
    yield Case("zfnet", narrow_range, 1)
    yield Case("zfnet", wrong_scale, 3)
    yield Case("zfnet", weight_zero_point, 2)
    yield Case("all_cnn_c", wide_range, 4)
    yield Case("all_cnn_c", few_bits, 2)
    yield Case("all_cnn_c", swapped_channels, 6)
    yield Case("conv_pool_cnn_c", one_scale_for_all, 5)
    yield Case("conv_pool_cnn_c", wrong_bias, 3)
    yield Case("conv_pool_cnn_c", wrong_layout, 1)

"""Small networks of one operator, for gradients written as ONNX against the twin's."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import helper, numpy_helper

from converters.onnx_file import from_proto
from inspector.engines.gradient_graph import GradientGraph
from inspector.engines.rules import Rule
from inspector.engines.twin import TwinEngine

Array = np.ndarray


@dataclass(frozen=True)
class Weighted:
    """The number that is differentiated: all elements of a tensor, with weights."""

    weights: Array
    tensors: tuple[str, ...] = ("y",)
    linear: bool = True

    def of(self, values: Any) -> Any:
        (array,) = (values[name] for name in self.tensors)
        weights = self.weights
        if not isinstance(array, np.ndarray):
            weights = array.new_tensor(weights)
        return (array * weights).reshape(array.shape[0], -1).sum(1)

    def slope(self, values: Any, tensor: str, rows: list[int]) -> Array:
        array = values[tensor]
        found = np.zeros(array.shape, np.float32)
        found[rows] = self.weights[rows]
        return found


@dataclass(frozen=True)
class Case:
    """One operator with its attributes, and what it is fed.

    Attributes:
        op_type: The operator.
        shape: Of the input x, samples included.
        constants: The other inputs, in order; None for one that is left out.
        attributes: Of the node.
        opset: The opset.
        low: Least value of x.
        high: Greatest value of x.
        place: Which input x is.
        domain: Of the operator.
        outputs: How many the node has; the first one is differentiated.
    """

    op_type: str
    shape: tuple[int, ...] = (2, 3, 6, 7)
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    low: float = -2.0
    high: float = 2.0
    place: int = 0
    domain: str = ""
    outputs: int = 1

    def __str__(self) -> str:
        given = ",".join(f"{k}={v}" for k, v in self.attributes.items())
        return f"{self.op_type}-{self.opset}({given})x{self.place}{list(self.shape)}"

    def file(self):
        """The network as an opened file: x, the operator, y."""
        inputs, constants = [], {}
        for position, value in enumerate(self.constants):
            name = "" if value is None else f"c{position}"
            inputs.append(name)
            if value is not None:
                constants[name] = np.asarray(value)
        inputs.insert(self.place, "x")
        graph = helper.make_graph(
            [
                helper.make_node(
                    self.op_type,
                    inputs,
                    ["y", *(f"y{i}" for i in range(1, self.outputs))],
                    domain=self.domain,
                    **self.attributes,
                )
            ],
            "case",
            [helper.make_tensor_value_info("x", 1, ["N", *self.shape[1:]])],
            [helper.make_tensor_value_info("y", 1, None)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))

    def feed(self) -> Array:
        values = np.random.default_rng(3).uniform(self.low, self.high, self.shape)
        return values.astype(np.float32)


def differences(case: Case, rule: Rule | None = None) -> tuple[float, GradientGraph]:
    """Largest difference from the twin's signal, relative to its peak, and the engine."""
    file, x = case.file(), case.feed()
    graph, twin = GradientGraph(file), TwinEngine(file.graph)
    known = graph._runtime(file.model).run({"x": x}, ["y"])["y"]
    weights = np.random.default_rng(4).normal(size=known.shape).astype(np.float32)
    targets = [Weighted(weights)] * len(x)
    found = graph.signals({"x": x}, {}, targets, rule)["x"]
    expected = twin.signals({"x": x}, {}, targets, rule)["x"]
    assert found.shape == expected.shape == x.shape
    assert found.dtype == np.float32
    peak = max(float(np.abs(expected).max()), 1e-12)
    return float(np.abs(found - expected).max()) / peak, graph


def slope_by_differences(case: Case) -> tuple[float, float]:
    """Slope along a direction: the gradient's, and that of central differences in float64."""
    file, x = case.file(), case.feed()
    twin = TwinEngine(file.graph, dtype=torch.float64)
    graph = GradientGraph(file)
    known = graph._runtime(file.model).run({"x": x}, ["y"])["y"]
    weights = np.random.default_rng(4).normal(size=known.shape)
    targets = [Weighted(weights)] * len(x)
    direction = np.random.default_rng(5).normal(size=x.shape)
    found = graph.signals({"x": x}, {}, targets)["x"].astype(np.float64)
    step = 1e-6
    wide = x.astype(np.float64)
    ahead = twin.scores({"x": wide + step * direction}, {}, targets).sum()
    behind = twin.scores({"x": wide - step * direction}, {}, targets).sum()
    return float((found * direction).sum()), float((ahead - behind) / (2 * step))

"""From a node to a call: everything that is known of its arguments is fixed before it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from torch import Tensor

from converters.errors import ConverterError
from converters.graph import Graph, Node
from converters.to_torch.gaps import IGNORED
from converters.to_torch.optable import Body, Op, OpTable, Parameter, unpack
from converters.to_torch.values import NARROW, TORCH_TYPES, CannotBind, as_tensor

__all__ = ["Compiler", "Step", "Subgraph"]


class Subgraph(Protocol):
    """The body of If, Loop or Scan, which also reads tensors of the graph around it."""

    captures: tuple[str, ...]
    """Names of the tensors that it reads from around it."""

    def bind(self, env: Mapping[str, Tensor], rules: OpTable | None) -> Body:
        """A callable body, for the tensors around it and a backward rule."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """One compiled call: where its values come from and where its results go."""

    node: Node
    call: Callable[..., Any]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    captures: tuple[str, ...] = ()
    bodies: Mapping[str, Subgraph] | None = None
    rule: bool = False

    def without(self, fed: frozenset[str]) -> "Step":
        """The step, made to leave tensors alone that are fed."""
        if fed.isdisjoint(self.outputs):
            return self
        return replace(self, outputs=tuple("" if n in fed else n for n in self.outputs))

    def followed(self, behind: Mapping[str, Callable[[Tensor], Tensor]]) -> "Step":
        """The step, with what a rule does to its outputs behind it."""
        after = [behind.get(name) for name in self.outputs]
        if not any(after):
            return self

        def call(*values: Any, **bodies: Any) -> Any:
            result = self.call(*values, **bodies)
            if not isinstance(result, tuple):
                return after[0](result) if after[0] else result
            made = zip(result, after, strict=False)
            return tuple(then(value) if then else value for value, then in made)

        return replace(self, call=call, rule=True)

    def run(self, env: dict[str, Tensor], rules: OpTable | None) -> None:
        """Compute the outputs of one node into ``env``."""
        values = [env[name] if name else None for name in self.sources]
        if self.bodies:
            result = self.call(
                *values, **{k: child.bind(env, rules) for k, child in self.bodies.items()}
            )
        else:
            result = self.call(*values)
        if isinstance(result, tuple):
            made = zip(self.outputs, result, strict=False)
            env.update((name, value) for name, value in made if name)
        else:
            env[self.outputs[0]] = result


@dataclass(frozen=True)
class _Fixed:
    """A positional argument that is known before anything runs."""

    value: Any


class Compiler:
    """Compiles the nodes of one graph.

    Args:
        graph: The graph.
        dtype: Precision of every float16, bfloat16 and float32 tensor.
        device: Where constants lie.
        constant: Value of a tensor that depends on no input; None for any other.
        subgraph: Makes the body of If, Loop or Scan.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        dtype: torch.dtype,
        device: torch.device,
        constant: Callable[[str], Tensor | None],
        subgraph: Callable[[onnx.GraphProto], Subgraph],
    ) -> None:
        self.graph, self.dtype, self.device = graph, dtype, device
        self._constant, self._subgraph = constant, subgraph

    def step(self, node: Node, op: Op, *, rule: bool) -> Step:
        """Compile a node.

        Args:
            node: The node.
            op: The function that computes it.
            rule: Whether the function is a backward rule's.

        Raises:
            CannotBind: The function does not take what the node gives it.
        """
        keywords: dict[str, Any] = {}
        bodies: dict[str, Subgraph] = {}
        attributes = dict(node.attributes)
        sources, converters = self._positional(node, op, attributes)
        for name, value in attributes.items():
            parameter = op.attributes.get(name)
            if parameter is None:
                self._check_ignorable(node, name, value)
            elif isinstance(value, onnx.GraphProto):
                bodies[name] = self._subgraph(value)
            else:
                keywords[name] = self._attribute(value, parameter)
        for name, parameter in op.attributes.items():
            if parameter.required and name not in keywords and name not in bodies:
                raise CannotBind(f"attribute {name!r} is missing")
        if op.wants_n_outputs:
            keywords["n_outputs"] = len(node.outputs)
        if "zero_point_type" in op.attributes and len(node.inputs) > 2:
            keywords["zero_point_type"] = self.graph.elem_type(node.inputs[2])
        captures = {name for child in bodies.values() for name in child.captures}
        return Step(
            node=node,
            call=_call(op.function, converters, keywords),
            sources=sources,
            outputs=node.outputs,
            captures=tuple(sorted(captures)),
            bodies=bodies or None,
            rule=rule,
        )

    def tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        """An array as a tensor in the graph's precision and on its device.

        Raises:
            ConverterError: The array holds no numbers.
        """
        try:
            tensor = as_tensor(array)
        except CannotBind as error:
            raise ConverterError(
                f"the twin computes with numbers, and the model holds {error}"
            ) from error
        if tensor.dtype in NARROW:
            tensor = tensor.to(self.dtype)
        return tensor.to(self.device)

    def resolve_dtype(self, elem_type: int) -> torch.dtype:
        """The torch type that stands for an ONNX element type in the graph's precision.

        Raises:
            CannotBind: There is none.
        """
        if not isinstance(elem_type, int):
            raise CannotBind(f"element type {elem_type!r}")
        dtype = TORCH_TYPES.get(elem_type)
        if dtype is None:
            raise CannotBind(f"element type {onnx.TensorProto.DataType.Name(elem_type)}")
        return self.dtype if dtype in NARROW else dtype

    def _positional(
        self, node: Node, op: Op, attributes: dict[str, Any]
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Where each positional parameter comes from.

        Returns:
            The tensor names to read while running, and for each position either the kind to
            unpack a tensor into (None: pass as it is) or a ``_Fixed`` value.
        """
        sources: list[str] = []
        converters: list[Any] = []
        if len(node.inputs) > len(op.inputs) and not op.variadic:
            raise CannotBind(f"{len(node.inputs)} inputs where {len(op.inputs)} are known")
        for position, parameter in enumerate(op.inputs):
            name = node.inputs[position] if position < len(node.inputs) else ""
            if name:
                constant = None if parameter.kind is Tensor else self._constant(name)
                if constant is not None:
                    converters.append(_Fixed(unpack(constant, parameter.kind)))
                    continue
                sources.append(name)
                converters.append(None if parameter.kind is Tensor else parameter.kind)
            elif parameter.name in attributes:
                value = self._attribute(attributes.pop(parameter.name), parameter)
                converters.append(_Fixed(value))
            elif parameter.required:
                raise CannotBind(f"input {parameter.name!r} is missing")
            else:
                converters.append(_Fixed(parameter.default))
        for name in node.inputs[len(op.inputs) :]:
            sources.append(name)
            converters.append(None)
        return tuple(sources), tuple(converters)

    def _attribute(self, value: Any, parameter: Parameter) -> Any:
        if parameter.kind is torch.dtype:
            return self.resolve_dtype(value)
        if isinstance(value, onnx.TensorProto):
            tensor = self.tensor(self.graph.array(value))
            return tensor if parameter.kind is Tensor else unpack(tensor, parameter.kind)
        if parameter.kind is Tensor:
            tensor = torch.as_tensor(value, device=self.device)
            return tensor.to(self.dtype) if tensor.is_floating_point() else tensor
        return unpack(value, parameter.kind)

    def _check_ignorable(self, node: Node, name: str, value: Any) -> None:
        """Require the schema's default of an attribute that the function does not know."""
        if name in IGNORED:
            return
        try:
            schema = onnx.defs.get_schema(node.op_type, self.graph.opset(node.domain), node.domain)
            default = schema.attributes[name].default_value
        except (onnx.defs.SchemaError, KeyError):
            raise CannotBind(f"attribute {name!r} is not implemented") from None
        if default.type and onnx.helper.get_attribute_value(default) == value:
            return
        raise CannotBind(f"attribute {name} = {value!r} is not implemented")


def _call(
    function: Callable[..., Any], converters: tuple[Any, ...], keywords: dict[str, Any]
) -> Callable[..., Any]:
    """Wrap a function so that it takes only the tensors that are read while running."""
    if all(kind is None for kind in converters):
        if not keywords:
            return function
        return lambda *values, **bodies: function(*values, **keywords, **bodies)
    tail = len(converters)
    while tail and isinstance(converters[tail - 1], _Fixed):
        tail -= 1
    if all(kind is None for kind in converters[:tail]):  # the usual case: fixed values come last
        fixed = tuple(item.value for item in converters[tail:])
        return lambda *values, **bodies: function(*values, *fixed, **keywords, **bodies)

    def call(*values: Tensor, **bodies: Body) -> Any:
        taken = iter(values)
        arguments = []
        for kind in converters:
            if isinstance(kind, _Fixed):
                arguments.append(kind.value)
                continue
            value = next(taken)
            known = kind is None or value is None
            arguments.append(value if known else unpack(value, kind))
        return function(*arguments, **keywords, **bodies)

    return call

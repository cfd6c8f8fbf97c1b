"""Which function writes which TFLite operator, and how an operator's options reach it.

The signature of such a function *is* the operator's specification:

* after the graph, positional parameters are the operator's inputs in order, as `Tensor`; one that
  may be left out has the default None, and ``*values`` takes any number;
* keyword-only parameters are its options under the schema's names, with the schema's defaults;
* the name ``outputs`` is reserved for the operator's outputs, and ``operator`` for itself.

It writes ONNX nodes by the methods of the graph and gives every output its value.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.model import Operator, Tensor

if TYPE_CHECKING:
    from converters.to_onnx.tflite.graph import Graph

__all__ = ["OPS", "OpTable"]

Writer = Callable[..., None]

_RESERVED = ("outputs", "operator")


class OpTable:
    """Functions by name of the operator they write."""

    def __init__(self) -> None:
        """Start empty."""
        self._writers: dict[str, Writer] = {}

    def register(self, *op_types: str) -> Callable[[Writer], Writer]:
        """Register a function for one or more operators."""

        def keep(function: Writer) -> Writer:
            for op_type in op_types:
                if op_type in self._writers:
                    msg = f"{op_type} is registered twice"
                    raise ValueError(msg)
                self._writers[op_type] = function
            return function

        return keep

    def __contains__(self, op_type: str) -> bool:
        """Whether an operator has a function."""
        return op_type in self._writers

    def __iter__(self) -> Iterator[str]:
        """Names of the operators, sorted."""
        return iter(sorted(self._writers))

    def write(
        self,
        graph: "Graph",
        operator: Operator,
        inputs: list[Tensor | None],
        outputs: list[Tensor],
    ) -> None:
        """Write one operator into a graph.

        Raises:
            ConversionFailed: An input that it needs is left out, or there are more than it has.
        """
        function = self._writers[operator.op_type]
        known: dict[str, Any] = {}
        least = most = 0
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_POSITIONAL:
                most = len(inputs)
            elif parameter.kind is not parameter.KEYWORD_ONLY:
                most += 1
                least += parameter.default is parameter.empty
            elif name in _RESERVED:
                known[name] = outputs if name == "outputs" else operator
            else:
                known[name] = operator.option(name, parameter.default)
        if len(inputs) > most or not all(inputs[:least]) or len(inputs) < least:
            raise ConversionFailed(f"has {len(inputs)} inputs in the place of {least} to {most}")
        function(graph, *inputs, **known)


OPS = OpTable()
"""The operators of the schema; the modules of ``converters.to_onnx.tflite.ops`` fill it."""

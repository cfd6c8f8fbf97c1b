"""Which function stands for which ONNX operator, and how a node's values reach it.

The signature of such a function *is* the operator's specification:

* positional parameters are the ONNX inputs, in order and under the schema's names;
  ``*values`` takes a variadic input;
* keyword-only parameters are the attributes, with the schema's defaults;
* a positional parameter may also be fed by an older opset's attribute of the same name, so one
  function serves ``Clip``, ``Squeeze``, ``Slice``, ``ReduceMean`` ... of every opset;
* two keyword-only names are reserved: ``n_outputs`` receives the number of outputs that the node
  asks for, ``zero_point_type`` the ONNX element type of its third input (0 when unknown).

Annotations say in which form a value is wanted.  ``Tensor`` is passed as it is; ``int``,
``float``, ``bool``, ``str``, ``tuple[int, ...]``, ``tuple[float, ...]`` and
``tuple[str, ...]`` are unpacked from constants while the program is compiled, or from tensors
while it runs; ``torch.dtype`` is an ONNX element type under the program's precision; ``Body``
is a subgraph that can be called.  ``X | None = None`` is an optional input.
"""

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["OPS", "Body", "Op", "OpTable", "Parameter", "unpack"]

Key = tuple[str, str]
F = TypeVar("F", bound=Callable[..., Any])


class Body(Protocol):
    """A subgraph (of If, Loop, Scan) that an operator can call."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the body on its formal inputs."""
        ...


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operator's function: its name, wanted form and default."""

    name: str
    kind: Any
    default: Any
    optional: bool

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> "Parameter":
        """Read one parameter of a signature."""
        kind, optional = parameter.annotation, False
        if isinstance(kind, types.UnionType):
            members = [a for a in typing.get_args(kind) if a is not type(None)]
            optional = len(members) < len(typing.get_args(kind))
            kind = members[0] if len(members) == 1 else kind
        return cls(parameter.name, kind, parameter.default, optional)

    @property
    def required(self) -> bool:
        """Whether a node must supply a value."""
        return self.default is inspect.Parameter.empty


class Op:
    """One registered function and what its signature says."""

    def __init__(self, function: Callable[..., Any], since: int) -> None:
        """Read the signature once."""
        self.function, self.since = function, since
        self.inputs: list[Parameter] = []
        self.attributes: dict[str, Parameter] = {}
        self.variadic = False
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.variadic = True
            elif parameter.kind is parameter.KEYWORD_ONLY:
                self.attributes[parameter.name] = Parameter.of(parameter)
            else:
                self.inputs.append(Parameter.of(parameter))
        self.wants_n_outputs = self.attributes.pop("n_outputs", None) is not None

    @property
    def description(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


class OpTable:
    """``{(domain, op_type): {since: function}}`` with overlays.

    The entry used is the one with the largest ``since`` that is not above the model's opset.
    """

    def __init__(
        self,
        below: "OpTable | None" = None,
        *,
        exempt: Collection[str] = (),
        behind: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({}),
    ) -> None:
        """Start empty, or as an overlay.

        Args:
            below: Where to look up what is not found here.
            exempt: Tensors whose producers an overlay leaves alone: a Sigmoid that gates is
                not the Sigmoid that activates.
            behind: What an overlay does to single tensors once they are computed: an activation
                function that is part of another operator has no node to be replaced.
        """
        self._below = below
        self.behind = dict(behind)
        self.exempt = frozenset(exempt)
        self._entries: dict[Key, dict[int, Op]] = {}

    def register(self, *op_types: str, since: int = 1, domain: str = "") -> Callable[[F], F]:
        """Register a function for one or more operator types from opset ``since`` on."""

        def keep(function: F) -> F:
            for op_type in op_types:
                versions = self._entries.setdefault((domain, op_type), {})
                if since in versions:
                    msg = f"{domain}::{op_type} since {since} is registered twice"
                    raise ValueError(msg)
                versions[since] = Op(function, since)
            return function

        return keep

    def lookup(self, domain: str, op_type: str, opset: int) -> Op | None:
        """Entry for an operator at an opset; None when there is none."""
        versions = self._entries.get((domain, op_type), {})
        usable = [since for since in versions if since <= opset]
        if usable:
            return versions[max(usable)]
        return self._below.lookup(domain, op_type, opset) if self._below else None

    def __iter__(self) -> Iterator[tuple[str, str, int, Op]]:
        """Yield (domain, op_type, since, op), sorted."""
        for (domain, op_type), versions in sorted(self._entries.items()):
            for since, op in sorted(versions.items()):
                yield domain, op_type, since, op


def unpack(value: Any, kind: Any) -> Any:
    """Bring a tensor (or an attribute's Python value) into the form an annotation asks for.

    Args:
        value: A tensor, or the Python value of an attribute.
        kind: The annotation without ``| None``.

    Returns:
        The value as ``kind``.
    """
    if kind is Tensor:
        return value if isinstance(value, Tensor) else torch.as_tensor(value)
    if isinstance(value, Tensor):
        value = value.tolist() if typing.get_origin(kind) is tuple else value.item()
    if kind in (int, float, bool, str):
        if isinstance(value, list | tuple):  # a one-element tensor where a scalar is meant
            (value,) = value
        return kind(value)
    if typing.get_origin(kind) is tuple:
        member = typing.get_args(kind)[0]
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(member(item) for item in items)
    return value


OPS = OpTable()
"""The operators of the standard; ``converters.to_torch.ops`` fills it."""

"""Which function is the vector-Jacobian product of which operator."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from converters.graph import Node

if TYPE_CHECKING:
    from inspector.surgery.gradient.builder import Builder

__all__ = ["RULES", "CannotDifferentiate", "RuleTable", "Step", "VectorJacobian"]


class CannotDifferentiate(Exception):
    """Why one node has no gradient that can be written down."""


@dataclass(frozen=True)
class Step:
    """One node on the way back.

    Attributes:
        node: The node.
        signals: For each output the name of the signal that arrives there, None where none does.
        wanted: Positions of the inputs whose signal is asked for.
    """

    node: Node
    signals: tuple[str | None, ...]
    wanted: frozenset[int]

    @property
    def signal(self) -> str:
        """The signal at the first output.

        Raises:
            CannotDifferentiate: It arrives at another output alone.
        """
        if self.signals[0] is None:
            raise CannotDifferentiate("the target reads another output than the first one")
        return self.signals[0]

    def input(self, position: int) -> str:
        """Name of an input; empty where it is omitted."""
        inputs = self.node.inputs
        return inputs[position] if position < len(inputs) else ""


VectorJacobian = Callable[["Builder", Step], Mapping[int, str]]
F = TypeVar("F", bound=VectorJacobian)


class RuleTable:
    """``{(domain, op_type): {since: function}}``, looked up like the twin's operators.

    The entry used is the one with the largest ``since`` that is not above the model's opset.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], dict[int, VectorJacobian]] = {}

    def register(self, *op_types: str, since: int = 1, domain: str = "") -> Callable[[F], F]:
        """Register a rule for one or more operator types from opset ``since`` on."""

        def keep(function: F) -> F:
            for op_type in op_types:
                versions = self._entries.setdefault((domain, op_type), {})
                if since in versions:
                    msg = f"{domain}::{op_type} since {since} is registered twice"
                    raise ValueError(msg)
                versions[since] = function
            return function

        return keep

    def lookup(self, domain: str, op_type: str, opset: int) -> VectorJacobian | None:
        """Rule of an operator at an opset; None when there is none."""
        versions = self._entries.get((domain, op_type), {})
        usable = [since for since in versions if since <= opset]
        return versions[max(usable)] if usable else None

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Yield (domain, op_type, since), sorted."""
        for (domain, op_type), versions in sorted(self._entries.items()):
            for since in sorted(versions):
                yield domain, op_type, since


RULES = RuleTable()
"""The rules; the modules of this package fill it."""

"""Fix what is known of a node's arguments, so that running it passes tensors alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from converters.to_torch.optable import Body, unpack

__all__ = ["Fixed", "caller"]


@dataclass(frozen=True)
class Fixed:
    """A positional argument that is known before anything runs."""

    value: Any


def caller(
    function: Callable[..., Any], converters: tuple[Any, ...], keywords: dict[str, Any]
) -> Callable[..., Any]:
    """Wrap a function so that it takes only the tensors that are read while running."""
    if all(kind is None for kind in converters):
        if not keywords:
            return function
        return lambda *values, **bodies: function(*values, **keywords, **bodies)
    tail = len(converters)
    while tail and isinstance(converters[tail - 1], Fixed):
        tail -= 1
    if all(kind is None for kind in converters[:tail]):  # the usual case: fixed values come last
        fixed = tuple(item.value for item in converters[tail:])
        return lambda *values, **bodies: function(*values, *fixed, **keywords, **bodies)

    def call(*values: Tensor, **bodies: Body) -> Any:
        taken = iter(values)
        arguments = []
        for kind in converters:
            if isinstance(kind, Fixed):
                arguments.append(kind.value)
                continue
            value = next(taken)
            known = kind is None or value is None
            arguments.append(value if known else unpack(value, kind))
        return function(*arguments, **keywords, **bodies)

    return call

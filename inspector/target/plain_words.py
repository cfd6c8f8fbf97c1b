"""Targets of a library's caller as words: from texts, class indices and arrays of them."""

from typing import Any

import numpy as np

from inspector.errors import UnknownTarget, UsageError

__all__ = ["plain_targets", "target_text", "target_texts"]


def plain_targets(target: Any) -> Any:
    """A caller's targets, with integers in the place of arrays or tensors of class indices.

    Args:
        target: As the caller gave it; labels of a batch, (N,), become a list of N.
    """
    if isinstance(target, list | tuple):
        inner = [plain_targets(one) for one in target]
        return tuple(inner) if isinstance(target, tuple) else inner
    numbers = hasattr(target, "tolist") and hasattr(target, "ndim")
    return target.tolist() if numbers else target


def target_texts(target: object) -> tuple[str, ...]:
    """The words that name one target or several; a class index may be an integer.

    Args:
        target: A text, an integer, or a list of them.

    Raises:
        UsageError: A value is neither a text nor an integer, or the list is empty.
        UnknownTarget: One is a negative integer.
    """
    several = target if isinstance(target, list | tuple) else (target,)
    if not several:
        raise UsageError("an empty list of targets", hint="leave the target out for the default")
    return tuple(map(target_text, several))


def target_text(target: object) -> str:
    """The words that name one target; a class index may be an integer.

    Raises:
        UsageError: The value is neither a text nor an integer.
        UnknownTarget: It is a negative integer.
    """
    if isinstance(target, str):
        return target
    if isinstance(target, int | np.integer) and not isinstance(target, bool):
        if target < 0:
            raise UnknownTarget(
                f"there is no class {int(target)}",
                hint=f"classes start at 0; the text '{int(target)}' asks for the opposite "
                f"direction of class {-int(target)}",
            )
        return str(int(target))
    raise UsageError(
        f"target: a value of type {type(target).__name__}",
        hint="give top1, a class index, a label, or OUTPUT[i,j,...]",
    )

"""Run a program node by node, and look at every tensor as it is made."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from converters.to_torch.compile import Step
    from converters.to_torch.program import Program

__all__ = ["walk"]

Environment = dict[str, "Tensor"]


def walk(
    program: "Program", feeds: "Mapping[str, Tensor]", names: Iterable[str]
) -> "Iterator[tuple[Step, Environment]]":
    """Compute tensors, keeping each only until it has been read for the last time.

    Args:
        program: The twin.
        feeds: Values by tensor name.
        names: Tensors that must be computed.

    Yields:
        Behind every step the step and all tensors that are alive then, those that it read and
        those that it made among them.

    Raises:
        UnsupportedOperator: Operators on the way that the program cannot run.
        ConverterError: A node that fails.
    """
    import torch

    plan = program.plan(tuple(feeds), tuple(names))
    last: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        for name in (*step.sources, *step.captures, *step.outputs):
            last[name] = index
    environment: Environment = {**plan.constants, **feeds}
    for index, step in enumerate(plan.steps):
        with torch.no_grad():  # not around the yield: the caller's mode is the caller's
            program.run_step(step, environment, None)
        yield step, environment
        for name in (*step.sources, *step.captures, *step.outputs):
            if last.get(name) == index:
                environment.pop(name, None)

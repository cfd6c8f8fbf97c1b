"""Branches and loops: the bodies are child programs, so gradients and rules reach into them."""

import torch
from torch import Tensor

from converters.to_torch.optable import OPS, Body

Ints = tuple[int, ...]


@OPS.register("If")
def if_(cond: bool, *, then_branch: Body, else_branch: Body) -> tuple[Tensor, ...]:
    """Run one of two bodies."""
    return then_branch() if cond else else_branch()


@OPS.register("Loop")
def loop(
    M: int | None = None,
    cond: bool | None = None,
    *v_initial: Tensor,
    body: Body,
    n_outputs: int = 1,
) -> tuple[Tensor, ...]:
    """Run a body up to ``M`` times while its condition holds; stack what it emits."""
    carried: tuple[Tensor, ...] = v_initial
    emitted: list[tuple[Tensor, ...]] = []
    going, step = cond is None or cond, 0
    while going and (M is None or step < M):
        proceed, *values = body(torch.tensor(step), torch.tensor(going), *carried)
        carried = tuple(values[: len(v_initial)])
        emitted.append(tuple(values[len(v_initial) :]))
        going = bool(proceed)
        step += 1
    if not emitted and n_outputs > len(v_initial):
        raise NotImplementedError("a loop that never runs has outputs of no known shape")
    stacked = (torch.stack(parts) for parts in zip(*emitted, strict=True))
    return (*carried, *stacked)


@OPS.register("Scan", since=9)
def scan(
    *initial_state_and_scan_inputs: Tensor,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: Ints | None = None,
    scan_input_directions: Ints | None = None,
    scan_output_axes: Ints | None = None,
    scan_output_directions: Ints | None = None,
) -> tuple[Tensor, ...]:
    """Run a body over the slices of some inputs, carrying state; stack what it emits."""
    split = len(initial_state_and_scan_inputs) - num_scan_inputs
    state = initial_state_and_scan_inputs[:split]
    axes = scan_input_axes or (0,) * num_scan_inputs
    reverse = scan_input_directions or (0,) * num_scan_inputs
    slices = []
    for values, axis, back in zip(
        initial_state_and_scan_inputs[split:], axes, reverse, strict=True
    ):
        parts = values.unbind(axis)
        slices.append(parts[::-1] if back else parts)
    if not slices[0]:
        raise NotImplementedError("a scan over nothing has outputs of no known shape")
    emitted = []
    for taken in zip(*slices, strict=True):
        results = body(*state, *taken)
        state, outputs = tuple(results[:split]), results[split:]
        emitted.append(outputs)
    return (*state, *_stacked(emitted, scan_output_axes, scan_output_directions))


def _stacked(
    emitted: list[tuple[Tensor, ...]], axes: Ints | None, directions: Ints | None
) -> list[Tensor]:
    """Stack each output of all steps along its axis, in its direction."""
    stacked = []
    for i, parts in enumerate(zip(*emitted, strict=True)):
        ordered = parts[::-1] if directions and directions[i] else parts
        axis = axes[i] if axes else 0
        stacked.append(torch.stack(ordered, axis))
    return stacked


@OPS.register("Scan", since=8)
def scan_batches(
    sequence_lens: Ints | None = None,
    *initial_state_and_scan_inputs: Tensor,
    body: Body,
    num_scan_inputs: int,
    directions: Ints | None = None,
) -> tuple[Tensor, ...]:
    """Scan each batch entry (axis 0) over its sequence (axis 1), as before opset 9."""
    if sequence_lens is not None:
        raise NotImplementedError("Scan before opset 9 with sequences of different lengths")
    entries = [
        scan(
            *(values[b] for values in initial_state_and_scan_inputs),
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
        )
        for b in range(initial_state_and_scan_inputs[0].shape[0])
    ]
    return tuple(torch.stack(parts) for parts in zip(*entries, strict=True))


@OPS.register("Dropout")
def dropout_attribute(
    data: Tensor, *, is_test: int = 0, ratio: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Return the input: nothing is dropped in inference."""
    return data, torch.ones_like(data, dtype=torch.bool)


@OPS.register("Dropout", since=12)
def dropout(
    data: Tensor,
    ratio: float = 0.5,
    training_mode: bool = False,
    *,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the input: nothing is dropped in inference."""
    if training_mode and ratio != 0:
        raise NotImplementedError("training mode drops at random: no twin can be equal")
    return data, torch.ones_like(data, dtype=torch.bool)

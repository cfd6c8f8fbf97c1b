"""Sequences are lists of tensors; an optional is its value or None."""

import torch
from torch import Tensor

from converters.to_torch.optable import OPS, Body

Sequence = list[Tensor]


@OPS.register("SequenceConstruct", since=11)
def sequence_construct(*inputs: Tensor) -> Sequence:
    """Make a sequence of tensors."""
    return list(inputs)


@OPS.register("SequenceEmpty", since=11)
def sequence_empty(*, dtype: torch.dtype = torch.float32) -> Sequence:
    """Make a sequence without tensors."""
    return []


@OPS.register("SequenceAt", since=11)
def sequence_at(input_sequence: Sequence, position: int) -> Tensor:
    """Tensor at a position, counted from the end when negative."""
    return input_sequence[position]


@OPS.register("SequenceInsert", since=11)
def sequence_insert(
    input_sequence: Sequence, tensor: Tensor, position: int | None = None
) -> Sequence:
    """Copy with a tensor inserted before a position, or at the end."""
    place = len(input_sequence) if position is None else position
    place = place + len(input_sequence) if place < 0 else place
    return [*input_sequence[:place], tensor, *input_sequence[place:]]


@OPS.register("SequenceErase", since=11)
def sequence_erase(input_sequence: Sequence, position: int = -1) -> Sequence:
    """Copy without the tensor at a position, by default the last."""
    place = position % len(input_sequence)
    return [*input_sequence[:place], *input_sequence[place + 1 :]]


@OPS.register("SequenceLength", since=11)
def sequence_length(input_sequence: Sequence) -> Tensor:
    """Number of tensors."""
    return torch.tensor(len(input_sequence))


@OPS.register("ConcatFromSequence", since=11)
def concat_from_sequence(input_sequence: Sequence, *, axis: int, new_axis: int = 0) -> Tensor:
    """Join the tensors along an axis, a new one if asked for."""
    return (torch.stack if new_axis else torch.cat)(input_sequence, axis)


@OPS.register("SplitToSequence", since=11)
def split_to_sequence(
    input: Tensor, split: Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> Sequence:
    """Cut along an axis into parts of size 1, of one size, or of given sizes."""
    if split is None:
        parts = torch.split(input, 1, axis)
        return [part if keepdims else part.squeeze(axis) for part in parts]
    return list(torch.split(input, split.tolist(), axis))


@OPS.register("SequenceMap", since=17)
def sequence_map(
    input_sequence: Sequence, *additional_inputs: Tensor | Sequence, body: Body
) -> tuple[Sequence, ...]:
    """Run a body on each tensor of a sequence."""
    results = [
        body(value, *(x[i] if isinstance(x, list) else x for x in additional_inputs))
        for i, value in enumerate(input_sequence)
    ]
    return tuple(list(values) for values in zip(*results, strict=True))


@OPS.register("Optional", since=15)
def optional(*input: Tensor | Sequence | None, type: object = None) -> Tensor | Sequence | None:
    """Make an optional of a value, or of nothing."""
    return input[0] if input else None


@OPS.register("OptionalHasElement", since=15)
def optional_has_element(*input: Tensor | Sequence | None) -> Tensor:
    """Whether an optional holds a value."""
    return torch.tensor(bool(input) and input[0] is not None)


@OPS.register("OptionalGetElement", since=15)
def optional_get_element(*input: Tensor | Sequence) -> Tensor | Sequence:
    """The value that an optional holds."""
    if not input or input[0] is None:
        raise ValueError("the optional holds no value")
    return input[0]

"""Recurrent layers: the LSTM that readers of text run along a line."""

import numpy as np

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, is_quantised
from converters.to_onnx.tflite.model import Tensor
from converters.to_onnx.tflite.optable import OPS

__all__: list[str] = []

_TANH = 4  # of the schema's activation functions


@OPS.register("UNIDIRECTIONAL_SEQUENCE_LSTM")
def unidirectional_sequence_lstm(
    graph: Graph,
    x: Tensor,
    *others: Tensor | None,
    fused_activation_function: int = 0,
    cell_clip: float = 0.0,
    proj_clip: float = 0.0,
    time_major: bool = False,
    outputs: list[Tensor],
) -> None:
    """Write an LSTM along the second axis (the first, of ``time_major``), beginning with zeros.

    The inputs behind x are, gate by gate (input, forget, cell, output): four matrices of the input,
    four of the state, three peepholes, four biases; a projection; the states.
    """
    if len(others) < 14 or len(x.shape) != 3:
        raise ConversionFailed(f"has {len(others) + 1} inputs, x of {list(x.shape)}")
    if is_quantised(x) or fused_activation_function not in (0, _TANH):
        raise ConversionFailed("is of integers, or has another activation function than tanh")
    if cell_clip or proj_clip:  # ONNX clips what goes into the gates
        raise ConversionFailed("clips its cell")
    if any(t is not None for t in others[15:17]) or any(t is not None for t in others[8:11]):
        raise ConversionFailed("has peepholes or a projection")
    if any(t is not None for t in others[19:23]):
        raise ConversionFailed("normalises its gates")
    gates = [[others[start + n] for n in range(4)] for start in (0, 4, 11)]
    if any(t is None for gate in gates for t in gate):
        raise ConversionFailed("couples its gates")
    arrays = [[graph.array(t) for t in gate if t is not None] for gate in gates]
    # ONNX: input, output, forget, cell.
    w, r, b = (np.concatenate([gate[n] for n in (0, 3, 1, 2)]) for gate in arrays)
    hint, first = outputs[0].name, graph.last(x)
    if not time_major:
        first = graph.emit("Transpose", [first], f"{hint}_steps", perm=[1, 0, 2])
    name = graph.emit(
        "LSTM",
        [
            first,
            graph.store(w[None], f"{hint}_weights"),
            graph.store(r[None], f"{hint}_recurrence"),
            graph.store(np.concatenate([b, np.zeros_like(b)])[None], f"{hint}_bias"),
        ],
        f"{hint}_directions",
        hidden_size=int(arrays[1][0].shape[1]),
    )
    axes = graph.integers([1], f"{hint}_direction")
    name = graph.emit("Squeeze", [name, axes], hint)
    if not time_major:
        name = graph.renamed(name, f"{hint}_in_steps")
        name = graph.emit("Transpose", [name], hint, perm=[1, 0, 2])
    graph.give(outputs[0], name)

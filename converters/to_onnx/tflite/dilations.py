"""Dilated convolutions, which TensorFlow 1 writes as a convolution of shuffled places.

``SPACE_TO_BATCH_ND`` puts every second (third ...) place into a sample of its own, a plain
convolution works on those, and ``BATCH_TO_SPACE_ND`` puts the places back: together a dilated
convolution.  Written as one, its result is a map of the image, of which a heatmap can be drawn.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from converters.to_onnx.tflite.model import Operator, Subgraph

__all__ = ["with_dilated_convolutions"]

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_VALID = 1


def with_dilated_convolutions(graph: Subgraph) -> Subgraph:
    """A graph in which each such three operators are one convolution.

    Args:
        graph: Any graph; three operators whose blocks, paddings or readers differ from the pattern
            stay as they are.
    """
    made_by = {n: o for o in graph.operators for n in o.outputs}
    readers = Counter(n for o in graph.operators for n in o.inputs)
    readers.update(graph.outputs)
    found: dict[int, Operator] = {}
    gone: set[int] = set()
    for last in graph.operators:
        if last.op_type != "BATCH_TO_SPACE_ND" or len(last.inputs) != 3:
            continue
        convolution = made_by.get(last.inputs[0])
        if convolution is None or convolution.op_type not in _CONVOLUTIONS:
            continue
        first = made_by.get(convolution.inputs[0])
        if first is None or first.op_type != "SPACE_TO_BATCH_ND" or len(first.inputs) != 3:
            continue
        if any(readers[o.outputs[0]] != 1 for o in (first, convolution)):
            continue
        made = _dilated(graph, first, convolution, last)
        if made is not None:
            found[last.index] = made
            gone |= {first.index, convolution.index}
    if not found:
        return graph
    kept = (found.get(o.index, o) for o in graph.operators if o.index not in gone)
    return replace(graph, operators=tuple(kept))


def _dilated(
    graph: Subgraph, first: Operator, convolution: Operator, last: Operator
) -> Operator | None:
    """The three operators as one; None where they are something else."""
    before, behind = graph.tensors[first.inputs[0]], graph.tensors[last.outputs[0]]
    inner, made = graph.tensors[first.outputs[0]], graph.tensors[convolution.outputs[0]]
    values = [_table(graph, n) for n in (*first.inputs[1:], *last.inputs[1:])]
    if any(value is None for value in values) or len(before.shape) != 4:
        return None
    blocks, pads, again, crops = values
    plain = all(
        convolution.option(name, 1) == 1
        for name in ("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")
    )
    if not plain or convolution.option("padding", 0) != _VALID:
        return None
    if len(blocks) != 2 or blocks != again or len(pads) != 4 or len(crops) != 4:
        return None
    ends = [pad - crop for pad, crop in zip(pads, crops, strict=True)]
    if min(ends) < 0 or min(blocks) < 1:
        return None
    for one, other in ((before, inner), (made, behind)):
        same = one.quantisation is other.quantisation is None or (
            one.quantisation is not None and one.quantisation.same_as(other.quantisation)
        )
        if not same or one.dtype != other.dtype:
            return None
    return replace(
        convolution,
        index=last.index,
        inputs=(first.inputs[0], *convolution.inputs[1:]),
        outputs=last.outputs,
        pads=(ends[0], ends[2], ends[1], ends[3]),
        replaced={"dilation_h_factor": blocks[0], "dilation_w_factor": blocks[1]},
    )


def _table(graph: Subgraph, number: int) -> Any:
    """Values of a small constant of integers, as a list; None for anything else."""
    data = graph.tensors[number].data if number >= 0 else None
    if data is None or data.dtype.kind not in "iu" or data.size > 8:
        return None
    return [int(n) for n in np.ravel(data)]

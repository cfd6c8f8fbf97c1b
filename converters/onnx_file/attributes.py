"""Attributes that make no sense whatever tensor they meet, by their names.

ONNX Runtime refuses most of them when it loads the model, but the graph is reasoned about before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx

from converters.onnx_file.scopes import label, quote

__all__ = ["senseless_attributes"]

_LARGEST = 1 << 31
_RANK = 64  # NumPy's own limit


def _positive(values: Sequence[int]) -> bool:
    return all(0 < value < _LARGEST for value in values)


def _counts(values: Sequence[int]) -> bool:
    return all(0 <= value < _LARGEST for value in values)


def _bounded(values: Sequence[int]) -> bool:
    return all(abs(value) < _LARGEST for value in values)


def _axes(values: Sequence[int]) -> bool:
    return all(-_RANK <= value < _RANK for value in values)


def _permutation(values: Sequence[int]) -> bool:
    return sorted(values) == list(range(len(values)))


_KINDS: Mapping[str, tuple[Callable[[Sequence[int]], bool], str]] = {
    **dict.fromkeys(("kernel_shape", "strides", "dilations"), (_positive, "is not positive")),
    **dict.fromkeys(
        ("group", "groups", "blocksize", "num_outputs"), (_positive, "is not positive")
    ),
    # What kernels divide by without a look: some of them end the process.
    **dict.fromkeys(
        (
            *("num_heads", "q_num_heads", "kv_num_heads", "qkv_hidden_sizes", "num_groups"),
            *("offset_group", "hidden_size", "output_height", "output_width", "pooled_shape"),
        ),
        (_positive, "is not positive"),
    ),
    **dict.fromkeys(
        ("block_size", "chunk_size", "rotary_embedding_dim", "sampling_ratio"),
        (_counts, "is negative or too large"),
    ),
    **dict.fromkeys(("pads", "output_padding", "output_shape"), (_bounded, "is out of range")),
    **dict.fromkeys(("axis", "axes"), (_axes, f"is out of range (rank {_RANK} at most)")),
    "perm": (_permutation, "is not a permutation"),
}
_OF_OPERATORS: Mapping[tuple[str, str], tuple[Callable[[Sequence[int]], bool], str]] = {
    **dict.fromkeys(
        (("LpPool", "p"), ("GlobalLpPool", "p"), ("LpNormalization", "p"), ("LRN", "size")),
        (_positive, "is not positive"),
    ),
    ("RotaryEmbedding", "num_heads"): (_counts, "is negative or too large"),  # 0 is "not said"
}


def senseless_attributes(node: onnx.NodeProto) -> Iterator[str]:
    """Find whole numbers of a node's attributes that no tensor gives a meaning.

    Args:
        node: Of the standard operators, or of ONNX Runtime's.

    Yields:
        One clause per attribute.
    """
    for attribute in node.attribute:
        known = _OF_OPERATORS.get((node.op_type, attribute.name)) or _KINDS.get(attribute.name)
        if known is None:
            continue
        if attribute.type == onnx.AttributeProto.INT:
            values: Sequence[int] = [attribute.i]
        elif attribute.type == onnx.AttributeProto.INTS:
            values = attribute.ints
        else:
            continue
        makes_sense, problem = known
        if not makes_sense(values):
            shown = ", ".join(map(str, values[:8]))
            yield f"{label(node)}: attribute {quote(attribute.name)} [{shown}] {problem}"

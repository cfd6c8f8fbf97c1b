"""Inputs and outputs of a frozen graph of TensorFlow 1, read without TensorFlow.

A GraphDef is a list of nodes (field 1) of a name (1), an operator (2) and the names of their inputs
(3).  Everything else, weights before all, is skipped by its length.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from converters.nearest_path import as_typed
from converters.regular_file import read_regular

__all__ = ["command_for"]

_MOST_BYTES = 1 << 30
_MOST_NODES = 200_000
_MOST_NAMED = 8
_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]{0,200}")
_NO_OUTPUT = frozenset({"NoOp", "Const", "Assert", "Placeholder", "PlaceholderWithDefault"})


def command_for(path: Path) -> str:
    """The command by which tf2onnx converts a frozen graph, with its own inputs and outputs.

    Returns:
        Empty where the file cannot be read, or names no placeholder or no result.
    """
    try:
        inputs, outputs, defaults = _ends(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, IndexError):
        return ""
    if not inputs:  # nothing but what could be left out: the image is among it
        inputs, defaults = defaults, []
    if not inputs or not outputs:
        return ""
    used = f"--use_default {','.join(defaults[:_MOST_NAMED])} " if defaults else ""
    given, made = (
        ",".join(f"{name}:0" for name in names[:_MOST_NAMED]) for names in (inputs, outputs)
    )
    return (
        f"python -m tf2onnx.convert --graphdef {as_typed(path)} --inputs {given} "
        f"--outputs {made} {used}--output {as_typed(path.with_suffix('.onnx'))}"
    )


def _ends(data: bytes) -> tuple[list[str], list[str], list[str]]:
    """Placeholders, nodes whose result no other node takes, and placeholders with a default."""
    operators: dict[str, str] = {}
    taken: set[str] = set()
    for start, end in _parts(data, 0, len(data), 1):
        names, kinds, used = (
            [data[a:b].decode() for a, b in _parts(data, start, end, number)]
            for number in (1, 2, 3)
        )
        if len(operators) >= _MOST_NODES or not names or not kinds:
            raise ValueError("no graph")
        operators[names[0]] = kinds[0]
        taken.update(name.lstrip("^").partition(":")[0] for name in used)
    inputs = [n for n, kind in operators.items() if kind == "Placeholder"]
    outputs = [n for n, kind in operators.items() if n not in taken and kind not in _NO_OUTPUT]
    defaults = [n for n, kind in operators.items() if kind == "PlaceholderWithDefault"]
    if not all(_NAME.fullmatch(name) for name in (*inputs, *outputs, *defaults)):
        raise ValueError("names that a command cannot have")
    return inputs, outputs, defaults


def _parts(data: bytes, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Places of the fields with a length that have this number."""
    while start < end:
        key, start = _varint(data, start)
        kind = key & 7
        if kind == 0:
            _, start = _varint(data, start)
        elif kind in (1, 5):
            start += 8 if kind == 1 else 4
        elif kind == 2:
            size, start = _varint(data, start)
            if start + size > end:
                raise ValueError("cut off")
            if key >> 3 == wanted:
                yield start, start + size
            start += size
        else:
            raise ValueError("no protobuf")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("no protobuf")

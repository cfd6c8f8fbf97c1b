"""Class names, from a file that the user gives or from the model itself.

Text that comes with a model is untrusted: control characters are removed and the length is
capped before anybody sees it.
"""

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from converters.graph import Graph
from converters.plain_values import parse_json, parse_literal, parse_yaml, whole_number
from converters.regular_file import read_beside, read_regular
from converters.source import LABELS
from inspector.errors import UsageError
from inspector.printable import clean_text

__all__ = [
    "Labels",
    "count_warning",
    "labels_from_metadata",
    "labels_of_file",
    "names_beside",
    "read_labels",
]

_METADATA_KEYS = (LABELS, "names", "labels", "classes", "class_names", "id2label")
_CONFIG = "config.json"
_BESIDE = (
    *(
        "labels.txt",
        "labelmap.txt",
        "label_map.txt",
        "classes.txt",
        "class_names.txt",
        "synset.txt",
    ),
    *("labels.json", "class_names.json", "class_indices.json", "imagenet_class_index.json"),
    *("metadata.yaml", "data.yaml"),
    _CONFIG,
)
_ANYTHING = frozenset({_CONFIG, "metadata.yaml", "data.yaml"})
"""Names of files that may well be about something else than class names."""
_INNER = frozenset({"onnx", "saved_model", "weights"})
"""Folders of a model's own files, whose class names lie in the folder above."""
_YAML = frozenset({".yaml", ".yml"})
_NUMBERED = re.compile(r"(?P<number>\d{1,6})(\s*:\s*|\s+)(?P<name>.*\S)")
_MAX_LABELS = 100_000
_MAX_BYTES = 16 << 20
_SYNSET = re.compile(r"[nvars]\d{8}")


@dataclass(frozen=True)
class Labels:
    """Class names in the order of the scores, and where they were found.

    Attributes:
        names: One name a class; empty when the model carries none.
        source: Where they come from, e.g. ``metadata 'names'``; empty when there are none.
        warnings: What was found and could not be used.
        ids: A WordNet id a class, empty where it has none; none at all where the names came
            without, as nearly all do.
    """

    names: tuple[str, ...] = ()
    source: str = ""
    warnings: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()


def read_labels(path: str | Path, *, beside: bool = False) -> tuple[str, ...]:
    """Read class names from a file, in the order of the scores.

    Understood: text with one name per line (a WordNet id in front, ``n01440764 tench, Tinca
    tinca``, is kept out of the name, and so is the line's own number, ``0 tench``); ``index,name``
    CSV; JSON as a list, as ``{index: name}``, as ``{name: index}``, as Keras' ``{index: [wordnet
    id, name]}``, or as a Hugging Face ``config.json`` with ``id2label``; YAML with ``names``, as
    Ultralytics writes it.

    Args:
        path: The file; UTF-8, with or without a byte order mark.
        beside: Whether it lies beside a stranger's model, so that no link out of that folder is
            followed.

    Raises:
        UsageError: The file cannot be read, holds no names, or its indices have gaps.
    """
    return labels_of_file(path, beside=beside).names


def labels_of_file(path: str | Path, *, beside: bool = False) -> Labels:
    """Class names of a file, with the WordNet ids that stand in front; see :func:`read_labels`."""
    path = Path(path)
    try:
        read = read_beside(path.parent, path.name, _MAX_BYTES) if beside else None
        text = (read_regular(path, _MAX_BYTES) if read is None else read).decode("utf-8-sig")
    except OSError as error:
        raise _refused(path, f"cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise _refused(path, "is not UTF-8 text") from error
    try:
        if path.suffix.lower() in _YAML:
            names = _from_yaml(text)
        elif path.suffix.lower() == ".json" or text.lstrip()[:1] in {"{", "["}:
            names = _from_json(text)
        else:
            names = _from_csv(text) or _from_lines(text)
        parted = [_parted(name) for name in names]
        ids = tuple(own for own, _ in parted)
        source = f"file {path.name}"
        return Labels(_checked(name for _, name in parted), source, ids=ids if any(ids) else ())
    except ValueError as error:
        raise _refused(path, str(error)) from error


def _parted(text: str) -> tuple[str, str]:
    """A WordNet id in front of a name, empty without one, and the name."""
    first, _, rest = text.partition(" ")
    return (first, rest) if rest.strip() and _SYNSET.fullmatch(first) else ("", text)


def labels_from_metadata(metadata: Mapping[str, str], graph: Graph) -> Labels:
    """Class names that the model carries: ``metadata_props``, or the ``ZipMap`` at its end.

    Keys are tried in this order: ``inspector.labels`` (JSON), ``names`` (Ultralytics writes a
    Python dictionary), ``labels``, ``classes``, ``class_names``, ``id2label``; then ``ZipMap``,
    whose names stand in the order of the scores, and ``ArrayFeatureExtractor``, which looks
    names up by the index of the best score.

    Args:
        metadata: The model's ``metadata_props``.
        graph: The model's graph.
    """
    warnings: list[str] = []
    lower = {key.lower(): key for key in metadata}
    for wanted in _METADATA_KEYS:
        key = lower.get(wanted)
        if key is None or not metadata[key].strip():
            continue
        try:
            names = _checked(_from_literal(metadata[key]))
        except ValueError as error:
            warnings.append(f"the model's metadata {key!r} was not used as class names: {error}")
        else:
            return Labels(names, f"metadata {key!r}", tuple(warnings))
    for source, found in _in_nodes(graph):
        try:
            names = _checked(map(_text, found))
        except ValueError as error:
            warnings.append(f"the {source} was not used as class names: {error}")
        else:
            return Labels(names, source, tuple(warnings))
    return Labels(warnings=tuple(warnings))


def _in_nodes(graph: Graph) -> Iterator[tuple[str, Sequence[Any]]]:
    """Class names that nodes at the end of a classifier hold, and what to call the place."""
    for node in graph.nodes:
        if node.domain != "ai.onnx.ml":
            continue
        found: Sequence[Any] = ()
        if node.op_type == "ZipMap":
            attributes = node.attributes
            found = attributes.get("classlabels_strings") or attributes.get(
                "classlabels_int64s", ()
            )
        elif node.op_type == "ArrayFeatureExtractor" and node.inputs:
            table = graph.constant(node.inputs[0])
            found = () if table is None or table.dtype.kind not in "OSU" else table.ravel().tolist()
        if len(found):
            yield f"{node.op_type} node {clean_text(node.name)!r}", found


def count_warning(labels: Sequence[str], classes: int | None) -> str:
    """A sentence when the number of names is not the number of classes; else empty.

    Two names for one sigmoid unit are right: the unit scores the second (Keras' convention).
    """
    if not labels or classes is None or len(labels) == classes:
        return ""
    if classes == 1 and len(labels) == 2:
        return ""
    text = f"{len(labels)} class names for {classes} classes: the names may be shifted"
    if len(labels) == classes - 1:
        text += " (the model may have a background class at index 0)"
    elif len(labels) == classes + 1:
        text += " (the list may have a background class at index 0 that the model lacks)"
    return text


def _refused(path: Path, what: str) -> UsageError:
    return UsageError(
        what,
        where=f"labels {path}",
        hint="give a text file with one name per line, or JSON {index: name}",
    )


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _checked(names: Iterable[str]) -> tuple[str, ...]:
    cleaned = [clean_text(name) for name in islice(names, _MAX_LABELS + 1)]
    if not any(cleaned):
        raise ValueError("holds no class names")
    if len(cleaned) > _MAX_LABELS:
        raise ValueError(f"holds more than {_MAX_LABELS} names")
    return tuple(cleaned)


def _from_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is empty, which would shift the names")
    return _without_numbers(lines)


def _without_numbers(lines: list[str]) -> list[str]:
    """Lines without an index in front, where every line has its own number, from 0 or from 1."""
    parts = [_NUMBERED.fullmatch(line) for line in lines]
    numbers = [whole_number(part["number"]) if part else None for part in parts]
    for first in (0, 1):
        if numbers == list(range(first, first + len(lines))):
            return [part["name"] for part in parts if part]
    return lines


def names_beside(path: Path, classes: int | None) -> Labels:
    """Class names in a file that lies beside a model, if there is one name per class.

    Looked for: ``labels.txt``, ``classes.txt``, ``synset.txt``, ``class_indices.json``,
    ``metadata.yaml``, ``config.json`` (``id2label``) and the like in the model's folder, and one
    folder up where that is called ``onnx``, ``saved_model`` or ``weights``, or is a SavedModel.

    Args:
        path: The model.
        classes: Number of its scores; nothing is taken where it is not known.
    """
    if classes is None:
        return Labels()
    warnings: list[str] = []
    folder = path if path.is_dir() else path.parent
    inner = folder.name in _INNER or (folder / "saved_model.pb").is_file()
    places = [folder / name for name in _BESIDE]
    places += [folder.parent / name for name in _BESIDE] if inner else []
    for beside in places:
        if not os.path.lexists(beside):
            continue
        where = "beside" if beside.parent == folder else "above"
        try:
            found = labels_of_file(beside, beside=True)
        except UsageError as error:
            if beside.name not in _ANYTHING:
                warnings.append(f"not used: {error}")
            continue
        wrong = count_warning(found.names, classes)
        if not wrong:
            source = f"{beside.name} {where} the model"
            return replace(found, source=source, warnings=tuple(warnings))
        if beside.name not in _ANYTHING:
            warnings.append(f"{beside.name} {where} the model is not used: {wrong}")
    return Labels(warnings=tuple(warnings))


def _from_yaml(text: str) -> list[str]:
    """Names of a YAML file: its list, or its entry ``names``.

    Raises:
        ValueError: It holds none, or PyYAML is not installed.
    """
    try:
        value = parse_yaml(text)
    except ImportError:
        raise ValueError("YAML needs PyYAML (pip install pyyaml)") from None
    except ValueError as error:
        raise ValueError(f"is not valid YAML ({error})") from error
    return _from_value(value)


def _from_csv(text: str) -> list[str]:
    """Names of ``index,name`` rows, with or without a heading; empty when it is not such a CSV."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if row]
    except csv.Error:  # a quote that is never closed, a line that is longer than any field
        return []
    if rows and whole_number(rows[0][0]) is None and all(_numbered(r) for r in rows[1:]):
        rows = rows[1:]
    if not rows or not all(_numbered(row) for row in rows):
        return []
    # An unquoted name may hold commas itself: "0,tench, Tinca tinca".
    return _in_order({int(row[0]): ", ".join(row[1:]) for row in rows}, len(rows))


def _numbered(row: Sequence[str]) -> bool:
    number = whole_number(row[0])
    return len(row) > 1 and number is not None and number >= 0


def _from_json(text: str) -> list[str]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    return _from_value(value)


def _from_literal(text: str) -> list[str]:
    """Names in a metadata value: JSON, a Python literal, or a list with commas or lines."""
    if len(text) > _MAX_BYTES:
        raise ValueError("it is too long")
    text = text.strip()
    if text[:1] not in {"{", "[", "("}:
        return [part.strip() for part in re.split(r"\n" if "\n" in text else ",", text)]
    for parse in (parse_json, parse_literal):
        try:
            value = parse(text)
        except ValueError:
            continue
        return _from_value(value)
    raise ValueError("it is neither JSON nor a Python literal of names")


def _from_value(value: object) -> list[str]:
    if isinstance(value, dict):
        for key in ("id2label", "labels", "names", "classes"):
            if isinstance(value.get(key), dict | list):
                return _from_value(value[key])
        return _from_mapping(value)
    if isinstance(value, list | tuple):
        return [_name(item) for item in value]
    raise ValueError("holds neither a list nor an index of names")


def _from_mapping(value: Mapping[Any, Any]) -> list[str]:
    by_index = {
        number: _name(name)
        for key, name in value.items()
        if (number := whole_number(str(key))) is not None and number >= 0
    }
    if len(by_index) == len(value):
        return _in_order(by_index, len(value))
    indices = list(value.values())
    if all(isinstance(i, int) and not isinstance(i, bool) for i in indices):  # {name: index}
        return _in_order({i: _name(name) for name, i in value.items()}, len(value))
    raise ValueError("its keys are not class indices")


def _name(item: object) -> str:
    if isinstance(item, list | tuple):
        # Keras: ["n01440764", "tench"]; the id is not a name.
        parts = [_text(p) for p in item]
        with_id = len(parts) == 2 and _SYNSET.fullmatch(parts[0])
        return " ".join(parts) if with_id else ", ".join(parts)
    if isinstance(item, dict):
        for key in ("name", "label"):
            if isinstance(item.get(key), str):
                return str(item[key])
        raise ValueError("an entry has neither a name nor a label")
    if isinstance(item, str | bytes | int | float):
        return _text(item)
    raise ValueError("an entry is not text")


def _in_order(by_index: Mapping[int, str], count: int) -> list[str]:
    """Names by index; a gap, or a start at 1, would shift every name after it."""
    if sorted(by_index) != list(range(count)):
        low = min(by_index, default=0)
        raise ValueError(f"the {count} indices do not run from 0 to {count - 1} (lowest: {low})")
    return [by_index[i] for i in range(count)]

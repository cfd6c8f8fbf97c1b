"""Class names and normalisation that a TFLite file carries: TFLite Metadata.

A buffer of the file, ``TFLITE_METADATA``, is a flatbuffer of its own (schema:
``metadata_schema.fbs`` of TFLite Support), and associated files lie in a ZIP archive that is
appended to the file.
"""

import contextlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from converters.source import InputSpec
from converters.to_onnx.tflite.model import Model

__all__ = ["TFLiteMetadata", "metadata_of", "preprocess_of_span"]

_NAME = "TFLITE_METADATA"
_MOST_BYTES = 16 << 20
_MOST_LABELS = 100_000
_NORMALISATION = 1  # of the union of process units
_LABEL_FILES = (2, 3)  # types of associated files: labels of an axis, labels of values
_MOST_FILES = 8
_USUAL_NAMES = frozenset(("labels.txt", "labelmap.txt", "label_map.txt", "classes.txt"))
_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


@dataclass(frozen=True)
class TFLiteMetadata:
    """What a file says of its first input and its outputs.

    Attributes:
        labels: K class names; empty where it has none.
        mean: Subtracted from pixels 0..255, one number or one per channel; empty likewise.
        std: What the difference is divided by.
    """

    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def preprocess(self, channels: int) -> dict[str, Any]:
        """Settings for pixels, in the keys of ``converters.source``; empty where it says none."""
        if not self.mean or len(self.mean) != len(self.std) or 0 in self.std:
            return {}
        if len(self.mean) not in (1, channels):
            return {}
        spread = channels // len(self.mean)
        return {"scale": 1.0, "mean": list(self.mean) * spread, "std": list(self.std) * spread}

    def preprocess_of(self, image: InputSpec) -> dict[str, Any]:
        """Settings for photos: as the file says, else by the span of its quantised input.

        Args:
            image: The input; anything but (N, h, w, 1 or 3) has none.
        """
        if len(image.shape) != 4 or image.shape[3] not in (1, 3):
            return {}
        channels = int(image.shape[3])
        found = self.preprocess(channels) or preprocess_of_span(image.span, channels)
        return {**found, "channels": "GRAY" if channels == 1 else "RGB"} if found else {}


def preprocess_of_span(span: tuple[float, float] | None, channels: int) -> dict[str, Any]:
    """Settings that lay pixels over the values of a quantised input, where those are usual ones.

    Args:
        span: Lowest and highest value; 0..1, -1..1 and 0..255 are taken, to a hundredth.
        channels: Length of the settings.
    """
    for low, high in _USUAL:
        width = high - low
        if span and abs(span[0] - low) <= width / 100 and abs(span[1] - high) <= width / 100:
            std = 255.0 / width
            return {"scale": 1.0, "mean": [-low * std] * channels, "std": [std] * channels}
    return {}


def metadata_of(model: Model, data: bytes) -> TFLiteMetadata:
    """Metadata of a file; empty where it has none, or none that can be read.

    Args:
        model: The file.
        data: Its bytes, to which the associated files are appended.
    """
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    files: list[tuple[str, str]] = []
    with contextlib.suppress(Exception):  # a stranger's offsets lead anywhere
        mean, std, files = _described(model.metadata.get(_NAME, b""))
    return TFLiteMetadata(_labels(data, files), mean, std)


def _labels(data: bytes, described: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Class names out of the appended archive.

    Args:
        data: The file.
        described: Names and locales of the files that the metadata calls labels. One without a
            locale comes first, unless it has the codes of a knowledge base (``/m/01yrx``) and
            another says them in words.
    """
    with contextlib.suppress(OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile):
        if not zipfile.is_zipfile(BytesIO(data)):
            return ()
        with zipfile.ZipFile(BytesIO(data)) as archive:
            texts = [name for name in archive.namelist() if name.lower().endswith(".txt")]
            named = sorted(
                (pair for pair in described if pair[0] in texts),
                key=lambda pair: (bool(pair[1]), not pair[1].lower().startswith("en")),
            )
            usual = [name for name in texts if name.rpartition("/")[2].lower() in _USUAL_NAMES]
            names = [name for name, _ in named] or usual or (texts if len(texts) == 1 else [])
            found = [lines for name in names[:_MOST_FILES] if (lines := _lines(archive, name))]
            words = [lines for lines in found if not lines[0].startswith("/")]
            return next(iter([*words, *found]), ())
    return ()


def _lines(archive: zipfile.ZipFile, name: str) -> tuple[str, ...]:
    """Lines of a text; none where one is empty, or where there are too many."""
    if archive.getinfo(name).file_size > _MOST_BYTES:
        return ()
    lines = archive.read(name).decode("utf-8-sig").rstrip().splitlines()
    names = tuple(line.strip() for line in lines)
    numbered = [re.match(rf"0*{index}[\s:,]+(\S.*)", name) for index, name in enumerate(names)]
    if all(numbered):  # a number in front of every name that is its own is not part of it
        names = tuple(found[1] for found in numbered if found)
    return names if all(names) and len(names) <= _MOST_LABELS else ()


def _described(
    inner: bytes,
) -> tuple[tuple[float, ...], tuple[float, ...], list[tuple[str, str]]]:
    """Mean, standard deviation, and names and locales of the files of labels."""
    if not inner:
        return (), (), []
    graph = next(_tables(_root(inner), 3))
    inputs, outputs = list(_tables(graph, 2)), list(_tables(graph, 3))
    mean, std = _normalisation(inputs[0]) if inputs else ((), ())
    files = (_label_files(tensor) for tensor in outputs)
    return mean, std, next(filter(None, files), [])


def _normalisation(tensor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in _tables(tensor, 4):
        if _byte(unit, 0) == _NORMALISATION:
            options = _table(unit, 1)
            return _floats(options, 0), _floats(options, 1)
    return (), ()


def _label_files(tensor: Any) -> list[tuple[str, str]]:
    """Names and locales of an output's files of labels."""
    return [
        (_text(file, 0), _text(file, 3))
        for file in _tables(tensor, 6)
        if _byte(file, 2) in _LABEL_FILES
    ]


def _text(table: Any, field: int) -> str:
    place = _offset(table, field)
    return str(table.String(place + table.Pos).decode()) if place else ""


def _root(data: bytes) -> Any:
    from flatbuffers import encode, number_types
    from flatbuffers.table import Table

    return Table(data, encode.Get(number_types.UOffsetTFlags.packer_type, data, 0))


def _offset(table: Any, field: int) -> int:
    """Place of a field relative to its table; 0 where it is not set."""
    return int(table.Offset(4 + 2 * field))


def _table(parent: Any, field: int) -> Any:
    from flatbuffers.table import Table

    return Table(parent.Bytes, parent.Indirect(parent.Pos + _offset(parent, field)))


def _tables(parent: Any, field: int) -> Iterator[Any]:
    from flatbuffers.table import Table

    place = _offset(parent, field)
    if place:
        start = parent.Vector(place)
        for index in range(min(parent.VectorLen(place), 1000)):
            yield Table(parent.Bytes, parent.Indirect(start + 4 * index))


def _byte(table: Any, field: int) -> int:
    place = _offset(table, field)
    return table.Bytes[table.Pos + place] if place else 0


def _floats(table: Any, field: int) -> tuple[float, ...]:
    from flatbuffers import number_types

    place = _offset(table, field)
    if not place:
        return ()
    vector = table.GetVectorAsNumpy(number_types.Float32Flags, place)
    return tuple(float(number) for number in vector[:16])

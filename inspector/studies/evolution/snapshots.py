"""Checkpoints of one training: which files, in which order, of which epoch, of which network.

    --snapshots runs/      net_epoch_2.onnx  net_epoch_10.onnx  ...  and the final MODEL behind them

Exporters number their tensors anew in every file, so layers of two files are matched by their
place in the network and not by name; what must agree is checked before anything long begins.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import first_few
from converters.graph.operators import facts_of
from converters.nearest_path import did_you_mean
from converters.plain_values import LARGEST
from inspector.errors import UsageError
from inspector.network.layers import Layer
from inspector.network.receptive_fields.receptive_field import receptive_fields

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["Snapshot", "Training", "epochs_in", "snapshot_files", "training"]

Array = np.ndarray[Any, Any]

ROUNDING = 2.0**-10, 2.0**-24
"""Relative and absolute difference up to which weights are the same but for float16's rounding."""

_NAMED = re.compile(
    r"(?<![a-z])(?:epochs?|ep|e|steps?|iterations?|iters?|it)[-_ .=]*(\d{1,9})(?!\d)", re.IGNORECASE
)
_NUMBER = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint.

    Attributes:
        path: Its file.
        sha256: The file's hash.
        epoch: As its name says, or its number in the order of the files; None for a final model
            whose name says none.
        tensors: Its own names of the chosen layers, in their order.
        final: It is the model that the study was called with.
    """

    path: Path
    sha256: str
    epoch: int | None
    tensors: tuple[str, ...]
    final: bool = False

    @property
    def label(self) -> str:
        """The epoch as a word."""
        return "final" if self.epoch is None else str(self.epoch)

    def open(self, model: "Opened") -> "Opened":
        """The network of this snapshot, under the settings of the final one.

        Raises:
            UsageError: The file has changed since it was compared.
        """
        if self.final:
            return model
        found = _sibling(model, self.path)
        if found.file.sha256 != self.sha256:
            raise UsageError("the file has changed meanwhile", where=str(self.path))
        return found


@dataclass(frozen=True)
class Training:
    """The checkpoints, first to last.

    Attributes:
        snapshots: At least two.
        counted: Epochs are numbers in the order of the files: the names say none.
        notes: What must be said of them.
    """

    snapshots: tuple[Snapshot, ...]
    counted: bool
    notes: tuple[str, ...] = field(default=())

    @property
    def word(self) -> str:
        """What the numbers count."""
        return "snapshot" if self.counted else "epoch"


def training(model: "Opened", given: Sequence[str | Path], layers: Sequence[Layer]) -> Training:
    """Find the checkpoints of a model's training and hold them against it.

    The model comes last, unless it is one of the checkpoints: the same file, or one whose
    weights are the model's rounded to float16. Then the model itself stands in that one's place.

    Args:
        model: The final network.
        given: ONNX files, and folders of them.
        layers: The layers that will be compared.

    Raises:
        UsageError: No checkpoints; checkpoints of another network, all of them named with what
            differs.
        ConverterError: A file that is not a model, or not safe to open.
    """
    opened: dict[Path, tuple[str, tuple[str, ...]]] = {}
    notes: dict[str, None] = {}
    wrong, same = [], None
    for path in snapshot_files(given):
        other = _sibling(model, path)
        differs = list(_differences(model, other, layers))
        if differs:
            wrong.append(f"{path.name}: " + "; ".join(differs[:3]))
            continue
        opened[path] = other.file.sha256, tuple(_counterpart(other, model, la) for la in layers)
        notes |= dict.fromkeys(_remarks(other, layers, opened[path][1]))
        if same is None and _same_weights(model, other):
            same = path
            if other.file.sha256 != model.file.sha256:
                notes[
                    f"{path.name} is {model.path.name} rounded to float16: the model itself "
                    "takes its place"
                ] = None
    if wrong:
        raise UsageError(
            "snapshots of another network: " + first_few(wrong, 4, " | "),
            where=model.path.name,
            hint="snapshots are checkpoints of one training",
        )
    return _ordered(model, opened, same, tuple(la.tensor for la in layers), list(notes))


def _ordered(
    model: "Opened",
    opened: Mapping[Path, tuple[str, tuple[str, ...]]],
    same: Path | None,
    tensors: tuple[str, ...],
    notes: list[str],
) -> Training:
    """Sort by epoch where the names tell them, else as given."""
    paths = list(opened)
    epochs, final = epochs_in([path.stem for path in paths]), None
    if same is None and epochs:
        extended = epochs_in([*(path.stem for path in paths), model.path.stem])
        if extended and extended[:-1] == epochs and extended[-1] > max(epochs):
            final = extended[-1]
    counted = epochs is None
    if epochs is None:
        epochs = tuple(range(1, len(paths) + 1))
        notes.append(
            "the names of the snapshots tell no epochs: they are numbered in the order of the files"
        )
    found = [
        Snapshot(model.path, model.file.sha256, epoch, tensors, final=True)
        if path == same
        else Snapshot(path, opened[path][0], epoch, opened[path][1])
        for epoch, path in sorted(zip(epochs, paths, strict=True), key=lambda pair: pair[0])
    ]
    if same is None:
        found.append(Snapshot(model.path, model.file.sha256, final, tensors, final=True))
    elif not found[-1].final:
        notes.append(f"{model.path.name} is not the last snapshot: {found[-1].path.name} is")
    hashes = [one.sha256 for one in found]
    twice = [one.path.name for i, one in enumerate(found) if one.sha256 in hashes[:i]]
    if twice:
        notes.append(f"the same file as an earlier snapshot: {', '.join(twice)}")
    if len(found) < 2:
        raise UsageError(
            "one snapshot is not a training",
            where=str(found[0].path),
            hint="name checkpoints of earlier epochs",
        )
    return Training(tuple(found), counted, tuple(notes))


# -- files and their names ------------------------------------------------------------------------


def snapshot_files(given: Sequence[str | Path]) -> list[Path]:
    """Files as given; a folder becomes the ONNX files in it, in natural order (2 before 10).

    Raises:
        UsageError: Nothing is given, is not there, or a folder without ONNX files.
    """
    if not given:
        raise UsageError("no snapshots were given", hint="--snapshots FOLDER, or a file each")
    found: dict[Path, Path] = {}
    for path in map(Path, given):
        inside = sorted(path.glob("*.onnx"), key=_natural) if path.is_dir() else [path]
        if not inside:
            raise UsageError("no .onnx files in the folder", where=str(path))
        if not all(one.is_file() for one in inside):
            hint = did_you_mean(path)
            raise UsageError("there is no such file or folder", where=str(path), hint=hint)
        for one in inside:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _natural(path: Path) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.casefold()) for p in pieces]


def epochs_in(names: Sequence[str]) -> tuple[int, ...] | None:
    """Epochs that names tell, all different; None when they tell none.

    It is the number behind a word such as ``epoch`` or ``step``; else the one number in which
    the names differ.

    >>> epochs_in(["resnet20_epoch_2_acc71", "resnet20_epoch_10_acc88"])
    (2, 10)
    >>> epochs_in(["vgg16-005", "vgg16-040"])
    (5, 40)
    """
    named = [_NAMED.findall(name) for name in names]
    if all(named):
        found = [int(numbers[-1]) for numbers in named]
    else:
        every = [[int(n) for n in _NUMBER.findall(name)] for name in names]
        if len({len(numbers) for numbers in every}) != 1:
            return None
        columns = list(zip(*every, strict=True))
        telling = [c for c in columns if len(set(c)) > 1] if len(names) > 1 else columns
        if len(telling) != 1:
            return None
        found = list(telling[0])
    if not found or len(set(found)) < len(found) or max(found) > LARGEST:
        return None
    return tuple(found)


# -- whether two files hold one network -----------------------------------------------------------


def _sibling(model: "Opened", path: Path) -> "Opened":
    """Another file as the model reads photos, whatever the file itself says of that."""
    other = model.sibling(path)
    if other.input == model.input:
        other.preprocessing = model.preprocessing
        other.model.free_size = model.model.free_size
    return other


def _differences(model: "Opened", other: "Opened", layers: Sequence[Layer]) -> Iterator[str]:
    """What keeps another file from being an earlier state of the model."""
    ours, theirs = (
        (m.input.layout, m.input.channels, m.input.height, m.input.width, m.input.integer)
        for m in (model, other)
    )
    if ours != theirs:
        yield (
            f"its input {other.input.name!r} is {_input(other)}, the model's "
            f"{model.input.name!r} {_input(model)}"
        )
        return
    if len(model.layers) != len(other.layers):
        yield f"{len(other.layers)} layers, the model has {len(model.layers)}"
        return
    size = model.preprocessing.preprocess.size
    shapes, others = model.shapes(size), other.shapes(size)
    for one, two in zip(model.layers, other.layers, strict=True):
        shape, found = shapes.get(one.tensor), others.get(two.tensor)
        if shape != found:
            yield (
                f"layer {two.index} ({two.tensor}) is {_shape(found)}, the model's {_shape(shape)}"
            )
        elif _kind(one) != _kind(two):
            yield (
                f"layer {two.index} ({two.tensor}) is {'+'.join(two.chain)}, the model's "
                f"{'+'.join(one.chain)}"
            )
    yield from _chosen_differences(model, other, layers)


def _chosen_differences(model: "Opened", other: "Opened", layers: Sequence[Layer]) -> Iterator[str]:
    """The same of the layers that will be compared: they exist, and see the same pixels."""
    pairs = [(layer.tensor, _counterpart(other, model, layer)) for layer in layers]
    missing = [two for _, two in pairs if two not in other.graph.tensors]
    if missing:
        yield f"it has no tensor {missing[0]!r}"
        return
    size = model.preprocessing.preprocess.size
    ours, theirs = (
        receptive_fields(m.graph, [p[i] for p in pairs], m.input.name, m.shapes(size))
        for i, m in enumerate((model, other))
    )
    for one, two in pairs:
        shape, found = model.shape_of(one), other.shape_of(two)
        if shape != found:
            yield f"{two!r} is {_shape(found)}, the model's {_shape(shape)}"
        a, b = ours[one], theirs[two]
        if (a.size, a.stride, a.offset) != (b.size, b.stride, b.offset):
            seen = f"{_shape(b.size)} pixels at stride {_shape(b.stride)}"
            yield f"a unit of {two!r} sees {seen}, the model's {_shape(a.size)} at " + (
                _shape(a.stride)
            )


def _counterpart(other: "Opened", model: "Opened", layer: Layer) -> str:
    """The other file's name of a layer: by its place if it is a listed layer, else the same."""
    listed = 0 <= layer.index < len(model.layers)
    if listed and model.layers[layer.index].tensor == layer.tensor:
        return other.layers[layer.index].tensor
    return layer.tensor


def _remarks(other: "Opened", layers: Sequence[Layer], tensors: Sequence[str]) -> Iterator[str]:
    renamed = [
        (la.tensor, name) for la, name in zip(layers, tensors, strict=True) if la.tensor != name
    ]
    if renamed:
        yield (
            f"{other.path.name} names its tensors otherwise ({renamed[0][1]} for "
            f"{renamed[0][0]}): layers are matched by their place and shape"
        )


def _same_weights(model: "Opened", other: "Opened") -> bool:
    """Whether two files hold the same weights but for float16's rounding."""
    if model.file.sha256 == other.file.sha256:
        return True
    # Lazily: of other weights the first tensor settles it, and no more is read.
    pairs = zip_longest(_weights(model), _weights(other))
    return all(a is not None and b is not None and _alike(a, b) for a, b in pairs)


def _alike(one: Array, two: Array) -> bool:
    if one.shape != two.shape:
        return False
    if one.dtype.kind != "f" or two.dtype.kind != "f":
        return np.array_equal(one, two)  # of a quantised network, and sizes
    relative, absolute = ROUNDING
    return np.allclose(
        one.astype(np.float32), two.astype(np.float32), rtol=relative, atol=absolute, equal_nan=True
    )


def _weights(model: "Opened") -> Iterator[Array]:
    """All constants of the file, in the order in which nodes read them."""
    names = dict.fromkeys(name for node in model.graph.nodes for name in node.inputs)
    constants = (model.graph.constant(name) for name in names)
    return (value for value in constants if value is not None)


def _may_be_folded(op_type: str) -> bool:
    """Whether an exporter may fold an operator away or leave it, the network being the same."""
    known = facts_of("", op_type)
    return known.copies or known.normalises == "constants"


def _kind(layer: Layer) -> tuple[str, ...]:
    return tuple(word for word in layer.chain if not _may_be_folded(word))


def _input(model: "Opened") -> str:
    image = model.input
    size = "x".join("?" if n is None else str(n) for n in (image.height, image.width))
    return f"{image.layout} {image.channels}x{size}{' of integers' if image.integer else ''}"


def _shape(shape: Sequence[float] | None) -> str:
    return "not known" if shape is None else "x".join(f"{n:g}" for n in shape)

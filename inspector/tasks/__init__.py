"""What do the outputs mean?  One task per file, declared with ``@task``.

A task is a *reading* of a model's outputs.  It says what there is to explain in one photo (boxes,
regions, a similarity), selects among it by the user's words, and names the tensors that have to be
read.  It is recognised by evidence, which is ranked and said: what the user names, the file's
metadata, names and shapes of the outputs, and their values on one probe image.

A classifier needs none of this: its classes are named before any photo is seen (``TargetSpec``).
"""

import contextlib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from converters.plain_values import quoted
from inspector.errors import (
    ConverterError,
    ImageRefused,
    InspectorError,
    UnknownTarget,
    UsageError,
    nearest,
)
from inspector.network.classifier.scores import Scores
from inspector.network.coordinates.units import State
from inspector.photos.geometry import Geometry
from inspector.printable import clean_text
from inspector.target import Target

__all__ = [
    "Item",
    "Outputs",
    "Reading",
    "Sample",
    "find_reading",
    "laid_out",
    "others_said",
    "place_lost",
    "task",
    "tasks",
]

Array = np.ndarray[Any, Any]

_SHOWN = 8
"""Outputs that a message names."""

Box = tuple[float, float, float, float]
"""Top, left, bottom, right in continuous pixels of the input."""


@dataclass(frozen=True, eq=False)
class Item:
    """One thing that a photo's outputs say, and that can be explained.

    Attributes:
        label: How it is shown: ``person``.
        target: The number that is explained.
        score: How sure the model is, from 0 to 1; None where that has no meaning.
        index: Number of its class; None where there is none.
        box: Where it lies on the input; None where it has no box.
        mask: (H, W) of the input, True where it lies; None where it has none.
    """

    label: str
    target: Target
    score: float | None = None
    index: int | None = None
    box: Box | None = None
    mask: Array | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Sample:
    """What one photo gave.

    Attributes:
        values: The outputs by name, without the axis of samples.
        geometry: How the photo and the network's input lie on each other.
        photo: The photo's name, for messages.
        path: The photo's file; None where there is none.
    """

    values: Mapping[str, Array]
    geometry: Geometry
    photo: str = ""
    path: Path | None = None


class Reading(Protocol):
    """What one model's outputs mean.

    Attributes:
        task: Name of the task.
        why: What it was recognised by, and what the model is, in one line.
        outputs: Outputs that ``items`` reads.
        tensors: Tensors that targets are elements of, as far as they are known before a photo is.
        method: The method that is right for the task.
        wanted: What is explained unless the user says so: a text that ``select`` takes.
        cautions: What to know of a method for this task, by the method's name.
    """

    @property
    def task(self) -> str: ...  # noqa: D102
    @property
    def why(self) -> str: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def tensors(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def wanted(self) -> str: ...  # noqa: D102
    @property
    def cautions(self) -> Mapping[str, str]: ...  # noqa: D102

    def items(self, sample: Sample) -> Sequence[Item]:
        """What the outputs of one photo say, the most certain first."""
        ...

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """The items that a user names.

        Args:
            text: One piece of the user's words, without a leading ``-``.
            items: From ``items`` for the same photo.
            sample: What the photo gave.

        Raises:
            UnknownTarget: The words name nothing, whatever the photo.
            ImageRefused: They name nothing of this photo.
        """
        ...

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """The layer that the task asks for and why; None for the last one before the target.

        Args:
            maps: Shapes (N, C, h, w) of the layers before the targets, in graph order.
        """
        ...


def _untraced(tensor: str) -> State | None:
    """The places of a tensor's units where nothing is traced."""
    del tensor
    return None


@dataclass(frozen=True, eq=False)
class Outputs:
    """What is known of a model's outputs before a photo is seen.

    Attributes:
        scores: The graph and its outputs, as :func:`find_scores` reads them.
        labels: Class names; empty when unknown.
        metadata: The file's ``metadata_props``.
        size: Height and width of the input.
        references: Outputs for a reference photo, by name; empty without one.
        layout: The layout of a detector, or the output of another task, that the user names;
            empty to find it out.
        places: From a tensor to the places of its units on the image; None where nothing is known.
    """

    scores: Scores
    labels: tuple[str, ...]
    metadata: Mapping[str, str]
    size: tuple[int, int]
    references: Mapping[str, Array] = field(default_factory=dict)
    layout: str = ""
    places: Callable[[str], State | None] = field(default=_untraced, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs, in the file's order."""
        return tuple(value.name for value in self.scores.outputs)

    def probe(self, *names: str) -> dict[str, Array]:
        """Outputs on a probe image, without the axis of samples; empty where it does not run."""
        if self.scores.measure is None:
            return {}
        try:
            found = self.scores.measure(names or self.names)
        except (ConverterError, InspectorError):
            return {}
        # Texts, sequences and maps hold nothing that a task is read from.
        arrays = {n: v for n, v in found.items() if isinstance(v, np.ndarray) and v.ndim}
        return {n: v[0, ...] for n, v in arrays.items() if len(v) and v.dtype.kind in "biuf"}

    def read(self) -> dict[str, Array]:
        """Outputs on a probe image: the one that the user names after the task, else all."""
        found = self.probe()
        if self.layout not in self.names:
            return found
        return {name: value for name, value in found.items() if name == self.layout}

    def declared(self, key: str) -> str:
        """A value of the metadata, in lower case; empty where there is none."""
        return next((v for k, v in self.metadata.items() if k.lower() == key), "").strip().lower()


Recogniser = Callable[[Outputs, bool], Reading | None]
"""From what is known of the outputs, and whether the user named the task, to a reading."""


@dataclass(frozen=True)
class Task:
    """A task and how it is recognised.

    Attributes:
        name: As typed after ``--task``.
        rank: Order in which tasks are tried: what is easily told from others first.
        words: Values of the metadata's ``task`` that name it.
        recognise: Gives the reading of a model's outputs, or None.
    """

    name: str
    rank: int
    words: tuple[str, ...]
    recognise: Recogniser


_REGISTRY: dict[str, Task] = {}


def task(name: str, *, rank: int, words: Iterable[str] = ()) -> Callable[[Recogniser], Recogniser]:
    """Declare the function below as what recognises a task; see ``Task`` for the arguments."""

    def keep(function: Recogniser) -> Recogniser:
        _REGISTRY[name] = Task(name, rank, tuple(words), function)
        return function

    return keep


@cache
def tasks() -> Mapping[str, Task]:
    """All tasks by name, in the order in which they are tried."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {one.name: one for one in sorted(_REGISTRY.values(), key=lambda one: one.rank)}


def find_reading(outputs: Outputs, wanted: str | None = None) -> Reading | None:
    """What the outputs of a model mean.

    Args:
        outputs: What is known of them.
        wanted: The task that the user names, perhaps with a layout, ``detector:yolox``; None to
            find it out.

    Returns:
        None for a classifier, and where no task fits.

    Raises:
        UsageError: No task of that name, the outputs do not fit the one named, or they can be read
            in several ways.
    """
    known = tasks()
    if wanted is not None:
        return _named(outputs, wanted)
    said = outputs.declared("task")
    named = [one for one in known.values() if said and said in one.words]
    if named:
        found = _recognised(named[0], outputs, asked=True)
        if found is not None:
            return found
    if outputs.scores.classifier and outputs.scores.classifies:
        return None
    for one in known.values():
        found = _recognised(one, outputs, asked=False)
        if found is not None:
            return found
    return None


def _named(outputs: Outputs, wanted: str) -> Reading | None:
    """The reading that the user names; None for a classifier.

    Raises:
        UsageError: There is no such task, or the outputs do not fit it.
    """
    known = tasks()
    name, colon, layout = wanted.partition(":")
    if colon and name in known and name != "detector" and layout not in outputs.names:
        shown = ", ".join(f"{name}:{clean_text(output)}" for output in outputs.names[:_SHOWN])
        raise UsageError(f"{quoted(wanted)} is not a task and an output", hint=f"one of {shown}")
    if colon and not layout:
        raise UsageError(f"{quoted(wanted)} is not a task", hint="detector:LAYOUT names a layout")
    if name == "classifier":
        return None
    if name not in known:
        names = ["classifier", *known]
        raise UsageError(
            f"no task is called {quoted(name)}",
            hint=nearest(name, names) or "one of " + ", ".join(names),
        )
    found = _recognised(known[name], replace(outputs, layout=layout), asked=True)
    if found is None:
        raise UsageError(
            f"the outputs do not fit the task {name!r}: {outputs.scores.why}",
            hint="name an element, OUTPUT[i,j,...], as the target; `inspector check` says what "
            "the model is",
        )
    return found


def _recognised(one: Task, outputs: Outputs, *, asked: bool) -> Reading | None:
    """What a task makes of the outputs; None also where their numbers make no sense to it."""
    try:
        return one.recognise(outputs, asked)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def laid_out(photo: str = "") -> Iterator[None]:
    """Refuse a photo whose outputs a task stumbles over; or as a decorator.

    A task is recognised by the outputs for a probe image. A stranger's network may give others for
    a photo: of another length, or lists that do not fit one another.

    Args:
        photo: The photo's name, for messages.

    Raises:
        ImageRefused: Something that does not explain itself was raised.
    """
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ImageRefused(
            "the network's outputs for it are laid out otherwise than for other images "
            f"({type(error).__name__}: {reason})",
            where=photo,
            hint="name an element, OUTPUT[i,j,...], as the target",
        ) from error


def place_lost(why: str) -> Mapping[str, str]:
    """What to know of methods that average the gradient over places, where each item has its own.

    Args:
        why: What comes of it for the task.
    """
    return {
        name: f"{name} averages the gradient over the layer's places: {why}; hires-cam keeps the "
        "place"
        for name in ("grad-cam", "grad-cam++", "x-grad-cam")
    }


def others_said(task_name: str, others: Sequence[str]) -> str:
    """What is said of outputs of the same kind that are left aside; empty where there are none."""
    if not others:
        return ""
    named = clean_text(others[0])
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"; {named!r}{more} left aside, --task {task_name}:{named} takes it"


def unknown(text: str, reading: Reading, hint: str) -> UnknownTarget:
    """The refusal of words that name nothing for a task."""
    return UnknownTarget(
        f"{text!r} names nothing of a {reading.task}",
        hint=f"{hint}; or an element, OUTPUT[i,j,...]",
    )

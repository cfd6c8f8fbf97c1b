"""What a study is: an experiment of the papers on any model, with a figure and its numbers.

A study is declared once, with ``@study`` above a function in ``inspector.studies``.  Like a
method's, its keyword-only parameters are its options; the command line and the documentation
read them from there.  Two of them are not options but handed in by whoever runs it: ``progress``,
called with (what, done, total), and ``journal``, which keeps results of long work so that an
interrupted run can go on.
"""

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, wraps
from pathlib import Path
from typing import Any

from PIL.Image import Image

from converters.plain_values import quoted, whole_number
from inspector.declarations import Option, options_of
from inspector.errors import ImageRefused, InspectorWarning, MissingExtra, UsageError, require
from inspector.heatmap import Heatmap
from inspector.render import FORMATS, save

__all__ = [
    "Findings",
    "Study",
    "check_seed",
    "parse_units",
    "studies",
    "study",
    "study_named",
]

SCHEMA = 1
"""Version of the JSON document; a field that changes its meaning raises it."""

MOST_UNITS = 256
"""Units that one run may ask for."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a study found.

    Attributes:
        study: Its name, which names the files.
        context: Model, preprocessing and versions, as plain data.
        options: Everything that was asked for.
        numbers: The result, as plain data.
        sentences: The result in plain language.
        draw: Draws the picture; called when it is first asked for, and not at all by whoever
            wants the numbers alone.
        table: The numbers as rows that a spreadsheet reads; none are written when empty.
        images: Photos that were used.
        refused: Photos that could not be read.
        warnings: What must be known when the result is read.
        drawable: Whether what draws the picture is installed; without it the numbers are saved.
    """

    study: str
    context: Mapping[str, Any]
    options: Mapping[str, Any]
    numbers: Mapping[str, Any]
    sentences: tuple[str, ...]
    draw: Callable[[], Image]
    table: Sequence[Mapping[str, Any]] = ()
    images: int = 0
    refused: tuple[ImageRefused, ...] = ()
    warnings: tuple[str, ...] = ()
    drawable: bool = True

    @cached_property
    def figure(self) -> Image:
        """The picture, an RGB image; drawn at the first call.

        Raises:
            MissingExtra: It has curves, and Matplotlib is not installed.
        """
        return self.draw()

    @property
    def name(self) -> str:
        """Start of the file names: the study's name."""
        return self.study

    def document(self) -> dict[str, Any]:
        """Plain data of everything but the picture."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            **self.context,
            "options": dict(self.options),
            "result": dict(self.numbers),
            "sentences": self.sentences,
            "images": {"used": self.images, "refused": [str(error) for error in self.refused]},
            "warnings": self.warnings,
        }

    def figures(self) -> dict[str, Callable[[], Image]]:
        """The picture, by the name of its file; not drawn yet. None where it cannot be drawn."""
        return {self.study: lambda: self.figure} if self.drawable else {}

    def tables(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """The rows, by the name of their file; none when there are none."""
        return {self.study: self.table} if self.table else {}

    def maps(self) -> dict[str, Heatmap]:
        """No maps: a study keeps none."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Plain data of everything but the picture; the same as ``document``."""
        return self.document()

    def save(self, folder: str | Path, *, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Write ``STUDY.png``, ``STUDY.csv`` and ``STUDY.json``, each whole or not at all.

        Args:
            folder: Made when it does not exist.
            formats: Names of output formats; see ``inspector.render``.

        Returns:
            The files, the report last; without a table no CSV.

        Raises:
            UsageError: There is no such format, or the place cannot be written to.
        """
        return save(self, folder, formats)


Function = Callable[..., Findings]


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        name: As typed after ``inspector study``.
        images: Whether it cannot do without photos.
        labelled: Whether it wants photos whose classes are known (``dataset.LabelledPhoto``).
        needs: Optional packages without which it computes nothing, keys of `NEEDS`; they are
            asked for before the first photo.
        draws: Whether its picture has curves, for which Matplotlib is needed; without it the
            numbers are written alone, which is said before the first photo.
        function: Takes the opened model, the photos and the options.
    """

    name: str
    images: bool
    labelled: bool
    needs: tuple[str, ...]
    draws: bool
    function: Function = field(repr=False)

    @property
    def documentation(self) -> str:
        """The docstring up to its sections."""
        text = inspect.getdoc(self.function) or ""
        return text.partition("\nArgs:\n")[0].strip()

    @property
    def options(self) -> dict[str, Option]:
        """Options by name, with defaults and help from the signature and the docstring."""
        return options_of(self.function)


_REGISTRY: dict[str, Study] = {}


NEEDS = {
    "scipy": ("scipy.stats", "statistics over photos"),
    "scikit-learn": ("sklearn.model_selection", "linear classifiers"),
}
"""A module of each optional package, and what it is for."""


def study(
    name: str,
    *,
    images: bool,
    labelled: bool = False,
    needs: tuple[str, ...] = (),
    draws: bool = False,
) -> Callable[[Function], Function]:
    """Declare the function below as a study; see ``Study`` for the arguments."""

    def keep(function: Function) -> Function:
        @wraps(function)
        def checked(model: Any, *args: Any, **options: Any) -> Findings:
            model.require_pictures(f"the study {name}")
            for module, what in map(NEEDS.__getitem__, needs):
                require(module, what, "studies")
            missing = _no_curves() if draws else ""
            if missing:
                warnings.warn(missing, InspectorWarning, stacklevel=2)
            found = function(model, *args, **options)
            if not missing:
                return found
            return replace(found, drawable=False, warnings=(*found.warnings, missing))

        _REGISTRY[name] = Study(name, images, labelled, needs, draws, checked)
        return checked

    return keep


def _no_curves() -> str:
    """Why no curves are drawn; empty where they are."""
    try:
        require("matplotlib.figure", "drawing curves", "studies")
    except MissingExtra as error:
        return f"the numbers are written without the figure: {error}"
    return ""


@cache
def studies() -> Mapping[str, Study]:
    """All studies by name."""
    folder = importlib.import_module("inspector.studies")  # its modules import this one
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    return {name: _REGISTRY[name] for name in sorted(_REGISTRY)}


def study_named(name: str) -> Study:
    """The study of a name, of which only its own file is imported.

    Raises:
        KeyError: There is none.
    """
    module = name.replace("-", "_")
    folder = importlib.import_module("inspector.studies")
    if name not in _REGISTRY and module in {
        one.name for one in pkgutil.iter_modules(folder.__path__)
    }:
        importlib.import_module(f"{folder.__name__}.{module}")
    return _REGISTRY.get(name) or studies()[name]


def check_seed(seed: int) -> None:
    """Refuse a seed that NumPy's or scikit-learn's generators would not take.

    Raises:
        UsageError: It is negative, or has more than 32 bits.
    """
    if not 0 <= seed < 1 << 32:
        raise UsageError(f"seed = {seed}", hint=f"0 to {(1 << 32) - 1}")


def parse_units(text: str, channels: int, first: int = 8) -> tuple[int, ...]:
    """Read ``0,3,8-11``; each unit once, in the order asked for.

    Args:
        text: The user's words; empty for the first few.
        channels: How many units the layer has.
        first: How many are meant by an empty text.

    Raises:
        UsageError: No numbers, too many, or units that the layer does not have.
    """
    if not text.strip():
        return tuple(range(min(first, channels)))
    found: dict[int, None] = {}
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        ends = whole_number(low), whole_number(high if dash else low)
        if ends[0] is None or ends[1] is None or ends[0] < 0:
            raise UsageError(f"{quoted(part.strip())} is not a unit", hint="write them as 0,3,8-11")
        if not ends[0] <= ends[1] < channels:
            raise UsageError(
                f"there is no unit {part.strip()}", hint=f"units run from 0 to {channels - 1}"
            )
        found |= dict.fromkeys(range(ends[0], ends[1] + 1))
    if len(found) > MOST_UNITS:
        raise UsageError(f"{len(found)} units", hint=f"at most {MOST_UNITS} at a time")
    return tuple(found)

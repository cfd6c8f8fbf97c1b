"""Choice of the preprocessing that a model expects, with the evidence for each setting.

The first source that knows wins, key by key: single options of the user, then the user's preset
or file, then a file beside the model, then the model's own metadata, then a guess from the
declared input. The input's size is the model's own wherever the model fixes it. Each key's
evidence stands in the report, and a guess is also said on standard error.

How the photo is fitted is guessed last, when the size is known: a centre crop is a habit of
classifiers with square inputs. Inputs of another aspect, and networks that are not classifiers,
get the whole photo.
"""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from converters.nearest_path import did_you_mean
from converters.plain_values import quoted
from converters.source import PREPROCESS_KEYS
from inspector.errors import UsageError, nearest
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo, load_photo
from inspector.photos.preprocess import PRESETS, Preprocess
from inspector.photos.preprocess_files import (
    Settings,
    model_metadata,
    parse_override,
    read_settings,
)
from inspector.photos.preprocess_guess import (
    DETECTOR_GREY,
    WIDE,
    doubts,
    guess,
    guess_bands,
    made_by_tensorflow,
    short,
)

__all__ = [
    "PRESETS",
    "Geometry",
    "Photo",
    "Preprocess",
    "PreprocessChoice",
    "Resolved",
    "load_photo",
    "resolve",
]

PreprocessChoice = str | Path | Preprocess | Mapping[str, Any]
"""A preset's name, a file, a `Preprocess`, or settings of one by name."""


@dataclass(frozen=True)
class Resolved:
    """A preprocessing and why it was taken.

    Attributes:
        preprocess: What is done to each photo.
        evidence: For each key of `Preprocess`, where its value comes from.
        guessed: Whether mean, std, scale or channels are a guess.
        warnings: Sentences for standard error and for the report.
        chosen: Whether the user named mean, std or scale.
    """

    preprocess: Preprocess
    evidence: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    guessed: bool = False
    warnings: tuple[str, ...] = ()
    chosen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "settings": self.preprocess.to_dict(),
            "evidence": dict(self.evidence),
            "guessed": self.guessed,
        }


def resolve(
    flag: PreprocessChoice | None = None,
    overrides: Sequence[str] = (),
    *,
    model_path: Path | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
    input_size: tuple[int | None, int | None] = (None, None),
    input_channels: int = 3,
    layout: str = "NCHW",
    integer: bool = False,
    bounds: tuple[int, int] | None = None,
    first_operators: Sequence[str] = (),
    normalises: tuple[str, str] | None = None,
    producer: str = "",
    names: Sequence[str] = (),
    classifier: bool = True,
    space: int = 2,
    workable: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> Resolved:
    """Choose the preprocessing.

    Args:
        flag: A preset, a file, a `Preprocess`, a mapping of its settings (``preset`` may name
            the base, else ``unit``), or None to look for evidence.
        overrides: Single settings, ``key=value`` each.
        model_path: The model; its folder is searched for side files.
        metadata: The model's ``metadata_props``.
        input_size: Height and width that the model fixes, None where it leaves them free.
        input_channels: Bands that the model takes; 1 or 3 of a photo.
        layout: "NCHW" or "NHWC", as the model declares its input.
        integer: Whether the input takes integers, which is evidence for raw pixels.
        bounds: Smallest and largest number that an integer input holds.
        first_operators: Operators that consume the input; a model that subtracts or divides
            first normalises by itself.
        normalises: The preset that the model's own normalisation asks for, and its first operator,
            where its numbers tell.
        producer: Program that wrote the file.
        names: Names of nodes, in which converters leave traces.
        classifier: Whether the model is a classifier.
        space: Axes of space of the input: 1 of signals, 2 of pictures, 3 of volumes.
        workable: Called with a guessed size (H, W) where the model leaves a side free; returns
            the size that the network runs with.

    Raises:
        UsageError: An unknown preset, key or value; a size that the model does not take.
    """
    channels, declared = input_channels, input_size
    sources = _Sources()
    bands = channels not in (1, 3) or space != 2
    if bands:
        sources.add(*guess_bands(channels, declared, space))
    else:
        sources.add(
            *guess(
                channels,
                declared,
                layout,
                integer=integer,
                bounds=bounds,
                first_operators=first_operators,
                normalises=normalises,
                maker=made_by_tensorflow(producer, names),
            )
        )
    guess_only = True
    if flag is None:
        found = _side_file(model_path, sources.warnings)
        if found is None:
            settings, words, notes = model_metadata(metadata)
            sources.warnings += notes
            found = (settings, words) if settings else None
        if found is not None:
            told = {"mean", "std", "scale", "preset"} & set(found[0])
            guess_only = not told or found[1].startswith("guess")
            try:
                sources.add(*found)
            except UsageError as error:
                # Not the user's word: what a stranger's file says wrongly is put aside.
                sources.warnings.append(f"{found[1]} is ignored: {error}")
                guess_only = True
    else:
        sources.add(*_flagged(flag))
        guess_only = False
    given: set[str] = set()
    for text in overrides:
        key, value = parse_override(text)
        sources.add({key: value}, f"option {text}")
        given.add(key)
    sources.fit_model(channels, declared, layout, given, bands=bands)
    if (
        workable is not None
        and space in {1, 2}
        and None in declared
        and _unsaid(sources.evidence["size"])
    ):
        sources.take_size(workable(sources.preprocess.size), signal=space == 1)
    if not bands:
        sources.fit_photo(classifier=classifier)
        sources.warnings += doubts(sources.preprocess, bounds if integer else None)
    named = {"mean", "std", "scale"} & given
    guessed = guess_only and len(named) < (1 if bands else 3)
    if guessed:
        sources.warnings.insert(0, _AS_THEY_ARE if bands else _sentence(sources))
    return Resolved(
        sources.preprocess,
        MappingProxyType(sources.evidence),
        guessed,
        tuple(sources.warnings),
        flag is not None or bool({"mean", "std", "scale"} & given),
    )


class _Sources:
    """Settings that later sources overrule, with the evidence for each key."""

    def __init__(self) -> None:
        self.preprocess = PRESETS["unit"]
        self.evidence: dict[str, str] = dict.fromkeys(PREPROCESS_KEYS, "default")
        self.warnings: list[str] = []
        self.named_size = False  # a preset's own size is a default, and yields silently

    def add(self, settings: Settings, words: str) -> None:
        """Let these settings overrule what is known so far."""
        settings = dict(settings)
        base, start = self.preprocess, settings.pop("preset", None)
        if start is not None:
            base = Preprocess.preset(str(start))
        changed = base.changed(settings)
        if start is not None:
            self.evidence = dict.fromkeys(PREPROCESS_KEYS, words)
            self.named_size = False
        self.named_size |= "size" in settings
        for key in settings:
            self.evidence[key] = words
        for key in ("mean", "std"):
            if key not in settings and getattr(base, key) != getattr(changed, key):
                self.evidence[key] += f", arranged for {changed.channels}"
        self.preprocess = changed

    def fit_model(
        self,
        channels: int,
        declared: tuple[int | None, int | None],
        layout: str,
        given: set[str],
        *,
        bands: bool,
    ) -> None:
        """Bring channels, size and layout to what the model's input declares."""
        if self.preprocess.channel_count != channels or self.preprocess.bands != bands:
            if "channels" in given:
                raise UsageError(
                    f"channels = {self.preprocess.channels}, but the model takes {channels}"
                )
            word = str(channels) if bands else "GRAY" if channels == 1 else "RGB"
            if not bands or self.preprocess.channel_count != channels:
                self.warnings.append(
                    f"the preprocessing is for {self.preprocess.channels} pictures, the model "
                    f"takes {channels} channel(s): {word} is used"
                )
            self.add({"channels": word}, "declared input of the model")
        size = self.preprocess.size
        fixed = (declared[0] or size[0], declared[1] or size[1])
        if fixed != size:
            named = self.evidence["size"]
            text = f"{size[0]} x {size[1]}"
            takes = f"the model takes {fixed[0]} x {fixed[1]}"
            if "size" in given:
                raise UsageError(f"size = {text}, but {takes}", hint="leave the size out")
            if self.named_size and not named.startswith("guess"):
                self.warnings.append(f"{named} names the size {text}, but {takes}")
            self.preprocess = replace(self.preprocess, size=fixed)
        if None not in declared:
            self.evidence["size"] = "declared input of the model"
        if self.preprocess.layout != layout and "layout" in given:
            self.warnings.append(f"layout {self.preprocess.layout} against the declared {layout}")
        elif self.preprocess.layout != layout:
            self.preprocess = replace(self.preprocess, layout=layout)
            self.evidence["layout"] = "declared input of the model"

    def take_size(self, size: tuple[int, int], *, signal: bool = False) -> None:
        """Let the size be one that the network has been found to run with.

        A signal may have any length, unless the network does not run with the usual one: then it is
        the one that its dense layer asks for, and no guess.
        """
        if size != self.preprocess.size and signal:
            self.preprocess = replace(self.preprocess, size=size)
            self.evidence["size"] = (
                f"the network: its dense layer takes signals of {size[1]} places"
            )
        elif size != self.preprocess.size:
            before = self.preprocess.size
            self.preprocess = replace(self.preprocess, size=size)
            self.evidence["size"] = "guess: the first size tried that the network runs with"
            self.warnings.append(
                f"the file leaves the input's size free, but the network does not run with "
                f"{before[0]} x {before[1]} pixels: {size[0]} x {size[1]} is used; "
                "name another with --set size=HEIGHT,WIDTH"
            )

    def fit_photo(self, *, classifier: bool) -> None:
        """Guess how the photo is fitted into the input, where no source says it."""
        if not _unsaid(self.evidence["resize"]):
            return
        height, width = self.preprocess.size
        settings: Settings = {}
        if not classifier:
            settings = {"resize": "letterbox", "pad": [DETECTOR_GREY] * 3}
            why = "not a classifier, so the whole photo"
        elif max(height, width) >= WIDE * min(height, width):
            settings = {"resize": "squash"}
            why = f"an input of {height} x {width} pixels is not square, so the whole photo"
        if settings:
            settings["crop_pct"] = 1.0
            wanted = {k: v for k, v in settings.items() if _unsaid(self.evidence[k])}
            self.add(wanted, f"guess: {why}")


_AS_THEY_ARE = (
    "the values of the files are taken as they are, since no recipe is named; name one with "
    "--set mean=..., --set std=... and --set scale=..."
)


def _unsaid(evidence: str) -> bool:
    """Whether no source says a setting."""
    return evidence == "default" or evidence.startswith("guess")


def _sentence(sources: _Sources) -> str:
    """Sentence that says what was guessed, and how to set it."""
    p = sources.preprocess
    words = sources.evidence["mean"].partition(":")[2].strip() or "nothing else is known"
    return (
        f"the preprocessing is a guess ({words}): {p.channels} / {p.scale:g}, "
        f"mean {short(p.mean)}, std {short(p.std)}, {p.resize} {p.crop_pct:g}; "
        "name it with --preprocess"
    )


def _flagged(flag: PreprocessChoice) -> tuple[Settings, str]:
    """Settings of what the user named: a preprocessing, its settings, a preset, or a file."""
    if isinstance(flag, Preprocess):
        return flag.to_dict(), "given by the caller"
    if isinstance(flag, Mapping):
        return {"preset": "unit", **{str(k): v for k, v in flag.items()}}, "given by the caller"
    if not isinstance(flag, str | Path):
        raise UsageError(
            f"preprocess: a value of type {type(flag).__name__}",
            hint="give a preset, a file, a Preprocess or a mapping of its settings; presets: "
            + ", ".join(PRESETS),
        )
    if str(flag) in PRESETS:
        return {"preset": str(flag)}, f"option {flag}"
    path = Path(flag)
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names that are too long
        raise UsageError(
            f"no preset and no file is called {quoted(str(flag))}",
            hint=nearest(str(flag), PRESETS)
            or did_you_mean(path)
            or "presets: " + ", ".join(PRESETS),
        )
    settings, kind = read_settings(path)
    settings.setdefault("preset", "unit")
    try:
        PRESETS["unit"].changed({k: v for k, v in settings.items() if k != "preset"})
    except UsageError as error:
        raise UsageError(error.what, where=str(path), hint=error.hint) from None
    return settings, f"{kind} {path.name}"


def _side_file(model_path: Path | None, warnings: list[str]) -> tuple[Settings, str] | None:
    """Settings of a file that lies beside the model."""
    if model_path is None:
        return None
    names = (f"{model_path.stem}.preprocess.toml", "preprocessor_config.json", "config.json")
    places = [(model_path.parent, "beside")]
    if model_path.parent.name == "onnx":  # the hub's layout has them one folder up
        places.append((model_path.parent.parent, "above"))
    for (folder, where), name in itertools.product(places, names):
        path = folder / name
        if not os.path.lexists(path):
            continue
        try:
            settings, kind = read_settings(path, beside=True)
        except UsageError as error:
            # A config.json may be anything; the others are meant for this.
            if name != "config.json":
                warnings.append(f"side file ignored: {error}")
            continue
        if "preset" not in settings:
            settings["preset"] = "unit"
        return settings, f"{kind} {name} {where} the model"
    return None

"""Readers of preprocessing files of other projects, as settings of `Preprocess`.

Each reader takes plain data and returns `Settings`: the keys it found, with values still to be
checked by `Preprocess`. Known are the project's own TOML, Hugging Face's
``preprocessor_config.json``, timm's ``config.json``, and the model metadata of Windows ML and
of Ultralytics.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.plain_values import finite_number, parse_json, parse_literal, parse_toml, quoted
from converters.preprocessing import hugging_face, is_hugging_face, is_timm, timm
from converters.regular_file import read_beside, read_regular
from converters.source import PREPROCESS, PREPROCESS_KEYS
from inspector.errors import ConverterError, UsageError, nearest
from inspector.surgery.embedded_facts import METADATA_KEY, facts_of

__all__ = [
    "Settings",
    "hugging_face",
    "is_hugging_face",
    "is_timm",
    "model_metadata",
    "parse_override",
    "read_settings",
    "timm",
]

Settings = dict[str, Any]

_MAX_BYTES = 2**20  # a settings file is a page of text
_LONGEST_SIZE = 100  # characters of two numbers


def read_settings(path: Path, *, beside: bool = False) -> tuple[Settings, str]:
    """Read a file of any known kind.

    Args:
        path: The file.
        beside: Whether it lies beside a stranger's model, so that no link out of that folder is
            followed.

    Returns:
        The settings, and which kind of file they came from.

    Raises:
        UsageError: The file cannot be read or is of no known kind.
    """
    where = str(path)
    try:
        if beside:
            text = read_beside(path.parent, path.name, _MAX_BYTES).decode("utf-8")
        else:
            text = read_regular(path, _MAX_BYTES).decode("utf-8")
        if path.suffix.lower() == ".toml":
            return own(parse_toml(text), where), "TOML"
        data = parse_json(text)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=where) from None
    except ValueError as error:  # of the decoders and of utf-8
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"not a valid settings file ({reason})", where=where) from None
    found = _by_kind(data, where) if isinstance(data, dict) else None
    if found is None:
        raise UsageError(
            "neither a timm config nor a Hugging Face preprocessor config",
            where=where,
            hint="write the settings as TOML: " + ", ".join(PREPROCESS_KEYS),
        )
    return found


def _by_kind(data: dict[str, Any], where: str) -> tuple[Settings, str] | None:
    """Settings of a JSON document, by what it looks like; None when it looks like nothing."""
    try:
        if is_timm(data):
            return timm(data), "timm config"
        if is_hugging_face(data):
            return hugging_face(data), "Hugging Face preprocessor config"
    except ConverterError as error:
        raise UsageError(error.what, where=where, hint=error.hint) from None
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"settings of an unexpected type ({reason})", where=where) from None
    return (own(data, where), "JSON") if set(data) <= {*PREPROCESS_KEYS, "preset"} else None


def own(data: Mapping[str, Any], where: str) -> Settings:
    """The project's own keys, of which ``preset`` may name what the others change."""
    for key in data:
        if key not in (*PREPROCESS_KEYS, "preset"):
            hint = nearest(key, (*PREPROCESS_KEYS, "preset")) or "keys: " + ", ".join(
                PREPROCESS_KEYS
            )
            raise UsageError(f"unknown preprocessing key {quoted(key)}", where=where, hint=hint)
    return dict(data)


def parse_override(text: str) -> tuple[str, Any]:
    """Split one ``key=value`` of the command line.

    Values are TOML; lists may come without brackets (``mean=0.5,0.5,0.5``) and words without
    quotes (``channels=BGR``).

    Raises:
        UsageError: No ``=``, or an unknown key (the nearest ones are named).
    """
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not value:
        raise UsageError(
            f"{quoted(text)} is neither a preset, nor a file, nor key=value", hint=_KEYS_HINT
        )
    if key not in PREPROCESS_KEYS:
        raise UsageError(
            f"unknown preprocessing key {quoted(key)}",
            hint=nearest(key, PREPROCESS_KEYS) or _KEYS_HINT,
        )
    for candidate in (value, f"[{value}]") if "," in value else (value,):
        try:
            return key, parse_toml(f"v = {candidate}")["v"]
        except ValueError:
            continue
    return key, value


_KEYS_HINT = "keys: " + ", ".join(PREPROCESS_KEYS)


def model_metadata(metadata: Mapping[str, str]) -> tuple[Settings, str, tuple[str, ...]]:
    """Settings from a model's ``metadata_props``.

    Read are, in this order: what ``inspector embed`` made a heatmap with, ``inspector.preprocess``
    (JSON of the own keys), Windows ML's ``Image.*`` (onnx/docs/MetadataProps.md; no nominal range
    means 0..255, as Windows ML takes it), what Ultralytics exports, and what ``inspector embed``
    had guessed.

    Returns:
        The settings (empty when nothing is known), whose words they are, and warnings. Words that
        begin with ``guess`` are those of settings that were one when they were written.
    """
    settings, words, notes = _embedded(metadata)
    if settings and not words.startswith("guess"):
        return settings, words, notes
    found, whose, more = _declared(metadata)
    return (found, whose, (*notes, *more)) if found else (settings, words, (*notes, *more))


def _embedded(metadata: Mapping[str, str]) -> tuple[Settings, str, tuple[str, ...]]:
    """Settings of a file with a heatmap: those that the heatmap was made with."""
    if METADATA_KEY not in metadata:
        return {}, "", ()
    facts = facts_of(metadata)
    said = None if facts is None else facts.get("preprocessing")
    settings = said.get("settings") if isinstance(said, dict) else None
    where = f"the model's metadata {METADATA_KEY!r}"
    if not isinstance(said, dict) or not isinstance(settings, dict):
        return {}, "", (f"{where} does not say how photos are preprocessed, and is ignored",)
    try:
        found = own(settings, where)
    except UsageError as error:
        return {}, "", (f"{where} is ignored: {error}",)
    # Whoever wrote the file may have left it out: only a plain "no" makes it more than a guess.
    guessed = said.get("guessed") is not False
    return found, "guess: " * guessed + _EMBEDDED, ()


_EMBEDDED = "written by inspector embed into the file"


def _declared(metadata: Mapping[str, str]) -> tuple[Settings, str, tuple[str, ...]]:
    """Settings that the metadata declares for the network itself."""
    if PREPROCESS in metadata:
        where = f"metadata {PREPROCESS}"
        try:
            data = parse_json(metadata[PREPROCESS])
            return own(data if isinstance(data, dict) else {"": data}, where), where, ()
        except (ValueError, UsageError) as error:
            return {}, "", (f"the model's metadata {PREPROCESS!r} is ignored: {error}",)
    image = {k.lower(): v.lower() for k, v in metadata.items() if k.lower().startswith("image.")}
    if image:
        return _windows_ml(image)
    if (
        metadata.get("author") == "Ultralytics"
        or "ultralytics" in metadata.get("description", "").lower()
    ):
        return _ultralytics(metadata)
    return {}, "", ()


def _windows_ml(image: Mapping[str, str]) -> tuple[Settings, str, tuple[str, ...]]:
    """Settings from ``Image.BitmapPixelFormat`` and its companions, lower-cased."""
    found: Settings = {}
    notes: list[str] = []
    layout = image.get("image.bitmappixelformat", "")
    for start, channels in (("gray", "GRAY"), ("bgr", "BGR"), ("rgb", "RGB")):
        if layout.startswith(start):
            found["channels"] = channels
    nominal = image.get("image.nominalpixelrange", "nominalrange_0_255")
    ranges = {
        "nominalrange_0_255": (1.0, 0.0, 1.0),
        "normalized_0_1": (255.0, 0.0, 1.0),
        "normalized_1_1": (255.0, 0.5, 0.5),
        "nominalrange_16_235": (255 / 219, -16.0, 1.0),
    }
    if nominal in ranges:
        scale, mean, std = ranges[nominal]
        found |= {"scale": scale, "mean": mean, "std": std}
    else:
        notes.append(f"unknown Image.NominalPixelRange {quoted(nominal)} in the model's metadata")
    if image.get("image.colorspacegamma") == "linear":
        notes.append("the model asks for linear light (Image.ColorSpaceGamma), photos are sRGB")
    return found, "Image.* metadata of Windows ML", tuple(notes)


def _ultralytics(metadata: Mapping[str, str]) -> tuple[Settings, str, tuple[str, ...]]:
    """Settings from the metadata of an Ultralytics export."""
    found: Settings = {"scale": 255.0, "mean": 0.0, "std": 1.0, "channels": "RGB"}
    found |= {"interpolation": "bilinear", "crop_pct": 1.0}
    if metadata.get("task") == "classify":
        found["resize"] = "crop"
    else:
        found |= {"resize": "letterbox", "pad": [114, 114, 114]}
    with contextlib.suppress(ValueError):  # a detail: the declared or the default size stands in
        size = parse_literal(metadata.get("imgsz", "")[:_LONGEST_SIZE])
        sides = [finite_number(v) for v in size] if isinstance(size, list | tuple) else []
        if len(sides) == 2 and None not in sides:
            found["size"] = [int(side) for side in sides if side is not None]
    return found, "Ultralytics metadata", ()

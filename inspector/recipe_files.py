"""Preprocessing as other projects write it down, turned into the keys of `Preprocess`.

Each reader takes plain data and returns `Settings`: the keys it found, with values still to be
checked by `Preprocess`. Known are the project's own TOML, Hugging Face's
``preprocessor_config.json``, timm's ``config.json``, and the model metadata of Windows ML and
of Ultralytics.
"""

import ast
import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspector.errors import UsageError, nearest

__all__ = [
    "FIELDS",
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

FIELDS = (
    "size",
    "resize",
    "crop_pct",
    "interpolation",
    "scale",
    "mean",
    "std",
    "channels",
    "layout",
    "pad",
)

OWN_METADATA_KEY = "inspector.preprocess"
_MAX_BYTES = 2**20  # a settings file is a page of text
_PIL_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by PIL's number

# Image processors whose whole-number ``size`` means the short side; the others mean a square.
_SHORT_SIDE = ("CLIP", "ConvNext", "MobileNet", "MobileViT", "PoolFormer", "Levit", "Bit", "LeViT")


def read_settings(path: Path) -> tuple[Settings, str]:
    """Read a file of any known kind.

    Returns:
        The settings, and which kind of file they came from.

    Raises:
        UsageError: The file cannot be read or is of no known kind.
    """
    where = str(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError("too large for a preprocessing file", where=where)
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".toml":
            return own(tomllib.loads(text), where), "TOML"
        data = json.loads(text)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=where) from None
    except (ValueError, RecursionError) as error:  # both decoders and utf-8 raise ValueErrors
        reason = " ".join(str(error).split())[:120]
        raise UsageError(f"not a valid settings file ({reason})", where=where) from None
    found = _by_kind(data, where) if isinstance(data, dict) else None
    if found is None:
        raise UsageError(
            "neither a timm config nor a Hugging Face preprocessor config",
            where=where,
            hint="write the settings as TOML: " + ", ".join(FIELDS),
        )
    return found


def _by_kind(data: dict[str, Any], where: str) -> tuple[Settings, str] | None:
    """Settings of a JSON document, by what it looks like; None when it looks like nothing."""
    try:
        if is_timm(data):
            return timm(data), "timm config"
        if is_hugging_face(data):
            return hugging_face(data), "Hugging Face preprocessor config"
    except UsageError as error:
        raise UsageError(error.what, where=where, hint=error.hint) from None
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"settings of an unexpected type ({reason})", where=where) from None
    return (own(data, where), "JSON") if set(data) <= {*FIELDS, "preset"} else None


def own(data: Mapping[str, Any], where: str) -> Settings:
    """The project's own keys, of which ``preset`` may name what the others change."""
    for key in data:
        if key not in (*FIELDS, "preset"):
            hint = nearest(key, (*FIELDS, "preset")) or "keys: " + ", ".join(FIELDS)
            raise UsageError(f"unknown preprocessing key {key!r}", where=where, hint=hint)
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
        raise UsageError(f"{text!r} is no preset, no file and no key=value", hint=_KEYS_HINT)
    if key not in FIELDS:
        raise UsageError(
            f"unknown preprocessing key {key!r}", hint=nearest(key, FIELDS) or _KEYS_HINT
        )
    for candidate in (value, f"[{value}]") if "," in value else (value,):
        try:
            return key, tomllib.loads(f"v = {candidate}")["v"]
        except tomllib.TOMLDecodeError:
            continue
    return key, value


_KEYS_HINT = "keys: " + ", ".join(FIELDS)


def is_timm(data: Mapping[str, Any]) -> bool:
    """Whether this JSON is a timm ``config.json``."""
    config = data.get("pretrained_cfg", data)
    return isinstance(config, dict) and "input_size" in config and "mean" in config


def timm(data: Mapping[str, Any]) -> Settings:
    """Settings of a timm model: ``input_size``, ``mean``, ``std``, ``crop_pct``, ``crop_mode``."""
    config = data.get("pretrained_cfg", data)
    channels, height, width = config["input_size"]
    mode = config.get("crop_mode") or "center"
    modes = {"center": "crop", "squash": "squash", "border": "letterbox"}
    if mode not in modes:
        raise UsageError(f"unknown crop_mode {mode!r}", hint="known: " + ", ".join(modes))
    interpolation = config.get("interpolation") or "bilinear"
    found: Settings = {
        "size": [height, width],
        "resize": modes[mode],
        "crop_pct": config.get("crop_pct") or 0.875,
        # timm trains with a random choice where it says so, and evaluates with bilinear
        "interpolation": "bilinear" if interpolation == "random" else interpolation,
        "scale": 255.0,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "channels": "GRAY" if channels == 1 else "RGB",
    }
    if mode == "border" and channels == 3:
        found["pad"] = [round(255 * float(v)) for v in config["mean"]]
    return found


def is_hugging_face(data: Mapping[str, Any]) -> bool:
    """Whether this JSON is a Hugging Face ``preprocessor_config.json``."""
    names = ("image_processor_type", "feature_extractor_type", "image_mean", "do_resize")
    return any(name in data for name in names)


def hugging_face(data: Mapping[str, Any]) -> Settings:
    """Settings of a Hugging Face image processor.

    Its centre crop rounds an odd margin down where torchvision rounds half to even: the two
    (and so its own slow and fast processors) may differ by one pixel; torchvision's is used.
    """
    kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "")
    found = _hugging_face_size(data, kind)
    resample = data.get("resample", 2)
    found["interpolation"] = (
        _PIL_FILTERS[resample] if isinstance(resample, int) else str(resample).lower()
    )
    scale = 1.0
    shift = 0.0
    if data.get("do_rescale", True):
        # 1 / 0.00392156862745098 is 255.00000000000003
        scale = round(1 / float(data.get("rescale_factor", 1 / 255)), 6)
        shift = 1.0 if data.get("rescale_offset") else 0.0
    found["scale"] = scale
    found["mean"], found["std"] = [shift] * 3, [1.0] * 3
    if data.get("do_normalize", "image_mean" in data):
        if "image_mean" not in data or "image_std" not in data:
            raise UsageError("do_normalize without image_mean and image_std")
        std = _three(data["image_std"])
        found["mean"] = [m + shift for m in _three(data["image_mean"])]
        # EfficientNet's processor divides by the standard deviation twice for classifiers.
        twice = kind.startswith("EfficientNet") and data.get("include_top", True)
        found["std"] = [s * s for s in std] if twice else std
    found["channels"] = "BGR" if data.get("do_flip_channel_order") else "RGB"
    return found


def _three(value: Any) -> list[float]:  # noqa: ANN401 - a number or a list of a JSON file
    return [float(v) for v in value] if isinstance(value, list) else [float(value)] * 3


def _hugging_face_size(data: Mapping[str, Any], kind: str) -> Settings:
    """``size``, ``resize`` and ``crop_pct`` of a Hugging Face image processor."""
    size = data.get("size")
    crop = data.get("crop_size")
    crops = bool(data.get("do_center_crop", crop is not None)) and crop is not None
    short = kind.startswith(_SHORT_SIDE)
    found: Settings = {"crop_pct": 1.0, "resize": "crop"}
    if not data.get("do_resize", True) or size is None:
        if crops:
            found["size"] = _pair(crop)
        return found
    if isinstance(size, dict) and "longest_edge" in size:
        raise UsageError(
            "a size with a longest_edge keeps every photo's own proportions",
            hint="give a fixed size = [h, w] in a TOML file",
        )
    edge = size.get("shortest_edge") if isinstance(size, dict) else size if short else None
    if kind.startswith("ConvNext") and edge is not None:
        # below 384 the short side is scaled to size / crop_pct and cropped; above, squashed
        found["size"] = [edge, edge]
        if edge >= 384:
            found["resize"] = "squash"
        else:
            found["crop_pct"] = data.get("crop_pct") or 224 / 256
        return found
    if kind.lower().startswith("levit") and edge is not None:
        edge = int(256 / 224 * edge)
    if kind.startswith("PoolFormer") and edge is not None and data.get("crop_pct"):
        edge = int(edge / data["crop_pct"])
    resized = [edge, edge] if edge is not None else _pair(size)
    found["resize"] = "crop" if edge is not None else "squash"
    found["size"] = resized
    if crops:
        height, width = _pair(crop)
        ratios = height / resized[0], width / resized[1]
        if not math.isclose(*ratios):
            raise UsageError(
                f"a crop of {height} x {width} out of {resized[0]} x {resized[1]}",
                hint="only crops by the same fraction of both sides can be expressed",
            )
        found["size"], found["crop_pct"] = [height, width], ratios[0]
    return found


def _pair(value: Any) -> list[int]:  # noqa: ANN401 - a number, list or table of a JSON file
    if isinstance(value, dict):
        if "height" in value and "width" in value:
            return [int(value["height"]), int(value["width"])]
        return [int(value["shortest_edge"])] * 2
    if isinstance(value, list):
        return [int(value[0]), int(value[1])]
    return [int(value)] * 2


def model_metadata(metadata: Mapping[str, str]) -> tuple[Settings, str, tuple[str, ...]]:
    """What a model's ``metadata_props`` say about its input.

    Read are, in this order: ``inspector.preprocess`` (JSON of the own keys), Windows ML's
    ``Image.*`` (onnx/docs/MetadataProps.md; no nominal range means 0..255, as Windows ML takes
    it), and what Ultralytics exports.

    Returns:
        The settings (empty when nothing is known), whose words they are, and warnings.
    """
    if OWN_METADATA_KEY in metadata:
        where = f"metadata {OWN_METADATA_KEY}"
        try:
            data = json.loads(metadata[OWN_METADATA_KEY])
            return own(data if isinstance(data, dict) else {"": data}, where), where, ()
        except (ValueError, RecursionError, UsageError) as error:
            return {}, "", (f"the model's metadata {OWN_METADATA_KEY!r} is ignored: {error}",)
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
        notes.append(f"unknown Image.NominalPixelRange {nominal!r} in the model's metadata")
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
    try:
        size = ast.literal_eval(metadata.get("imgsz", ""))
        found["size"] = [int(size[0]), int(size[1])]
    except (ValueError, SyntaxError, TypeError, IndexError, RecursionError, MemoryError):
        pass  # a detail: the declared shape or the default size stands in
    return found, "Ultralytics metadata", ()

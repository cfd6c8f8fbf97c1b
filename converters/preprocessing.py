"""Preprocessing as the model hubs write it down, in the keys of ``converters.source``.

Readers of timm's ``config.json`` and of Hugging Face's ``preprocessor_config.json``: plain data
in, plain data out.  Values are as the file says them; whoever uses them checks them.
"""

import math
from collections.abc import Mapping
from typing import Any

from converters.errors import ConversionFailed

__all__ = ["WHOLE", "Settings", "hugging_face", "is_hugging_face", "is_timm", "timm"]

Settings = dict[str, Any]

WHOLE: Settings = {"resize": "squash", "crop_pct": 1.0}
"""The whole photo, as the loaders of Keras and TFLite's own programs feed classifiers."""

_PIL_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by PIL's number

# Image processors whose whole-number ``size`` means the short side; the others mean a square.
_SHORT_SIDE = ("CLIP", "ConvNext", "MobileNet", "MobileViT", "PoolFormer", "Levit", "Bit", "LeViT")


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
        raise ConversionFailed(f"unknown crop_mode {mode!r}", hint="known: " + ", ".join(modes))
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
            raise ConversionFailed("do_normalize without image_mean and image_std")
        std = _three(data["image_std"])
        found["mean"] = [m + shift for m in _three(data["image_mean"])]
        # EfficientNet's processor divides by the standard deviation twice for classifiers.
        twice = kind.startswith("EfficientNet") and data.get("include_top", True)
        found["std"] = [s * s for s in std] if twice else std
    found["channels"] = "BGR" if data.get("do_flip_channel_order") else "RGB"
    return found


def _three(value: Any) -> list[float]:
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
        raise ConversionFailed(
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
            raise ConversionFailed(
                f"a crop of {height} x {width} out of {resized[0]} x {resized[1]}",
                hint="only crops by the same fraction of both sides can be expressed",
            )
        found["size"], found["crop_pct"] = [height, width], ratios[0]
    return found


def _pair(value: Any) -> list[int]:
    if isinstance(value, dict):
        if "height" in value and "width" in value:
            return [int(value["height"]), int(value["width"])]
        return [int(value["shortest_edge"])] * 2
    if isinstance(value, list):
        return [int(value[0]), int(value[1])]
    return [int(value)] * 2

"""The likeliest preprocessing for a model that says nothing, and doubts about one that is said."""

from collections.abc import Sequence

from inspector.photos.preprocess import Preprocess
from inspector.photos.preprocess_files import Settings

__all__ = [
    "DETECTOR_GREY",
    "SIGNED_BYTE",
    "WIDE",
    "doubts",
    "guess",
    "guess_bands",
    "made_by_tensorflow",
    "short",
]

FREE_SIZE = 224
"""Height and width where neither the model nor the preprocessing names one."""

FREE_LENGTH = 1024
"""The same of a signal."""

FREE_DEPTH = 32
"""The same of each side of a volume."""

SMALL_INPUT = 100
"""Networks for inputs below this are fed whole pictures, not centre crops (CIFAR, MNIST)."""

WIDE = 1.25
"""Longer side over shorter from which on an input is not fed by a centre crop."""

DETECTOR_GREY = 114.0
"""Pixel value around a letterboxed photo where nothing else is known (the YOLO family's)."""

LARGEST_VALUE = 300.0
"""Magnitude of a network value that no recipe in use reaches; raw pixels end at 255."""

SIGNED_BYTE = (-128, 127)
"""Range of int8: such an input takes pixels minus 128, which is how uint8 graphs are converted."""

_TENSORFLOW = ("tf2onnx", "keras", "tensorflow", "tflite", "onnxmltools.keras")

_SELF_NORMALISING = ("Sub", "Div", "Mul", "Add", "BatchNormalization", "Cast", "QuantizeLinear")


def doubts(preprocess: Preprocess, bounds: tuple[int, int] | None) -> list[str]:
    """Sentences about network values that hardly anybody can mean.

    Args:
        preprocess: The recipe.
        bounds: Smallest and largest number that an integer input holds; None for floats.
    """
    black, white = preprocess.span()
    low, high = min(*black, *white), max(*black, *white)
    recipe = f"scale {preprocess.scale:g}, mean {short(preprocess.mean)}, "
    recipe += f"std {short(preprocess.std)}"
    gives = f"the preprocessing ({recipe}) turns pixels into {low:.4g} .. {high:.4g}"
    if bounds is not None:
        if low < bounds[0] - 0.5 or high > bounds[1] + 0.5:
            takes = f"the model's input holds {bounds[0]} .. {bounds[1]}"
            return [f"{gives}, but {takes}: what lies outside is cut off"]
        if high - low < _FEWEST_LEVELS and bounds[1] - bounds[0] > _FEWEST_LEVELS:
            return [f"{gives}, but the model's input takes whole numbers: hardly any are left"]
        return []
    far = max(abs(low), abs(high)) > LARGEST_VALUE
    # 0 is near the range of every recipe; a mean of 406 for .406, or one without its scale, is not.
    off = any(
        not min(b, w) - abs(w - b) <= 0 <= max(b, w) + abs(w - b)
        for b, w in zip(black, white, strict=True)
    )
    if far or off:
        return [f"{gives}, far from what networks take: check mean, std and scale"]
    return []


_FEWEST_LEVELS = 16


def made_by_tensorflow(producer: str, names: Sequence[str]) -> str:
    """What shows that the model comes from TensorFlow or Keras; empty when nothing does."""
    made = producer.lower()
    if "torch" in made or "paddle" in made:
        return ""
    if any(word in made for word in _TENSORFLOW):
        return f"made by {producer}"
    for name in names:
        if name.startswith(("StatefulPartitionedCall/", "keras_tensor")) or any(
            part in name
            for part in ("/Conv2D", "/BiasAdd", "/FusedBatchNorm", "__transpose_before")
        ):
            return "names of nodes as TensorFlow gives them"
    return ""


def guess(
    channels: int,
    declared: tuple[int | None, int | None],
    layout: str,
    *,
    integer: bool,
    bounds: tuple[int, int] | None,
    first_operators: Sequence[str],
    normalises: tuple[str, str] | None,
    maker: str,
) -> tuple[Settings, str]:
    """The likeliest preset for a model that says nothing, and the reason."""
    preset, why = _preset(
        channels,
        layout,
        integer=integer,
        bounds=bounds,
        first_operators=first_operators,
        normalises=normalises,
        maker=maker,
    )
    why += f", so the preset {preset}"
    settings: Settings = {"preset": preset}
    if integer and bounds == SIGNED_BYTE:
        settings["mean"] = 128.0
    side = min((axis for axis in declared if axis), default=FREE_SIZE)
    if side < SMALL_INPUT:
        settings["crop_pct"] = 1.0
        why += f", {side} pixels per side"
    if channels == 1:
        settings["channels"] = "GRAY"
    if None in declared:
        settings["size"] = [axis or FREE_SIZE for axis in declared]
    return settings, f"guess: {why}"


def guess_bands(
    channels: int, declared: tuple[int | None, int | None], space: int
) -> tuple[Settings, str]:
    """Settings of an input that takes no photo: values as they are, and why."""
    kind = {1: "signals", 2: "pictures", 3: "volumes"}[space]
    settings: Settings = {
        "preset": "raw",
        "channels": str(channels),
        "resize": "squash",
        "crop_pct": 1.0,
    }
    free = {1: (1, FREE_LENGTH), 2: (FREE_SIZE, FREE_SIZE), 3: (FREE_DEPTH**2, FREE_DEPTH)}[space]
    settings["size"] = [axis or side for axis, side in zip(declared, free, strict=True)]
    return settings, f"guess: {kind} of {channels} band(s), values as they are in the file"


def short(values: Sequence[float]) -> str:
    """Numbers for a sentence; one when all are the same."""
    same = len(set(values)) == 1
    return ", ".join(f"{v:g}" for v in (values[:1] if same else values))


def _preset(
    channels: int,
    layout: str,
    *,
    integer: bool,
    bounds: tuple[int, int] | None,
    first_operators: Sequence[str],
    normalises: tuple[str, str] | None,
    maker: str,
) -> tuple[str, str]:
    """A preset's name and what speaks for it."""
    normalising = [op for op in first_operators if op in _SELF_NORMALISING]
    if integer and bounds == SIGNED_BYTE:
        return "raw", "the input takes int8: pixels minus 128"
    if integer:
        return "raw", "the input takes integers"
    if normalises is not None:
        preset, operator = normalises
        pixels = "0 .. 255" if preset == "raw" else "0 .. 1"
        return preset, f"the model normalises pixels of {pixels} itself, first by {operator}"
    if normalising and set(normalising) & {"Sub", "Div", "Mul", "BatchNormalization"}:
        return "raw", f"the model's first operator, {normalising[0]}, normalises"
    if channels == 1:
        return "unit", "one channel"
    if layout == "NHWC":
        return "inception", "three channels, channels last (TensorFlow's way)"
    if maker:
        return "inception", f"three channels, {maker}"
    return "imagenet", "three channels"

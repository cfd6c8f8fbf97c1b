"""Preprocessing: from a photo to the network's input and back, with Pillow and NumPy.

The resize is Pillow's on eight-bit pixels, which is what torchvision and timm run on PIL images
(antialiased; an OpenCV or plain-tensor resize differs). Sizes are rounded as they round them:

===========  ==========================================================  =====================
``resize``   scaled to                                                   then
===========  ==========================================================  =====================
crop         short side to s = floor(size / crop_pct), the long one to   centre crop
             int(s * long / short) (torchvision ``Resize``); for a
             size that is not square, the smallest that covers
             floor(size / crop_pct), rounded (timm)
squash       floor(size / crop_pct), proportions given up (timm)         centre crop
letterbox    the largest that fits floor(size / crop_pct), rounded       centred on ``pad``
===========  ==========================================================  =====================

The centre crop starts at round((scaled - size) / 2), half to even, as torchvision's does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from converters.plain_values import finite_number, quoted, whole_number
from converters.source import PREPROCESS_KEYS
from inspector.errors import UsageError, nearest
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.photos.preprocess_files import Settings, read_settings
from inspector.photos.scaling import Window, resampled, scaled

__all__ = ["INTERPOLATIONS", "PRESETS", "Preprocess"]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_CHOICES: dict[str, tuple[str, ...]] = {
    "resize": ("crop", "squash", "letterbox"),
    "interpolation": tuple(INTERPOLATIONS),
    "channels": ("RGB", "BGR", "GRAY"),
    "layout": ("NCHW", "NHWC"),
}
_MAX_SIDE = 16384  # a settings file or a model may ask for anything
_MAX_LENGTH = 2**24  # places of a signal, or of all slices of a volume below each other
_MAX_BANDS = 4096
_MOST_SCALED = 2**24
"""Pixels of a scaled photo that are all made: of one pixel by 30,000 they would take 19 GB."""


@dataclass(frozen=True)
class Preprocess:
    """Steps from a photo to the network's input; the fields are the keys of the TOML file.

    A network value is ``(pixel / scale - mean) / std``, pixels being 0..255.

    Attributes:
        size: Height and width (H, W) of the input.
        resize: "crop", "squash" or "letterbox" (see the module's table).
        crop_pct: The input's side as a fraction of the scaled photo's.
        interpolation: One of `INTERPOLATIONS`.
        scale: Pixels are divided by it first: 255.0 or 1.0.
        mean: Subtracted after the division, one number per channel, **in the model's channel
            order** (so blue first for BGR).
        std: Divides last, in the same order.
        channels: Order that the model takes: "RGB", "BGR" or "GRAY" (one channel); or a number
            of bands, as text: "13".
        layout: "NCHW" or "NHWC"; arrays of this module are (C, H, W) all the same.
        pad: RGB colour in 0..255 around a letterboxed photo.

    Raises:
        UsageError: A value of another type or out of its range.

    Example:
        >>> from inspector import Preprocess, load_photo
        >>> preprocess = Preprocess.preset("imagenet").changed({"size": [64, 64]})
        >>> values, geometry = preprocess.apply(load_photo("sample_models/images/horse_1.png"))
        >>> values.shape, geometry.photo, geometry.input
        ((3, 64, 64), (32, 32), (64, 64))
    """

    size: tuple[int, int] = (224, 224)
    resize: str = "crop"
    crop_pct: float = 1.0
    interpolation: str = "bilinear"
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: str = "RGB"
    layout: str = "NCHW"
    pad: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check every value and bring it to its type; one number stands for all channels."""
        for key, known in _CHOICES.items():
            bands = _bands(getattr(self, key)) if key == "channels" else ""
            object.__setattr__(self, key, bands or _one_of(key, getattr(self, key), known))
        size = self.size if isinstance(self.size, list | tuple) else (self.size, self.size)
        sides = _numbers("size", size, 2, low=1, high=_MAX_LENGTH if self.bands else _MAX_SIDE)
        if len(size) != 2 or any(side != int(side) for side in sides):
            raise UsageError(
                f"size = {quoted(self.size)}", hint="height and width in pixels are meant"
            )
        count = self.channel_count
        set_ = object.__setattr__
        set_(self, "size", (int(sides[0]), int(sides[1])))
        set_(self, "crop_pct", _numbers("crop_pct", [self.crop_pct], 1, low=0.05, high=1.0)[0])
        set_(self, "scale", _numbers("scale", [self.scale], 1, low=1e-9)[0])
        set_(self, "mean", _numbers("mean", self.mean, count))
        set_(self, "std", _numbers("std", self.std, count, low=1e-9))
        set_(self, "pad", _numbers("pad", self.pad, 3, low=0, high=255))

    @property
    def channel_count(self) -> int:
        """C: 1 for GRAY, 3 for RGB and BGR, else the number of bands."""
        return _count(self.channels)

    @property
    def bands(self) -> bool:
        """Whether the model takes bands, which have no colour and no known range."""
        return bool(_bands(self.channels))

    @classmethod
    def preset(cls, name: str) -> "Preprocess":
        """One of `PRESETS` by name.

        Raises:
            UsageError: No such preset; the nearest are named.
        """
        if name not in PRESETS:
            hint = nearest(name, PRESETS) or "presets: " + ", ".join(PRESETS)
            raise UsageError(f"unknown preprocessing preset {quoted(name)}", hint=hint)
        return PRESETS[name]

    @classmethod
    def from_file(cls, path: str | Path) -> "Preprocess":
        """Read own TOML, a Hugging Face ``preprocessor_config.json`` or a timm ``config.json``.

        Keys that the file does not name are those of its ``preset``, or of ``unit``.

        Raises:
            UsageError: Unreadable, of an unknown kind, or with a value out of its range.
        """
        settings, _ = read_settings(Path(path))
        try:
            base = cls.preset(_preset_named(settings.pop("preset", "unit")))
            return base.changed(settings)
        except UsageError as error:
            raise UsageError(error.what, where=str(path), hint=error.hint) from None

    def changed(self, settings: Mapping[str, Any]) -> "Preprocess":
        """A copy with these keys changed.

        Statistics of the other number of channels are adapted when ``channels`` changes and
        ``mean`` or ``std`` does not: averaged for GRAY, repeated for three channels.

        Raises:
            UsageError: An unknown key, or a value of another type or out of its range.
        """
        for key in settings:
            if key not in PREPROCESS_KEYS:
                raise UsageError(
                    f"unknown preprocessing key {quoted(key)}", hint=nearest(key, PREPROCESS_KEYS)
                )
        new: Settings = dict(settings)
        named = new.get("channels", self.channels)
        channels = _bands(named) or _one_of("channels", named, _CHOICES["channels"])
        count = _count(channels)
        for key in ("mean", "std"):
            if key not in new and count != self.channel_count:
                values: tuple[float, ...] = getattr(self, key)
                new[key] = (sum(values) / len(values),) * count
            elif key not in new and {channels, self.channels} == {"RGB", "BGR"}:
                new[key] = getattr(self, key)[::-1]
        return replace(self, **new)

    def to_dict(self) -> dict[str, Any]:
        """The TOML keys and values, for the report."""
        return asdict(self)

    def toml(self) -> str:
        """The settings as the TOML file that `from_file` reads."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            text = f'"{value}"' if isinstance(value, str) else str(value)
            lines.append(f"{field.name} = {list(value) if isinstance(value, tuple) else text}")
        return "\n".join(lines) + "\n"

    def apply(self, photo: Photo) -> tuple[NDArray[np.float32], Geometry]:
        """Make the network's input of a photo.

        Returns:
            (C, H, W) float32 in the model's channel order, whatever the layout, and where each
            of its pixels lies on the photo.
        """
        if photo.bands is not None and photo.space != 2:
            return self._whole(photo.bands, as_they_are=photo.as_they_are)
        height, width = self._scaled_size(*photo.size)
        top, left = _offset(height, self.size[0]), _offset(width, self.size[1])
        pixels = self._placed(photo, (height, width), top, left)
        geometry = Geometry(
            photo=photo.size,
            input=self.size,
            scale=(height / photo.size[0], width / photo.size[1]),
            shift=(-float(top), -float(left)),
        )
        return pixels if photo.as_they_are else self._normalised(pixels), geometry

    def _whole(
        self, values: NDArray[np.float32], *, as_they_are: bool
    ) -> tuple[NDArray[np.float32], Geometry]:
        """A signal or a volume, whose size fits the model: (C, H, W) as a plane."""
        copy = np.array(values, np.float32)
        size = copy.shape[1], copy.shape[2]
        return copy if as_they_are else self._normalised(copy), Geometry.identity(size)

    def encode(self, rgb: Sequence[float]) -> NDArray[np.float32]:
        """Network values (C,) of one pixel colour, RGB in 0..255."""
        red, green, blue = (float(v) for v in rgb)
        if self.bands:
            level = np.full((self.channel_count, 1, 1), (red + green + blue) / 3, np.float32)
            return self._normalised(level)[:, 0, 0]
        if self.channels == "GRAY":
            values = [0.299 * red + 0.587 * green + 0.114 * blue]
        else:
            values = [red, green, blue] if self.channels == "RGB" else [blue, green, red]
        return self._normalised(np.asarray(values, np.float32)[:, None, None])[:, 0, 0]

    def span(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Network values of a black and of a white pixel, one per channel: the recipe's range."""
        black, white = (
            tuple((pixel / self.scale - m) / s for m, s in zip(self.mean, self.std, strict=True))
            for pixel in (0.0, 255.0)
        )
        return black, white

    def fill(self) -> NDArray[np.float32]:
        """Network values (C,) of the occluder's grey, see `fill_pixel`."""
        pixel = np.asarray(self.fill_pixel()[0], np.float32)
        return self._normalised(pixel[:, None, None])[:, 0, 0]

    def fill_pixel(self) -> tuple[tuple[float, ...], str]:
        """The default occluder in pixel space, 0..255, model channel order, and where from.

        It is the data set's mean where the preprocessing subtracts one (so network zero), else
        the middle of the pixel range: a network zero would be black there, not grey.
        """
        pixel = tuple(m * self.scale for m in self.mean)
        if self.bands:
            known = "mean that the preprocessing subtracts" if any(pixel) else "no mean is known"
            return pixel, known
        if any(pixel) and all(0 <= value <= 255 for value in pixel):
            return pixel, "mean that the preprocessing subtracts"
        return (127.5,) * self.channel_count, "middle of the pixel range (no mean is known)"

    def decode(self, x: ArrayLike) -> NDArray[np.uint8]:
        """Picture of network values, the inverse of `apply` but for its cropping and rounding.

        Args:
            x: (C, H, W) network values.

        Returns:
            (H, W, 3) RGB.
        """
        shape = (-1, 1, 1)
        std, mean = np.reshape(self.std, shape), np.reshape(self.mean, shape)
        pixels = (np.asarray(x, np.float64) * std + mean) * self.scale
        if self.channels == "BGR":
            pixels = pixels[::-1]
        if self.bands:
            pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1]
        pixels = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
        rounded: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return rounded.transpose(1, 2, 0)

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Size that the photo is scaled to before cropping or padding."""
        # 224 / (224 / 232) is 231.99999999999997: the epsilon keeps such fractions whole.
        want = [math.floor(side / self.crop_pct + 1e-6) for side in self.size]
        if self.resize == "squash":
            return want[0], want[1]
        if self.resize == "crop" and want[0] == want[1]:
            short, long = min(height, width), max(height, width)
            scaled = max(1, int(want[0] * long / short))
            return (want[0], scaled) if height <= width else (scaled, want[0])
        pick = min if self.resize == "crop" else max
        ratio = pick(height / want[0], width / want[1])
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _pad(self, photo: Photo) -> Sequence[float]:
        """What stands around a letterboxed photo, one value per channel, before normalisation."""
        if photo.as_they_are:
            return [float(value) for value in self.encode(self.pad)]
        red, green, blue = self.pad
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        known = {"RGB": self.pad, "BGR": (blue, green, red), "GRAY": (grey,)}
        return known.get(self.channels, (0.0,) * self.channel_count)

    def _placed(
        self, photo: Photo, scaled: tuple[int, int], top: int, left: int
    ) -> NDArray[np.float32]:
        """The scaled photo, cropped or padded to the input's size from ``top``, ``left`` on.

        Returns:
            (C, H, W) in 0..255.
        """
        y, x = max(top, 0), max(left, 0)
        bottom = min(top + self.size[0], scaled[0])
        right = min(left + self.size[1], scaled[1])
        if scaled[0] * scaled[1] <= _MOST_SCALED:  # as torchvision and timm do it, to the bit
            part = _resized(photo, scaled, self, None)[y:bottom, x:right]
        else:
            part = _resized(photo, scaled, self, (y, x, bottom, right))
        out = np.empty((part.shape[2], *self.size), np.float32)
        if part.shape[:2] != self.size:
            out[:] = np.reshape(self._pad(photo), (-1, 1, 1))
        y, x = max(-top, 0), max(-left, 0)
        out[:, y : y + part.shape[0], x : x + part.shape[1]] = part.transpose(2, 0, 1)
        return out

    def _normalised(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn pixels (C, H, W) into network values, in float32 as torchvision computes them.

        In place: fresh memory for each step takes longer than the arithmetic.
        """
        pixels /= np.float32(self.scale)
        pixels -= np.reshape(self.mean, (-1, 1, 1)).astype(np.float32)
        pixels /= np.reshape(self.std, (-1, 1, 1)).astype(np.float32)
        return pixels


def _resized(
    photo: Photo, size: tuple[int, int], to: Preprocess, window: Window | None
) -> NDArray[np.float32]:
    """The photo scaled to ``size``, or a window of that, in the model's channel order.

    Returns:
        (h, w, C) in 0..255.
    """
    how = INTERPOLATIONS[to.interpolation]

    def plane(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(resampled(Image.fromarray(values), size, how, window))

    if photo.bands is not None:
        return np.stack([plane(band) for band in photo.bands], 2)
    if photo.pixels.dtype == np.uint8:
        grey = to.channels == "GRAY"
        pixels: NDArray[Any] = np.atleast_3d(
            scaled(photo.rgb8, size, how, grey=grey, window=window)
        )
    else:
        source = photo.pixels.astype(np.float32, copy=False)
        if to.channels == "GRAY":
            source = source @ np.array([[0.299], [0.587], [0.114]], np.float32)
        planes = [plane(source[:, :, c]) for c in range(source.shape[2])]
        # Bicubic overshoots, which eight bits would clip.
        pixels = np.clip(np.stack(planes, 2), 0, 255)
    return pixels[:, :, ::-1] if to.channels == "BGR" else pixels


def _offset(scaled: int, size: int) -> int:
    """Where the input starts on the scaled photo; negative when the photo is padded."""
    return -((size - scaled) // 2) if scaled < size else round((scaled - size) / 2)


def _bands(value: object) -> str:
    """A number of bands as text; empty for anything else."""
    number = whole_number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int):
        return ""
    return str(number) if 1 <= number <= _MAX_BANDS else ""


def _count(channels: str) -> int:
    return whole_number(_bands(channels)) or (1 if channels == "GRAY" else 3)


def _preset_named(value: object) -> str:
    return value if isinstance(value, str) else quoted(value)


def _one_of(key: str, value: object, known: tuple[str, ...]) -> str:
    """The known word that is meant, upper or lower case."""
    text = value if isinstance(value, str) else quoted(value)
    for word in known:
        if text.lower() == word.lower():
            return word
    hint = nearest(text, known) or "one of: " + ", ".join(known)
    raise UsageError(f"{key} = {quoted(value)}", hint=hint)


def _numbers(
    key: str, value: object, count: int, *, low: float = -math.inf, high: float = math.inf
) -> tuple[float, ...]:
    """``count`` finite numbers within bounds; one number stands for all."""
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) == 1:
        values *= count
    if len(values) != count:
        raise UsageError(f"{key} = {quoted(value)}", hint=f"{count} number(s) are meant")
    numbers = []
    for item in values:
        number = finite_number(item)
        if number is None or not low <= number <= high:
            bounds = f" in {low:g} .. {high:g}" if math.isfinite(low) or math.isfinite(high) else ""
            raise UsageError(f"{key} = {quoted(value)}", hint=f"numbers{bounds} are meant")
        numbers.append(number)
    return tuple(numbers)


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess(crop_pct=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "inception": Preprocess(
        size=(299, 299),
        crop_pct=0.875,
        interpolation="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    "caffe": Preprocess(crop_pct=0.875, scale=1.0, mean=(103.939, 116.779, 123.68), channels="BGR"),
    "unit": Preprocess(),
    "raw": Preprocess(scale=1.0),
}
"""``imagenet``: torchvision and most of timm. ``inception``: -1..1. ``caffe``: BGR minus the
ImageNet mean. ``unit``: 0..1. ``raw``: 0..255, for models that normalise by themselves."""

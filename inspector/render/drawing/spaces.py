"""Signals as curves and volumes as slices: pictures that panels are then drawn of as of a photo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inspector.heatmap import Heatmap
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.render.drawing.fonts import font
from inspector.render.drawing.page import INK, MUTED

__all__ = ["Shown", "shown"]

_LANE, _AXIS = 150, 24  # pixels of a curve, and of the numbers below
_FINE = 3  # curves are drawn so many times larger first
_LANES = 8
_SLICES = 9
_LABEL = 13

Box = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Shown:
    """A sample and its map as a picture.

    Attributes:
        photo: The picture: the photo itself, curves, or slices side by side.
        heatmap: The map in its pixels.
        what: What the picture is, for a caption.
        labels: Texts that stand on it: left, top and text.
    """

    photo: Photo
    heatmap: Heatmap
    what: str
    labels: tuple[tuple[int, int, str], ...] = ()

    @property
    def drawn(self) -> bool:
        """Whether the picture is drawn at its size already."""
        return self.photo.space != 2

    def marked(self, panel: Image.Image) -> Image.Image:
        """A panel of the picture with its labels."""
        if not self.labels:
            return panel
        found = panel.copy()
        draw = ImageDraw.Draw(found)
        for left, top, text in self.labels:
            box = draw.textbbox((left + 4, top + 2), text, font=font(_LABEL))
            draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=(0, 0, 0))
            draw.text((left + 4, top + 2), text, fill=(255, 255, 255), font=font(_LABEL))
        return found


def shown(photo: Photo, heatmap: Heatmap, width: int = 760) -> Shown:
    """How a sample and its map are drawn.

    Args:
        photo: The photo, signal or volume.
        heatmap: Its map.
        width: Of the picture of a signal or a volume, in pixels.
    """
    if photo.space == 1:
        return _curves(photo, heatmap, width)
    if photo.space == 3:
        return _slices(photo, heatmap, width)
    height, across = photo.size
    what = f"photo, {across} x {height} pixels"
    if photo.bands is not None:
        bands = ", ".join(str(place + 1) for place in photo.drawn)
        what = f"band{'s' if len(photo.drawn) > 1 else ''} {bands} of {len(photo.bands)}, "
        what += f"{across} x {height} pixels"
    return Shown(photo, heatmap, what)


# -- signals --------------------------------------------------------------------------------------


def _curves(photo: Photo, heatmap: Heatmap, width: int) -> Shown:
    """Curves of the drawn bands below each other, and the map along them."""
    bands = photo.bands if photo.bands is not None else np.zeros((1, *photo.size), np.float32)
    lanes = photo.drawn[:_LANES]
    lane = max(60, _LANE if width >= 400 else _LANE // 2)
    height = lane * len(lanes) + _AXIS
    picture = Image.new("RGB", (width * _FINE, height * _FINE), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for place, band in enumerate(lanes):
        top = place * lane * _FINE
        _curve(draw, bands[band].ravel(), (top, width * _FINE, lane * _FINE))
        if place:
            draw.line((0, top, width * _FINE, top), fill=(200, 200, 204), width=_FINE)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    count = photo.size[1]
    _axis(small, count, lane * len(lanes))
    at = np.clip(((np.arange(width) + 0.5) * count / width).astype(np.intp), 0, count - 1)
    values = np.repeat(heatmap.values.reshape(1, -1)[:, at], height, axis=0).copy()
    seen = np.repeat(heatmap.seen.reshape(1, -1)[:, at], height, axis=0)
    values[lane * len(lanes) :] = 0
    shown_bands = ", ".join(str(band + 1) for band in lanes)
    what = f"band{'s' if len(lanes) > 1 else ''} {shown_bands} of {len(bands)}, {count} samples"
    labels = tuple(
        (0, place * lane, f"band {band + 1}") for place, band in enumerate(lanes) if len(lanes) > 1
    )
    return Shown(
        replace(photo, pixels=np.asarray(small)),
        _moved(heatmap, values, seen),
        what,
        labels,
    )


def _curve(
    draw: ImageDraw.ImageDraw, values: NDArray[np.float32], place: tuple[int, int, int]
) -> None:
    """One curve from its least value to its largest; spans where samples are denser than pixels."""
    top, width, height = place
    margin = height * 0.12
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0

    def level(value: float) -> float:
        return top + height - margin - (value - low) / span * (height - 2 * margin)

    if len(values) <= width:
        points = [((i + 0.5) * width / len(values), level(float(v))) for i, v in enumerate(values)]
    else:
        points = []
        edges = np.arange(width) * len(values) // width  # as many samples per pixel everywhere
        lows, highs = np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
        for column, (least, most) in enumerate(zip(lows, highs, strict=True)):
            points += [(column, level(float(least))), (column, level(float(most)))]
    if len(points) == 1:
        points = [(0.0, points[0][1]), (float(width), points[0][1])]
    draw.line(points, fill=INK, width=2 * _FINE, joint="curve")


def _axis(picture: Image.Image, count: int, top: int) -> None:
    """Numbers of samples below the curves, at round places."""
    draw = ImageDraw.Draw(picture)
    draw.line((0, top, picture.width, top), fill=MUTED)
    parts = 8 if picture.width >= 400 else 4
    step = _round_step(count / parts)
    for sample in range(0, count, step):
        x = (sample + 0.5) * picture.width / count
        draw.line((x, top, x, top + 4), fill=MUTED)
        text = str(sample)
        room = font(_LABEL - 1).getlength(text) / 2
        x = min(max(x, room + 1), picture.width - room - 1)
        draw.text((x, top + 6), text, fill=MUTED, font=font(_LABEL - 1), anchor="ma")


def _round_step(least: float) -> int:
    """The first of 1, 2, 5, 10, 20 ... that is not below a number."""
    power = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    return int(next(m * power for m in (1, 2, 5, 10) if m * power >= least))


# -- volumes --------------------------------------------------------------------------------------


def _slices(photo: Photo, heatmap: Heatmap, width: int) -> Shown:
    """Slices in even steps, that of the map's peak among them."""
    depth = photo.depth
    height, across = photo.size[0] // depth, photo.size[1]
    values = heatmap.values.reshape(depth, height, across)
    seen = heatmap.seen.reshape(depth, height, across)
    chosen = _chosen(values, seen, 4 if width < 400 else _SLICES)
    columns = math.ceil(math.sqrt(len(chosen) * height / across))
    columns = min(max(columns, 1), len(chosen))
    tile = max(1, (width - 4 * (columns - 1)) // columns)
    size = max(1, round(tile * height / across)), tile
    pixels = photo.pixels.reshape(depth, height, across, 3)
    rows = -(-len(chosen) // columns)
    canvas = np.full((rows * (size[0] + 4) - 4, columns * (tile + 4) - 4, 3), 255, np.uint8)
    laid = np.zeros(canvas.shape[:2], np.float32)
    visible = np.ones(canvas.shape[:2], np.bool_)
    labels = []
    for place, z in enumerate(chosen):
        top, left = place // columns * (size[0] + 4), place % columns * (tile + 4)
        where = slice(top, top + size[0]), slice(left, left + tile)
        how = Image.Resampling.NEAREST if tile >= across else Image.Resampling.BOX
        canvas[where] = np.asarray(Image.fromarray(pixels[z]).resize(size[::-1], how))
        plain = np.where(seen[z], values[z], 0).astype(np.float32)
        laid[where] = np.asarray(Image.fromarray(plain).resize(size[::-1], how))
        mask = Image.fromarray(seen[z].astype(np.uint8) * 255)
        visible[where] = np.asarray(mask.resize(size[::-1], Image.Resampling.NEAREST)) > 0
        labels.append((left, top, f"slice {z}"))
    what = f"{len(chosen)} of {depth} slices of {across} x {height}"
    bands = 1 if photo.bands is None else len(photo.bands)
    if bands > 1:
        what += f", band{'s' if len(photo.drawn) > 1 else ''} "
        what += ", ".join(str(band + 1) for band in photo.drawn) + f" of {bands}"
    return Shown(replace(photo, pixels=canvas), _moved(heatmap, laid, visible), what, tuple(labels))


def _chosen(values: NDArray[np.float32], seen: NDArray[np.bool_], most: int) -> Sequence[int]:
    """Slices in even steps; the one nearest to the peak's gives way to it."""
    depth = len(values)
    if depth <= most:
        return range(depth)
    even = [round((i + 0.5) * depth / most - 0.5) for i in range(most)]
    peaks = np.where(seen, np.abs(values), 0).reshape(depth, -1).max(axis=1)
    peak = int(peaks.argmax())
    nearest = min(range(most), key=lambda i: abs(even[i] - peak))
    even[nearest] = peak
    return even


def _moved(heatmap: Heatmap, values: NDArray[np.float32], seen: NDArray[np.bool_]) -> Heatmap:
    """A map in the pixels of the picture that is drawn of its sample."""
    shape = (values.shape[0], values.shape[1])
    return replace(heatmap, values=values, seen=seen, geometry=Geometry.identity(shape))

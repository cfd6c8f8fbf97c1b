"""Files of bands, signals and volumes: arrays of NumPy, and TIFF files of several pages.

A photo has three colours.  What a satellite, a microscope, a scanner or a sensor records has any
number of bands, and its values mean what they mean: they are taken as they are unless the user
names a recipe.  How many bands there are, and along which axis, is the model's word.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.numpy_file import read_npy, read_npz
from converters.regular_file import read_regular
from inspector.errors import ImageRefused, UsageError
from inspector.photos.arrays import as_array
from inspector.photos.band_tiff import MAGIC, has_band_pixels, read_band_pixels
from inspector.photos.photo import MAX_DECODED_BYTES, MAX_FILE_BYTES, MAX_PIXELS, Photo
from inspector.photos.pillow_files import hidden_samples
from inspector.photos.preprocess import Preprocess

__all__ = ["Bands", "input_batch", "open_photo"]

Array = NDArray[Any]

_ARRAYS = {".npy", ".npz"}
_PAGES = 4096
_QUANTILES = 0.02, 0.98
"""Of a band, drawn as black and as white."""

_AS_THEY_ARE = (
    "real numbers of an array are taken as they are, without the model's preprocessing; "
    "--preprocess or --set mean=... applies one"
)

_KINDS = {1: "signal", 2: "picture", 3: "volume"}


@dataclass(frozen=True)
class Bands:
    """What a model takes, as far as files of bands must fit it.

    Attributes:
        preprocess: How values become network values; its size is that of the plane (H, W).
        space: Axes of space: 1, 2 or 3.
        depth: Slices of a volume.
        chosen: Whether the user named a recipe, which is applied to real numbers then.
        drawn: Bands that the user wants drawn, counted from 1; the first three when empty.
        free: Whether a signal may have any length.
        fixed: Whether the model takes no other size than the one that it is opened for.
    """

    preprocess: Preprocess
    space: int = 2
    depth: int = 1
    chosen: bool = False
    drawn: tuple[int, ...] = ()
    free: bool = False
    fixed: bool = False

    @property
    def ordinary(self) -> bool:
        """Whether the model takes photos."""
        return self.space == 2 and not self.preprocess.bands

    @property
    def sizes(self) -> tuple[int, ...]:
        """Places of the input along its axes of space."""
        height, width = self.preprocess.size
        return {1: (width,), 2: (height, width), 3: (self.depth, height // self.depth, width)}[
            self.space
        ]


def open_photo(source: Any, to: Bands) -> Photo:
    """Open a photo, or a file of bands that fits a model.

    Args:
        source: A path, a ``Photo``, a PIL image or an array.
        to: What the model takes.

    Raises:
        ImageRefused: The file cannot be read, or does not fit the model.
    """
    if isinstance(source, Photo):
        found = source
    elif isinstance(source, str | Path) and Path(source).suffix.lower() in _ARRAYS:
        found = _from_file(Path(source), to)
    elif isinstance(source, str | Path) and not to.ordinary:
        found = _from_pages(Path(source), to)
    elif not to.ordinary and not isinstance(
        source, Image.Image | bytes | bytearray | BufferedIOBase
    ):
        found = _of_values(as_array(source, "array"), "array", to)
    else:
        found = Photo.open(source)
    if found.bands is None and not to.ordinary:
        raise _wrong_count(found.name, 3, (3, *found.size), to)
    return found


def input_batch(images: object, space: int = 2) -> NDArray[Any]:
    """Images that are preprocessed already, checked: (N, C, H, W) numbers with N at least 1.

    Args:
        images: The numbers.
        space: Axes of space: 1 for (N, C, L), 3 for (N, C, D, H, W).

    Raises:
        UsageError: The value has another shape or type, or holds no image.
    """
    axes = {1: "L", 2: "H, W", 3: "D, H, W"}[space]
    hint = f"pass preprocessed images as an array (N, C, {axes})"
    try:
        array: NDArray[Any] = as_array(images)
    except ImageRefused as error:
        raise UsageError(f"images: {error.what}", hint=hint) from None
    if array.ndim != space + 2 or 0 in array.shape:
        raise UsageError(f"images: an array of shape {array.shape}", hint=hint)
    return array


def _from_file(path: Path, to: Bands) -> Photo:
    data = _read(path)
    try:
        packed = path.suffix.lower() == ".npz"
        values = read_npz(data, MAX_FILE_BYTES) if packed else read_npy(data)
    except ValueError as error:
        raise ImageRefused(f"not a NumPy array: {error}", where=str(path)) from None
    if values.nbytes > MAX_DECODED_BYTES:
        raise ImageRefused(f"{values.nbytes:,} bytes of numbers", where=str(path))
    if to.ordinary and values.dtype in (np.uint8, np.uint16):
        photo = Photo.of(values, path.name)
    else:
        photo = _of_values(values, path.name, to)
    return replace(photo, sha256=hashlib.sha256(data).hexdigest(), path=path)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ImageRefused(
            f"cannot be read ({error.strerror or error})", where=str(path), hint="give a file"
        ) from None


def _from_pages(path: Path, to: Bands) -> Photo:
    """A TIFF file whose pages are the bands, or the slices of a volume of one band.

    The bands may lie side by side in each pixel instead.
    """
    data = _read(path)
    if not data.startswith(MAGIC):
        return Photo.open(path)
    if has_band_pixels(data):
        photo = _of_values(read_band_pixels(data, str(path)), path.name, to)
        return replace(photo, sha256=hashlib.sha256(data).hexdigest(), path=path)
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            if _count(image) == 1 and len(image.getbands()) != 1:
                return Photo.open(path)
            pages = _pages(image, str(path))
    except ImageRefused:
        raise
    except Exception as error:  # decoders raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageRefused(
            f"not a TIFF file that can be read ({reason})",
            where=str(path),
            hint="save it with one page per band, or as an array FILE.npy (bands first)",
        ) from error
    photo = _of_values(np.stack(pages), path.name, to)
    return replace(photo, sha256=hashlib.sha256(data).hexdigest(), path=path)


def _count(image: Image.Image) -> int:
    """The pages of an opened file, counted no further than they are read.

    Pillow's own count walks through all of them, in a time that grows with their square.
    """
    count = 1
    while count <= _PAGES:
        try:
            image.seek(count)
        except EOFError:
            break
        count += 1
    image.seek(0)
    return count


def _pages(image: Image.Image, where: str) -> list[Array]:
    """The pages of an opened file, which are counted before one is decoded.

    Raises:
        ImageRefused: They are too many, of several sizes, or have colours.
    """
    count = _count(image)
    width, height = image.size
    if count > _PAGES or count * width * height > MAX_PIXELS:
        raise ImageRefused(
            f"{count} pages of {width} x {height} pixels are more than are read", where=where
        )
    pages = []
    for page in range(count):
        image.seek(page)
        several = len(image.getbands()) != 1 or hidden_samples(image) > 1
        if image.size != (width, height) or several:
            raise ImageRefused(
                f"page {page + 1} is not one band of {width} x {height} pixels",
                where=where,
                hint="save the bands as pages of one size, or as an array FILE.npy",
            )
        pages.append(np.asarray(image))
    return pages


def _of_values(values: Array, name: str, to: Bands) -> Photo:
    """Values that fit the model, with the picture that is drawn of them.

    Raises:
        ImageRefused: They are not numbers, not finite, or do not fit.
    """
    if values.dtype.kind not in "biuf":
        raise ImageRefused(f"values of type {values.dtype} are not numbers", where=name)
    first, axis, doubt = _bands_first(values, name, to)
    with np.errstate(over="ignore"):
        bands = np.ascontiguousarray(first, np.float32)
    if not bool(np.isfinite(bands).all()):
        raise ImageRefused("it holds values that are not finite", where=name)
    if to.space != 2 and not to.free and first.shape[1:] != to.sizes:
        raise _wrong_size(name, first.shape[1:], to)
    planes = bands.reshape(len(bands), -1, bands.shape[-1])
    drawn = _drawn(to, len(bands), name)
    shown = ", ".join(str(place + 1) for place in drawn)
    notes = [f"{_KINDS[to.space]} of {len(bands)} band(s) along axis {axis}; drawn: {shown}"]
    # Of a model of bands the recipe, found or named, is one of bands; none is the identity.
    as_they_are = values.dtype.kind == "f" and not to.chosen and not to.preprocess.bands
    said = ((_AS_THEY_ARE,) if as_they_are else ()) + ((doubt,) if doubt else ())
    return Photo(
        _picture(planes, drawn),
        name,
        hashlib.sha256(planes.tobytes()).hexdigest(),
        (*notes, *said),
        warnings=said,
        bands=planes,
        space=to.space,
        depth=to.depth,
        drawn=drawn,
        as_they_are=as_they_are,
    )


def _bands_first(values: Array, name: str, to: Bands) -> tuple[Array, int, str]:
    """Values as (C, *sizes), the axis that the bands were found along, and why that is in doubt."""
    count, rank = to.preprocess.channel_count, to.space + 1
    own = values
    if own.ndim == rank + 1 and own.shape[0] == 1:  # one sample
        own = own[0]
    if own.ndim == rank - 1 and count == 1:
        own = own[None]
    if own.ndim != rank or 0 in own.shape:
        wanted = f"{count} bands and {to.space} axes of space"
        raise ImageRefused(
            f"an array of shape {list(values.shape)}, and the model takes {wanted}",
            where=name,
            hint=f"save it as ({count}, {', '.join(map(str, to.sizes))})",
        )
    fits = own.shape[1:] == to.sizes
    if own.shape[0] == count == own.shape[-1]:
        last = own.shape[:-1] == to.sizes
        if last and not fits:
            return np.moveaxis(own, -1, 0), own.ndim - 1, ""
        doubt = (
            f"an array of shape {list(values.shape)} has {count} bands whether they come first or "
            "last: the first axis is taken; if they come last, save numpy.moveaxis(a, -1, 0)"
        )
        return own, 0, "" if fits and not last else doubt
    if own.shape[0] == count:
        return own, 0, ""
    if own.shape[-1] == count:
        return np.moveaxis(own, -1, 0), own.ndim - 1, ""
    raise _wrong_count(name, min(own.shape[0], own.shape[-1]), own.shape, to)


def _wrong_count(name: str, have: int, shape: Sequence[int], to: Bands) -> ImageRefused:
    count = to.preprocess.channel_count
    first = shape[0] == have
    if to.space != 2 and len(shape) != to.space + 1:
        return ImageRefused(
            f"a photo, and the model takes {_KINDS[to.space]}s of {count} band(s)",
            where=name,
            hint=f"save an array ({count}, {', '.join(map(str, to.sizes))}) as FILE.npy",
        )
    hint = f"save an array ({count}, {', '.join(map(str, to.sizes))}) as FILE.npy"
    if have > count and Path(name).suffix.lower() == ".npy":
        chosen = f"a[:{count}]" if first else f"a[..., :{count}]"
        hint = (
            f"for its first {count}: python -c \"import numpy as np; a = np.load('{name}'); "
            f"np.save('{Path(name).stem}-{count}.npy', {chosen})\""
        )
    return ImageRefused(
        f"{have} bands (shape {list(shape)}), and the model takes {count}", where=name, hint=hint
    )


def _wrong_size(name: str, have: Sequence[int], to: Bands) -> ImageRefused:
    text, wanted = (" x ".join(map(str, one)) for one in (have, to.sizes))
    numbers = ",".join(map(str, (1, *have) if to.space == 1 else have))
    hint = f"cut or resample it to {wanted}"
    if not to.fixed:
        hint = f"--set size={numbers} opens the model for it; or {hint}"
    return ImageRefused(
        f"a {_KINDS[to.space]} of {text} places, and the model "
        f"{'takes' if to.fixed else 'is opened for'} {wanted}",
        where=name,
        hint=hint,
    )


def _drawn(to: Bands, count: int, name: str) -> tuple[int, ...]:
    """Bands that are drawn, counted from 0."""
    if not to.drawn:
        if to.preprocess.channels == "BGR":
            return (2, 1, 0)
        return tuple(range(3)) if count >= 3 else tuple(range(count if to.space == 1 else 1))
    if any(not 1 <= band <= count for band in to.drawn):
        wrong = next(band for band in to.drawn if not 1 <= band <= count)
        raise ImageRefused(
            f"there is no band {wrong}: it has {count}", where=name, hint="--bands counts from 1"
        )
    return tuple(band - 1 for band in to.drawn)


def _picture(planes: NDArray[np.float32], drawn: Sequence[int]) -> NDArray[np.uint8]:
    """(H, W, 3) of one band in grey, or of three; each from its 2nd to its 98th percentile."""
    places = list(drawn[:3]) if len(drawn) >= 3 else [drawn[0]] * 3
    chosen = [planes[place] for place in places]
    stretched = []
    for plane in chosen:
        low, high = (float(v) for v in np.quantile(plane, _QUANTILES))
        if high <= low:
            low, high = float(plane.min()), float(plane.max())
        scale = 255 / (high - low) if high > low else 0.0
        stretched.append(np.clip(np.rint((plane - low) * scale), 0, 255).astype(np.uint8))
    return np.stack(stretched, 2)

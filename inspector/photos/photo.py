"""One photo as upright RGB pixels, whatever file it came in; no torch, no onnxruntime.

A photo is a stranger's file: its format is on an allowlist, its pixels are counted before they
are decoded, and whatever a decoder raises becomes one `ImageRefused`. What was done to the
pixels on the way (alpha, CMYK, 16 bits, animation, orientation) is said in `Photo.notes`; what
may have gone wrong with them (a range that had to be guessed) in `Photo.warnings` too.
"""

import contextlib
import hashlib
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from converters.nearest_path import did_you_mean
from converters.regular_file import read_regular
from inspector.errors import ImageRefused, MissingExtra, UsageError
from inspector.photos.arrays import ACCEPTED, Pixels, Read, as_array, few_bits, opaque, pixels_of
from inspector.photos.dicom import is_dicom, read_dicom
from inspector.photos.pillow_files import FORMATS, PILLOW_QUIET, formats_of, hidden_samples

__all__ = [
    "FORMATS",
    "MAX_DECODED_BYTES",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "STORED_ON_ITS_SIDE",
    "ImageSource",
    "Photo",
    "image_sources",
    "indices_of",
    "is_one_image",
    "load_photo",
    "orientation_of",
    "turned_within_its_size",
    "upright",
]

ImageSource = Any
"""A path, the bytes of a file, an open file, a ``Photo``, a PIL image, or an array or tensor of
pixel values, (H, W, 3) or (3, H, W)."""


MAX_PIXELS = 2**27
"""134 megapixels: more than the 108 of the largest common cameras. Eight bits per channel take
400 MB then, and a heatmap of the photo's size 540 MB; twice that is where laptops give up."""

MAX_FILE_BYTES = 2**29
"""512 MiB: `MAX_PIXELS` uncompressed pixels of 4 bytes each."""

MAX_DECODED_BYTES = 2**31
"""2 GiB for all stages of decoding one file together: what Pillow holds, once or (for 16 bits per
channel) twice, and the array that is made of it, once more where it is turned upright."""

_ORIENTATION = 0x0112  # EXIF tag 274
_UPRIGHT: dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}

STORED_ON_ITS_SIDE = frozenset({5, 6, 7, 8})
"""EXIF orientations of photos whose stored picture has height and width the other way round."""

_VIDEOS = {b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V "}

# What a file that is not a photo may be, by its first bytes.
_FOREIGN = (
    (b"version https://git-lfs", "a git-lfs pointer: fetch the file itself with `git lfs pull`"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive"),
    (b"<svg", "an SVG drawing: export it as PNG"),
    (b"<?xml", "an XML file (an SVG drawing?): export it as PNG"),
    (b"<!doctype html", "a web page: the download failed"),
    (b"<html", "a web page: the download failed"),
    (b"\x93NUMPY", "a NumPy array: pass the array to the library instead"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Photo:
    """An upright photo.

    Attributes:
        pixels: (H, W, 3) RGB in 0..255, upright; uint8, or float32 where the file had more
            than eight bits per channel (a fraction then, nothing is rounded away).
        name: The file's name, or what the caller called the array.
        sha256: Hash of the file's bytes, or of the pixels when there was no file.
        notes: What was done to the pixels, one clause each.
        path: The file, None when there was none.
        warnings: Those of the notes that must be known when a result is read.
        bands: Values (C, H, W) of a file that holds more than colours, as a plane; the pixels
            are the picture that is drawn of them then. None of an ordinary photo.
        space: Axes of space of the bands: 1 of a signal, 2, or 3 of a volume.
        depth: Slices of a volume.
        drawn: Which bands the pixels show, counted from 0.
        as_they_are: Whether the network takes the bands without any preprocessing.

    Example:
        >>> import numpy as np
        >>> from inspector import Photo
        >>> grey = Photo.of(np.full((20, 30), 128, np.uint8), name="grey")
        >>> grey.size, grey.pixels.shape
        ((20, 30), (20, 30, 3))
    """

    pixels: Pixels
    name: str
    sha256: str
    notes: tuple[str, ...] = ()
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    bands: NDArray[np.float32] | None = None
    space: int = 2
    depth: int = 1
    drawn: tuple[int, ...] = ()
    as_they_are: bool = False

    def __repr__(self) -> str:
        """Name and size; the pixels would fill the screen."""
        return f"<Photo {self.name}: {' x '.join(map(str, self.sizes))}>"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Places along its axes of space: (H, W), (L,) of a signal, (D, H, W) of a volume."""
        height, width = self.size
        if self.space == 1:
            return (width,)
        return self.size if self.space == 2 else (self.depth, height // self.depth, width)

    @cached_property
    def rgb8(self) -> NDArray[np.uint8]:
        """The pixels in eight bits, (H, W, 3), for showing."""
        if self.pixels.dtype == np.uint8:
            return self.pixels.astype(np.uint8, copy=False)
        return np.clip(np.rint(self.pixels), 0, 255).astype(np.uint8)

    @classmethod
    def open(cls, source: ImageSource) -> "Photo":
        """A photo from a file or from pixels: `load_photo` of a path, `Photo.of` of all else.

        Args:
            source: A path (str or Path), or what `of` takes.

        Raises:
            ImageRefused: The file cannot be read, or the pixels are not an image.
        """
        return load_photo(source) if isinstance(source, str | Path) else cls.of(source)

    @classmethod
    def of(cls, pixels: object, name: str = "image") -> "Photo":
        """A photo from pixels that are in memory already.

        Args:
            pixels: A `Photo` (returned as it is); the bytes of a photo's file, or such a file
                opened for reading bytes; a PIL image; or an array or tensor (H, W), (H, W, C) or
                (C, H, W), C of 1, 3 or 4, of uint8, uint16 (0..65535) or floats in 0..255;
                floats none of which is above 1 are taken as 0..1, with a warning.
            name: What reports and files are to call it.

        Raises:
            ImageRefused: The array has another shape or type, values outside 0..255, or values
                that may be of either range; the image cannot be decoded.
        """
        if isinstance(pixels, Photo):
            return pixels
        if hasattr(pixels, "open_photo"):  # a frame of a video
            frame: Photo = pixels.open_photo()
            return frame
        if hasattr(pixels, "read"):
            given = getattr(pixels, "name", None)
            name = Path(given).name if name == "image" and isinstance(given, str) else name
            pixels = _read_stream(pixels, name)
        if isinstance(pixels, bytes | bytearray | memoryview):
            data = bytes(pixels)
            read = _of_bytes(data, name)
            return cls(read[0], name, hashlib.sha256(data).hexdigest(), read[1], warnings=read[2])
        if isinstance(pixels, Image.Image):
            try:
                _check_size(pixels)
                rgb, notes, warned = _decode(pixels)
            except ImageRefused as error:
                raise ImageRefused(error.what, where=name, hint=error.hint) from None
            except (OSError, SyntaxError, ValueError) as error:  # decoded only now
                raise ImageRefused(f"broken image ({error})", where=name) from error
        else:
            rgb, notes, warned = pixels_of(as_array(pixels, name), name)
        digest = hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).hexdigest()
        return cls(rgb, name, digest, notes, warnings=warned)


def load_photo(path: str | Path) -> Photo:
    """Read a photo and turn it upright.

    Args:
        path: A JPEG, PNG, BMP, GIF, TIFF, WebP, AVIF, JPEG 2000 or PPM file; HEIC and DICOM with
            the extras ``heif`` and ``dicom``.

    Returns:
        The photo, with notes about what was done to its pixels.

    Raises:
        ImageRefused: Missing, empty, foreign, truncated, broken or too large.
        MissingExtra: What reads HEIC or DICOM files is not installed.

    Example:
        >>> from inspector import load_photo
        >>> photo = load_photo("sample_models/images/horse_1.png")
        >>> photo.name, photo.size, photo.pixels.dtype
        ('horse_1.png', (32, 32), dtype('uint8'))
    """
    path = Path(path)
    data = _read(path)
    rgb, notes, warned = _of_bytes(data, str(path))
    return Photo(rgb, path.name, hashlib.sha256(data).hexdigest(), notes, path, warned)


def orientation_of(path: Path) -> int:
    """EXIF orientation of a photo's file, 1 to 8; 1 where there is none, or no such file."""
    found = _asked(path, lambda image: image.getexif().get(_ORIENTATION, 1))
    return found if found in _UPRIGHT else 1


def turned_within_its_size(path: Path) -> bool:
    """Whether EXIF turns or mirrors a photo that has the same height and width before and after."""

    def ask(image: Image.Image) -> bool:
        orientation = image.getexif().get(_ORIENTATION, 1)
        keeps = orientation not in STORED_ON_ITS_SIDE or image.width == image.height
        return orientation in _UPRIGHT and keeps

    return bool(_asked(path, ask))


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels (H, W, ...) as a file stores them, turned upright by its EXIF orientation."""
    return _UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels


def indices_of(path: Path) -> NDArray[np.uint8] | None:
    """Places (H, W) in the palette of a file whose first colour is black; None of others.

    Masks of classes are such files: 0 is the background.
    """

    def read(image: Image.Image) -> NDArray[np.uint8] | None:
        if image.mode != "P" or (image.getpalette("RGB") or [1])[:3] != [0, 0, 0]:
            return None
        _check_size(image)
        return upright(np.asarray(image, np.uint8), image.getexif().get(_ORIENTATION, 1))

    found: NDArray[np.uint8] | None = _asked(path, read)
    return found


def _asked(path: Path, ask: Callable[[Image.Image], Any]) -> Any:
    """What a file says of itself; None of one that cannot be read, which is said elsewhere."""
    try:
        data = _read(path)
        with PILLOW_QUIET, Image.open(io.BytesIO(data), formats=formats_of(data, str(path))) as one:
            return ask(one)
    except Exception:  # noqa: BLE001 - decoders raise anything
        return None


def _of_bytes(data: bytes, where: str) -> Read:
    """Upright pixels of a file's bytes.

    Raises:
        ImageRefused: Empty, foreign, truncated, broken or too large.
    """
    if not data:
        raise ImageRefused("the file is empty", where=where, hint="get the file again")
    if is_dicom(data):
        return read_dicom(data, where, MAX_PIXELS, MAX_DECODED_BYTES)
    try:
        with PILLOW_QUIET, Image.open(io.BytesIO(data), formats=formats_of(data, where)) as image:
            _check_size(image)
            return _decode(image, data)
    except MissingExtra:
        raise
    except UnidentifiedImageError:
        raise ImageRefused(_looks_like(data), where=where, hint=_KNOWN) from None
    except Image.DecompressionBombError:
        raise ImageRefused(_too_large("hundreds of"), where=where, hint=_SCALE) from None
    except ImageRefused as error:
        raise ImageRefused(error.what, where=where, hint=error.hint) from None
    except MemoryError:
        raise ImageRefused("does not fit into memory", where=where, hint=_SCALE) from None
    except Exception as error:  # decoders raise anything (struct, zlib, Index, Syntax ...)
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageRefused(
            f"broken or truncated image ({reason})", where=where, hint="get the file again"
        ) from error


def _read_stream(stream: Any, name: str) -> bytes:
    """What an open file still holds, of which there may not be too much.

    Raises:
        ImageRefused: It cannot be read, was opened as text, or holds too much.
    """
    try:
        data = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageRefused(f"cannot be read ({error})", where=name) from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageRefused(
            f"an open file that gives {type(data).__name__}", where=name, hint='open it with "rb"'
        )
    if len(data) > MAX_FILE_BYTES:
        raise ImageRefused(f"more than {MAX_FILE_BYTES >> 20} MiB", where=name, hint=_SCALE)
    return bytes(data)


def is_one_image(images: object) -> bool:
    """Whether a value is one image; lists, of numbers too, are several."""
    single = isinstance(images, str | Path | Photo | Image.Image | bytes | bytearray | memoryview)
    return single or hasattr(images, "__array__") or hasattr(images, "read")


def image_sources(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """One image or several, as several.

    Args:
        images: What `Photo.open` takes, which is one image; or an iterable of such, which is
            returned as it is (a generator is not consumed).

    Raises:
        UsageError: It is neither.
    """
    if is_one_image(images):
        return [images]
    if isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise UsageError(
            f"images: a value of type {type(images).__name__}",
            hint=f"{ACCEPTED}, or a list of them",
        )
    return images


_KNOWN = (
    "readable are JPEG, PNG, BMP, GIF, TIFF, WebP, AVIF, JPEG 2000 and PPM; HEIC and DICOM with "
    "the extras heif and dicom"
)
_SCALE = "scale it down first: the network sees a few hundred pixels per side"


def _read(path: Path) -> bytes:
    """The file's bytes, of which there may not be too many."""
    try:
        data = read_regular(path, MAX_FILE_BYTES)
    except FileNotFoundError:
        hint = did_you_mean(path) or "give the path of a photo"
        raise ImageRefused("no such file", where=str(path), hint=hint) from None
    except IsADirectoryError:
        raise ImageRefused(
            "is a folder", where=str(path), hint="give the path of a photo"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageRefused(f"cannot be read ({reason})", where=str(path)) from None
    return data


def _looks_like(data: bytes) -> str:
    """Name of what a file that is not a known photo looks like."""
    start = data[:64].lstrip().lower()
    for magic, name in _FOREIGN:
        if start.startswith(magic.lower()):
            return f"not a photo but {name}"
    if data[:1] == b"\x08" and data[2:3] == b"\x12":  # version and producer, as ONNX files begin
        return "not a photo but an ONNX model: `inspector compare` takes two"
    if data[4:8] == b"ftyp" or data[:4] == b"\x1aE\xdf\xa3" or data[8:12] == b"AVI ":
        if data[8:12] in _VIDEOS or data[4:8] != b"ftyp":
            return "not a photo but a video: `inspector explain` draws its frames"
        return f"a {data[8:12].decode('ascii', 'replace').strip()!r} file, which is not read"
    return "not an image that is known, or one with a broken header"


def _too_large(megapixels: str) -> str:
    return f"{megapixels} megapixels, more than {MAX_PIXELS // 10**6}"


def _check_size(image: Image.Image) -> None:
    """Refuse by the header's word, before a pixel is decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageRefused("an image without pixels")
    if width * height > MAX_PIXELS:
        raise ImageRefused(_too_large(f"{width * height / 1e6:.0f}"), hint=_SCALE)
    if (samples := hidden_samples(image)) > 1:
        raise ImageRefused(
            f"{samples} bands per pixel, of which only the first would be shown",
            hint="save a picture in colours; models of bands take it as it is",
        )


_LARGE = 2**28
"""256 MiB: what takes more at once is decoded alone, however many threads read photos."""

_ONE_LARGE = threading.Lock()
_BAND = 2**20  # pixels that are turned into an array at a time


def _decode(image: Image.Image, data: bytes | None = None) -> Read:
    """Upright RGB pixels of an opened image, and what was done to them.

    Raises:
        ImageRefused: Decoding would take too much memory, or the pixels mean nothing known.
    """
    low_bytes = data is not None and _other_order(image) is not None
    needed = image.width * image.height * (20 if low_bytes else 16 if _is_deep(image) else 10)
    if needed > MAX_DECODED_BYTES:
        raise ImageRefused(
            f"{image.width * image.height / 1e6:.0f} megapixels of 16 bits per channel take "
            f"{needed / 2**30:.1f} GiB to decode, more than {MAX_DECODED_BYTES / 2**30:.0f}",
            hint=_SCALE,
        )
    with _ONE_LARGE if needed > _LARGE else contextlib.nullcontext():
        return _decoded(image, data)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F"))


def _decoded(image: Image.Image, data: bytes | None) -> Read:
    notes: list[str] = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("several frames: the first is used")
    low = _low_bytes(data, image)
    image.load()
    orientation = image.getexif().get(_ORIENTATION, 1)
    mode = image.mode
    warned = ""
    if low is not None:
        notes.append("16 bits per channel kept")
        top = max(float(whole[:, :, :3].max(initial=0)) for whole in _wholes(image, low))
        warned = few_bits(top)
        bands = (whole / np.float32(257) for whole in _wholes(image, low))
    elif _is_deep(image):
        scale, warned = _deep_grey(image, notes)
        bands = (scale(np.asarray(band).astype(np.float64)) for band in _bands(image))
    else:
        alpha = mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        if mode == "LAB":
            raise ImageRefused("CIELAB pixels", hint="convert the photo to RGB")
        if not alpha and mode == "CMYK":
            notes.append("CMYK converted to RGB without a colour profile")
        elif not alpha and mode in ("1", "L"):
            notes.append("grey")
        wanted = "RGBA" if alpha else "RGB"
        same = mode == wanted  # Pillow would copy it
        bands = (np.asarray(b if same else b.convert(wanted), np.uint8) for b in _bands(image))
    values, composited = _stacked(bands, (image.height, image.width))
    if orientation in _UPRIGHT:
        values = cast("Pixels", np.ascontiguousarray(_UPRIGHT[orientation](values)))
        notes.append(f"turned upright (EXIF orientation {orientation})")
    warnings = (warned,) if warned else ()
    return values, (*notes, *composited, *warnings), warnings


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    """The image as strips from top to bottom, so that no second copy of a large one is made."""
    step = max(1, _BAND // image.width)
    if step >= image.height:
        yield image
        return
    for top in range(0, image.height, step):
        yield image.crop((0, top, image.width, min(top + step, image.height)))


def _stacked(bands: Iterable[Any], size: tuple[int, int]) -> tuple[Pixels, list[str]]:
    """Strips (h, W), (h, W, 1), (h, W, 3) or (h, W, 4) as one picture (H, W, 3)."""
    whole: Pixels | None = None
    notes: list[str] = []
    top = 0
    for band in bands:
        part = opaque(band, notes)
        if whole is None:
            whole = cast("Pixels", np.empty((*size, 3), part.dtype))
        whole[top : top + len(part)] = part
        top += len(part)
    if whole is None:
        raise ImageRefused("an image without pixels")
    return whole, list(dict.fromkeys(notes))


_FULL = 65535
_BITS, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_SIGNED = 2  # of the latter, for signed whole numbers


def _other_order(image: Image.Image) -> str | None:
    """Pillow's raw mode with the byte order turned round; None for colours of eight bits."""
    tiles = getattr(image, "tile", None)
    if image.mode not in ("RGB", "RGBA") or not tiles:
        return None
    raw = tiles[0][3]
    raw_mode = raw if isinstance(raw, str) else raw[0] if isinstance(raw, tuple) else ""
    if not raw_mode.startswith(image.mode) or raw_mode[-4:-1] != ";16":
        return None
    native = "L" if sys.byteorder == "little" else "B"
    order = native if raw_mode[-1] == "N" else raw_mode[-1]
    return raw_mode[:-1] + ("B" if order == "L" else "L")


def _low_bytes(data: bytes | None, image: Image.Image) -> Image.Image | None:
    """The lower byte of each 16-bit channel value, which Pillow drops for colour images.

    Pillow unpacks 16-bit RGB(A) into eight bits by keeping the byte that its raw mode calls the
    high one. Read a second time with the other byte order, the same unpacker keeps the other.
    """
    other = _other_order(image)
    if data is None or other is None:
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as again:
        opened: Any = again  # `tile` belongs to ImageFile, and its type has changed before
        opened.tile = [
            tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))
            for tile in opened.tile
        ]
        again.load()
        return again


def _wholes(high: Image.Image, low: Image.Image) -> Iterator[NDArray[np.float32]]:
    """Strips of 16-bit values out of their higher and lower bytes."""
    for upper, lower in zip(_bands(high), _bands(low), strict=True):
        yield np.asarray(upper, np.uint8).astype(np.float32) * 256 + np.asarray(lower, np.uint8)


_Scale = Callable[[NDArray[np.float64]], NDArray[np.float32]]


def _deep_grey(image: Image.Image, notes: list[str]) -> tuple[_Scale, str]:
    """How grey of more than eight bits is scaled to 0..255: by the range of its type.

    Returns:
        A function of strips, and a warning about the values or an empty text.
    """
    ends = [(float(part.min()), float(part.max())) for part in map(np.asarray, _bands(image))]
    low, high = (float(f([end[i] for end in ends])) for i, f in ((0, np.min), (1, np.max)))
    tags: Any = getattr(image, "tag_v2", {})
    signed = image.mode.startswith("I") and all(
        value in np.atleast_1d(tags.get(tag, 0))
        for tag, value in ((_SAMPLE_FORMAT, _SIGNED), (_BITS, 16))
    )
    if signed and low >= 0 and high <= _FULL // 2:
        notes.append("signed 16-bit grey scaled from 0..32767 to 0..255")
        warned = few_bits(high) or (
            "the file holds signed 16-bit values: 0..32767 was taken for black to white"
        )
        return lambda values: (values * (255 / (_FULL // 2))).astype(np.float32), warned
    if image.mode.startswith("I") and low >= 0 and high <= 65535:
        notes.append("16-bit grey scaled to 0..255")
        return lambda values: (values / 257).astype(np.float32), few_bits(high)
    if image.mode == "F" and low >= 0 and high <= 1:
        notes.append("floating-point grey scaled from 0..1 to 0..255")
        return lambda values: (values * 255).astype(np.float32), ""
    if image.mode == "F" and low >= 0 and high <= 255:
        notes.append("floating-point grey taken as 0..255")
        return lambda values: values.astype(np.float32), ""
    kind = "signed grey values" if low < 0 else "grey values"
    raise ImageRefused(
        f"{kind} {low:g} .. {high:g} without a known range: nothing says which of them is black "
        "and which is white",
        hint="choose the window that the network was trained with, and save it as unsigned 8 bits, "
        "or as unsigned 16 bits with white at 65535",
    )

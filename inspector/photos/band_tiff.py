"""TIFF files of several bands per pixel, which Pillow does not decode.

What satellites and microscopes are saved as: pixels (H, W, C) or planes (C, H, W) of integers or
real numbers.  The library tifffile reads them, an extra; it is imported when such a file is opened.
Sizes are checked before anything is decoded, and only files without compression or with deflate are
decoded: other schemes need decoders in C that a stranger's file should not reach.
"""

import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from converters.regular_file import first_bytes, read_regular
from inspector.errors import ImageRefused, require
from inspector.photos.dicom import is_dicom
from inspector.photos.photo import MAX_DECODED_BYTES, MAX_FILE_BYTES
from inspector.photos.pillow_files import hidden_samples, is_heif
from inspector.printable import clean_text

__all__ = ["MAGIC", "has_band_pixels", "read_band_pixels", "require_reader"]

Array = np.ndarray[Any, Any]

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a TIFF file, of either byte order, and of a BigTIFF."""

_WITH_EXTRAS = {".heic", ".heif", ".hif", ".dcm", ".dicom"}

COLOURS = 3
"""Samples of a pixel up to which a file is a picture, which Pillow reads."""

_PLAIN = {1, 8, 32946}
"""Compression schemes that are decoded: none, and deflate by its two numbers."""

_HINT = (
    "save it as an array: python -c \"import numpy, tifffile; numpy.save('FILE.npy', "
    "tifffile.imread('FILE.tif'))\""
)


def has_band_pixels(data: bytes) -> bool:
    """Whether the bytes are a TIFF file with more samples per pixel than colours.

    Args:
        data: The whole file, or its beginning up to the first directory of tags.
    """
    if not data.startswith(MAGIC):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            return len(image.getbands()) > COLOURS or hidden_samples(image) > 1
    except UnidentifiedImageError:
        return True
    except Exception:  # decoders raise anything; who reads the file says it  # noqa: BLE001
        return False


def require_reader(images: Iterable[object], *, bands: bool) -> None:
    """Refuse a run in which a file cannot be read for want of a package, before it begins.

    Args:
        images: Sources of photos; those that are not paths are passed over.
        bands: Whether the model takes bands, signals or volumes.

    Raises:
        MissingExtra: One of them is a HEIC or DICOM file, or has several bands per pixel, and what
            reads it is not installed.
    """
    for image in images:
        if isinstance(image, str | Path) and Path(image).suffix.lower() in _WITH_EXTRAS:
            head = first_bytes(image, 132)
            if is_heif(head):
                require("pillow_heif", f"the HEIC photo {Path(image).name}", "heif")
            elif is_dicom(head):
                require("pydicom", f"the DICOM file {Path(image).name}", "dicom")
        if not bands:
            continue
        if not isinstance(image, str | Path) or Path(image).suffix.lower() not in {".tif", ".tiff"}:
            continue
        try:
            data = read_regular(Path(image), MAX_FILE_BYTES)
        except OSError:
            continue  # said when it is its turn
        if has_band_pixels(data):
            require("tifffile", f"the bands of {Path(image).name}", "tiff")


def read_band_pixels(data: bytes, where: str) -> Array:
    """The bands (C, H, W) of a TIFF file, in its own type.

    Args:
        data: The whole file.
        where: Its name, for messages.

    Raises:
        MissingExtra: tifffile is not installed.
        ImageRefused: It is broken, too large, compressed by another scheme, or holds several
            pictures.
    """
    require("tifffile", f"the bands of {Path(where).name}", "tiff")
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            _check(file, where)
            page = file.pages[0]
            values: Array = np.asarray(page.asarray(maxworkers=1))
            return np.moveaxis(values, -1, 0) if page.axes == "YXS" else values
    except ImageRefused:
        raise
    except Exception as error:  # decoders raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageRefused(
            f"not a TIFF file that can be read ({reason})", where=where, hint=_HINT
        ) from error


def _check(file: Any, where: str) -> None:
    """Refuse what is not to be decoded, by the words of its tags.

    Raises:
        ImageRefused: It is too large, compressed by another scheme, or holds several pictures.
    """
    page = file.pages[0]
    size = math.prod(int(n) for n in page.shape) * page.dtype.itemsize
    if len(file.pages) > 1 or page.axes not in {"YXS", "SYX"}:
        what = f"{len(file.pages)} page(s) of several bands, with axes {clean_text(page.axes)}"
        raise ImageRefused(what, where=where, hint=_HINT)
    if size > MAX_DECODED_BYTES:
        raise ImageRefused(f"{size:,} bytes of bands", where=where)
    if int(page.compression) not in _PLAIN:
        scheme = getattr(page.compression, "name", page.compression)
        what = f"bands that are compressed by {scheme}; only deflate is decoded"
        raise ImageRefused(what, where=where, hint=_HINT)

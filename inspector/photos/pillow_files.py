"""What Pillow must be kept from: warning in many threads, and hiding bands of a file."""

import contextlib
import re
import threading
import warnings
from typing import Any, cast

from PIL import Image

from inspector.errors import require

__all__ = ["FORMATS", "PILLOW_QUIET", "formats_of", "hidden_samples", "is_heif"]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
"""What may be decoded. Pillow knows forty more, each one a decoder to attack."""

_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

_SAMPLES = 277  # TIFF's tag SamplesPerPixel


class _Quiet:
    """Context manager that silences Pillow's warnings while any thread reads a photo.

    Pillow warns about sizes (bounded here) and about odd metadata (not used here).  To catch the
    warnings would swap the filters of all threads, and two that overlap may leave the wrong ones
    behind.  This is one narrow filter that comes with the first reader and goes with the last.
    """

    def __init__(self) -> None:
        self._lock, self._readers = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._readers += 1
            # Not a second time: it would be gone for a moment, while others read.
            if warnings.filters[:1] != [_QUIET]:
                warnings.filterwarnings("ignore", module=_PILLOW.pattern)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                filters = cast("list[object]", warnings.filters)
                with contextlib.suppress(ValueError):  # somebody has swapped them meanwhile
                    filters.remove(_QUIET)


_PILLOW = re.compile(r"PIL\.")
_QUIET = ("ignore", None, Warning, _PILLOW, 0)
PILLOW_QUIET = _Quiet()
"""Used with ``with`` around everything that Pillow decodes."""


def is_heif(data: bytes) -> bool:
    """Whether the bytes begin as a HEIC or HEIF file; AVIF, of the same family, is none."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF and b"avif" not in data[8:40]


def formats_of(data: bytes, where: str) -> tuple[str, ...]:
    """Formats of Pillow that a file's bytes may be of; HEIF is one where the extra is installed.

    Args:
        data: The file, or its beginning.
        where: Its name, for messages.

    Raises:
        MissingExtra: It is a HEIC file, and pillow-heif is not installed.
    """
    if not is_heif(data):
        return FORMATS
    require("pillow_heif", f"the HEIC photo {where}", "heif")
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def hidden_samples(image: Image.Image) -> int:
    """Bands per pixel of an opened TIFF file of which Pillow shows the first alone; 0 for others.

    It reads planes that lie one after another (or two bands) as one grey picture, and says nothing.
    """
    tags: Any = getattr(image, "tag_v2", None) or {}
    samples = tags.get(_SAMPLES, 1)
    shown = len(image.getbands())
    return samples if isinstance(samples, int) and shown == 1 < samples else 0

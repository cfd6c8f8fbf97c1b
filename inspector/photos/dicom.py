"""DICOM files: one frame of grey or colours, as the viewer of a hospital shows it.

The modality's slope and intercept are applied, then the window that the file names
(DICOM PS3.3, C.11.2.1.2); MONOCHROME1, in which large values are black, is turned round.  The
library pydicom reads the file, an extra.  Sizes are checked by the header's word, and only pixels
without compression or with RLE are decoded: other schemes need decoders that a stranger's file
should not reach.
"""

import io
import math
from typing import Any

import numpy as np

from inspector.errors import ImageRefused, require
from inspector.photos.arrays import Read

__all__ = ["is_dicom", "read_dicom"]

Array = np.ndarray[Any, Any]

_PLAIN = {
    "1.2.840.10008.1.2": "implicit, little endian",
    "1.2.840.10008.1.2.1": "explicit, little endian",
    "1.2.840.10008.1.2.2": "explicit, big endian",
    "1.2.840.10008.1.2.5": "RLE",
}
"""Transfer syntaxes whose pixels are decoded."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"

_WINDOWED = 40
"""Bytes per pixel that the window and its picture take beside the stored values."""

_HINT = "decompress it first: gdcmconv --raw IN.dcm OUT.dcm"
_SAVE_ONE = "save the frame that is to be explained as a file of its own"


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file: 128 bytes of anything, then ``DICM``."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, where: str, most: int, most_bytes: int) -> Read:
    """Pixels (H, W, 3) of a DICOM file, 0..255.

    Args:
        data: The whole file.
        where: Its name, for messages.
        most: Pixels that it may have.
        most_bytes: Bytes that all stages of decoding it may take together.

    Raises:
        MissingExtra: pydicom is not installed.
        ImageRefused: It is broken, too large, compressed, or holds several frames.
    """
    require("pydicom", f"the DICOM file {where}", "dicom")
    import pydicom

    if _DEFLATED in data:  # the library would inflate all of it, however large, to read the header
        raise ImageRefused("a DICOM file that is deflated", where=where, hint=_HINT)
    try:
        # Not a word of the header is believed before it is looked at, so none is validated.
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        data_set: Any = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        _check(data_set, where, most, most_bytes)
        data_set = pydicom.dcmread(io.BytesIO(data))
        return _shown(data_set, np.asarray(data_set.pixel_array), where)
    except ImageRefused:
        raise
    except Exception as error:  # decoders raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageRefused(
            f"broken or truncated DICOM file ({reason})", where=where, hint="get the file again"
        ) from error


def _check(data_set: Any, where: str, most: int, most_bytes: int) -> None:
    """Refuse what is not to be decoded, by the header's word.

    Raises:
        ImageRefused: No picture, too large, compressed, or several frames.
    """
    rows, columns = int(data_set.get("Rows", 0) or 0), int(data_set.get("Columns", 0) or 0)
    frames = int(data_set.get("NumberOfFrames", 1) or 1)
    samples = int(data_set.get("SamplesPerPixel", 1) or 1)
    syntax = str(data_set.file_meta.get("TransferSyntaxUID", ""))
    if rows < 1 or columns < 1:
        raise ImageRefused("a DICOM file without a picture", where=where)
    if rows * columns > most:
        raise ImageRefused(
            f"{rows * columns / 1e6:.0f} megapixels, more than {most // 10**6}", where=where
        )
    if frames != 1:
        raise ImageRefused(f"a DICOM file of {frames} frames", where=where, hint=_SAVE_ONE)
    if samples not in {1, 3}:
        raise ImageRefused(f"a DICOM file of {samples} values per pixel", where=where)
    stored = samples * -(-int(data_set.get("BitsAllocated", 8) or 8) // 8)
    needed = rows * columns * (2 * stored + (_WINDOWED if samples == 1 else 0))
    if needed > most_bytes:
        raise ImageRefused(
            f"{rows * columns / 1e6:.0f} megapixels take {needed / 2**30:.1f} GiB to decode, more "
            f"than {most_bytes / 2**30:.0f}",
            where=where,
        )
    if syntax not in _PLAIN:
        raise ImageRefused(
            f"DICOM pixels that are compressed (transfer syntax {syntax[:64]})",
            where=where,
            hint=_HINT,
        )


def _shown(data_set: Any, values: Array, where: str) -> Read:
    """What a viewer shows of the values.

    Raises:
        ImageRefused: Colours of another kind than RGB.
    """
    kind = str(data_set.get("PhotometricInterpretation", "")).strip().upper()
    if values.ndim == 3:
        if kind.startswith("YBR_FULL"):
            from pydicom.pixels import convert_color_space

            values = convert_color_space(values, kind, "RGB")
        elif kind != "RGB":
            raise ImageRefused(f"DICOM colours of the kind {kind[:32]!r}", where=where)
        if values.dtype != np.uint8:
            raise ImageRefused(f"DICOM colours of type {values.dtype}", where=where)
        return np.ascontiguousarray(values), (f"DICOM, {kind}",), ()
    if kind not in {"MONOCHROME1", "MONOCHROME2"}:
        raise ImageRefused(f"DICOM values of the kind {kind[:32]!r}", where=where)
    slope = _number(data_set.get("RescaleSlope"), 1.0)
    intercept = _number(data_set.get("RescaleIntercept"), 0.0)
    with np.errstate(all="ignore"):
        scaled = values.astype(np.float64) * slope + intercept
    if not np.isfinite(scaled).all():
        raise ImageRefused(f"DICOM values times {slope:g} are not finite", where=where)
    grey, said, warned = _windowed(scaled, data_set)
    notes = [f"DICOM, {kind}", *said]
    if kind == "MONOCHROME1":
        grey = 255 - grey
        notes.append("inverted: large values are black")
    picture = np.repeat(grey.astype(np.float32)[:, :, None], 3, axis=2)
    return picture, (*notes, *warned), warned


def _windowed(values: Array, data_set: Any) -> tuple[Array, list[str], tuple[str, ...]]:
    """Grey 0..255 of modality values: by the file's window, else from the least to the largest."""
    centre = _number(data_set.get("WindowCenter"), math.nan)
    width = _number(data_set.get("WindowWidth"), math.nan)
    how = str(data_set.get("VOILUTFunction", "") or "LINEAR").strip().upper()
    if not (math.isfinite(centre) and math.isfinite(width)) or width < 1:
        low, high = float(values.min()), float(values.max())
        grey = (values - low) * (255 / (high - low) if high > low else 0.0)
        warned = (
            f"the DICOM file names no window: {low:g} .. {high:g} was taken for black to white",
        )
        return grey, [], warned
    if how == "SIGMOID":
        grey = 255 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    elif how == "LINEAR_EXACT":
        grey = np.clip((values - centre) / width + 0.5, 0, 1) * 255
    else:
        span = max(width - 1, np.finfo(np.float64).tiny)
        grey = np.clip((values - (centre - 0.5)) / span + 0.5, 0, 1) * 255
    return grey, [f"window {centre:g}, {width:g} ({how.lower()})"], ()


def _number(value: Any, otherwise: float) -> float:
    """The first of one number or several."""
    if value is None or value == "":
        return otherwise
    first = value[0] if isinstance(value, list | tuple) or hasattr(value, "insert") else value
    return float(first)

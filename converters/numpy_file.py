"""The one reader of NumPy's files, ``.npy`` and ``.npz``, that a stranger may have written.

NumPy gives the header to Python's own tokenizer, and archives to several decompressors: whatever
these raise is one refusal.  Nothing is unpickled, and no more is made than the bytes hold.
"""

import io
import zipfile
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy

__all__ = ["read_archive", "read_npy", "read_npz"]


def read_npy(data: bytes) -> np.ndarray[Any, Any]:
    """The array of a ``.npy`` file; its header says how large it is before it is made.

    Args:
        data: The whole file.

    Raises:
        ValueError: It is none, holds Python objects, or promises more than it has.

    Example:
        >>> stream = io.BytesIO()
        >>> np.save(stream, np.arange(3))
        >>> read_npy(stream.getvalue())
        array([0, 1, 2])
    """
    try:
        return _read(io.BytesIO(data), len(data))
    except Exception as error:  # noqa: BLE001 - see above
        raise _refusal(error) from None


def read_npz(data: bytes, most: int) -> np.ndarray[Any, Any]:
    """The only array of a ``.npz`` archive.

    Args:
        data: The whole file.
        most: Bytes of the array's file beyond which it is not unpacked.

    Raises:
        ValueError: It is none, holds no array or several, or one that is larger.
    """
    try:
        inside = _unpacked(data, most)
    except Exception as error:  # noqa: BLE001 - see above
        raise _refusal(error) from None
    return read_npy(inside)


def read_archive(data: bytes, most: int) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of a ``.npz`` archive by name.

    Args:
        data: The whole file.
        most: Bytes of all arrays' files together beyond which they are not unpacked.

    Raises:
        ValueError: It is none, or holds more than that, or more than 64 arrays.

    Example:
        >>> stream = io.BytesIO()
        >>> np.savez(stream, a=np.arange(3))
        >>> read_archive(stream.getvalue(), 1000)
        {'a': array([0, 1, 2])}
    """
    try:
        found = _members(data, most)
    except Exception as error:  # noqa: BLE001 - see above
        raise _refusal(error) from None
    return {name: read_npy(inside) for name, inside in found.items()}


def _members(data: bytes, most: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) > _MOST_ARRAYS:
            raise ValueError(f"it holds {len(members)} arrays")
        for member in members:
            left = most - sum(map(len, found.values()))
            with archive.open(member) as opened:
                inside = opened.read(left + 1)
            if len(inside) > left:
                raise ValueError("its arrays are larger than what is read")
            found[member.filename.removesuffix(".npy")] = inside
    return found


_MOST_ARRAYS = 64


def _unpacked(data: bytes, most: int) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) != 1:
            names = ", ".join(member.filename[:40] for member in members[:8])
            raise ValueError(f"it holds {len(members)} arrays ({names}), and one is meant")
        if members[0].file_size <= most:
            with archive.open(members[0]) as member:
                inside = member.read(most + 1)
            if len(inside) <= most:
                return inside
    raise ValueError("its array is larger than what is read")


def _read(stream: io.BytesIO, present: int) -> np.ndarray[Any, Any]:
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, kind = header(stream)
    if kind.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    size = prod(int(axis) for axis in shape) * kind.itemsize
    if not 0 <= size <= present or min(shape, default=0) < 0 or (not kind.itemsize and shape):
        raise ValueError(f"its header promises {size} bytes, and it has {present}")
    stream.seek(0)
    found: np.ndarray[Any, Any] = npy.read_array(stream, allow_pickle=False)
    return found


def _refusal(error: Exception) -> ValueError:
    return ValueError(" ".join(str(error).split())[:160] or type(error).__name__)

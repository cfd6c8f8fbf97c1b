"""What a file of PyTorch's is, told from its records, and whether they are what they claim.

PyTorch's files are zip archives:

    NAME/models/*.json, NAME/archive_format    an exported program (.pt2)
    NAME/code/, NAME/constants.pkl             TorchScript
    NAME/data.pkl                              a pickle: tensors alone, or any object at all

and a pickle outside an archive is what PyTorch wrote before 1.6.  Nothing is unpickled here, and
PyTorch is not imported; what it is about to read is held to the sizes it was declared with, for
it allocates by what the archive's directory says.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Literal

from converters.errors import ConversionFailed
from converters.regular_file import first_bytes

__all__ = ["Kind", "inspect", "kind_of"]

Kind = Literal["program", "torchscript", "checkpoint", "legacy", "cut", ""]

_MOST_RECORDS = 100_000
_MOST_PACKED = 2**28  # bytes of all compressed records: code and JSON, never weights
_MOST_RATIO = 200
_LONGEST_NAME = 1024
_ENCRYPTED = 1


def kind_of(path: Path) -> Kind:
    """What a file is; empty when it is none of PyTorch's, "cut" for an archive without its end."""
    try:
        start = first_bytes(path, 2)
        if start == b"\x80\x02":  # a pickle of protocol 2, as PyTorch writes it
            return "legacy"
        if start != b"PK":
            return ""
        if not zipfile.is_zipfile(path):
            return "cut"
        with zipfile.ZipFile(path) as archive:
            # An archive within one that is cut off is found by its own directory.
            if min((r.header_offset for r in archive.infolist()), default=0) > 0:
                return "cut"
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return ""
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        return "program"
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return "torchscript"
    return "checkpoint" if "data.pkl" in names else ""


def inspect(path: Path) -> None:
    """Hold every record of an archive to the size, the name and the place that it declares.

    Raises:
        ConversionFailed: A record is larger than it says, lies over another, is named like a
            path out of the archive, or there are more than any model has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = _wrong(archive, path.stat().st_size)
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError) as error:
        wrong = f"is a damaged archive ({' '.join(str(error).split())[:120]})"
    if wrong:
        raise ConversionFailed(wrong, where=str(path), hint="distrust this file")


def _wrong(archive: zipfile.ZipFile, size: int) -> str:
    """What is wrong with an archive of so many bytes, in words; empty when nothing is."""
    records = archive.infolist()
    if len(records) > _MOST_RECORDS:
        return f"has {len(records)} records; no model has more than {_MOST_RECORDS}"
    names = [record.filename for record in records]
    if len(set(names)) != len(names):
        return "has two records of one name"
    if sum(record.compress_size for record in records) > size:
        return "has records that lie over one another"
    packed = sum(r.file_size for r in records if r.compress_type != zipfile.ZIP_STORED)
    if packed > _MOST_PACKED:
        return f"would grow by {packed} bytes when it is unpacked: a decompression bomb"
    found = next(filter(None, (_wrong_record(record) for record in records)), "")
    if not found:
        for record in records:
            with archive.open(record) as stream:  # raises where a size is not as declared
                while record.compress_type != zipfile.ZIP_STORED and stream.read(2**20):
                    pass
    return found


def _wrong_record(record: zipfile.ZipInfo) -> str:
    name = ascii(record.filename[:80])
    if _escapes(record.filename):
        return f"record {name} is named like a path out of the archive"
    if record.flag_bits & _ENCRYPTED:
        return f"record {name} is encrypted"
    if record.compress_type == zipfile.ZIP_STORED:
        equal = record.file_size == record.compress_size
        return "" if equal else f"record {name} declares another size than it has"
    if record.compress_type != zipfile.ZIP_DEFLATED:
        return f"record {name} is compressed in a way that PyTorch never uses"
    if record.file_size > _MOST_RATIO * record.compress_size + 4096:
        return f"record {name} would grow to {record.file_size} bytes: a decompression bomb"
    return ""


def _escapes(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return (
        len(name) > _LONGEST_NAME
        or name.startswith("/")
        or ":" in parts[0]
        or ".." in parts
        or "\0" in name
    )

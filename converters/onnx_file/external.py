"""Identity of a model's external data: which bytes each tensor has, and that they stay the same.

A hash of the files alone does not say which tensor reads which of them: where two links are
exchanged, the files are the same and the network is another.  So each tensor counts, with its
location as the model writes it, its offset, its length and the hash of its bytes.
"""

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from converters.errors import UnsafeModel
from converters.regular_file import open_regular

__all__ = ["ExternalData", "Piece"]

_CHUNK = 1 << 20
_Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """The bytes of one tensor in an external file.

    Attributes:
        location: As the model writes it.
        path: The file, links resolved.
        name: The file's plain path below the folder that external data is read from.
        offset: First byte.
        length: Number of bytes.
    """

    location: str
    path: Path
    name: str
    offset: int
    length: int


class ExternalData:
    """External data of one model, as it was when the model was examined.

    Args:
        pieces: One per tensor that has external data, in the order of the model.

    Attributes:
        files: The external files, links resolved, in the order of their names.
    """

    def __init__(self, pieces: Sequence[Piece] = ()) -> None:
        self.pieces = tuple(pieces)
        self.files = tuple(sorted({piece.path for piece in pieces}))
        self._stamps = {path: _stamp(path.stat()) for path in self.files}
        self._size = sum(path.stat().st_size for path in self.files)
        self._contents: dict[str, bytes] | None = None

    def digest(self, model: str) -> str:
        """Hash of a model with its external data, as lower-case hexadecimal.

        Args:
            model: Hash of the model file, which alone it is where there is no external data.

        Raises:
            UnsafeModel: A file changed since it was examined.
        """
        if not self.pieces:
            return model
        return self._digest(model, lambda path: open_regular(path, follow=False))

    def contents(self, model: str, known: str, most: int) -> dict[str, bytes] | None:
        """Whole contents of the external files by their names, proved to be those of a hash.

        Read once, and kept.

        Args:
            model: Hash of the model file.
            known: What :meth:`digest` said.
            most: Bytes beyond which the files stay where they are.

        Returns:
            None where they are larger.

        Raises:
            UnsafeModel: A file changed since it was examined.
        """
        if not self.pieces or self._size > most:
            return None
        if self._contents is not None:
            return self._contents
        held: dict[Path, bytes] = {}
        for path in self.files:
            with open_regular(path, follow=False) as stream:
                self._require(path, os.fstat(stream.fileno()))
                held[path] = stream.read(self._stamps[path][2] + 1)
        if self._digest(model, lambda path: io.BytesIO(held[path])) != known:
            raise UnsafeModel(["changed after it was examined"], where=str(self.files[0]))
        self._contents = {piece.name: held[piece.path] for piece in self.pieces}
        return self._contents

    def require_unchanged(self) -> None:
        """Refuse files that are other files by now, or were written to.

        The time of the last change of an inode counts, which nobody can set back.

        Raises:
            UnsafeModel: A file changed since it was examined.
        """
        for path in self.files:
            try:
                self._require(path, path.stat())
            except OSError:
                raise UnsafeModel(["is gone since it was examined"], where=str(path)) from None

    def _require(self, path: Path, status: os.stat_result) -> None:
        if _stamp(status) != self._stamps[path]:
            raise UnsafeModel(["changed after it was examined"], where=str(path))

    def _digest(self, model: str, opening: Callable[[Path], BinaryIO]) -> str:
        self.require_unchanged()
        known: dict[tuple[Path, int, int], str] = {}
        total = hashlib.sha256(f"{model}\n".encode())
        for piece in self.pieces:
            at = (piece.path, piece.offset, piece.length)
            if at not in known:
                with opening(piece.path) as stream:
                    known[at] = _hash(stream, piece)
            location = piece.location.encode("utf-8", "surrogateescape")
            total.update(location + f"\0{piece.offset}\0{piece.length}\0{known[at]}\n".encode())
        self.require_unchanged()
        return total.hexdigest()


def _hash(stream: BinaryIO, piece: Piece) -> str:
    digest, left = hashlib.sha256(), piece.length
    stream.seek(piece.offset)
    while left and (data := stream.read(min(left, _CHUNK))):
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def _stamp(status: os.stat_result) -> _Stamp:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )

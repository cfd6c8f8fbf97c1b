"""Frames of a video, decoded one after another as they are asked for.

The library PyAV decodes it, an extra.  The container is told by its first bytes and read through an
opened regular file, so that no playlist or link inside of it can name another file or address.
Frames are counted without decoding them; sizes are checked before one is turned into pixels.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.regular_file import first_bytes, open_regular, sha256_of
from inspector.errors import ImageRefused, UsageError, require
from inspector.photos.photo import MAX_PIXELS, Photo

__all__ = ["EVERY", "MOST_FRAMES", "Frame", "Video", "frames_of"]

EVERY = 30
"""One frame of so many is taken: about one per second."""

MOST_FRAMES = 1000
"""Frames that are taken of one video."""

_CONTAINERS = ((4, b"ftyp", "mov"), (0, b"\x1aE\xdf\xa3", "matroska"), (8, b"AVI ", "avi"))
_HINT = "cut it, or take fewer: --every N"


@dataclass
class Video:
    """An opened video, which is read forwards.

    Attributes:
        path: The file.
        sha256: Hash of its bytes.
    """

    path: Path
    sha256: str
    _frames: Iterator[tuple[int, Any, float]] | None = field(default=None, repr=False)

    def picture(self, number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Pixels (H, W, 3) of a frame, counted from 0; later ones are asked for later.

        Raises:
            ImageRefused: The video ends or breaks before it.
        """
        if self._frames is None:
            self._frames = self._decoded()
        try:
            for place, frame, _ in self._frames:
                if place == number:
                    turned = int(getattr(frame, "rotation", 0) or 0) // 90
                    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turned))
        except ImageRefused:
            raise
        except Exception as error:  # decoders raise anything
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ImageRefused(
                f"broken or truncated before frame {number} ({reason})", where=str(self.path)
            ) from error
        raise ImageRefused(f"ends before frame {number}", where=str(self.path))

    def _decoded(self) -> Iterator[tuple[int, Any, float]]:
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            for place, frame in enumerate(container.decode(stream)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise ImageRefused(
                        f"a frame of {frame.width} x {frame.height} pixels", where=str(self.path)
                    )
                yield place, frame, float(frame.time or 0)


@dataclass(frozen=True)
class Frame:
    """One frame of a video, not decoded yet.

    Attributes:
        video: The video.
        number: Which one, counted from 0.
    """

    video: Video
    number: int

    @property
    def name(self) -> str:
        """What reports and files are to call it."""
        return f"{self.video.path.stem}-frame-{self.number:06d}.png"

    @property
    def sha256(self) -> str:
        """What identifies it: the video's hash and its number."""
        return hashlib.sha256(f"{self.video.sha256}#{self.number}".encode()).hexdigest()

    def open_photo(self) -> Photo:
        """Decode it.

        Raises:
            ImageRefused: The video ends or breaks before it.
        """
        note = f"frame {self.number} of {self.video.path.name}"
        return Photo(self.video.picture(self.number), self.name, self.sha256, (note,))


def frames_of(path: Path, every: int = EVERY) -> list[Frame]:
    """Every so many frames of a video, the first one among them.

    Args:
        path: The file.
        every: One frame of so many is taken.

    Raises:
        MissingExtra: PyAV is not installed.
        ImageRefused: It is not a video, or cannot be read.
        UsageError: More frames than `MOST_FRAMES` would be taken.
    """
    require("av", f"the video {path.name}", "video")
    count = 0
    try:
        with _opened(path) as container:
            for packet in container.demux(container.streams.video[0]):
                count += packet.size > 0
                if count > every * MOST_FRAMES:
                    break
    except ImageRefused:
        raise
    except Exception as error:  # what was counted until then is tried  # noqa: BLE001
        if not count:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise ImageRefused(
                f"not a video that can be read ({reason})", where=str(path)
            ) from None
    if count > every * MOST_FRAMES:
        raise UsageError(
            f"more than {MOST_FRAMES} frames would be taken", where=str(path), hint=_HINT
        )
    if not count:
        raise ImageRefused("a video without frames", where=str(path))
    video = Video(path, sha256_of(path))
    return [Frame(video, number) for number in range(0, count, every)]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container of PyAV, by its first bytes.

    Raises:
        ImageRefused: It is none that is known, cannot be read, or holds no pictures.
    """
    import av

    head = first_bytes(path, 16)
    kind = next((k for at, magic, k in _CONTAINERS if head[at : at + len(magic)] == magic), None)
    if kind is None:
        raise ImageRefused(
            "not a video that is known", where=str(path), hint="MP4, MOV, MKV, WebM and AVI are"
        )
    try:
        stream = open_regular(path)
    except OSError as error:
        raise ImageRefused(f"cannot be read ({error.strerror or error})", where=str(path)) from None
    with stream, av.open(stream, mode="r", format=kind) as container:
        if not container.streams.video:
            raise ImageRefused("a video without pictures", where=str(path))
        size = container.streams.video[0].codec_context
        if size.width * size.height > MAX_PIXELS:
            raise ImageRefused(f"frames of {size.width} x {size.height} pixels", where=str(path))
        yield container

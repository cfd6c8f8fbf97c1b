"""What must be known of a photo before its map is believed: its pixels, and how much is seen."""

from collections.abc import Iterator
from warnings import warn

from inspector.errors import InspectorWarning
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.printable import percent

__all__ = ["SEEN", "PhotoWarnings", "photo_warnings"]

SEEN = 0.5
"""Share of a photo below which it is a warning that the network does not see the rest.  The usual
centre crop leaves 77 % of a square photo, 57 % of one of 4:3 and 51 % of one of 3:2."""

_SHOWN = 5


def photo_warnings(photo: Photo, geometry: Geometry, resize: str) -> Iterator[str]:
    """Sentences on one photo, each beginning with its name.

    Args:
        photo: The photo.
        geometry: How it and the network's input lie on each other.
        resize: The preprocessing's way to the input size, as it is named.
    """
    for text in photo.warnings:
        yield f"{photo.name}: {text}"
    if geometry.seen_share < SEEN:
        yield (
            f"{photo.name}: the network sees {percent(geometry.seen_share)} of the photo "
            f"(resize = {resize}); --set resize=letterbox or resize=squash shows it all"
        )


class PhotoWarnings:
    """Warnings on the photos of a folder: the first few as they come, the others as a number.

    Args:
        resize: As for ``photo_warnings``.
    """

    def __init__(self, resize: str) -> None:
        self.resize = resize
        self._photos = 0

    def add(self, photo: Photo, geometry: Geometry) -> None:
        """Warn of one photo, unless enough of them have been warned of."""
        found = tuple(photo_warnings(photo, geometry, self.resize))
        self._photos += bool(found)
        for text in found if self._photos <= _SHOWN else ():
            warn(text, InspectorWarning, stacklevel=3)

    def close(self) -> None:
        """Say of how many more photos there would have been a warning."""
        if self._photos > _SHOWN:
            warn(
                f"{self._photos - _SHOWN} more photos have warnings of this kind; "
                "`inspector explain` says which",
                InspectorWarning,
                stacklevel=3,
            )

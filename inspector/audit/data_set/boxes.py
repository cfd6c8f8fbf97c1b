"""Boxes in tables: which columns hold them, and in which unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from converters.plain_values import real_number
from inspector.errors import UsageError
from inspector.printable import clean_text

__all__ = ["OF_BOXES", "Boxes"]

Rows = Sequence[tuple[int, Mapping[str, str]]]
Corners = tuple[float, float, float, float]

_CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
_SIZES = (
    ("left", "top", "width", "height"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)
_CENTRES = (
    ("x_center", "y_center", "width", "height"),
    ("cx", "cy", "w", "h"),
)
_SHARES = 1.5
"""Largest number of boxes in shares of the photo, which may reach beyond it a little."""

OF_BOXES = frozenset({"width", "height"})
"""Columns that beside boxes are the photo's size, and name no group."""


@dataclass(frozen=True)
class Boxes:
    """Columns of a table that hold boxes.

    Attributes:
        columns: Four columns; none where the table has no boxes.
        layout: "corners", or "sizes" of left, top, width and height, or "centres".
        relative: Whether the numbers are shares of the photo's width and height.
        remarks: What is said of them.
    """

    columns: tuple[str, ...] = ()
    layout: str = "corners"
    relative: bool = False
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Path, rows: Rows) -> Self:
        """The boxes of a table.

        Raises:
            UsageError: It has two sets of columns of boxes, or one whose meaning cannot be known.
        """
        heading = set(rows[0][1])
        found = [
            (names, layout)
            for layout, kinds in (("corners", _CORNERS), ("sizes", _SIZES), ("centres", _CENTRES))
            for names in kinds
            if heading.issuperset(names)
        ]
        if not found:
            # Part of a box is said row by row, since its corners are not numbers.
            return cls(_CORNERS[0]) if heading & {*_CORNERS[0]} else cls()
        corners = [one for one in found if one[1] == "corners"]
        own = [one for one in found if one[0] == _CORNERS[0]] or corners[: len(corners) == 1]
        if not own and len(found) > 1:
            shown = " and ".join(",".join(names) for names, _ in found[:2])
            raise UsageError(
                f"has boxes in two ways: {shown}",
                where=str(source),
                hint="call the corners x0,y0,x1,y1 and leave the others out",
            )
        names, layout = (own or found)[0]
        if names[0] == "x":
            raise UsageError(
                f"has boxes {clean_text(','.join(names))}, and x,y may be a corner or the centre",
                where=str(source),
                hint="call them left,top,width,height, or x_center,y_center,width,height",
            )
        read = cls(names, layout)
        numbers = [n for _, row in rows for n in read._numbers(row) if n is not None]
        relative = bool(numbers) and max(numbers) <= _SHARES and any(n % 1 for n in numbers)
        remarks = []
        if names != _CORNERS[0] or relative:
            unit = "shares of the photo" if relative else "pixels"
            remarks = [f"boxes are read from the columns {', '.join(names)} ({layout}), in {unit}"]
        return cls(names, layout, relative, tuple(remarks))

    def given(self, row: Mapping[str, str]) -> bool:
        """Whether a row says anything of a box."""
        return any(row.get(name) for name in self.columns)

    def corners(self, row: Mapping[str, str]) -> Corners | None:
        """Top, left, bottom, right; None where a row's numbers are not a box."""
        numbers = self._numbers(row)
        if None in numbers:
            return None
        x, y, right, bottom = (float(n or 0) for n in numbers)
        if self.layout == "centres":
            x, y, right, bottom = x - right / 2, y - bottom / 2, x + right / 2, y + bottom / 2
        elif self.layout == "sizes":
            right, bottom = x + right, y + bottom
        return (y, x, bottom, right) if x < right and y < bottom else None

    def _numbers(self, row: Mapping[str, str]) -> list[float | None]:
        return [real_number(row.get(name, "")) for name in self.columns]

"""A sheet over time: the map of each frame of a video, small, in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from inspector.render import png
from inspector.render.drawing.page import GAP, INK, MARGIN, MUTED, Page, line_height
from inspector.render.drawing.panels import WIDENED, overlay_panel, scale_of
from inspector.render.drawing.spaces import shown

__all__ = ["Timelines"]

_SIDE = 176  # of a panel's longer side
_COLUMNS = 6
_MOST = 120
"""Frames on one sheet; of more, so many are taken at equal distances."""
_TYPE = 13


@dataclass
class _Timeline:
    """What is kept of one video: frame, text below it, panel."""

    title: str
    panels: list[tuple[int, str, Image.Image]] = field(default_factory=list)

    def draw(self) -> Image.Image:
        """The sheet."""
        step = -(-len(self.panels) // _MOST)
        panels = self.panels[::step]
        width, height = (max(one.size[axis] for *_, one in panels) for axis in (0, 1))
        columns = min(_COLUMNS, len(panels))
        page = Page(max(columns * (width + GAP) - GAP + 2 * MARGIN, 480))
        page.text(self.title, 18, INK)
        of = f"; every {step}th of {len(self.panels)}" if step > 1 else ""
        page.text(f"each frame by its own scale{of}", _TYPE, MUTED)
        top = page.y + GAP
        for place, (_, caption, panel) in enumerate(panels):
            row, column = divmod(place, columns)
            x, y = MARGIN + column * (width + GAP), top + row * (height + line_height(_TYPE) + GAP)
            page.paste(panel, x, y)
            page.y = y + height
            page.text(caption, _TYPE, MUTED, x=x, width=width)
        return page.finish()


class Timelines:
    """Sheets of the videos of one run.

    Args:
        folder: Where they are written.
        stems: Distinct starts of file names, of the videos' names.
    """

    def __init__(self, folder: Path, stems: Callable[[Sequence[str]], Sequence[str]]) -> None:
        self.folder, self.stems = folder, stems
        self._of: dict[Path, _Timeline] = {}

    def add(self, source: Any, report: Any) -> None:
        """Keep the first map of a frame; a source that is not a frame is passed over.

        Args:
            source: The frame.
            report: The ``ImageReport`` of it.
        """
        video = getattr(source, "video", None)
        if video is None:
            return
        first = report.explanations[0]
        drawn = shown(report.photo, first.heatmap)
        factor = _SIDE / max(report.photo.size)
        size = tuple(max(1, round(side * factor)) for side in report.photo.size)
        scale = scale_of(first.heatmap)
        panel = overlay_panel(drawn.photo, drawn.heatmap, (size[0], size[1]), scale, small=True)
        title = f"{video.path.name}: {first.label}"
        if drawn.heatmap.attribution.speckled:
            title += f" ({WIDENED})"
        timeline = self._of.setdefault(video.path, _Timeline(title))
        timeline.panels.append(
            (source.number, f"{source.number}: {first.attribution.label}", panel)
        )

    def save(self) -> list[Path]:
        """Write ``STEM.timeline.png`` of each video."""
        stems = self.stems([path.name for path in self._of])
        return [
            png.write(self.folder / f"{stem}.timeline.png", timeline.draw())
            for stem, timeline in zip(stems, self._of.values(), strict=True)
        ]

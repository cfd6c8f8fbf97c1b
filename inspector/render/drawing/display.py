"""How maps are drawn on request: opacity, colours, bare, as contours, with the layer's grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.plain_values import quoted
from inspector.errors import UsageError, nearest, require
from inspector.render.drawing.colormap import STEPS, diverging, on_paper, sequential

__all__ = ["OPACITY", "PLAIN", "Display", "entries"]

OPACITY = 0.88
"""Of the map where it is highest; the photo shines through everywhere."""

_ZERO = STEPS // 2 - 1
"""Entry of zero in a table that diverges: the entries around it are 1 .. 127 steps away."""


@dataclass(frozen=True)
class Display:
    """How maps are drawn.

    Attributes:
        alpha: Opacity of the map where it is highest, 0 .. 1.
        colormap: A colour map of Matplotlib, by its name; the project's own when empty.
        raw: Draw the map's colours alone, at the photo's size: no photo, no text.
        contour: Draw lines at a quarter, a half and three quarters of full colour, on the photo
            in its colours.
        grid: Draw the borders of the layer's cells.
        columns: Maps beside each other on a sheet; as many as there are when 0.

    Raises:
        UsageError: An opacity outside of 0 .. 1, or a colour map that is not known.

    Example:
        >>> from inspector.render.drawing.display import Display
        >>> Display(alpha=0.5).colours(signed=False).shape
        (256, 3)
    """

    alpha: float = OPACITY
    colormap: str = ""
    raw: bool = False
    contour: bool = False
    grid: bool = False
    columns: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked before anything is computed."""
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha = {self.alpha}", hint="an opacity from 0 to 1 is meant")
        if self.colormap:
            self.colours(signed=False)

    def colours(self, *, signed: bool, light: bool = False) -> NDArray[np.uint8]:
        """Colours (256, 3) of 0 .. 1, or of -1 .. 1, by whose entry `entries` gives.

        Args:
            signed: Whether the values diverge from zero.
            light: Whether they lie on white paper.
        """
        if self.colormap:
            return _of_matplotlib(self.colormap)
        if light and not signed:
            return on_paper()
        return diverging() if signed else sequential()

    def opacities(self, *, signed: bool) -> NDArray[np.uint8]:
        """Opacities (256,) in 0 .. 255 of the same entries."""
        share = np.abs(np.arange(STEPS) - _ZERO) / _ZERO if signed else np.linspace(0, 1, STEPS)
        # The power lifts the middle: half of the maximum must not look like nothing.
        lifted = np.power(np.clip(share, 0, 1), 0.6)
        found: NDArray[np.uint8] = np.rint(255 * self.alpha * lifted).astype(np.uint8)
        return found


def entries(share: NDArray[np.floating[Any]], *, signed: bool) -> NDArray[np.uint8]:
    """Entries in the tables of values in 0 .. 1, or -1 .. 1 if signed; others are clipped."""
    placed = np.clip(share, -1, 1) * _ZERO + _ZERO if signed else np.clip(share, 0, 1) * (STEPS - 1)
    found: NDArray[np.uint8] = np.rint(placed).astype(np.uint8)
    return found


def _of_matplotlib(name: str) -> NDArray[np.uint8]:
    """Colours of one of Matplotlib's maps."""
    require("matplotlib.colors", f"the colour map {quoted(name)}", "studies")
    import matplotlib as mpl

    if name not in mpl.colormaps:
        hint = nearest(name, list(mpl.colormaps)) or "viridis, magma, gray, RdBu_r ..."
        raise UsageError(f"no colour map is called {quoted(name)}", hint=hint)
    found: NDArray[np.uint8] = mpl.colormaps[name](np.linspace(0, 1, STEPS), bytes=True)[:, :3]
    return found


PLAIN = Display()
"""As maps are drawn when nothing is asked for."""

"""Which layout a detector's outputs have, by their names, shapes and values on a probe image."""

from inspector.errors import UsageError
from inspector.printable import clean_text
from inspector.tasks import Outputs
from inspector.tasks.detector.anchors import columns, distributions, rows_of_anchors
from inspector.tasks.detector.heatmaps import centres, one_map
from inspector.tasks.detector.levels import per_level
from inspector.tasks.detector.lists import combined, listed, with_batch_index
from inspector.tasks.detector.pairs import paired
from inspector.tasks.detector.raw_maps import one_raw_level, ssd_levels
from inspector.tasks.detector.rows import Array, Layout
from inspector.tasks.planes import is_halved

__all__ = ["find_layout"]

_SIDE = 8
"""Shortest side of a plane; boxes (D, 4) and rows of few classes are shorter."""

_WAYS = (
    # All boxes before they are suppressed say more than the list of what is left.
    (paired, columns),
    (listed, combined, with_batch_index),
    (rows_of_anchors, distributions),
    (ssd_levels,),
    (per_level,),
    (centres, one_map),
    (one_raw_level,),
)
"""Ways to write boxes down, those with the least left to decode first."""


def find_layout(outputs: Outputs) -> Layout | None:
    """The layout that a model's outputs have; None where none fits.

    Raises:
        UsageError: Several fit equally well, or not the one that the user names.
    """
    found = {n: v for n, v in outputs.probe().items() if v.dtype.kind in "fiu"}
    # A plane of the input's size, halved some times over, is a picture and not a list.
    planes = {n for n, v in found.items() if v.ndim == 2 and _is_plane(v, outputs)}
    values = {n: v for n, v in found.items() if n not in planes}
    every: list[Layout] = []
    for ways in _WAYS:
        fits = [one for way in ways for one in way(outputs, values)]
        if not outputs.layout and fits:
            return _only(fits)
        every += fits
    wanted = [one for one in every if outputs.layout in {one.key, *one.outputs}]
    if not outputs.layout:
        return None
    if not wanted:
        raise UsageError(
            f"the outputs do not fit the layout {clean_text(outputs.layout)!r} of a detector",
            hint=f"{_listing(every)}; or name an element, OUTPUT[i,j,...], as the target",
        )
    return _only(wanted)


def _only(fits: list[Layout]) -> Layout:
    """The one layout that fits.

    Raises:
        UsageError: There are several.
    """
    if len(fits) > 1:
        raise UsageError(
            f"the outputs can be read as boxes in {len(fits)} ways",
            hint=_listing(fits),
        )
    return fits[0]


def _listing(fits: list[Layout]) -> str:
    """The layouts that fit, and the words that name each."""
    if not fits:
        return "none fits"
    keys = [one.key for one in fits]
    words = [one.key if keys.count(one.key) == 1 else one.outputs[0] for one in fits]
    shown = [
        f"--task detector:{clean_text(word)} for {one.name} in {clean_text(one.outputs[0])!r}"
        for word, one in zip(words, fits, strict=True)
    ]
    return "; ".join(shown)


def _is_plane(value: Array, outputs: Outputs) -> bool:
    return min(value.shape) >= _SIDE and is_halved(value.shape, outputs.size)

"""What was found, as plain data, rows of a table and sentences."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import first_few
from inspector.studies.layers.choice import Selectivity, chosen_units, selectivities
from inspector.studies.layers.pictures import Winner

if TYPE_CHECKING:
    from inspector.studies.layers.hierarchy import Hierarchy, Level
    from inspector.studies.layers.measurements import Measurements, Units
    from inspector.studies.layers.pictures import Gallery

__all__ = ["described", "sentences_of", "table_of", "warnings_of", "winners_of"]

RISE = 1.1
"""Selectivity of one layer over that of the layer before, from which on it is said to rise."""

FEW_PHOTOS = 20
"""Fewer tell little of how selective a unit is: no unit can be more so than their number."""


def winners_of(units: "Units", measurements: "Measurements", count: int) -> list[Winner]:
    """The units of a layer that are shown, at their strongest."""
    values = selectivities(units)
    return [
        Winner(
            unit,
            float(values[unit]),
            float(units.peaks[unit]),
            int(units.active[unit]),
            int(units.places[unit]),
            measurements.photos[int(units.places[unit])],
            int(units.rows[unit]),
            int(units.columns[unit]),
        )
        for unit in chosen_units(units, count)
    ]


def described(level: "Level", units: "Units", gallery: "Gallery") -> dict[str, Any]:
    """A layer as plain data."""
    never, channels = int((units.peaks <= 0).sum()), level.shape[0]
    return {
        "index": level.index,
        "layer": level.tensor,
        "module": level.module,
        "operator": level.operator,
        "channels": channels,
        "map": level.shape[1:],
        "stride": level.stride,
        "receptive_field": {
            "size": level.field.size,
            "whole_image": level.exact.global_,
            "mostly": level.exact.local is not None,
            "why": level.exact.why,
        },
        "never_active": never,
        "never_active_share": never / channels,
        "selectivity": Selectivity.of(selectivities(units)),
        "coverage": gallery.coverage,
        "projections_refused": gallery.refused or None,
        "units": [_unit(picture) for picture in gallery.pictures],
    }


def _unit(picture: Any) -> dict[str, Any]:
    winner: Winner = picture.winner
    y0, x0, y1, x1 = picture.box
    signal = picture.signal
    return {
        "unit": winner.unit,
        "selectivity": winner.selectivity,
        "activation": winner.value,
        "active_photos": winner.active,
        "image": {"name": winner.photo.name, "place": winner.place, "sha256": winner.photo.sha256},
        "at": {"y": winner.y, "x": winner.x},
        "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
        "largest_in_projection": (None if signal is None else float(np.abs(signal).max(initial=0))),
    }


def table_of(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each chosen unit; one for a layer that has none."""
    return [
        {**_columns(layer), **_cells(unit)} for layer in layers for unit in (layer["units"] or [{}])
    ]


def _columns(layer: Mapping[str, Any]) -> dict[str, Any]:
    stride, size = layer["stride"] or (None, None), layer["receptive_field"]["size"]
    return {
        "index": layer["index"],
        "layer": layer["layer"],
        "module": layer["module"],
        "operator": layer["operator"],
        "channels": layer["channels"],
        "map_height": layer["map"][0],
        "map_width": layer["map"][1],
        "stride_down": stride[0],
        "stride_across": stride[1],
        "field_height": size[0],
        "field_width": size[1],
        "whole_image": layer["receptive_field"]["whole_image"],
        "never_active_share": layer["never_active_share"],
        "median_selectivity": layer["selectivity"].median,
    }


def _cells(unit: Mapping[str, Any]) -> dict[str, Any]:
    if not unit:
        return {}
    names = ("unit", "selectivity", "activation", "active_photos")
    return {
        **{name: unit[name] for name in names},
        "image": unit["image"]["name"],
        **unit["at"],
        **unit["patch"],
    }


# -- in plain language ----------------------------------------------------------------------------


def sentences_of(
    found: "Hierarchy", layers: Sequence[Mapping[str, Any]], size: tuple[int, int], used: int
) -> tuple[str, ...]:
    """How far units see, how far apart they stand, how many are silent, how selective they are.

    Args:
        found: The layers.
        layers: Those shown, as ``described``.
        size: Height and width of the network's input.
        used: Photos.
    """
    shown, every = len(found.shown), len(found.every)
    which = f"{shown} of {every} layers" if shown < every else f"{every} layer(s)"
    units = sum(len(layer["units"]) for layer in layers)
    return (
        f"{which} over {used} photo(s), {units} unit(s) shown",
        _reach(found, size),
        *_steps(found),
        _silence(found, layers),
        *_selective(found, layers),
    )


def _reach(found: "Hierarchy", size: tuple[int, int]) -> str:
    """How the receptive field grows."""
    local = [level for level in found.shown if not level.whole]
    text = "units of all layers depend on the whole image"
    if local:
        first, last = local[0], local[-1]
        text = f"a unit of {first.name} sees {_by(first.field.size)} pixels"
        if last is not first:
            text += f", one of {last.name} {_by(last.field.size)}"
        text += f", of an input of {_by(size)}"
        beyond = [x for x in local if x.field.size[0] > size[0] or x.field.size[1] > size[1]]
        if beyond:
            text += f"; the field is larger than the input first at {beyond[0].name}"
    spread = [level for level in found.shown if level.exact.global_]
    if spread and local:
        text += f"; units depend on the whole image first at {spread[0].name}"
    return text


def _steps(found: "Hierarchy") -> list[str]:
    """Where the strides are, among all layers and not only those shown."""
    strides = found.strides()
    if not strides:
        return []
    steps = [f"{_pixels(level.stride or (0, 0))} from {level.name}" for level in strides]
    if len(steps) == 1:
        return [f"neighbouring units are {_pixels(strides[0].stride or (0, 0))} pixel(s) apart"]
    return [f"pixels between neighbouring units: {', '.join(steps)}"]


def _silence(found: "Hierarchy", layers: Sequence[Mapping[str, Any]]) -> str:
    """How many units are never active."""
    silent = sorted(
        ((x["never_active_share"], x, level) for x, level in zip(layers, found.shown, strict=True)),
        key=lambda one: -one[0],
    )
    total = sum(layer["never_active"] for layer in layers)
    if not total:
        return "every unit of these layers is active on some photo"
    told = [
        f"{x['never_active']} of {x['channels']} ({_percent(share)}) of {level.name}"
        for share, x, level in silent[:3]
        if share > 0
    ]
    every = sum(layer["channels"] for layer in layers)
    return f"{total} of {every} units are never active on these photos; most: {', '.join(told)}"


def _selective(found: "Hierarchy", layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where selectivity rises."""
    known = [
        (layer["selectivity"].median, level.name)
        for layer, level in zip(layers, found.shown, strict=True)
        if layer["selectivity"].median is not None
    ]
    if not known:
        return []
    first, last = known[0], known[-1]
    text = (
        f"the median unit's strongest activation is {first[0]:.1f} times its mean over the photos "
        f"at {first[1]}"
    )
    if len(known) == 1:
        return [text]
    text += f" and {last[0]:.1f} times at {last[1]}"
    before, after = max(pairwise(known), key=lambda pair: pair[1][0] / pair[0][0])
    if after[0] < RISE * before[0]:
        return [text + "; it rises nowhere by a tenth or more"]
    text += f"; it rises most from {before[1]} ({before[0]:.1f}) to {after[1]} ({after[0]:.1f})"
    top = max(known, key=lambda one: one[0])
    if top != after and top[0] >= RISE * last[0]:
        text += f" and is highest at {top[1]} ({top[0]:.1f})"
    return [text]


def warnings_of(found: "Hierarchy", galleries: "Sequence[Gallery]", used: int) -> list[str]:
    """What must be known when the sheet is read."""
    text = []
    if used < FEW_PHOTOS:
        text.append(
            f"{used} photo(s) tell little of selectivity: it cannot exceed their number"
            + (", and on one photo all units are equal" if used == 1 else "")
        )
    refused: dict[str, dict[str, str]] = {}
    for level, gallery in zip(found.shown, galleries, strict=True):
        if gallery.refused:
            refused.setdefault(gallery.at, {})[level.name] = gallery.refused
    # The last layer's reason counts what lies behind the others too.
    text += [
        f"no projections for {first_few([*why], 8)}: {[*why.values()][-1]}"
        for why in refused.values()
    ]
    for whole in (False, True):
        spread = [x for x in found.shown if x.exact.global_ and x.whole == whole]
        if spread:
            seen = "patches are whole" if whole else "patches show where they mostly look"
            text.append(
                f"units of {first_few([x.name for x in spread], 8)} depend on the whole image "
                f"({spread[0].exact.why}); {seen}"
            )
    empty = [
        f"unit {one.winner.unit} of {level.name}"
        for level, gallery in zip(found.shown, galleries, strict=True)
        for one in gallery.pictures
        if one.signal is not None and not np.any(one.signal)
    ]
    if empty:
        text.append(f"nothing of the activation reaches the pixels: {first_few(empty, 8)}")
    notes = dict.fromkeys(note for gallery in galleries for note in gallery.notes)
    return [*text, *notes]


def _percent(share: float) -> str:
    """A share that is not zero is not shown as zero."""
    return "< 1%" if 0 < share < 0.01 else f"{share:.0%}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _pixels(stride: tuple[float, float]) -> str:
    down, across = stride
    return f"{down:g}" if down == across else f"{down:g} down and {across:g} across"

"""Small pictures inside the page: maps of clusters as data, coordinates of curves."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from converters.plain_values import finite_number
from inspector.render.drawing.colormap import apply_sequential

__all__ = ["curve", "map_picture", "span"]

_SIDE = 300.0
"""Side of the reliability diagram in its own units."""


def map_picture(values: object) -> str | None:
    """A map as the address of a picture in itself; None for what is not a map.

    Args:
        values: Rows of numbers (h, w) from 0 to 1.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        return None
    top = float(array.max())
    picture = Image.fromarray(apply_sequential(array / top if top > 0 else array))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def curve(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Points of a reliability diagram: confidence to the right, accuracy upwards.

    Args:
        bins: Bins of the report; those without a photo are left out.

    Returns:
        For each `x`, `y` (downwards, as SVG counts), radius `r` and the bin's numbers.
    """
    found = []
    most = max((int(part.get("photos") or 0) for part in bins), default=0)
    for part in bins:
        confidence, accuracy = (finite_number(part.get(key)) for key in ("confidence", "accuracy"))
        photos = int(part.get("photos") or 0)
        if confidence is None or accuracy is None or not photos:
            continue
        found.append(
            {
                "x": round(_SIDE * confidence, 1),
                "y": round(_SIDE * (1 - accuracy), 1),
                "r": round(3 + 7 * (photos / most) ** 0.5, 1),
                "confidence": confidence,
                "accuracy": accuracy,
                "photos": photos,
            }
        )
    return found


def span(statistic: object, least: float, most: float) -> dict[str, float] | None:
    """A statistic and its interval on a line of 100 units; None where it has no value.

    Args:
        statistic: Value, low and high.
        least: Number at the left end of the line.
        most: Number at the right end.
    """
    if not isinstance(statistic, Mapping):
        return None
    value = finite_number(statistic.get("value"))
    if value is None or most <= least:
        return None
    low, high = (finite_number(statistic.get(key)) for key in ("low", "high"))
    ends = (value if low is None else low, value, value if high is None else high)
    low, value, high = (
        round(100 * (min(max(e, least), most) - least) / (most - least), 1) for e in ends
    )
    return {"low": low, "value": value, "high": high, "width": round(high - low, 1)}

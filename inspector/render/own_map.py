"""A caller's own map on a photo, drawn as the maps of this package are."""

from typing import Any

import numpy as np
from PIL import Image

from inspector.errors import ImageRefused, UsageError
from inspector.heatmap import Attribution, Heatmap
from inspector.photos.arrays import as_array
from inspector.photos.geometry import Geometry
from inspector.photos.photo import ImageSource, Photo
from inspector.render import png

__all__ = ["overlay"]


def overlay(
    photo: ImageSource,
    values: Any,
    *,
    method: str = "own map",
    label: str = "",
    signed: bool = False,
) -> Image.Image:
    """Draw a map that was made elsewhere on a photo.

    Args:
        photo: The photo, as ``explain`` takes it.
        values: (h, w) finite numbers, an array or tensor; stretched over the whole photo.
        method: What the map is called.
        label: What it explains; the heading.
        signed: Whether negative values mean something, though this map may have none.

    Returns:
        The figure, an RGB image.

    Raises:
        ImageRefused: The photo cannot be read.
        UsageError: The values are not a map.

    Example:
        >>> import inspector
        >>> import numpy as np
        >>> photo = "sample_models/images/horse_1.png"
        >>> inspector.overlay(photo, np.eye(8), label="diagonal").mode
        'RGB'
    """
    opened = Photo.open(photo)
    try:
        array = as_array(values)
    except ImageRefused as error:
        raise UsageError(f"values: {error.what}", hint="pass one map, an array (h, w)") from None
    if array.ndim != 2 or 0 in array.shape:
        raise UsageError(
            f"values: an array of shape {array.shape}", hint="pass one map, an array (h, w)"
        )
    if not np.isfinite(array).all():
        raise UsageError("values: some are not finite", hint="np.nan_to_num(values) replaces them")
    attribution = Attribution(
        array.astype(np.float32), space="layer", method=method, label=label or method, signed=signed
    )
    return png.overlay(opened, Heatmap.of(attribution, Geometry.identity(opened.size)))

"""Maps as arrays in their own space, with what lays them onto the photo; and read back."""

import io
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.numpy_file import read_archive
from converters.regular_file import read_regular
from inspector.errors import NotFinite, UsageError
from inspector.heatmap import Attribution, Heatmap
from inspector.photos.geometry import Geometry
from inspector.photos.photo import MAX_FILE_BYTES, MAX_PIXELS
from inspector.render import File, Result, file_format
from inspector.whole_file import write_whole

__all__ = ["dumps", "files", "load_heatmap", "on_photo", "write"]


@file_format("npz")
def files(result: Result) -> Iterator[File]:
    """Each heatmap of a result, in its own space."""
    for name, heatmap in result.maps().items():
        yield File(f"{name}.npz", partial(dumps, heatmap))


@file_format("npy")
def on_photo(result: Result) -> Iterator[File]:
    """Each heatmap of a result in the photo's own pixels: float32 (H, W), NaN where unseen."""
    for name, heatmap in result.maps().items():
        yield File(f"{name}.npy", partial(_array, heatmap))


def _array(heatmap: Heatmap) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, heatmap.own)
    return buffer.getvalue()


def dumps(heatmap: Heatmap) -> bytes:
    """A heatmap as a compressed NPZ that :func:`load_heatmap` reads.

    ``attribution`` is float32 in its own space, not normalised: (h, w) of the layer, (T, h, w) of
    a layer that holds the image as T parts, or (C, H, W) of the input; of a signal (l,) or (C, L),
    of a volume (d, h, w) or (C, D, H, W). ``photo_size`` and ``input_size`` (height, width),
    ``scale`` and ``shift`` (y, x) say how photo and input lie on each other
    (``inspector.photos.geometry``), ``space`` is "layer" or "input", ``reduction`` how channels
    become one map.

    Where that does not say where the map lies (a layer whose cells are placed one by one, a signal,
    a volume), there is also ``heatmap``, on the photo or at the sample's own shape, NaN where the
    network saw nothing, and ``seen``, its mask.
    """
    buffer, geometry, source = io.BytesIO(), heatmap.geometry, heatmap.attribution
    arrays: dict[str, Any] = {
        "attribution": source.own,
        "photo_size": np.array(geometry.photo),
        "input_size": np.array(geometry.input),
        "scale": np.array(geometry.scale),
        "shift": np.array(geometry.shift),
        "space": np.array(source.space),
        "reduction": np.array(source.reduction),
    }
    if source.placement is not None or source.lattice is not None:
        arrays["heatmap"] = heatmap.own
        arrays["seen"] = heatmap.seen.reshape(heatmap.own.shape)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def load_heatmap(path: str | Path) -> NDArray[np.float32]:
    """The map of a ``.npz`` file of `explain`, laid onto the photo.

    Args:
        path: The file.

    Returns:
        float32 (H, W) in the photo's own pixels, not normalised, NaN where the network saw nothing;
        of a signal (L,), of a volume (D, H, W).

    Raises:
        UsageError: The file cannot be read, or is none of these.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> found = model.explain("sample_models/images/horse_1.png")
        >>> path = next(one for one in found.save("out") if one.suffix == ".npz")
        >>> inspector.load_heatmap(path).shape
        (32, 32)
    """
    path = Path(path)
    try:
        arrays = read_archive(read_regular(path, MAX_FILE_BYTES), 16 * MAX_PIXELS)
        if "heatmap" in arrays:
            return arrays["heatmap"].astype(np.float32)
        return _laid(arrays)
    except OSError as error:
        said = error.strerror or str(error)
    except (KeyError, TypeError, OverflowError):
        said = "it is not a map of `inspector explain`"
    except (ValueError, NotFinite) as error:
        said = str(error)
    raise UsageError(f"cannot be read as a map ({said})", where=str(path))


def _laid(arrays: Mapping[str, np.ndarray[Any, Any]]) -> NDArray[np.float32]:
    """A map on the photo, of what `dumps` keeps."""
    photo, size = (tuple(map(int, arrays[name].tolist())) for name in ("photo_size", "input_size"))
    scale, shift = (tuple(map(float, arrays[name].tolist())) for name in ("scale", "shift"))
    plain = all(len(pair) == 2 for pair in (photo, size, scale, shift))
    sane = plain and all(1 <= n <= MAX_PIXELS for n in (*photo, *size))
    sane = sane and max(prod(photo), prod(size)) <= MAX_PIXELS and min(scale) > 0
    if not sane or not np.isfinite((*scale, *shift)).all():
        raise ValueError("its geometry is none of a photo")
    geometry = Geometry(
        (photo[0], photo[1]), (size[0], size[1]), (scale[0], scale[1]), (shift[0], shift[1])
    )
    reduction, space = str(arrays["reduction"]), str(arrays["space"])
    values = arrays["attribution"]
    if values.dtype.kind != "f":
        raise ValueError("its map holds no numbers")
    attribution = Attribution(values, space, "", reduction=reduction)
    return Heatmap.of(attribution, geometry).values


def write(path: str | Path, heatmap: Heatmap) -> Path:
    """Write a heatmap as `dumps` makes it, whole or not at all.

    Raises:
        UsageError: The place cannot be written to.
    """
    return write_whole(path, dumps(heatmap))

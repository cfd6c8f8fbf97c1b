"""Images that are preprocessed already: tensors in, attributions or reports out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from warnings import warn

import numpy as np

from inspector.errors import ExplainedError, ImageRefused, InspectorWarning, UsageError
from inspector.explain.layers import BATCH, Layers, layer_runs, merged
from inspector.methods import MethodName, Methods, Request, parse_requests
from inspector.network.space import own_shape, plane, unfolded
from inspector.opened import Opened
from inspector.passes.maps import Map, MapRefused
from inspector.photos.bands import input_batch
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.report import ImageReport, Report
from inspector.run import ExplainRun, PhotoInput, Targets
from inspector.target import plain_targets

__all__ = ["attempts", "attribute", "explain_tensor"]

Array = np.ndarray[Any, Any]

FAR = 10.0
"""Values as many ranges of the recipe outside of it are taken for images without its steps."""

_FROM_INPUT = "the picture is drawn of the network's input"


def attribute(
    opened: Opened,
    images: Any,
    method: MethodName | Request = "grad-cam",
    *,
    target: Targets = "top1",
    layer: str | int | None = None,
) -> Array:
    """Attributions of images that are preprocessed already.

    Args:
        opened: The opened model.
        images: (N, C, H, W), an array or tensor, as the network takes them; channels first even
            when the model wants them last. (N, C, L) of signals, (N, C, D, H, W) of volumes.
        method: A name, options included.
        target: One target for all images, as for ``explain``; a list for one per image.
        layer: As for ``explain``.

    Returns:
        float32 (N, h, w) for layer methods, (N, C, H, W) for input methods; of signals and
        volumes with their own axes of space.

    Raises:
        InspectorError: As ``explain``; UsageError for several targets.

    Example:
        >>> import inspector
        >>> import numpy as np
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> images = np.zeros((2, 3, 32, 32), np.float32)
        >>> model.attribute(images, "grad-cam", target="horse").shape
        (2, 8, 8)
        >>> model.attribute(images, "gradient", target="horse").shape
        (2, 3, 32, 32)
    """
    images = _checked(opened, images)
    target = plain_targets(target)
    each = _one_per_row(images, target)
    run = ExplainRun(opened, method, None if each else target, layer, None, each=each)
    step = BATCH if opened.batches else 1
    parts = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        values = run.forward(batch)
        for row in _maps(run, batch, values, range(start, start + len(batch))):
            if len(row) != 1:
                raise UsageError(f"{target!r} names several targets", hint="ask for one")
            if isinstance(row[0], MapRefused):
                raise row[0].error
            parts.append(row[0].attribution)
    if len({part.values.shape for part in parts}) > 1:
        layers = dict.fromkeys(repr(part.layer) for part in parts)
        raise UsageError(
            f"the images' targets lie behind different layers: {', '.join(layers)}",
            hint="name the layer, or pass the images one by one",
        )
    return np.stack([part.own for part in parts])


def _maps(
    run: ExplainRun, batch: Array, values: Mapping[str, Array], places: Sequence[int]
) -> list[list[Map | MapRefused]]:
    return run.maps(batch, values, run.targets(values, len(batch), places))


def explain_tensor(
    opened: Opened,
    images: Any,
    methods: Methods | None = None,
    *,
    target: Targets | None = None,
    layer: Layers = None,
    task: str | None = None,
) -> Report:
    """Show where the model looks in images that are preprocessed already.

    Args:
        opened: The opened model.
        images: (N, C, H, W), an array or tensor, as for ``attribute``.
        methods: As for ``explain``.
        target: As for ``explain``; a list for one per image.
        layer: As for ``explain``.
        task: As for ``explain``.

    Returns:
        One map per image, method and target, on a picture that is drawn of the network's input.

    Raises:
        InspectorError: As ``explain``.
        UsageError: Another shape or size than the network takes.

    Example:
        >>> import inspector
        >>> import numpy as np
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> images = np.random.default_rng(0).normal(size=(2, 3, 32, 32))
        >>> report = model.explain_tensor(images, "grad-cam", target=["horse", 3])
        >>> [image.explanations[0].attribution.index for image in report]
        [7, 3]
    """
    tensors = _checked(opened, images).astype(np.float32)
    target = plain_targets(target)
    each = _one_per_row(tensors, target)
    runs = layer_runs(
        opened,
        methods,
        layer,
        lambda methods, layer: ExplainRun(
            opened, methods, None if each else target, layer, None, task=task, each=each
        ),
    )
    step = 1 if not opened.batches or any(run.alone for run in runs) else BATCH
    found: list[ImageReport | ImageRefused] = []
    for start in range(0, len(tensors), step):
        places = range(start, min(start + step, len(tensors)))
        batch = [_drawn(opened, tensors[place], f"tensor-{place}") for place in places]
        found += merged(runs, batch, places)
    return Report.of(found)


def _drawn(opened: Opened, tensor: Array, name: str) -> PhotoInput:
    """A network's input with the picture that is drawn of it."""
    preprocess = opened.preprocessing.preprocess
    space = opened.input.space
    if space != 2 or preprocess.bands:
        own = unfolded(tensor, own_shape(tensor.shape[1:], space, opened.input.depth))
        photo = replace(opened.photo(own), name=name)
        return photo, tensor, preprocess.apply(photo)[1]
    photo = replace(Photo.of(preprocess.decode(tensor), name), notes=(_FROM_INPUT,))
    return photo, tensor, Geometry.identity(photo.size)


def attempts(
    opened: Opened, image: Array, methods: Sequence[str], target: str
) -> dict[str, ExplainedError | None]:
    """Whether each method gives a map of one image, by one forward pass for all of them.

    Args:
        opened: The opened model.
        image: (1, C, H, W), as for ``attribute``.
        methods: Names, options included.
        target: As for ``attribute``.

    Returns:
        For each method None, or what ``attribute`` raises of it.
    """
    found: dict[str, ExplainedError | None] = {}
    try:
        run = ExplainRun(opened, methods, target, None, None)
        values = run.forward(image)
        rows = run.maps(image, values, run.targets(values, 1))[0]
    except ExplainedError as error:
        if len(methods) == 1:
            return {methods[0]: error}
        for method in methods:  # what one of them asks for may stop them all
            found |= attempts(opened, image, [method], target)
        return found
    labels = {
        request.label: text for request, text in zip(parse_requests(methods), methods, strict=True)
    }
    found = {labels[label]: error for label, error in run.denied.items()}
    for one in rows:
        found[labels[one.request.label]] = one.error if isinstance(one, MapRefused) else None
    return found


def _checked(opened: Opened, images: Any) -> Array:
    """Preprocessed images as a plane (N, C, H, W) each.

    Raises:
        UsageError: Another shape, type or size than the network takes.
    """
    tensors = plane(input_batch(images, opened.input.space))
    _check_sizes(opened, tensors)
    if not opened.preprocessing.preprocess.bands:
        _warn_of_values(opened, tensors)
    return tensors


def _one_per_row(images: Array, target: Targets | None) -> list[Targets] | None:
    """The targets one by one; None where all images have the same.

    Raises:
        UsageError: They are more or fewer than the images.
    """
    if not isinstance(target, list) or not target:
        return None
    if len(target) != len(images):
        raise UsageError(
            f"{len(target)} targets for {len(images)} images",
            hint="a list holds one target per image; a tuple asks for several of each",
        )
    return target


def _check_sizes(opened: Opened, images: Array) -> None:
    """Refuse images of another size than the one that the model fixes.

    Raises:
        UsageError: Height or width, or the length of a signal, differ.
    """
    wanted = opened.input.height, opened.input.width
    have = images.shape[2:]
    if any(fixed not in (None, size) for fixed, size in zip(wanted, have, strict=True)):
        shown = [
            " x ".join("?" if n is None else str(n) for n in sizes) for sizes in (have, wanted)
        ]
        if opened.input.space == 1:
            shown = [text.removeprefix("1 x ") for text in shown]
        raise UsageError(
            f"images of {shown[0]} places, and the model takes {shown[1]}",
            hint="`explain` takes photos of any size and fits them" * (opened.input.space == 2),
        )


def _warn_of_values(opened: Opened, images: Array) -> None:
    """Warn of images that the preprocessing cannot have made."""
    black, white = opened.preprocessing.preprocess.span()
    low, high = min(*black, *white), max(*black, *white)
    least, most, width = float(images.min()), float(images.max()), high - low
    outside = least < low - FAR * width or most > high + FAR * width
    if outside or 0 < most - least < width / 100:
        warn(
            f"the images hold {least:.4g} .. {most:.4g}, but the preprocessing gives "
            f"{low:.4g} .. {high:.4g}: preprocess them first, or pass photos to `explain`",
            InspectorWarning,
            stacklevel=5,
        )

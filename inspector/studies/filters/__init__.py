"""The first layer's filters: what they look like, which are dead, what the stride aliases."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.measures import spectrum
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.projection.projector import rgb_of
from inspector.studies import MOST_UNITS, Findings, study
from inspector.studies.filters.convolution import first_convolution, weights_of
from inspector.studies.filters.filterbank import FilterNumbers, measure
from inspector.studies.filters.photos import PhotoMeasurements
from inspector.studies.filters.second_layer import Shown, second_layer

if TYPE_CHECKING:
    from converters.graph import Node
    from inspector.opened import Opened

__all__ = ["filters"]

Array = np.ndarray[Any, Any]


@study("filters", images=False)
def filters(
    model: "Opened",
    images: Iterable[Any] = (),
    *,
    layer: str | int | None = None,
    second_units: int = 24,
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """First-layer filters: pictures, dead filters, frequency bands, aliasing.

    Shows every filter of the convolution that reads the image, and says in plain language what
    Zeiler & Fergus (2014, figure 6) looked for in theirs: dead filters, filters that dominate,
    missing mid frequencies, aliasing from a large stride. With photos, also how often each
    filter is active on them, how much of its response the stride folds onto lower frequencies,
    and projections of the second layer, where the paper saw the artefacts of it.

    Args:
        model: The opened model.
        images: Photos on which the filters are measured; none are needed.
        layer: A layer whose convolution reads the image, as tensor name or index; the first such
            convolution when not given.
        second_units: Units of the second layer whose strongest activation is projected, the
            first ones; 0 for none. Without photos there are none.
        projection: Of the second layer: deconvnet, guided-backprop or gradient.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first.
        progress: Called with (what, done, total) after each photo.
        journal: Keeps what was found in each photo.

    Returns:
        The figure, the numbers of each filter and of all, and the diagnosis.

    Raises:
        ModelRefused: no convolution reads the image.
        UsageError: the layer's filters act on features, not on pixels.
        MethodRefused: weights whose scale is not known.
        ImageRefused: photos were given, and none can be read.
    """
    if not 0 <= second_units <= MOST_UNITS:
        raise UsageError(f"{second_units} units", hint=f"0 to {MOST_UNITS}")
    node = first_convolution(model, layer)
    weights = weights_of(model, node)
    strides = node.attributes.get("strides") or [1, 1]
    dilations = node.attributes.get("dilations") or [1, 1]
    warnings = list(model.preprocessing.warnings)
    refused: list[ImageRefused] = []
    images, journal = list(images), journal or Journal()
    measurements = PhotoMeasurements(
        model, node, spectrum.dilated(weights, dilations), strides, journal
    )
    on_photos = measurements.over(images, refused, progress)
    if refused and on_photos is None:
        raise refused[0]
    found = measure(weights, strides=strides, dilations=dilations, on_photos=on_photos)
    second, shown = None, None
    if on_photos is not None and second_units:
        second, shown = second_layer(
            model,
            node,
            images,
            (second_units, projection, extension),
            journal=journal,
            progress=progress,
            warnings=warnings,
        )
    if found.strides == (1, 1):
        warnings.append(
            "aliasing is that of this convolution's stride: a pooling or stride "
            "behind it is not counted"
        )
    if weights.shape[1] not in (1, 3):
        warnings.append(f"the filters have {weights.shape[1]} channels: pictures show their sum")
    sentences = found.sentences()
    return Findings(
        study="filters",
        context=model.context(None),
        options={
            "layer": layer,
            "second_units": second_units,
            "projection": projection,
            "extension": extension,
        },
        numbers={"convolution": node.outputs[0], **found.to_dict(), "second_layer": second},
        table=found.table(),
        sentences=sentences,
        draw=partial(
            _figure, model, node, weights, found, shown, sentences=sentences, warnings=warnings
        ),
        images=on_photos.photos if on_photos else 0,
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- the figure -----------------------------------------------------------------------------------


def _figure(
    model: "Opened",
    node: "Node",
    weights: Array,
    found: FilterNumbers,
    second: tuple[str, Shown] | None,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.filters.figure import Projected, filter_sheet

    preprocess = model.preprocessing.preprocess
    order = preprocess.channels
    below = (
        None
        if second is None
        else Projected(
            second[0],
            [
                (unit, value, None if signal is None else rgb_of(signal, preprocess))
                for unit, value, signal in second[1]
            ],
        )
    )
    shown = weights[:, ::-1] if order == "BGR" and weights.shape[1] == 3 else weights
    return filter_sheet(
        shown,
        rms=found.rms,
        dead=found.dead,
        second=below,
        title=f"first-layer filters of {model.path.name}",
        subtitle=f"{node.outputs[0]}; each scaled by its largest magnitude, grey is zero",
        sentences=sentences,
        notes=warnings,
    )

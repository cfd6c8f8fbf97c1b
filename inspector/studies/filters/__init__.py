"""The first layer's filters: what they look like, which are dead, what the stride aliases."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused, ModelRefused, UsageError
from inspector.measures import spectrum
from inspector.passes.batches import BATCH, Batch, Progress, batches
from inspector.passes.journal import Journal
from inspector.studies import MOST_UNITS, Findings, study
from inspector.studies.filters.filterbank import FilterNumbers, PhotoNumbers, measure

if TYPE_CHECKING:
    from converters.graph import Node
    from inspector.opened import Opened
    from inspector.passes.ranking import Winner

__all__ = ["filters"]

Array = np.ndarray[Any, Any]

_FLOATING = ("Conv", "FusedConv")


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
    node = _node(model, layer)
    weights = _weights(model, node)
    strides = node.attributes.get("strides") or [1, 1]
    dilations = node.attributes.get("dilations") or [1, 1]
    warnings = list(model.preprocessing.warnings)
    refused: list[ImageRefused] = []
    images, journal = list(images), journal or Journal()
    survey = _Survey(model, node, spectrum.dilated(weights, dilations), strides, journal)
    on_photos = survey.over(images, refused, progress)
    if refused and on_photos is None:
        raise refused[0]
    found = measure(weights, strides=strides, dilations=dilations, on_photos=on_photos)
    second, shown = None, None
    if on_photos is not None and second_units:
        second, shown = _second(
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


# -- the convolution ------------------------------------------------------------------------------


def _node(model: "Opened", layer: str | int | None) -> "Node":
    """The convolution whose filters lie on the image's pixels."""
    from converters.graph.operators import facts
    from inspector.network.layer_choice import select_layer

    if layer is not None:
        shapes = model.shapes(model.preprocessing.preprocess.size)
        chosen = select_layer(model.layers, layer, shapes, model.graph)
        made = model.graph.producer(chosen.convolution)
        if made is None or not facts(made).convolves or not _reads_pixels(model, made):
            raise UsageError(
                "the layer's filters do not act on the image's pixels",
                where=str(layer),
                hint="leave --layer out for the first convolution",
            )
        return made
    for made in model.graph.nodes:
        if facts(made).convolves and _reads_pixels(model, made):
            return made
    raise ModelRefused(
        "no convolution reads the image's pixels one by one",
        where=model.path.name,
        hint="filters of a network that rearranges its input first have no pictures",
    )


def _reads_pixels(model: "Opened", node: "Node") -> bool:
    """Whether each element that the convolution reads is of one pixel, at the pixel's place."""
    from inspector.network.receptive_field import receptive_field

    source = node.inputs[0]
    if source == model.input.name:
        return True
    try:
        field = receptive_field(model.graph, source, model.input.name)
    except UsageError:  # it does not depend on the image
        return False
    return not field.global_ and field.size == (1, 1) and field.stride == (1, 1)


def _weights(model: "Opened", node: "Node") -> Array:
    """The filters (K, C, h, w) in float64, whatever way the file spells them."""
    quantised = node.op_type == "QLinearConv"
    if node.op_type not in _FLOATING and not quantised:
        raise MethodRefused(
            f"the filters of {node.op_type} are not in the file as numbers on pixels",
            where=f"node {node.name!r}",
        )
    names = node.inputs[3:6] if quantised else node.inputs[1:2]
    values = [_value(model, name) for name in names]
    weights = values[0].astype(np.float64)
    if quantised:
        scale, zero = (v.astype(np.float64).reshape(-1, 1, 1, 1) for v in values[1:])
        weights = (weights - zero) * scale
    if weights.ndim != 4 or not np.isfinite(weights).all():
        raise MethodRefused(
            f"the weights are of shape {list(weights.shape)} or not finite",
            where=f"node {node.name!r}",
            hint="filters (K, C, h, w) are needed",
        )
    return weights


def _value(model: "Opened", name: str) -> Array:
    """A tensor that no image changes; computed if it is behind a DequantizeLinear or the like."""
    known = model.graph.constant(name)
    if known is not None:
        return np.asarray(known)
    size = model.size(*model.preprocessing.preprocess.size)
    blank = np.zeros((model.input.batch or 1, model.input.channels, *size), np.float32)
    feeds = model.model.feeds(model.input.arrange(blank))
    return np.asarray(model.model.runtime.run(feeds, [name])[name])


def _activation(model: "Opened", node: "Node") -> str:
    """The tensor behind the convolution's activation function; its own output if it is no layer."""
    made = [a.tensor for a in model.layers if a.convolution == node.outputs[0]]
    return made[0] if made else node.outputs[0]


# -- photos ---------------------------------------------------------------------------------------


class _Survey:
    """One pass over the photos: activity of the filters, and energy of their responses.

    Args:
        model: The opened model.
        node: The convolution.
        weights: (K, C / groups, h, w), with the zeros that a dilation means.
        strides: Down and across.
        journal: Gets the numbers of each photo; photos in it are not opened again.
    """

    def __init__(
        self,
        model: "Opened",
        node: "Node",
        weights: Array,
        strides: Sequence[int],
        journal: Journal,
    ) -> None:
        self.model, self.weights, self.strides, self.journal = model, weights, strides, journal
        self.source, self.activation = node.inputs[0], _activation(model, node)

    def over(
        self, images: Sequence[Any], refused: list[ImageRefused], progress: Progress | None
    ) -> PhotoNumbers | None:
        """What the photos say; None when none was used."""
        known = {place for place in range(len(images)) if _key(place) in self.journal}
        for batch in batches(self.model, images, refused, progress, skip=known):
            for place, numbers in zip(batch.places, self._measured(batch), strict=True):
                self.journal.keep(_key(place), numbers)
                known.add(place)
        return self._summed(sorted(known)) if known else None

    def _measured(self, batch: Batch) -> list[dict[str, Any]]:
        """Plain numbers of each photo of a batch."""
        from inspector.passes.activations import activations

        found = activations(self.model, batch.tensors, [self.source, self.activation])
        maps, count = found[self.activation], len(self.weights)
        if maps.ndim != 4 or maps.shape[1] != count:
            raise MethodRefused(
                f"the layer is of shape {list(maps.shape)}, for {count} filters",
                where=self.activation,
            )
        if not np.isfinite(maps).all():
            raise MethodRefused("activations are not finite", where=self.activation)
        energy, folded, own = spectrum.folded_energy(found[self.source], self.weights, self.strides)
        return [
            {
                "peaks": maps[row].max((1, 2)).tolist(),
                "positive": (maps[row] > 0).sum((1, 2)).tolist(),
                "places": maps.shape[2] * maps.shape[3],
                "energy": energy[row].tolist(),
                "folded": folded[row].tolist(),
                "own": own[row].tolist(),
            }
            for row in range(len(batch.photos))
        ]

    def _summed(self, places: Sequence[int]) -> PhotoNumbers:
        """All photos together, added up in their order, so that a resumed run gives the same."""
        count = len(self.weights)
        peaks, positive, total = np.full(count, -np.inf), np.zeros(count), 0
        energy, folded, own, shares = np.zeros(count), np.zeros(count), np.zeros(2), []
        for place in places:
            one: Mapping[str, Any] = self.journal[_key(place)]
            peaks = np.maximum(peaks, one["peaks"])
            positive += one["positive"]
            total += one["places"]
            energy += one["energy"]
            folded += one["folded"]
            own += one["own"]
            whole = sum(one["energy"])
            shares.append(sum(one["folded"]) / whole if whole > 0 else np.nan)
        return PhotoNumbers(
            photos=len(places),
            peaks=peaks,
            active=positive / total,
            energy=energy,
            folded=folded,
            own=(float(own[0]), float(own[1])),
            shares=np.array(shares),
        )


def _key(place: int) -> str:
    return f"filters/{place}"


# -- the second layer -----------------------------------------------------------------------------


Shown = list[tuple[int, float, Array | None]]
"""Unit, activation, and projection (C, h, w); None for a unit that is never active."""


def _second(
    model: "Opened",
    node: "Node",
    images: Sequence[Any],
    options: tuple[int, str, str],
    *,
    journal: Journal,
    progress: Progress | None,
    warnings: list[str],
) -> tuple[dict[str, Any] | None, tuple[str, Shown] | None]:
    """The strongest activation of units of the second layer, projected: numbers and pictures.

    What cannot be projected is said, and the rest of the study stands without.
    """
    tensor = _second_layer(model, node)
    if tensor is None:
        warnings.append("no second convolution follows: there is nothing to project")
        return None, None
    try:
        return _projected(
            model, tensor, images, options, journal=journal, progress=progress, notes=warnings
        )
    except MethodRefused as error:
        warnings.append(f"the second layer is not projected: {error}")
        return {"layer": tensor, "refused": str(error)}, None


def _second_layer(model: "Opened", node: "Node") -> str | None:
    """The layer of the first convolution that reads, on whatever way, what the first one made."""
    shapes = model.shapes(model.preprocessing.preprocess.size)
    for layer in model.layers:
        shape = shapes.get(layer.tensor, ())
        is_map = len(shape) == 4 and shape[2] * shape[3] > 1
        joins = layer.gate or layer.chain[:1] == ("Concat",)
        if layer.convolution == node.outputs[0] or joins or not is_map:
            continue
        if model.model.tail(node.outputs[0], layer.convolution).connected:
            return layer.tensor
    return None


def _projected(
    model: "Opened",
    tensor: str,
    images: Sequence[Any],
    options: tuple[int, str, str],
    *,
    journal: Journal,
    progress: Progress | None,
    notes: list[str],
) -> tuple[dict[str, Any], tuple[str, Shown]]:
    from inspector.network.receptive_field import receptive_field
    from inspector.passes.ranking import strongest
    from inspector.projection.projector import Projector

    count, projection, extension = options
    projector = Projector(model, tensor, projection, extension)
    shape = model.shape_of(tensor)
    units = range(min(count, shape[1]))
    winners, _ = strongest(
        model, tensor, images, units, count=1, refused=[], progress=progress, journal=journal
    )
    shapes = model.shapes(model.preprocessing.preprocess.size)
    field = receptive_field(model.graph, tensor, model.input.name, shapes)
    field = field.local or field
    best = {unit: found[0] for unit, found in winners.items() if found}
    signals = dict(zip(best, _signals(projector, list(best.values())), strict=True))
    rows: list[dict[str, Any]] = []
    shown: Shown = []
    for unit in units:
        winner = best.get(unit)
        if winner is None:
            shown.append((unit, 0.0, None))
            rows.append({"unit": unit, "activation": None})
            continue
        y0, x0, y1, x1 = field.pixels(winner.y, winner.x)
        # The rules are linear in a positive signal: what goes down is the activation itself.
        signal = winner.value * signals[unit][:, y0:y1, x0:x1]
        shown.append((unit, winner.value, signal))
        rows.append(
            {
                "unit": unit,
                "activation": winner.value,
                "image": {"name": winner.name, "place": winner.place, "sha256": winner.sha256},
                "at": {"y": winner.y, "x": winner.x},
                "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
                "largest_in_projection": float(np.abs(signal).max(initial=0)),
            }
        )
    notes.extend(projector.notes)
    numbers = {
        "layer": tensor,
        "layer_shape": shape[1:],
        "projection": projection,
        "receptive_field": {"size": field.size, "stride": field.stride},
        "coverage": projector.coverage,
        "units": rows,
    }
    return numbers, (f"{tensor}, projected by {projection}", shown)


def _signals(projector: Any, winners: "Sequence[Winner]") -> list[Array]:
    """Each winner's projection (C, H, W) for a signal of one.

    Raises:
        ImageRefused: A photo has gone or changed since the pass.
    """
    step, found = BATCH if projector.model.batches else 1, []
    gone: list[ImageRefused] = []
    for start in range(0, len(winners), step):
        some = winners[start : start + step]
        opened = list(batches(projector.model, [winner.source for winner in some], gone))
        if gone:
            raise gone[0]
        hashes = [photo.sha256 for batch in opened for photo in batch.photos]
        if hashes != [winner.sha256 for winner in some]:
            raise ImageRefused("a photo has changed meanwhile", where=some[0].name)
        images = np.concatenate([batch.tensors for batch in opened])
        found += list(projector(images, [(w.unit, w.y, w.x) for w in some]))
    return found


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
    from inspector.projection.projector import rgb_of
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

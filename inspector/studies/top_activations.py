"""What excites a unit: its strongest activations over many photos, each projected to pixels."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.study import BATCH, Findings, Progress, batches, study

if TYPE_CHECKING:
    from inspector.explain import Explainer
    from inspector.receptive_field import Box, ReceptiveField

__all__ = ["Winner", "strongest", "top_activations"]

Array = np.ndarray[Any, Any]

FIRST_UNITS = 8
"""Units that are shown where none are named."""

MOST_UNITS, MOST_WINNERS = 256, 100

RULES = {"deconvnet": "deconvnet", "guided-backprop": "guided"}
"""Projections by the name of their method, and the backward rule of each."""

EXTENSIONS = ("refuse", "signal-first", "gradient-first")


@dataclass(frozen=True, eq=False)
class Winner:
    """One of a unit's strongest activations.

    Attributes:
        unit: Channel of the layer.
        value: The activation; positive.
        place: Position of the photo in the list.
        y: Row in the layer's map.
        x: Column.
        source: The photo as the user gave it.
        name: The photo's name.
        sha256: The photo's hash.
    """

    unit: int
    value: float
    place: int
    y: int
    x: int
    source: Any
    name: str
    sha256: str

    def __lt__(self, other: "Winner") -> bool:
        """Weaker first; of equals the later photo, so that the first one stays."""
        return (self.value, -self.place) < (other.value, -other.place)


@study("top-activations", images=True)
def top_activations(
    model: "Explainer",
    images: Iterable[Any],
    *,
    layer: str | int | None = None,
    units: str = "",
    count: int = 9,
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
) -> Findings:
    """Strongest activations of units over photos, each beside its projection.

    For each unit of a layer the photos that excite it most, one activation a photo: the patch of
    the network's input that the unit sees, and that one activation projected down to the pixels,
    all others set to zero (Zeiler & Fergus 2014, figure 2). One pass over the photos in bounded
    memory; only the winners are projected.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory; may be a generator.
        layer: The layer, as tensor name or index; that of `inspector explain` when not given.
        units: Channels as numbers and ranges, such as 0,3,8-11; the first 8 when not given.
        count: Photos a unit, at most 100.
        projection: deconvnet or guided-backprop.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first.
        progress: Called with (what, done, total) during long work.

    Returns:
        The figure, and for each unit its winners with value, place and receptive field.

    Raises:
        UsageError: units out of range, or options that cannot be meant.
        MethodRefused: a projection that cannot be right for this model; a layer of integers.
        ImageRefused: none of the photos can be read.
    """
    if projection not in RULES:
        raise UsageError(f"no projection {projection!r}", hint="one of " + ", ".join(RULES))
    if extension not in EXTENSIONS:
        raise UsageError(f"no extension {extension!r}", hint="one of " + ", ".join(EXTENSIONS))
    if not 1 <= count <= MOST_WINNERS:
        raise UsageError(f"{count} photos a unit", hint=f"1 to {MOST_WINNERS}")
    tensor, shape = _layer(model, layer)
    chosen = parse_units(units, shape[1])
    _require_certificate(model, projection)
    refused: list[ImageRefused] = []
    winners, used = strongest(
        model, tensor, images, chosen, count=count, refused=refused, progress=progress
    )
    if not used:
        raise refused[0] if refused else UsageError("no photos were given")
    field, warnings = _field(model, tensor)
    shown = _Projector(model, tensor, (projection, extension), field).all(winners, progress)
    warnings += shown.notes
    sentences = _sentences(winners, used, count, tensor)
    return Findings(
        study="top-activations",
        context=model.context(None),
        options={
            "layer": layer,
            "units": units,
            "count": count,
            "projection": projection,
            "extension": extension,
        },
        numbers={
            "layer": tensor,
            "layer_shape": shape[1:],
            "projection": projection,
            "receptive_field": {"size": field.size, "stride": field.stride},
            "coverage": shown.coverage,
            "units": [_unit(unit, winners[unit], shown) for unit in chosen],
        },
        sentences=sentences,
        figure=_figure(model, tensor, winners, shown, sentences=sentences, warnings=warnings),
        images=used,
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- what is asked for ----------------------------------------------------------------------------


def _layer(model: "Explainer", layer: str | int | None) -> tuple[str, tuple[int, ...]]:
    """The layer's tensor and its shape (1, C, h, w)."""
    from inspector.layers import default_layer, select_layer  # noqa: PLC0415 - late: imports onnx

    shapes = model.shapes(model.preprocessing.preprocess.size)
    if layer is None:
        chosen = default_layer(model.layers, shapes)[0]
    else:
        chosen = select_layer(model.layers, layer, shapes, model.graph)
    return chosen.tensor, tuple(shapes[chosen.tensor])


def parse_units(text: str, channels: int) -> tuple[int, ...]:
    """Read ``0,3,8-11``; each unit once, in the order asked for.

    Raises:
        UsageError: No numbers, too many, or units that the layer does not have.
    """
    if not text.strip():
        return tuple(range(min(FIRST_UNITS, channels)))
    found: dict[int, None] = {}
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise UsageError(f"{part.strip()!r} is no unit", hint="write them as 0,3,8-11")
        ends = int(low), int(high or low)
        if not ends[0] <= ends[1] < channels:
            raise UsageError(
                f"there is no unit {part.strip()}", hint=f"units run from 0 to {channels - 1}"
            )
        found |= dict.fromkeys(range(ends[0], ends[1] + 1))
    if len(found) > MOST_UNITS:
        raise UsageError(f"{len(found)} units", hint=f"at most {MOST_UNITS} at a time")
    return tuple(found)


def _require_certificate(model: "Explainer", projection: str) -> None:
    if not model.unverified and model.certificate.passed is False:
        raise MethodRefused(
            f"{projection}: {model.certificate.text[:300]}", where=model.path.name,
            hint="`inspector verify` tells more",
        )  # fmt: skip


# -- the pass over the photos ---------------------------------------------------------------------


def strongest(
    model: "Explainer",
    tensor: str,
    images: Iterable[Any],
    units: Sequence[int],
    *,
    count: int,
    refused: list[ImageRefused],
    progress: Progress | None = None,
) -> tuple[dict[int, list[Winner]], int]:
    """Find each unit's strongest activations, one a photo, in one pass.

    Only positive activations count. Of equal ones the first photo's, and in a photo the first in
    reading order.

    Args:
        model: The opened model.
        tensor: The layer, (N, C, h, w).
        images: The photos.
        units: Channels.
        count: Photos to keep a unit.
        refused: Gets the photos that cannot be read.
        progress: Called with (what, done, total).

    Returns:
        The winners of each unit, strongest first, and how many photos were used.

    Raises:
        MethodRefused: The layer holds integers.
    """
    heaps: dict[int, list[Winner]] = {unit: [] for unit in units}
    used = 0
    for batch in batches(model, images, refused, progress):
        values = np.asarray(model.forward(batch.tensors, [tensor])[tensor])
        if values.dtype.kind != "f":
            raise MethodRefused(
                f"the layer holds {values.dtype}", where=tensor,
                hint="name a tensor behind a DequantizeLinear with --layer",
            )  # fmt: skip
        for row, unit in np.ndindex(len(values), len(units)):
            one = values[row, units[unit]]
            y, x = np.unravel_index(int(one.argmax()), one.shape)
            if not one[y, x] > 0:
                continue
            photo, heap = batch.photos[row], heaps[units[unit]]
            found = Winner(
                units[unit], float(one[y, x]), batch.places[row], int(y), int(x),
                batch.sources[row], photo.name, photo.sha256,
            )  # fmt: skip
            if len(heap) < count:
                heapq.heappush(heap, found)
            elif heap[0] < found:
                heapq.heapreplace(heap, found)
        used += len(batch.photos)
    return {unit: sorted(heap, reverse=True) for unit, heap in heaps.items()}, used


# -- the winners ----------------------------------------------------------------------------------


def _field(model: "Explainer", tensor: str) -> "tuple[ReceptiveField, list[str]]":
    from inspector.receptive_field import receptive_field  # noqa: PLC0415 - late: imports onnx

    shapes = model.shapes(model.preprocessing.preprocess.size)
    field = receptive_field(model.graph, tensor, model.input.name, shapes)
    warnings = list(model.preprocessing.warnings)
    if field.global_:
        shown = "the patches show where they mostly look" if field.local else "patches are whole"
        warnings.append(f"units depend on the whole image ({field.why}); {shown}")
    return field.local or field, warnings


@dataclass(frozen=True, eq=False)
class _Shown:
    """Boxes, patches and projections by unit and photo.

    Attributes:
        boxes: (y0, x0, y1, x1) in pixels of the network's input.
        patches: (h, w, 3) pixels 0..255.
        projections: (C, h, w) signed, channels as the model takes them.
        notes: What must be said with them.
        coverage: Which activations the backward rule reached.
    """

    boxes: "dict[tuple[int, int], Box]"
    patches: dict[tuple[int, int], Array]
    projections: dict[tuple[int, int], Array]
    notes: list[str]
    coverage: str


class _Projector:
    """Projects winners, a few at a time."""

    def __init__(
        self, model: "Explainer", tensor: str, rule: tuple[str, str], field: "ReceptiveField"
    ) -> None:
        self.model, self.tensor, self.field = model, tensor, field
        self.rule = RULES[rule[0]], rule[1]
        self.shown = _Shown({}, {}, {}, [], "")

    def all(self, winners: Mapping[int, Sequence[Winner]], progress: Progress | None) -> _Shown:
        """Project every winner of every unit.

        Raises:
            ImageRefused: A photo has gone since the first pass.
        """
        # By photo, so that one that excites several units is opened for neighbouring batches.
        every = sorted((w for found in winners.values() for w in found), key=lambda w: w.place)
        step = BATCH if self.model.batches else 1
        coverage = ""
        for start in range(0, len(every), step):
            coverage = self._some(every[start : start + step])
            if progress:
                progress("projections", min(start + step, len(every)), len(every))
        kept = self.shown
        return _Shown(kept.boxes, kept.patches, kept.projections, kept.notes, coverage)

    def _some(self, winners: Sequence[Winner]) -> str:
        from inspector.evidence import Evidence  # noqa: PLC0415 - late: imports onnx
        from inspector.target import Target  # noqa: PLC0415 - as above

        gone: list[ImageRefused] = []
        opened = batches(self.model, (winner.source for winner in winners), gone)
        images = np.concatenate([batch.tensors for batch in opened]) if winners else np.zeros(0)
        if gone:
            raise gone[0]  # it could be read a moment ago
        targets = [
            Target(self.tensor, (w.unit, w.y, w.x), f"{self.tensor}[{w.unit},{w.y},{w.x}]")
            for w in winners
        ]
        values = self.model.forward(images, [self.tensor])
        preprocess = self.model.preprocessing.preprocess
        evidence = Evidence(self.model, images, targets, values, layer=None, preprocess=preprocess)
        signals = evidence.input_gradient(*self.rule)
        self.shown.notes.extend(n for n in evidence.notes if n not in self.shown.notes)
        for winner, image, signal in zip(winners, images, signals, strict=True):
            y0, x0, y1, x1 = self.shown.boxes[winner.unit, winner.place] = self.field.pixels(
                winner.y, winner.x
            )
            key = winner.unit, winner.place
            # The rules are linear in a positive signal: what goes down is the activation itself.
            self.shown.projections[key] = winner.value * signal[:, y0:y1, x0:x1]
            self.shown.patches[key] = _pixels(image[:, y0:y1, x0:x1], preprocess)
        return str(evidence.facts.get("coverage", ""))


def _pixels(tensor: Array, preprocess: Any) -> Array:  # noqa: ANN401 - a Preprocess
    """Pixels (h, w, 3) of 0..255 that became network values (C, h, w)."""
    std, mean = (np.reshape(v, (-1, 1, 1)) for v in (preprocess.std, preprocess.mean))
    values = np.clip((tensor * std + mean) * preprocess.scale, 0, 255)
    values = values[::-1] if preprocess.channels == "BGR" else values
    values = values if len(values) == 3 else np.repeat(values, 3, axis=0)
    pixels: Array = np.rint(values).astype(np.uint8).transpose(1, 2, 0)
    return pixels


# -- the result -----------------------------------------------------------------------------------


def _unit(unit: int, winners: Sequence[Winner], shown: _Shown) -> dict[str, Any]:
    rows = []
    for winner in winners:
        y0, x0, y1, x1 = shown.boxes[unit, winner.place]
        signal = shown.projections[unit, winner.place]
        rows.append(
            {
                "image": {
                    "name": winner.name, "place": winner.place, "sha256": winner.sha256
                },
                "activation": winner.value,
                "at": {"y": winner.y, "x": winner.x},
                "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
                "largest_in_projection": float(np.abs(signal).max(initial=0)),
            }
        )  # fmt: skip
    return {"unit": unit, "winners": rows}


def _sentences(
    winners: Mapping[int, Sequence[Winner]], used: int, count: int, tensor: str
) -> tuple[str, ...]:
    found = [f"{len(winners)} unit(s) of {tensor}, strongest over {used} photo(s)"]
    never = [str(unit) for unit, rows in winners.items() if not rows]
    if never:
        found.append(f"never active: unit(s) {', '.join(never)}")
    few = [str(unit) for unit, rows in winners.items() if 0 < len(rows) < count]
    if few:
        found.append(f"active on fewer than {count} photo(s): unit(s) {', '.join(few)}")
    tops = [rows[0].name for rows in winners.values() if rows]
    often = max(sorted(set(tops)), key=tops.count, default="")
    if tops.count(often) > max(1, len(tops) / 2):
        found.append(f"{often} is the strongest photo of {tops.count(often)} of them")
    return tuple(found)


def _figure(
    model: "Explainer",
    tensor: str,
    winners: Mapping[int, Sequence[Winner]],
    shown: _Shown,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:  # noqa: ANN401 - a PIL.Image.Image
    from inspector.render.activations import Row, activation_sheet  # noqa: PLC0415 - late: Pillow

    swap = model.preprocessing.preprocess.channels == "BGR"
    rows = []
    for unit, found in winners.items():
        keys = [(unit, winner.place) for winner in found]
        signals = [shown.projections[key][:: -1 if swap else 1] for key in keys]
        patches = [shown.patches[key] for key in keys]
        values = [winner.value for winner in found]
        rows.append(Row(f"unit {unit}", values, patches, signals))
    return activation_sheet(
        rows, title=f"strongest activations in {model.path.name}", subtitle=tensor,
        sentences=sentences, notes=warnings,
    )  # fmt: skip

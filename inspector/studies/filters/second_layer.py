"""Strongest activations of the second layer's units, projected to the pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.graph import Node
from inspector.errors import ImageRefused, MethodRefused
from inspector.opened import Opened
from inspector.passes.batches import BATCH, Progress, batches
from inspector.passes.journal import Journal
from inspector.passes.ranking import Winner, strongest
from inspector.projection.field import patch_field
from inspector.projection.projector import Projector

__all__ = ["Shown", "second_layer"]

Array = np.ndarray[Any, Any]

Shown = list[tuple[int, float, Array | None]]
"""Unit, activation, and projection (C, h, w); None for a unit that is never active."""


def second_layer(
    model: Opened,
    node: Node,
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
    tensor = _second_convolution(model, node)
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


def _second_convolution(model: Opened, node: Node) -> str | None:
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
    model: Opened,
    tensor: str,
    images: Sequence[Any],
    options: tuple[int, str, str],
    *,
    journal: Journal,
    progress: Progress | None,
    notes: list[str],
) -> tuple[dict[str, Any], tuple[str, Shown]]:

    count, projection, extension = options
    projector = Projector(model, tensor, projection, extension)
    shape = model.shape_of(tensor)
    units = range(min(count, shape[1]))
    winners, _ = strongest(
        model, tensor, images, units, count=1, refused=[], progress=progress, journal=journal
    )
    field, _ = patch_field(model, tensor)
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


def _signals(projector: Any, winners: Sequence[Winner]) -> list[Array]:
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

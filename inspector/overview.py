"""Overview of a model: its layers and its head."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from converters.errors import first_few
from inspector.errors import ExplainedError, ModelRefused
from inspector.network.classifier.head import LinearHead
from inspector.network.coordinates.lattice import fields as lattice_fields
from inspector.network.coordinates.placement import Placement
from inspector.network.layers import Layer
from inspector.network.receptive_fields.receptive_field import ReceptiveField, fields_or_reasons
from inspector.opened import Opened

__all__ = ["LayerRow", "Overview", "overview"]


_MOST_PLACED = 1_000
"""Layers beyond which it is not said where each lies: a list that nobody reads."""


@dataclass(frozen=True)
class LayerRow:
    """One layer as `inspector layers` shows it.

    Attributes:
        shape: Concrete (C, h, w).
        stride: Input pixels between neighbouring units, down and across the input, negative where
            the map is mirrored; None where that has no meaning.
        field: Receptive field in pixels; "global" where a unit sees the whole input. Where only
            gates (squeeze-excite) spread it, the local field stands before "+ global gates".
            "axes swapped" where going down in the map goes across in the input; "within its
            grid" where the layer is laid on the input in several grids.
        offset: Centre of unit (0, 0) in input pixels.
        gate: Whether it is part of a gate and therefore no target layer.
        module: Path of the module that makes it, where the exporter says it.
        note: Why it has no receptive field or no place, where its several grids lie, or that it
            is a grid of tokens; else empty.
    """

    index: int
    tensor: str
    convolution: str
    chain: tuple[str, ...]
    shape: tuple[int, ...] | None
    stride: tuple[float, ...] | None
    field: str
    offset: str
    gate: bool
    default: bool
    module: str
    note: str = ""


@dataclass(frozen=True)
class Overview:
    """Layers of a model and what follows from them."""

    rows: tuple[LayerRow, ...]
    sentences: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"layers": [asdict(row) for row in self.rows], **dict(self.sentences)}


def overview(opened: Opened) -> Overview:
    """Layers of a model and what follows from them.

    Args:
        opened: The model.

    Returns:
        Its layers in graph order, the default layer with the reason, and whether CAM is exact
        or which node forbids it.

    Example:
        >>> import inspector
        >>> from inspector.overview import overview
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> first = overview(model).rows[0]
        >>> first.tensor, first.shape, first.field
        ('relu', (16, 32, 32), '3x3')
    """
    shapes = opened.shapes(opened.preprocessing.preprocess.size)
    try:
        chosen, why = _default(opened)
    except ModelRefused as error:
        chosen, why = set(), str(error)
    tensors = [layer.tensor for layer in opened.layers]
    flat = opened.input.space == 2
    name = opened.input.name
    fields: Mapping[str, Any] = (
        fields_or_reasons(opened.graph, tensors, name, shapes)
        if flat
        else lattice_fields(opened.graph, name, shapes, tensors, last=opened.input.layout == "NHWC")
    )
    rows = []
    for layer in opened.layers:
        found = fields[layer.tensor]
        note = str(found) if isinstance(found, ExplainedError) else ""
        known: Any = None if isinstance(found, ExplainedError) else found
        field, stride, offset = _described(known) if flat else _along(known)
        shape = shapes.get(layer.tensor)
        try:
            placement = _placement(opened, layer.tensor, shape)
        except ExplainedError as error:
            placement, note = None, note or str(error)
        if placement is not None and len(placement.grids) > 1:
            field, stride, offset, note = _several(placement)
        rows.append(
            LayerRow(
                index=layer.index,
                tensor=layer.tensor,
                convolution=layer.convolution,
                chain=layer.chain,
                shape=tuple(shape[1:]) if shape else None,
                stride=stride,
                field=field,
                offset=offset,
                gate=layer.gate,
                default=layer.tensor in chosen,
                module=layer.module,
                note=note,
            )
        )
    rows += [_token_row(opened, layer, layer.tensor in chosen) for layer in opened.tokens.every]
    sentences = (
        ("input", _input(opened)),
        ("scores", opened.scores.why),
        ("default layer", why),
        ("cam", _head(opened)),
    )
    return Overview(tuple(rows), sentences)


def _default(opened: Opened) -> tuple[set[str], str]:
    """The layers that `explain` takes unless told otherwise, and why.

    Raises:
        ModelRefused: There is none.
    """
    reading = opened.sure_reading
    if reading is not None:
        found = opened.layer_of_task(reading)
        if found is not None:
            return {found[0]}, f"{found[0]!r}: {found[1]}"
        chosen = [opened.layers_before(tensor) for tensor in reading.tensors]
        names = {one.tensor for layers, _ in chosen for one in layers}
        if names:
            why = "; ".join(dict.fromkeys(text for _, text in chosen))
            return names, why if len(names) > 1 else f"{next(iter(names))!r}: {why}"
    default, reason = opened.layer_for(None, tokens=True)
    before = opened.layers_before(opened.scores.tensor)[0] or (default,)
    why = reason if len(before) > 1 else f"{default.tensor!r}: {reason}"
    return {one.tensor for one in before}, why


def _placement(opened: Opened, tensor: str, shape: Sequence[int] | None) -> Placement | None:
    """Where a layer's cells lie on the input; None where its map is stretched as usual.

    Raises:
        ExplainedError: They have no place.
    """
    model, size = opened.model, opened.size(*opened.preprocessing.preprocess.size)
    if shape is None or len(shape) != 4 or len(opened.layers) > _MOST_PLACED:
        return None
    if shape[0] > 1 and model.input.batch in {None, 1}:  # a pass shows what its rows are
        model.forward(np.zeros((1, model.input.channels, *size), np.float32), [tensor])
    return model.placement(tensor, size)


def _several(placement: Placement) -> tuple[str, tuple[float, float] | None, str, str]:
    """Receptive field, stride, offset and note of a layer whose map is laid in several grids."""
    first = placement.grids[0]
    corners = [(grid.rows.hull[0] + 0.5, grid.columns.hull[0] + 0.5) for grid in placement.grids]
    places = first_few([f"({top:g}, {left:g})" for top, left in corners], 4)
    rows = " that are rows of its batch" if placement.count else ""
    note = f"{len(corners)} grids{rows}; top left corners (row, column) at {places}"
    return "within its grid", (first.rows.stride, first.columns.stride), "-", note


def _token_row(opened: Opened, layer: Layer, default: bool) -> LayerRow:
    """The row of a layer of tokens: each sees the whole input, and stands for one place of it."""
    shape = opened.shape_of(layer.tensor)
    size = opened.size(*opened.preprocessing.preprocess.size)
    form = opened.model.form(layer.tensor, size)
    if form.tokens is None:
        grid, channels, extra = shape[1:3], shape[3], 0
    else:
        grid, channels = form.tokens.grid, form.tokens.channels(shape)
        extra = form.tokens.extra
    return LayerRow(
        index=layer.index,
        tensor=layer.tensor,
        convolution=layer.convolution,
        chain=layer.chain,
        shape=(channels, *grid),
        stride=(size[0] / grid[0], size[1] / grid[1]),
        field="global",
        offset="-",
        gate=False,
        default=default,
        module=layer.module,
        note=f"tokens, {extra} extra" if extra else "tokens",
    )


def _along(
    found: Sequence[tuple[float, float, float]] | None,
) -> tuple[str, tuple[float, ...] | None, str]:
    """As ``_described``, along one axis or three."""
    if found is None:
        return "none", None, "-"
    offsets, strides, fields = zip(*found, strict=True)
    text = "x".join(f"{one:g}" for one in fields)
    return text, tuple(strides), ", ".join(f"{one:g}" for one in offsets)


def _described(
    found: ReceptiveField | None,
) -> tuple[str, tuple[float, float] | None, str]:
    """Receptive field, stride and offset as text and numbers."""
    local = found.local if found is not None and found.global_ else found
    if local is None:
        return "global" if found else "none", None, "-"
    text = _size(local) + (" + global gates" if found is not None and found.global_ else "")
    return text, local.stride, f"{local.offset[0]:g}, {local.offset[1]:g}"


def _size(field: ReceptiveField) -> str:
    turned = ", axes swapped" if field.swapped else ""
    return f"{field.size[0]}x{field.size[1]}{turned}"


def _input(opened: Opened) -> str:
    image = opened.input
    height, width = opened.size(*opened.preprocessing.preprocess.size)
    free = "" if image.height and image.width else " (free in the model)"
    sizes = " x ".join(map(str, image.sizes((height, width))))
    batch = "any batch" if image.batch is None else f"batch {image.batch}"
    return f"{image.name!r}, {image.axes}, {image.channels} x {sizes}{free}, {batch}"


def _head(opened: Opened) -> str:
    head = opened.head
    if not isinstance(head, LinearHead):
        where = f" (node {head.node!r})" if head.node else ""
        return f"not exact: {head.reason}{where}"
    notes = "".join(f"; {note}" for note in head.notes)
    rounding = ", up to the rounding of quantised values" if head.quantised else ""
    return f"exact at {head.features!r}{rounding} ({head.kind} head){notes}"

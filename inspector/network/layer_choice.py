"""Default target layer and why; the layer that a user names.

Layer methods explain through one layer.  Unless told otherwise it is the last one that keeps
space (Selvaraju et al. 2017, section 3).
"""

import math
from collections.abc import Mapping, Sequence

from converters.errors import first_few
from converters.graph import Graph
from converters.graph.operators import OPERATORS, facts
from converters.plain_values import whole_number
from inspector.errors import ModelRefused, UnknownLayer, nearest
from inspector.network.layers import Layer, axis_ahead, channel_axes
from inspector.network.quantisation.levels import copies_of
from inspector.network.space import size_text, space_axes
from inspector.network.tail import depends_on, tail_of

__all__ = [
    "default_layer",
    "describe",
    "last_of",
    "layers_before",
    "maps_before",
    "select_layer",
]


_KNOWN = [known for known in OPERATORS.values() if known.activation]
_SCORING = frozenset(known.activation for known in _KNOWN if known.scores)
_ACTIVATIONS = frozenset(known.activation for known in _KNOWN) - _SCORING


def default_layer(
    layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]], space: int = 2
) -> tuple[Layer, str]:
    """Layer that layer methods explain through unless told otherwise.

    It is the last one whose map is larger than 1x1 and that the scores depend on; the
    convolutions of squeeze-excite and attention gates do not count (Selvaraju et al. 2017,
    section 3: the last convolutional layer keeps the space that the classifier loses).

    Args:
        layers: As :func:`find_layers` lists them.
        shapes: Concrete shapes (N, C, h, w), measured by a forward pass.
        space: Axes of space of the network.

    Returns:
        The layer, and a sentence for the user why it is this one.

    Raises:
        ModelRefused: No layer has a map larger than 1x1.
    """
    maps = [one for one in layers if not one.gate and _is_map(shapes.get(one.tensor), space)]
    chosen = next((layer for layer in reversed(maps) if layer.on_path), None)
    if chosen is None and not maps:
        raise ModelRefused(
            f"none of its {len(layers)} convolution layers has a map larger than 1x1",
            hint="layer methods need one; gradient and occlusion do not",
        )
    layer = chosen or maps[-1]
    reason = _reason(layer, shapes)
    if chosen is None:
        reason += "; the scores do not lie behind any layer, so it may say little about them"
    return layer, reason


def describe(layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]], *targets: str) -> str:
    """Why some layers are the last ones before a target, or before all of a sum, for the user."""
    if len(layers) == 1:
        return _reason(layers[0], shapes)
    names = first_few([repr(one.tensor) for one in layers], 4)
    before = " and ".join(map(repr, targets))
    return (
        f"{len(layers)} layers lie side by side before {before} ({names}): for each target "
        "the one that carries most of its evidence"
    )


def _reason(layer: Layer, shapes: Mapping[str, tuple[int, ...]]) -> str:
    shape = shapes[layer.tensor]
    what = "join of branches" if layer.chain[:1] == ("Concat",) else "convolution"
    done = ", ".join(layer.chain[1:])
    reason = (
        f"the last {what} whose map is larger than 1x1: {shape[1]} maps of {size_text(shape[2:])}"
        + (f", taken after {done}" if done else "")
    )
    if layer.attended:
        reason += "; attention behind it moves evidence between places, so a map may mislead"
    return reason


def layers_before(
    graph: Graph,
    layers: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    *targets: str,
) -> tuple[Layer, ...]:
    """Layers that a walk back from a target meets first: one, or several where ways part.

    Of several targets that are explained together it is the last layers that all of them depend on,
    so that no part of the sum passes a layer by; where they share none, those of each.

    A layer counts that keeps space (a map larger than 1x1), has more than one channel, is not a
    gate or an attention map, and is more than the target itself in another order: a detector's
    or segmenter's last convolution *is* its scores.

    Args:
        graph: The network.
        layers: As :func:`find_layers` lists them.
        shapes: Concrete shapes (N, C, h, w), measured by a forward pass.
        targets: Tensor that the target is an element of, or those that a sum is read from.

    Returns:
        In graph order; empty when the target depends on no such layer.
    """
    if len(targets) > 1:
        to_targets = [depends_on(graph, name) for name in targets]
        shared = [one for one in layers if all(depends(one.tensor) for depends in to_targets)]
        for among in (shared, layers):
            each = [_before(graph, layers, among, shapes, name) for name in targets]
            met = {one.tensor: one for found in each for one in found}
            if met:
                ends = last_of(graph, tuple(met.values()))
                return tuple(sorted(ends, key=lambda one: one.index))
        return ()
    found = _before(graph, layers, layers, shapes, targets[0])
    return tuple(sorted(found, key=lambda one: one.index))


def _before(
    graph: Graph,
    layers: Sequence[Layer],
    among: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    target: str,
) -> tuple[Layer, ...]:
    """Layers among some that a walk back from one target meets first."""
    space = space_axes(graph)
    maps = [one for one in layers if not one.gate and _is_map(shapes.get(one.tensor), space)]
    if not maps:
        return ()
    wide = [one for one in maps if shapes[one.tensor][1] > 1]
    axes = channel_axes(graph)
    named = {one.tensor for one in among}
    kept = {one.tensor: one for one in wide if one.tensor in named}
    found = _reached(graph, kept, target)
    while scored := [
        n for n, one in found.items() if _is_score_map(graph, axes, one, wide, target)
    ]:
        kept = {name: one for name, one in kept.items() if name not in scored}
        found = _reached(graph, kept, target)
    for otherwise in (wide, maps):
        rest = {one.tensor: one for one in otherwise if one.tensor in named}
        found = found or _reached(graph, rest, target)
    return tuple(found.values())


def maps_before(
    graph: Graph,
    layers: Sequence[Layer],
    shapes: Mapping[str, tuple[int, ...]],
    targets: Sequence[str],
) -> dict[str, tuple[int, ...]]:
    """Shapes (N, C, h, w) of all layers of maps that some targets depend on, in graph order.

    Args:
        graph: The network.
        layers: As :func:`find_layers` lists them.
        shapes: Concrete shapes, measured by a forward pass.
        targets: Tensors that targets are elements of.
    """
    space, found = space_axes(graph), {}
    to_targets = [depends_on(graph, name) for name in targets]
    for one in layers:
        shape = shapes.get(one.tensor, ())
        if one.gate or not _is_map(shape, space) or shape[1] == 1:
            continue
        if any(depends(one.tensor) for depends in to_targets):
            found[one.tensor] = tuple(shape)
    return found


def last_of(graph: Graph, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Layers of which no other one is computed: the ends of the branches."""
    each = [(other, depends_on(graph, other.tensor)) for other in layers]
    return tuple(
        one
        for one in layers
        if not any(other is not one and depends(one.tensor) for other, depends in each)
    )


def _reached(graph: Graph, layers: Mapping[str, Layer], target: str) -> dict[str, Layer]:
    """Layers that a walk back from the target meets first on each way."""
    by_name = {name: one for tensor, one in layers.items() for name in copies_of(graph, tensor)}
    found: dict[str, Layer] = {}
    pending, seen = [target], {target}
    while pending:
        name = pending.pop()
        if name in by_name and name != target:
            found[by_name[name].tensor] = by_name[name]
            continue
        node = graph.producer(name)
        if node is None or node.is_op("Shape", "Size"):
            continue
        fresh = [n for n in graph.reads(node) if n and n not in seen]
        seen.update(fresh)
        pending += fresh
    return found


def _is_score_map(
    graph: Graph, axes: Mapping[str, int], layer: Layer, maps: Sequence[Layer], target: str
) -> bool:
    """Whether the target is the layer itself, value by value in another order.

    So it is where no activation function ends the layer, or one that makes weights or scores of
    it (sigmoid, softmax), and nothing between it and the target gathers values from several
    places: no pooling, no matrix product, no convolution that makes another map.
    """
    if any(kind in _ACTIVATIONS for kind in layer.chain[1:]) and layer.chain[-1] not in _SCORING:
        return False
    made = {one.convolution for one in maps}
    for node in tail_of(graph, copies_of(graph, layer.tensor), target).nodes:
        known = facts(node)
        gathers = (known.pools or known.reduces) and node.inputs[0] in axes
        if gathers or (known.weighted and not known.convolves):
            return False
        if known.convolves and node.outputs[0] in made:
            return False
    return True


def _is_map(shape: Sequence[int] | None, space: int) -> bool:
    return shape is not None and len(shape) == space + 2 and math.prod(shape[2:]) > 1


def select_layer(
    layers: Sequence[Layer],
    spec: str | int,
    shapes: Mapping[str, tuple[int, ...]],
    graph: Graph,
) -> Layer:
    """Layer that a user names.

    A name of a layer wins over an index, an index over the path of a module (whose last layer is
    meant), and that over the name of any other tensor (old exporters name tensors by numbers).

    Args:
        layers: As :func:`find_layers` lists them.
        spec: A tensor's name, ``last`` for the default layer, an index (negative from the end), or
            a module's path.
        shapes: Concrete shapes; a tensor that is not a listed layer must be in them, with 4 axes.
        graph: The graph the layers are from.

    Raises:
        UnknownLayer: No such tensor, an index out of range, or a tensor that is not (N, C, h, w).
    """
    text = str(spec).strip()
    listed = [layer for layer in layers if layer.tensor == text]
    if listed and isinstance(spec, str):
        return listed[0]
    if text == "last" and layers:
        return default_layer(layers, shapes, space_axes(graph))[0]
    index = whole_number(text)
    if index is not None and -len(layers) <= index < len(layers):
        return layers[index]
    inside = [a for a in layers if a.module and f"{a.module}.".startswith(f"{text}.")]
    if inside and isinstance(spec, str):
        return inside[-1]
    known = text in graph.inputs or graph.producer(text) is not None
    if not known or isinstance(spec, int):
        raise UnknownLayer(_unknown(text, index, layers), hint=_hint(text, layers, graph))
    shape = shapes.get(text)
    if shape is None or len(shape) != space_axes(graph) + 2:
        size = "of unknown shape" if shape is None else f"of shape {list(shape)}"
        raise UnknownLayer(
            f"tensor {text!r} is {size}, not a map (N, C, h, w)",
            hint="`inspector layers` lists the layers",
        )
    text = _channels_first(text, graph)
    listed = [layer for layer in layers if layer.tensor == text]
    made = next((layer for layer in layers if layer.convolution == text), None)
    return listed[0] if listed else Layer(text, text, -1 if made is None else made.index)


def _channels_first(tensor: str, graph: Graph) -> str:
    """The same map as (N, C, h, w), of a tensor that may be (N, h, w, C).

    Raises:
        UnknownLayer: There is none, or nothing shows which axes are channels and places. Read as
            it is, it would give a picture whose columns are channels, or heads of an attention.
    """
    axes = channel_axes(graph)

    def axis(name: str) -> int | None:
        return axes.get(name) or axis_ahead(graph, name)

    if axis(tensor) == 1:
        return tensor
    made = graph.producer(tensor)
    turned = [made.inputs[0]] if made is not None and made.is_op("Transpose") else []
    turned += [node.outputs[0] for node in graph.consumers(tensor) if node.is_op("Transpose")]
    same = next((name for name in turned if axis(name) == 1), None)
    if same is None:
        what = "has its channels last" if axis(tensor) == 3 else "is not known to be a map"
        raise UnknownLayer(
            f"tensor {tensor!r} {what}: nothing in the graph reads it as (N, C, h, w)",
            hint="`inspector layers` lists the layers",
        )
    return same


def _unknown(text: str, index: int | None, layers: Sequence[Layer]) -> str:
    if index is not None:
        return f"there is no layer {text}: the model has {len(layers)}, 0 to {len(layers) - 1}"
    return f"there is no layer {text!r}"


def _hint(text: str, layers: Sequence[Layer], graph: Graph) -> str:
    near = nearest(text, [layer.tensor for layer in layers]) or nearest(text, graph.tensors)
    return near or "`inspector layers` lists them"

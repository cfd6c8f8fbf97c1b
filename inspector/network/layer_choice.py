"""Default target layer and why; the layer that a user names.

Layer methods explain through one layer.  Unless told otherwise it is the last one that keeps
space (Selvaraju et al. 2017, section 3).
"""

from collections.abc import Mapping, Sequence

from converters.graph import Graph
from inspector.errors import ModelRefused, UnknownLayer, nearest
from inspector.network.layers import Layer, axis_ahead, channel_axes

__all__ = ["default_layer", "select_layer"]


def default_layer(
    layers: Sequence[Layer], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Layer, str]:
    """Layer that layer methods explain through unless told otherwise.

    It is the last one whose map is larger than 1x1 and that the scores depend on; the
    convolutions of squeeze-excite and attention gates do not count (Selvaraju et al. 2017,
    section 3: the last convolutional layer keeps the space that the classifier loses).

    Args:
        layers: As :func:`find_layers` lists them.
        shapes: Concrete shapes (N, C, h, w), measured by a forward pass.

    Returns:
        The layer, and a sentence for the user why it is this one.

    Raises:
        ModelRefused: No layer has a map larger than 1x1.
    """
    maps = [layer for layer in layers if not layer.gate and _is_map(shapes.get(layer.tensor))]
    chosen = next((layer for layer in reversed(maps) if layer.on_path), None)
    if chosen is None and not maps:
        raise ModelRefused(
            f"none of its {len(layers)} convolution layers has a map larger than 1x1",
            hint="layer methods need one; gradient and occlusion do not",
        )
    layer = chosen or maps[-1]
    shape = shapes[layer.tensor]
    what = "join of branches" if layer.chain[:1] == ("Concat",) else "convolution"
    done = ", ".join(layer.chain[1:])
    reason = (
        f"the last {what} whose map is larger than 1x1: {shape[1]} maps of {shape[2]}x{shape[3]}"
        + (f", taken after {done}" if done else "")
    )
    if layer.attended:
        reason += "; attention behind it moves evidence between places, so a map may mislead"
    if chosen is None:
        reason += "; the scores do not lie behind any layer, so it may say little about them"
    return layer, reason


def _is_map(shape: Sequence[int] | None) -> bool:
    return shape is not None and len(shape) == 4 and shape[2] * shape[3] > 1


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
        return default_layer(layers, shapes)[0]
    index = int(text) if text.lstrip("-").isdecimal() else None
    if index is not None and -len(layers) <= index < len(layers):
        return layers[index]
    inside = [a for a in layers if a.module and f"{a.module}.".startswith(f"{text}.")]
    if inside and isinstance(spec, str):
        return inside[-1]
    known = text in graph.inputs or graph.producer(text) is not None
    if not known or isinstance(spec, int):
        raise UnknownLayer(_unknown(text, index, layers), hint=_hint(text, layers, graph))
    shape = shapes.get(text)
    if shape is None or len(shape) != 4:
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

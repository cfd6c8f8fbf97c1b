"""Layers of a network: the tensors that a user can choose to explain through.

A layer is a named tensor: what a convolution has become once its normalisation, residual
addition and activation function are done, before any pooling.

    Conv ─ BatchNormalization ─ Add ─ Relu ─┬─ Conv        one Layer, tensor = output of the Relu
                   other branch ─┘          └─ Add

Two conventions the papers leave open:

* Where branches are joined over channels (Inception, SqueezeNet, DenseNet), a branch is one layer
  and the ``Concat``, with the normalisation and activation behind it, is another.  So the default
  of GoogLeNet is the whole last block, that of DenseNet the last normalisation and ReLU, and no
  single branch of it.
* Two convolutions that end in one tensor (the last of a residual branch, and the projection on its
  shortcut) are one layer, named for the convolution with more convolutions before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from converters.graph import Graph, Node
from converters.graph.activations import Activation, data_nodes, find_activations
from converters.graph.operators import facts, facts_of
from inspector.network.classifier.scores import find_scores
from inspector.network.quantisation.levels import copies_of
from inspector.network.space import space_axes

__all__ = [
    "Layer",
    "axis_ahead",
    "channel_axes",
    "find_layers",
]


@dataclass(frozen=True)
class Layer:
    """One layer: a tensor (N, C, h, w) that a user can choose.

    Attributes:
        tensor: Its name; after normalisation, residual addition and activation function.
        convolution: Output of the convolution itself, before what follows.
        index: Position among all layers, in the order of the network.
        chain: What lies between, as operator types and kinds of activations, the convolution
            (or ``Concat``) first.
        gate: It reaches the outputs through gates only (squeeze-excite, spatial attention).
        on_path: The scores depend on the tensor, and are not the tensor itself.
        attended: Self-attention mixes its places behind it (a patch embedding).
        module: Path of the module that makes the tensor, such as ``layer4.1``, where the exporter
            says it; empty otherwise.
    """

    tensor: str
    convolution: str
    index: int
    chain: tuple[str, ...] = ()
    gate: bool = False
    on_path: bool = True
    attended: bool = False
    module: str = ""


def find_layers(graph: Graph) -> tuple[Layer, ...]:
    """List the layers of a network, first to last; empty when it has no convolution."""
    return _Finder(graph).layers()


def channel_axes(graph: Graph) -> dict[str, int]:
    """Axis of the channels, 1 or the last, of every tensor that is a map of features."""
    return {name: mapped.axis for name, mapped in _maps(graph).items()}


def axis_ahead(graph: Graph, tensor: str) -> int | None:
    """Axis of the channels, 1 or the last, as the first convolution behind a tensor reads them."""
    waiting, seen = [tensor], {tensor}
    while waiting:
        name = waiting.pop()
        for node in graph.consumers(name):
            if _is_convolution(graph, node) and node.inputs[0] == name:
                return _channels_of(graph, node)
            if facts(node).keeps_axes and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return None


# -- where maps of features are -----------------------------------------------------------------


@dataclass(frozen=True)
class _Map:
    axis: int  # of the channels, 1 or the last
    origin: str  # output of the convolution it comes from
    depth: int  # convolutions before it, on the longest way


def _is_convolution(graph: Graph, node: Node) -> bool:
    known = facts(node)
    if not known.convolves or known.weights is None:
        return False
    stored = graph.initialiser(node.inputs[known.weights])
    return stored is None or len(stored.dims) == space_axes(graph) + 2


def _channels_of(graph: Graph, convolution: Node) -> int:
    """Axis of the channels of what a convolution makes."""
    return space_axes(graph) + 1 if facts(convolution).channels_last else 1


def _pointwise(graph: Graph, node: Node, maps: Mapping[str, _Map]) -> bool:
    """Whether a MatMul over the last axis of an NHWC map is a 1x1 convolution (ConvNeXt)."""
    last = space_axes(graph) + 1
    if not node.is_op("MatMul") or node.inputs[0] not in maps or maps[node.inputs[0]].axis != last:
        return False
    weight = graph.constant(node.inputs[1])
    return weight is not None and weight.ndim == 2


_FOUND: WeakKeyDictionary[Graph, dict[str, _Map]] = WeakKeyDictionary()


def _maps(graph: Graph) -> Mapping[str, _Map]:
    """Tensors that are maps of features; looked for once per graph."""
    if graph not in _FOUND:
        _FOUND[graph] = _find_maps(graph, find_activations(graph))
    return _FOUND[graph]


def _find_maps(graph: Graph, activations: Sequence[Activation]) -> dict[str, _Map]:
    found: dict[str, _Map] = {}
    active = {node.index for activation in activations for node in activation.nodes}
    last = space_axes(graph) + 1
    to_last, to_first = [0, *range(2, last + 1), 1], [0, last, *range(1, last)]
    for node in data_nodes(graph):
        before = [found[name] for name in node.inputs if name in found]
        deepest = max(before, key=lambda m: m.depth, default=_Map(1, "", 0))
        if _is_convolution(graph, node):
            found[node.outputs[0]] = _Map(
                _channels_of(graph, node), node.outputs[0], deepest.depth + 1
            )
        elif _pointwise(graph, node, found):
            found[node.outputs[0]] = _Map(last, node.outputs[0], deepest.depth + 1)
        elif before and node.is_op("Transpose"):
            order = node.attributes.get("perm")
            if (deepest.axis, order) in ((1, to_last), (last, to_first)):
                found[node.outputs[0]] = replace(deepest, axis=last + 1 - deepest.axis)
        elif before and (facts(node).keeps_axes or node.index in active):
            found.update((name, deepest) for name in node.outputs if name)
        elif deepest.axis == 1 and _group_normalisation(graph, node) is not None:
            normalised = _group_normalisation(graph, node)
            found[normalised or ""] = deepest
    return found


def _group_normalisation(graph: Graph, node: Node) -> str | None:
    """Output of Reshape, InstanceNormalization, Reshape, which is how GroupNorm is exported."""
    if not node.is_op("Reshape"):
        return None
    for op_type in ("InstanceNormalization", "Reshape"):
        users = graph.consumers(node.outputs[0])
        if len(users) != 1 or not users[0].is_op(op_type):
            return None
        node = users[0]
    return node.outputs[0]


# -- from a convolution to the end of its layer --------------------------------------------------


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = data_nodes(graph)
        self.rank = space_axes(graph) + 2
        self.carried = {*graph.inputs, *(n for node in self.nodes for n in node.outputs)}
        activations = find_activations(graph)
        self.maps = _maps(graph)
        self.activation = {found.input: found for found in activations if not found.fused}
        self.gates = [found for found in activations if found.gate]
        self.cut = self._true_gates()

    def layers(self) -> tuple[Layer, ...]:
        by_tensor: dict[str, Layer] = {}
        for start in self._starts():
            layer = self._follow(start.outputs[0], self.maps[start.outputs[0]].origin)
            if layer is None:
                continue
            rival = by_tensor.get(layer.tensor)
            if rival is None or self._depth(layer) >= self._depth(rival):
                by_tensor[layer.tensor] = layer
        if not by_tensor:
            return ()
        order = {name: node.index for node in self.nodes for name in node.outputs}
        path = self._ancestors([find_scores(self.graph).tensor], cut=())
        attention = [gate.input for gate in self.gates if gate.kind == "Softmax"]
        attended = self._ancestors(attention, cut=())
        ungated = self._ancestors([*self.graph.outputs], cut=self.cut)
        outputs = self.graph.outputs
        ordered = sorted(by_tensor.values(), key=lambda layer: order[layer.tensor])
        return tuple(
            replace(
                layer,
                index=index,
                on_path=layer.tensor in path,
                attended=layer.tensor in attended and layer.tensor in path,
                gate=layer.gate or not (layer.tensor in ungated or layer.tensor in outputs),
                module=self._module(layer.tensor),
            )
            for index, layer in enumerate(ordered)
        )

    def _module(self, tensor: str) -> str:
        made = self.graph.producer(tensor)
        return "" if made is None else made.module

    def _starts(self) -> Iterator[Node]:
        for node in self.nodes:
            known = self.maps.get(node.outputs[0])
            if known is None:
                continue
            joins = (
                node.is_op("Concat") and node.attributes.get("axis", 1) % self.rank == known.axis
            )
            if known.origin == node.outputs[0] or (
                joins and all(name in self.maps for name in node.inputs)
            ):
                yield node

    def _depth(self, layer: Layer) -> int:
        return self.maps[layer.convolution].depth

    def _true_gates(self) -> tuple[str, ...]:
        """Outputs of gates that weigh a map; two that multiply each other are not gates.

        A detector's objectness times its class probability, a gated tanh unit.
        """
        weighed: dict[int, list[Activation]] = {}
        for gate in self.gates:
            for node in gate.products:
                weighed.setdefault(node.index, []).append(gate)
        mutual = {g.output for gates in weighed.values() if len(gates) > 1 for g in gates}
        return tuple(gate.output for gate in self.gates if gate.output not in mutual)

    def _ancestors(self, tensors: list[str], cut: Sequence[str]) -> set[str]:
        """Tensors that others are computed from (themselves left out), not through ``cut``."""
        before = self.graph.nodes_before(tensors, cut=cut)
        return {name for node in before for name in self.graph.reads(node) if name}

    def _follow(self, tensor: str, origin: str) -> Layer | None:
        """Walk on from a convolution as long as there is one way to go."""
        maker = self.graph.producer(tensor)
        chain = [maker.op_type if maker is not None else "Conv"]
        if maker is not None and maker.attributes.get("activation"):
            chain.append(str(maker.attributes["activation"]))
        best, length, gate = "", 1, False
        while True:
            carried, users = self._behind(tensor)
            if self.maps.get(tensor, _Map(1, "", 0)).axis == 1:
                best, length = self._readable(tensor, carried), len(chain)
            step = self._step(carried, users)
            if step is None:
                break
            tensor, name, gate = step
            if gate:
                break
            chain += [name] if name else []
        return Layer(best, origin, 0, tuple(chain[:length]), gate=gate) if best else None

    def _behind(self, tensor: str) -> tuple[list[str], list[Node]]:
        """Tensors that carry the same values, and the nodes that do something with them."""
        carried, users = [tensor], {}
        for name in carried:
            for user in self.graph.consumers(name):
                if facts(user).carries and user.inputs[0] == name:
                    carried.append(user.outputs[0])
                elif not user.is_op("Shape", "Size"):
                    users[user.index] = user
        return carried, list(users.values())

    def _readable(self, tensor: str, carried: Sequence[str]) -> str:
        """Where values are read in a quantised model: behind its DequantizeLinear.

        Before it a fused ReLU has not acted yet.  Where each consumer has a DequantizeLinear of
        its own, they hold the same values and the first one stands for all of them (whoever
        asks for its tail starts from all: ``copies_of``).  A tensor that others read as it is,
        or that is quantised in several ways, is read before it is quantised.
        """
        makers = [(name, self.graph.producer(name)) for name in carried[1:]]
        float_again = [name for name, made in makers if made and made.is_op("DequantizeLinear")]
        if not float_again:
            return tensor
        copies = copies_of(self.graph, float_again[0])
        behind = set(float_again)
        for name in carried:  # in order, so that what carries on behind a copy is met after it
            made = self.graph.producer(name)
            if made is not None and made.inputs and made.inputs[0] in behind:
                behind.add(name)
        others = [name for name in carried if name not in behind]
        leaves = any(not facts(u).carries for n in others for u in self.graph.consumers(n))
        return tensor if leaves or not set(float_again) <= set(copies) else copies[0]

    def _step(self, carried: Sequence[str], users: Sequence[Node]) -> tuple[str, str, bool] | None:
        """Next tensor, the name of what led there, and whether that was a gate; None at the end."""
        for name in carried:
            found = self.activation.get(name)
            inside = found is not None and all(user in found.nodes for user in users)
            if found is not None and inside and not facts_of("", found.kind).softmax:
                return found.output, found.kind, found.output in self.cut
        gated = self._gated(carried, users)
        if gated is not None:
            return gated.outputs[0], "Mul", False
        step = self._only_way(users[0]) if len(users) == 1 else None
        return None if step is None else (*step, False)

    def _only_way(self, node: Node) -> tuple[str, str] | None:
        """Output and name of a single consumer that still belongs to the layer."""
        output = node.outputs[0]
        known = facts(node)
        if known.sums:
            return output, "Add"
        if known.normalises in {"constants", "statistics"} or self._is_affine(node):
            return output, node.op_type
        if node.is_op("Transpose") and output in self.maps:
            return output, ""
        normalised = _group_normalisation(self.graph, node)
        return None if normalised is None else (normalised, "GroupNormalization")

    def _is_affine(self, node: Node) -> bool:
        if not facts(node).arithmetic:
            return False
        others = [name for name in node.inputs if name in self.carried and name not in self.maps]
        computed = [name for name in node.inputs if name in self.carried]
        # Dynamic quantisation multiplies by a scale that is computed, but is one number.
        return len(computed) == 1 or (
            node.is_op("Mul") and len(others) == 1 and self._is_dynamic_scale(others[0])
        )

    def _is_dynamic_scale(self, tensor: str) -> bool:
        for _ in range(3):
            maker = self.graph.producer(tensor)
            if maker is None or maker.is_op("DynamicQuantizeLinear"):
                return maker is not None
            tensor = next((n for n in maker.inputs if n in self.carried), "")
        return False

    def _gated(self, carried: Sequence[str], users: Sequence[Node]) -> Node | None:
        """The product of a map with a gate that is computed from nothing but this map."""
        gated = {node.index: gate for gate in self.gates for node in gate.products}
        products = [user for user in users if user.is_op("Mul") and user.index in gated]
        if len(products) != 1 or len(users) < 2:
            return None
        gate = gated[products[0].index]
        inside = {node.index for node in gate.nodes}
        frontier = [gate.input]
        while frontier:
            name = frontier.pop()
            maker = None if name in carried else self.graph.producer(name)
            if maker is not None and maker.index not in inside:
                inside.add(maker.index)
                frontier += [n for n in maker.inputs if n in self.carried]
        rest = [user for user in users if user.index != products[0].index]
        return products[0] if all(user.index in inside for user in rest) else None

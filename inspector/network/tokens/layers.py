"""Layers of a transformer: what each self-attention takes, proved to be a grid of places."""

from collections.abc import Callable, Sequence
from functools import cached_property

from converters.graph import Graph
from converters.plain_values import whole_number
from inspector.errors import MethodRefused, ModelRefused, UnknownLayer
from inspector.network.form import Form
from inspector.network.layers import Layer
from inspector.network.tail import depends_on
from inspector.network.tokens.attention import attended_tensors

__all__ = ["TokenLayers"]


class TokenLayers:
    """Layers of tokens of one network.

    Args:
        graph: The network.
        maps: Its layers of maps, as :func:`find_layers` lists them.
        form: The form of a tensor, from its traced places; refuses what forms no grid.
    """

    def __init__(
        self, graph: Graph, maps: Sequence[Layer], form: Callable[[str], Form | None]
    ) -> None:
        """Trace nothing yet."""
        self._graph, self._maps, self._form = graph, maps, form

    @cached_property
    def attended(self) -> tuple[tuple[str, ...], ...]:
        """What each self-attention takes, and what that is moved from; by the graph alone."""
        return attended_tensors(self._graph)

    @cached_property
    def every(self) -> tuple[Layer, ...]:
        """Layers in graph order, numbered on from those of maps."""
        known = {layer.tensor for layer in self._maps}
        found = dict.fromkeys(filter(None, map(self._proved, self.attended)))
        names = [name for name in found if name not in known]
        return tuple(self.layer(name, len(self._maps) + i) for i, name in enumerate(names))

    def layer(self, tensor: str, index: int = -1) -> Layer:
        """A tensor as a layer."""
        made = self._graph.producer(tensor)
        chain, module = ((), "") if made is None else ((made.op_type,), made.module)
        return Layer(tensor, tensor, index, chain, attended=True, module=module)

    def is_grid(self, tensor: str) -> bool:
        """Whether a tensor is a grid of tokens, or a map (N, h, w, C) that only its places prove.

        Raises:
            MethodRefused: It has three axes, and its tokens form no grid that can be proved.
        """
        form = self._form(tensor)
        return form is not None and (form.tokens is not None or form.axis == 3)

    def last_before(self, targets: Sequence[str], maps: Sequence[Layer]) -> Layer | None:
        """What the last self-attention before a target takes, if no layer of a map lies behind.

        Args:
            targets: Tensor that the target is an element of, or those that a sum is read from.
            maps: Layers of maps that a walk back from the target meets first.
        """
        to_targets = [depends_on(self._graph, target) for target in targets]
        to_maps = [depends_on(self._graph, one.tensor) for one in maps]
        for chain in reversed(self.attended):
            if not all(depends(chain[0]) for depends in to_targets):
                continue
            if any(depends(chain[-1]) for depends in to_maps):
                return None
            name = self._proved(chain)
            if name is not None:
                return self.layer(name)
        return None

    def named(self, spec: str | int) -> Layer | None:
        """A layer of tokens by its number, the path of a module or its name; None if it is none.

        Raises:
            UnknownLayer: A tensor (N, T, C) whose tokens form no grid that can be proved.
        """
        text = str(spec).strip()
        if any(layer.tensor == text for layer in self._maps):
            return None
        index = whole_number(text)
        if index is not None and self.attended:
            layers = (*self._maps, *self.every)
            if -len(layers) <= index < len(layers):
                return layers[index]
        if text in self._graph.tensors:
            try:
                return self.layer(text) if self.is_grid(text) else None
            except MethodRefused as error:
                raise UnknownLayer(f"tensor {text!r}: {error.what}", hint=error.hint) from error
        if not text or not self.attended:
            return None
        inside = [one for one in self.every if f"{one.module}.".startswith(f"{text}.")]
        return inside[-1] if inside else None

    def reason(self, layer: Layer, shape: Sequence[int]) -> str:
        """Why a layer of tokens is the default, for the user.

        Args:
            layer: The layer.
            shape: Of its tensor, batch axis included.
        """
        form = self._form(layer.tensor)
        behind = f", behind {layer.chain[0]}" if layer.chain else ""
        what = f"what the last self-attention takes{behind}: "
        tokens = None if form is None else form.tokens
        if tokens is None:
            return f"{what}{shape[3]} maps of {shape[1]}x{shape[2]}, channels last"
        height, width = tokens.grid
        extra = f", {tokens.extra} extra left out" if tokens.extra else ""
        grid = f"tokens on a grid of {height}x{width}{extra}"
        return f"{what}{tokens.channels(shape)} channels of {grid}"

    def _proved(self, chain: Sequence[str]) -> str | None:
        """The tensor of a chain that is proved to be a grid of places, least moved about."""
        for name in reversed(chain):
            try:
                if self.is_grid(name):
                    return name
            except (MethodRefused, ModelRefused):
                continue
        return None

"""The facts of one ONNX file, and its two ways to run: forwards and backwards."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph.activations import data_nodes
from converters.onnx_file import OnnxFile
from inspector.engines import GradientEngine, require_torch
from inspector.engines.branches import with_known_branches
from inspector.engines.execution import USUAL, Execution
from inspector.engines.forward import FREE_SIZE, Arrays, ForwardPasses
from inspector.engines.independence import trains
from inspector.engines.input_sizes import runs_with_size
from inspector.engines.runtime import Runtime
from inspector.engines.samples import as_sample, rows, shape_of
from inspector.errors import (
    ConverterError,
    InspectorError,
    LimitExceeded,
    ModelRefused,
    UsageError,
)
from inspector.network.classifier.global_pooling import pooling_ends
from inspector.network.classifier.head import LinearHead, NoHead, find_head
from inspector.network.coordinates.lattice import Lattice, trace
from inspector.network.coordinates.placement import Placement, Tracer
from inspector.network.coordinates.units import Placed
from inspector.network.form import Form, Forms
from inspector.network.inputs.choice import Feeds, image_without_samples, read_feeds
from inspector.network.inputs.image import find_image_input
from inspector.network.inputs.sizes import lengths_to_try, sizes_to_try
from inspector.network.layers import Layer, find_layers
from inspector.network.outputs.class_evidence import class_evidence
from inspector.network.outputs.labels import Labels, labels_from_metadata
from inspector.network.quantisation.levels import copies_of
from inspector.network.quantisation.lost_activations import Suspicion, lost_activations
from inspector.network.receptive_fields.receptive_field import needed_shapes
from inspector.network.shapes import Shapes
from inspector.network.tail import Tail, tail_of
from inspector.network.tokens.attention import attention_weights
from inspector.network.tokens.grid import channels_last, tokens_of
from inspector.surgery.inputs import bind_inputs, with_sample_axis
from inspector.target import Scores, find_scores, is_doubtful

if TYPE_CHECKING:
    from inspector.engines.gradient_graph import GradientGraph
    from inspector.engines.twin import TwinEngine

__all__ = ["ENGINES", "Model"]

ENGINES = ("auto", "onnx", "twin")
"""Ways to run a network backwards; see ``Model.gradient_engine``."""

LONG = 3000
"""Nodes of a network that nobody trains; ONNX Runtime's optimiser is slower than linear in them."""


class Model(ForwardPasses):
    """One opened model.

    Args:
        file: From ``converters.onnx_file.read``.
        device: ``auto``, ``cpu`` or ``cuda``; see ``Runtime``.
        feed: Constants for the inputs that are not the image; see ``read_feeds``.
        execution: How ONNX Runtime runs it, where that is not the usual way.
        engine: One of ``ENGINES``; see ``gradient_engine``.

    Raises:
        UsageError: There is no such engine.

    Attributes:
        file: The file: what was fed is a constant in it, an image without an axis of samples has
            one, and a branch that every image takes stands for its ``If``.
        constants: What was fed, by the name of the input.
    """

    def __init__(
        self,
        file: OnnxFile,
        *,
        device: str = "auto",
        feed: Feeds = (),
        execution: Execution = USUAL,
        engine: str = "auto",
    ) -> None:
        if engine not in ENGINES:
            raise UsageError(f"no such engine: {engine!r}", hint="one of " + ", ".join(ENGINES))
        self.engine = engine
        self.constants = read_feeds(feed, file.graph)
        if self.constants:
            file = bind_inputs(file, self.constants)
        if bare := image_without_samples(file.graph):
            file = with_sample_axis(file, bare)
        file = self.file = with_known_branches(file, FREE_SIZE)
        self.device, image = device, find_image_input(file.graph)
        # A training-mode normalisation writes into its running statistics; where optimisation has
        # merged equal constants that changes the network while it runs.
        self.execution = execution
        runtime = Runtime(
            file,
            device=device,
            threads=execution.threads,
            optimise=execution.optimise and not trains(file.graph),
            provider=execution.provider,
        )
        super().__init__(file.graph, image, runtime)
        self._probed: Arrays = {}  # tensors of the probe image
        self._tails: dict[tuple[str, str], Tail] = {}
        self._shapes: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {}
        self._tracers: dict[tuple[int, int], Tracer] = {}

    @property
    def path(self) -> Path:
        """Where the model was read from."""
        return self.file.path

    @cached_property
    def scores(self) -> Scores:
        """The classifier's scores before softmax or sigmoid.

        Where the file leaves open whether an output has one row per image, or declares more than
        two axes, one forward pass decides.
        """
        found = find_scores(self.graph)
        if is_doubtful(found, self.input.batch):
            asked = [found.output] if found.classifier else [value.name for value in found.outputs]
            try:
                shapes = {name: shape_of(v) for name, v in self._measure(asked).items()}
            except (ConverterError, InspectorError):
                shapes = {}
            shapes |= {n: shapes[n][1:] for n in self._unbatched.intersection(shapes)}
            found = find_scores(self.graph, shapes) if shapes else found
        if found.classifier and not found.classifies:
            said = class_evidence(found, self.file.metadata, self.path.name)
            found = replace(found, classifies=bool(said))
        return replace(found, measure=self._measure)

    def _measure(self, names: Sequence[str]) -> Arrays:
        """Tensors of one image of smooth noise, (1, ...); each computed once."""
        missing = [name for name in names if name not in self._probed]
        if missing:
            self._probed |= self._measured_once(self._noise(0), missing)
        return {name: self._probed[name] for name in names}

    def _measured_once(self, image: np.ndarray[Any, Any], names: Sequence[str]) -> Arrays:
        """As ``forward``; of networks so long that optimising them takes minutes, as they stand."""
        if self._plain is None:
            return self.forward(image, names)
        # With all that shapes are measured of: loading it twice takes longer than all the rest.
        self._plain.prepare([*names, *(n for n in self._measured if n in self.graph.tensors)])
        found = self._plain.run(self.feeds(self._fill(self.input.arrange(image))), names)
        return {
            name: value[:1] if rows(value) else as_sample(value) for name, value in found.items()
        }

    @cached_property
    def _plain(self) -> Runtime | None:
        """A long network as it stands, loaded once for all that is measured; None for others."""
        if len(data_nodes(self.graph)) <= LONG:
            return None
        return Runtime(self.file, device="cpu", optimise=False, once=True)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The convolutional layers, in graph order."""
        return find_layers(self.graph)

    @cached_property
    def forms(self) -> Forms:
        """How the network holds its tensors: channel axis and levels."""
        return Forms(self.graph)

    @cached_property
    def attention(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Weights of every self-attention, and nodes that keep theirs to themselves."""
        return attention_weights(self.graph)

    @cached_property
    def suspicions(self) -> tuple[Suspicion, ...]:
        """Quantisers behind which an activation function seems to be missing."""
        return lost_activations(self.graph)

    @cached_property
    def labels(self) -> Labels:
        """Class labels that the file itself carries."""
        return labels_from_metadata(self.file.metadata, self.graph)

    @cached_property
    def head(self) -> LinearHead | NoHead:
        """The linear head behind the last pooling, or the node that rules CAM out."""
        found = find_head(self.graph, self.scores)
        if isinstance(found, LinearHead):
            return found
        # A pooling window proves to cover the map only where the map's size is known; that
        # costs a forward pass, so it is asked second.
        return find_head(self.graph, self.scores, shapes=self.shapes())

    @property
    def gradient_engine(self) -> "GradientEngine":
        """Backward passes of the network.

        ``twin`` runs them in PyTorch, ``onnx`` as ONNX operators in ONNX Runtime; ``auto`` as
        ``onnx`` does, and in PyTorch where an operator or a rule is not covered there.
        """
        if self.engine == "twin":
            return self.twin_engine
        return self.gradient_graph if self.engine == "onnx" else self._either_engine

    @cached_property
    def twin_engine(self) -> "TwinEngine":
        """Backward passes in PyTorch; importing torch happens here."""
        require_torch()
        from inspector.engines.twin import TwinEngine

        return TwinEngine(self.graph, device=self.device)

    @cached_property
    def gradient_graph(self) -> "GradientGraph":
        """Backward passes in ONNX Runtime."""
        from inspector.engines.gradient_graph import GradientGraph

        return GradientGraph(self.file, device=self.device)

    @cached_property
    def _either_engine(self) -> "GradientEngine":
        from inspector.engines.either import EitherEngine

        return EitherEngine(self.gradient_graph, lambda: self.twin_engine)

    def tail(self, start: str, target: str) -> Tail:
        """The part of the network between a tensor (with its copies) and a target; found once."""
        if (start, target) not in self._tails:
            self._tails[start, target] = tail_of(self.graph, copies_of(self.graph, start), target)
        return self._tails[start, target]

    def workable_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """A size that the network runs with, where the file leaves one free.

        Args:
            size: Height and width to try first.

        Returns:
            The size itself, if the network runs with it or with none of those in use; else one
            that fits its position embedding, else the nearest in use.
        """
        at = self.size(*size)
        with suppress(ModelRefused):
            self.shapes(at)
            return at
        if self.input.space == 1:
            others = [(1, length) for length in dict.fromkeys(lengths_to_try(self.graph))]
        else:
            others = sizes_to_try(self.graph, at, (self.input.height, self.input.width))
        runs = runs_with_size(self.file, list(self.graph.outputs), self._blank_feeds)
        return next(filter(runs, others), at) if runs is not None else at

    def placement(self, tensor: str, size: tuple[int, int]) -> Placement | None:
        """Where the cells of a layer lie on the input; traced once per size.

        Args:
            tensor: The layer.
            size: Height and width of the input.

        Returns:
            None where its grid is stretched over the whole input as usual.

        Raises:
            MethodRefused: The cells have no place that fits, or none that is known.
        """
        if self.input.space != 2:
            return None
        form, copies = self.form(tensor, size), self._copies(tensor)
        return self.tracer(size).placement(
            tensor,
            channel=form.axis,
            folded=self.folds(tensor) and form.tokens is None,
            tokens=form.tokens,
            own=None if copies is None else copies.first,
        )

    def lattice(self, tensor: str, size: tuple[int, int], cells: Sequence[int]) -> Lattice | None:
        """Where the cells of a layer lie on a signal or a volume; None on a picture.

        Args:
            tensor: The layer.
            size: Height and width of the input as a plane.
            cells: Places of the layer along its axes of space.

        Raises:
            MethodRefused: It is not known.
        """
        if self.input.space == 2:
            return None
        sizes = self.input.sizes(size)
        shapes = self.shapes(size)
        return trace(
            self.graph,
            self.input.name,
            tensor,
            shapes,
            sizes=sizes,
            cells=cells,
            last=self.input.layout == "NHWC",
        )

    def form(self, tensor: str, size: tuple[int, int]) -> Form:
        """How the network holds a layer: as a map with channels first or last, or as tokens.

        Args:
            tensor: The layer.
            size: Height and width of the input, for which its places are traced.

        Raises:
            MethodRefused: It is a tensor (N, T, C) whose tokens form no grid that can be proved.
        """
        found = self.forms.of(tensor)
        if self.forms.is_map(tensor) or self.input.space != 2:
            return found
        state = self.tracer(size).state(tensor)
        if self.folds(tensor):  # parts of one image are its rows: maps, or tokens laid first
            first = isinstance(state, Placed) and len(state.shape) == 3 and state.shape[1] == 1
            return replace(found, tokens=tokens_of(state, tensor)) if first else found
        if channels_last(state):
            return replace(found, axis=3)
        rank = len(state.shape) if isinstance(state, Placed) else self._rank(tensor, size)
        return replace(found, tokens=tokens_of(state, tensor)) if rank == 3 else found

    def _rank(self, tensor: str, size: tuple[int, int]) -> int | None:
        """Number of axes of a tensor, as far as it is known without another pass."""
        known = Shapes(self.graph, self.shapes(size)).of(tensor)
        return None if known is None else len(known)

    def tracer(self, size: tuple[int, int]) -> Tracer:
        """What traces the places of tensors for an input of one size."""
        if size not in self._tracers:
            self._tracers[size] = Tracer(
                self.graph,
                self.input.name,
                size,
                lambda: self.shapes(size),
                channels_last=self.input.layout == "NHWC",
                batch=self.input.batch or 1,
            )
        return self._tracers[size]

    def shapes(self, size: tuple[int, int] | None = None) -> Mapping[str, tuple[int, ...]]:
        """Concrete shape of every layer, measured by one forward pass of a blank image.

        Args:
            size: Input height and width; where the model fixes them, its own are used.

        Returns:
            Shapes by tensor name, batch axis included (N = 1).
        """
        at = self.size(*(size or (None, None)))
        if at not in self._shapes:
            names = [tensor for tensor in self._measured if tensor in self.graph.tensors]
            try:
                self._shapes[at] = self._shapes_of(names, self._blank_feeds(at))
            except ModelRefused as error:
                raise self._at_size(error, at) from error
            self._shapes[at][self.input.name] = self._blank(at).shape
        return self._shapes[at]

    def _blank_feeds(self, size: tuple[int, int]) -> Arrays:
        return self.feeds(self._fill(self._blank(size)))

    def _blank(self, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        return self.input.arrange(np.zeros((1, self.input.channels, *size), dtype=np.float32))

    def _shapes_of(self, names: Sequence[str], feeds: Arrays) -> dict[str, tuple[int, ...]]:
        """Shapes of tensors by one pass, or by several where memory does not hold them at once."""
        # A runtime of its own: exposing every layer would slow the kept session down.
        probe = self._plain or Runtime(self.file, device="cpu", optimise=False, once=True)
        try:
            return {name: shape_of(v) for name, v in probe.run(feeds, names).items()}
        except LimitExceeded:
            if len(names) < 2:
                raise
        del probe
        self._plain = None
        half = len(names) // 2
        return self._shapes_of(names[:half], feeds) | self._shapes_of(names[half:], feeds)

    @cached_property
    def _measured(self) -> tuple[str, ...]:
        """Tensors whose shapes layers, head and receptive fields reason on."""
        layers = [name for layer in self.layers for name in (layer.tensor, layer.convolution)]
        poolings = pooling_ends(self.graph)
        found = [*layers, *poolings, self.scores.tensor, *needed_shapes(self.graph)]
        return tuple(name for name in dict.fromkeys(found) if self.graph.constant(name) is None)

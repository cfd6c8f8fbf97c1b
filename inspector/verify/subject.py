"""The model under test: its reference, its twins in both precisions, its target and its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from converters.errors import ConverterError
from converters.graph import Node
from inspector.engines.rules import is_rectifier
from inspector.engines.runtime import Runtime
from inspector.model import Model
from inspector.network.outputs.score_tensors import candidates
from inspector.network.quantisation.levels import is_quantised
from inspector.photos.preprocess_guess import SIGNED_BYTE
from inspector.target import Sampled, Target

if TYPE_CHECKING:
    from torch import Tensor

    from converters.to_torch.program import Program
    from inspector.engines import GradientEngine
    from inspector.engines.twin import TwinEngine
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["Probe", "Subject", "blank", "noise"]

Array = np.ndarray[Any, Any]

SEED = 20140901
"""Of the random inputs and directions; fixed, so that a certificate can be made again."""

_NARROW = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}


@dataclass(frozen=True, eq=False)
class Probe:
    """One input.

    Attributes:
        name: As it is shown.
        image: (1, C, H, W), preprocessed.
        facts: What identifies it beyond the name.
    """

    name: str
    image: Array
    facts: Mapping[str, Any] = field(default_factory=dict)


def noise(
    model: Model,
    preprocess: "Preprocess | None" = None,
    *,
    seed: int = SEED,
    contrast: float = 1.0,
    name: str = "noise",
) -> Probe:
    """A random picture with the long correlations of photographs, preprocessed like one.

    Args:
        model: The model.
        preprocess: Its preprocessing; without one, values of mean 0 and deviation 1 (whole
            numbers around 128, or 0 for int8, where the model takes whole numbers).
        seed: Of the random numbers.
        contrast: Its deviation, as a multiple of a fifth of the pixels' range.
        name: As it is shown.
    """
    rng = np.random.default_rng(seed)
    height, width = model.size(*(preprocess.size if preprocess else (None, None)))
    # Coarse and fine grain: a picture of white noise alone is nearly grey to a deep network.
    planes = np.zeros((height, width, 3))
    for grain in (1, 4, 16, 64):
        coarse = rng.standard_normal((-(-height // grain), -(-width // grain), 3))
        planes += coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]
    planes *= contrast / planes.std()
    if preprocess is None or preprocess.bands:
        middle = 0 if model.input.bounds == SIGNED_BYTE else 128
        planes = planes * 50 + middle if model.input.integer else planes
        channels = np.resize(np.arange(3), model.input.channels)
        image: Array = planes.transpose(2, 0, 1)[channels].astype(np.float32)
    else:
        pixels = np.clip(planes * 50 + 128, 0, 255).astype(np.uint8).astype(np.float32)
        encoded = [preprocess.encode((level,) * 3) for level in (0.0, 255.0)]
        low, high = (np.asarray(e, dtype=np.float64).reshape(-1, 1, 1) for e in encoded)
        channels = np.resize(np.arange(3), model.input.channels)
        image = low + (high - low) * pixels.transpose(2, 0, 1)[channels] / 255
    return Probe(name, image.astype(np.float32)[None], {"seed": seed})


def blank(model: Model, preprocess: "Preprocess | None" = None) -> Probe:
    """A picture of one grey: mid-grey pixels, or zeros where no preprocessing is known."""
    height, width = model.size(*(preprocess.size if preprocess else (None, None)))
    image: Array = np.zeros((1, model.input.channels, height, width), dtype=np.float32)
    if preprocess is not None and not preprocess.bands:
        image += np.asarray(preprocess.encode((127.0,) * 3)).reshape(1, -1, 1, 1)
    return Probe("blank", image)


class Subject:
    """A model with everything that checks ask of it.

    Args:
        model: The opened model.
        engine: The gradient engine under test; the twin when None.

    Attributes:
        engine: The gradient engine under test.
    """

    def __init__(self, model: Model, engine: "GradientEngine | None" = None) -> None:
        self.model = model
        self.engine: GradientEngine = model.twin_engine if engine is None else engine
        self._of_twin = engine is None
        self._known: set[str] = set()

    @property
    def twin(self) -> "Program":
        """The twin's program."""
        return self.model.twin_engine.program

    @cached_property
    def exact_engine(self) -> "TwinEngine":
        """The engine in float64, on the CPU, with the operators of the twin under test."""
        import torch

        from inspector.engines.twin import TwinEngine

        return TwinEngine(self.model.graph, dtype=torch.float64, table=self.twin.table)

    @property
    def exact(self) -> "Program":
        """The twin in float64."""
        return self.exact_engine.program

    @cached_property
    def kind(self) -> str:
        """``quantised``, ``float16`` or ``float32``: what decides how exactly sides can agree."""
        graph = self.model.graph
        if is_quantised(graph):
            return "quantised"
        inputs = {value.elem_type for value in graph.inputs.values()}
        weights = {tensor.data_type for tensor in self.model.file.model.graph.initializer}
        return "float16" if (inputs | weights) & _NARROW else "float32"

    def feeds(self, probe: Probe) -> dict[str, Array]:
        """Graph inputs by name, in the model's own layout, filled up to a fixed batch."""
        image = self.model.input
        return self.model.feeds(np.repeat(image.arrange(probe.image), image.batch or 1, axis=0))

    def tensors(self, program: "Program", feeds: Mapping[str, Array]) -> "dict[str, Tensor]":
        """The same values as torch tensors in a program's precision and on its device."""
        import torch

        found = {}
        for name, value in feeds.items():
            tensor = torch.tensor(value, device=program.device)
            whole = self.model.input.integer and name == self.model.input.name
            floating = tensor.is_floating_point()
            if whole and floating:
                tensor = tensor.to(_integer_type(self.model))
            elif floating and tensor.dtype != program.dtype:
                tensor = tensor.to(program.dtype)
            found[name] = tensor
        return found

    @cached_property
    def reference(self) -> Runtime:
        """ONNX Runtime with optimisations off; kept for scores alone."""
        return Runtime(self.model.file, device="cpu", optimise=False)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tensors that both sides compute and that mean something, in graph order."""
        graph = self.model.graph
        missing = {node.name for node in self.twin.unsupported()} if self._of_twin else set()
        live = set(graph.inputs)
        lost: set[str] = set()
        found: list[str] = []
        for node in graph.nodes:
            reads = set(graph.reads(node))
            if node.name in missing or reads & lost or node.domain == "ai.onnx.ml":
                lost.update(name for name in node.outputs if name)
            elif reads & live:
                live.update(name for name in node.outputs if name)
                found += [name for name in _meaningful(node) if name]
        return tuple(name for name in found if _is_dense(self.model, name))

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node of the file that makes each tensor."""
        return {name: node for node in self.model.graph.nodes for name in node.outputs if name}

    def described(self, name: str) -> str:
        """A tensor's node in words."""
        node = self.producers.get(name)
        return f"{node.op_type} node {node.name!r}" if node else f"tensor {name!r}"

    def gate_of(self, name: str) -> str:
        """The node in words that opens and shuts by the values of a tensor."""
        for activation in self.twin.activations:
            if activation.input == name and is_rectifier(activation):
                return f"{activation.nodes[0].op_type} node {activation.nodes[0].name!r}"
        return self.described(name)

    def fetch(self, probe: Probe, name: str) -> Array:
        """A tensor of one input by ONNX Runtime, optimisations off, in the form of samples."""
        if name not in self._known:
            self.model.forward(probe.image, [name])  # which finds out the axis of samples
            self._known.add(name)
        return np.asarray(
            self.in_samples(name, self.reference.run(self.feeds(probe), [name])[name])
        )

    def in_samples(self, name: str, value: Any) -> Any:
        """A tensor of one input, as the graph holds it, with the axis of samples in front."""
        return self.model.with_samples(name, value)[:1]

    def objective(self, target: Target) -> Sampled:
        """A target on tensors as the graph holds them."""
        return Sampled(target, self.model.with_samples)

    def default_target(self, probe: Probe, tensor: str = "") -> tuple[Target | None, str]:
        """The best class; for a model that is not a classifier, the largest score of an output.

        Args:
            probe: The input.
            tensor: Whose largest element is wanted; the scores, else the outputs, when empty.

        Returns:
            The target, and how it was chosen; None when no output can be differentiated.
        """
        scores = self.model.scores
        wanted: Sequence[str] = [tensor or scores.tensor]
        if not tensor and not scores.classifier:
            wanted = candidates(self.model.graph)
        for name in wanted:
            if name not in self.names:
                continue
            target = self.largest(probe, name)
            if target is None:
                continue
            if target.class_index is not None:
                return target, f"top1 = {target.label}"
            if tensor:
                return target, f"{target.label}, the largest element of the tensor"
            what = "output" if name in self.model.graph.outputs else "scores behind an output"
            return target, (
                f"{target.label}, the largest element of the {what}: the model is not a classifier"
            )
        return None, "no output of the model is a tensor of floating point numbers"

    def largest(self, probe: Probe, name: str) -> Target | None:
        """The largest element of a tensor; None where it holds no floating point numbers."""
        values = self.fetch(probe, name)
        if values.dtype.kind != "f" or not values.size:
            return None
        first = np.where(np.isfinite(values), values, -np.inf)[0]
        index = tuple(int(i) for i in np.unravel_index(int(first.argmax()), first.shape))
        label = f"{name}[{','.join(map(str, index))}]"
        scores = self.model.scores
        known = scores.classifier and name == scores.tensor
        return Target(name, index, label, int(first.argmax()) if known else None)

    def values(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
        """Tensors of ONNX Runtime, optimisations off, in a session that is not kept."""
        runtime = Runtime(self.model.file, device="cpu", optimise=False)
        return runtime.run(feeds, names)


def _integer_type(model: Model) -> Any:
    from converters.to_torch.values import TORCH_TYPES

    elem_type = model.graph.inputs[model.input.name].elem_type
    if elem_type not in TORCH_TYPES:
        raise ConverterError("no tensor type for the image input", where=repr(model.input.name))
    return TORCH_TYPES[elem_type]


def _meaningful(node: Node) -> tuple[str, ...]:
    """Outputs that have a value in inference.

    The mask of a Dropout is all ones by the standard, but ONNX Runtime leaves its memory as it
    was; the running statistics of an old BatchNormalization are not computed at all.
    """
    if node.is_op("Dropout", "BatchNormalization"):
        return node.outputs[:1]
    return node.outputs


def _is_dense(model: Model, name: str) -> bool:
    """Whether a tensor may be asked for: not a sequence, a map or a list of words."""
    graph = model.graph
    if graph.constant(name) is not None:
        return False
    node = graph.producer(name)
    return node is not None and not node.op_type.startswith(("Sequence", "SplitToSequence"))

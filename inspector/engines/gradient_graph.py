"""The gradient by ONNX Runtime: the network's own nodes, and their backward pass as ONNX operators.

``surgery.gradient`` writes a model whose outputs are the signals; it is made once for a set of
tensors, targets and a rule, and kept.  Importing this module imports neither torch nor onnxruntime.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import TensorProto

from converters.graph import Node
from converters.graph.activations import find_activations
from converters.onnx_file import OnnxFile
from inspector.engines import Objective, Signals, tensors_of
from inspector.engines.relevance import RELEVANCE_RULES
from inspector.engines.rules import Coverage, Rule, coverage, is_rectifier
from inspector.engines.runtime import Runtime
from inspector.errors import MethodRefused, NoGradient
from inspector.network.quantisation.fused_activations import find_marks
from inspector.network.quantisation.levels import copies_of, is_quantised
from inspector.network.tail import Tail, tail_of
from inspector.surgery.gradient import Overlay, gradient_program
from inspector.surgery.gradient.element_types import element_types
from inspector.surgery.gradient.program import forward_model, tensors_read

__all__ = ["GradientGraph", "Measured", "overlay_of"]

Array = np.ndarray[Any, Any]

_MOST = 16
"""Programs that are kept; each holds a session with its own copy of the weights that it reads."""

_MOST_READ = 1 << 25
"""Numbers of one sample that a forward pass may keep for the backward one."""

_UNHARMED = "occlusion needs no gradient"


@dataclass(frozen=True)
class _Loaded:
    """What runs a program; the program itself is not kept, for it holds the weights once more."""

    runtime: Runtime
    seeds: Mapping[str, str] = field(default_factory=dict)
    signals: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class GradientGraph:
    """Gradients of one network by ONNX Runtime; see ``GradientEngine``.

    Args:
        file: The network.
        device: As ``Runtime``.
        optimise: Whether ONNX Runtime may fuse operators.
    """

    def __init__(self, file: OnnxFile, *, device: str = "cpu", optimise: bool = True) -> None:
        self.file, self.graph = file, file.graph
        self.device, self.optimise = device, optimise
        self._loaded: OrderedDict[Any, _Loaded] = OrderedDict()
        self._measured: OrderedDict[Any, Measured] = OrderedDict()
        self._reads: dict[Any, tuple[str, ...]] = {}
        self._tails: dict[tuple[str, str], Tail] = {}
        self._coverages: dict[tuple[str, tuple[str, ...], Rule], Coverage] = {}

    def signals(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
        rule: Rule | None = None,
        *,
        known: Mapping[str, Array] | None = None,
    ) -> Signals:
        """Send the targets' scores back to some tensors; see ``GradientEngine.signals``."""
        _refuse_relevance(rule)
        names = tensors_of(targets)
        spared = {n: v for n, v in (known or {}).items() if n not in start and n not in frontier}
        loaded = self._program(start, frontier, spared, names, rule=rule, rows=len(targets))
        if not loaded.signals:
            raise NoGradient(
                "the target's gradient stops on the way: an operator that cannot be "
                "differentiated lies between",
                hint=_UNHARMED,
            )
        feeds = dict(start) | dict(frontier) | spared
        outputs = [name for name in names if name not in feeds]
        values = {name: feeds[name] for name in names if name in feeds}
        if not all(getattr(target, "linear", False) for target in targets):
            blank = {
                seed: np.zeros(_rows(loaded.shapes[tensor], len(targets)), np.float32)
                for tensor, seed in loaded.seeds.items()
            }
            values |= loaded.runtime.run(feeds | blank, outputs) if outputs else {}
        seeds = {}
        for tensor, seed in loaded.seeds.items():
            given = values.get(tensor)
            if given is None:  # of a linear target the value itself does not matter
                given = np.zeros(_rows(loaded.shapes[tensor], len(targets)), np.float32)
            seeds[seed] = _seed(given, tensor, targets)
        fetch = [*outputs, *loaded.signals.values()]
        found = loaded.runtime.run(feeds | seeds, fetch)
        found |= values
        scores = _scores(found, targets)
        signals = {
            name: found[loaded.signals[name]]
            if name in loaded.signals
            else np.zeros(value.shape, np.float32)
            for name, value in start.items()
        }
        return Signals(signals, scores)

    def reads(self, start: Mapping[str, Array], targets: Sequence[str]) -> tuple[str, ...]:
        """What the backward pass reads, and the targets; see ``GradientEngine.reads``.

        Not of quantised networks: ONNX Runtime fuses what nobody asks for, and computes other
        levels where somebody does.
        """
        sizes = tuple(value.shape for value in start.values())
        key = (tuple(start), sizes, tuple(targets))
        if key not in self._reads:
            self._reads[key] = self._tensors_read(start, targets)
        return self._reads[key]

    def scores(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
    ) -> Array:
        """Scores from other values of some tensors; see ``GradientEngine.scores``."""
        names = tensors_of(targets)
        feeds = dict(start) | dict(frontier)
        fetch = [name for name in names if name not in feeds]
        key = ("forward", tuple(feeds), names)
        if key not in self._loaded:
            model = forward_model(self.graph, self._nodes(start, names), tuple(feeds), fetch)
            self._keep(key, _Loaded(self._runtime(model)))
        return _scores(self._loaded[key].runtime.run(feeds, fetch) | feeds, targets)

    def coverage(self, start: str, targets: Sequence[str], rule: Rule) -> Coverage:
        """Which activations a rule reaches, counted once; see ``GradientEngine.coverage``."""
        _refuse_relevance(rule)
        key = (start, tuple(targets), rule)
        if key not in self._coverages:
            nodes = [node for target in targets for node in self._tail(start, target).nodes]
            self._coverages[key] = coverage(self.graph, nodes, rule)
        return self._coverages[key]

    def require(self, start: str, target: str) -> None:
        """Refuse operators without a rule: done by ``signals``, which measures shapes first."""

    # -- programs --------------------------------------------------------------------------

    def _program(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        spared: Mapping[str, Array],
        targets: tuple[str, ...],
        *,
        rule: Rule | None,
        rows: int,
    ) -> _Loaded:
        # Several samples are alike, so that one of them shows all shapes.  One sample may fill
        # several rows: it is measured as it is.
        whole = (dict(start) | dict(frontier)).items()
        fed = {name: value[:1] if rows > 1 and value.ndim else value for name, value in whole}
        sizes = tuple(value.shape for value in fed.values())
        key = (tuple(start), tuple(frontier), tuple(spared), sizes, targets, rule)
        if key not in self._loaded:
            nodes = self._nodes(start, targets)
            measured = self._measure(nodes, start, fed, targets)
            program = gradient_program(
                self.graph,
                nodes,
                tuple(start),
                (*frontier, *spared),
                targets,
                measured=measured,
                overlay=None if rule is None else overlay_of(self.file, rule),
            )
            shapes = {name: _shape(measured(name)) for name in targets}
            runtime = self._runtime(program.model)
            self._keep(key, _Loaded(runtime, program.seeds, program.signals, shapes))
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _measure(
        self,
        nodes: Sequence[Node],
        start: Mapping[str, Array],
        fed: Mapping[str, Array],
        targets: Sequence[str],
    ) -> "Measured":
        """Tensors of one sample; the same for all rules."""
        key = (tuple(start), tuple((n, v.shape) for n, v in fed.items()), tuple(targets))
        if key not in self._measured:
            self._measured[key] = Measured(self.file, nodes, fed)
            if len(self._measured) > _MOST:
                self._measured.popitem(last=False)
        return self._measured[key]

    def _tensors_read(self, start: Mapping[str, Array], targets: Sequence[str]) -> tuple[str, ...]:
        if is_quantised(self.graph):
            return ()
        nodes = self._nodes(start, targets)
        measured = self._measure(nodes, start, start, targets)
        read = tensors_read(
            self.graph,
            nodes,
            tuple(start),
            targets,
            measured=measured,
            overlay=overlay_of(self.file, Rule()),
        )
        types = element_types(self.graph)
        found = dict.fromkeys((*targets, *read))
        shapes = {name: _shape(measured(name)) for name in found}
        kept = [
            name
            for name, shape in shapes.items()
            if types.get(name) == TensorProto.FLOAT and len(shape) > 1 and shape[0] == 1
        ]
        total = sum(math.prod(shapes[name]) for name in kept)
        return tuple(kept) if total <= _MOST_READ else ()

    def _keep(self, key: Any, loaded: _Loaded) -> None:
        self._loaded[key] = loaded
        if len(self._loaded) > _MOST:
            self._loaded.popitem(last=False)

    def _runtime(self, model: Any) -> Runtime:
        file = replace(self.file, model=model)
        return Runtime(file, device=self.device, optimise=self.optimise, sealed=True)

    def _nodes(self, start: Mapping[str, Array], targets: Sequence[str]) -> list[Node]:
        found = {
            node.index: node
            for name in start
            for target in targets
            for node in self._tail(name, target).nodes
        }
        return [found[index] for index in sorted(found)]

    def _tail(self, start: str, target: str) -> Tail:
        key = (start, target)
        if key not in self._tails:
            self._tails[key] = tail_of(self.graph, copies_of(self.graph, start), target)
        return self._tails[key]


class Measured:
    """Tensors of one sample, from one forward pass over some nodes; made when first asked for.

    Args:
        file: The network.
        nodes: The nodes.
        fed: Values of the tensors that they read and do not make.
    """

    def __init__(self, file: OnnxFile, nodes: Sequence[Node], fed: Mapping[str, Array]) -> None:
        self._file, self._nodes, self._fed = file, nodes, dict(fed)
        self._found: dict[str, Array] = {}
        self._ran = False

    def __call__(self, tensor: str) -> Array | None:
        """The tensor; of one that is large, or holds no whole numbers, the shape alone counts."""
        if tensor in self._fed:
            return self._fed[tensor]
        if not self._ran and tensor not in self._found:
            self._ran = True
            self._run()
        return self._found.get(tensor)

    def _run(self) -> None:
        graph = self._file.graph
        read = [name for node in self._nodes for name in (*node.inputs, *node.outputs)]
        names = [
            name
            for name in dict.fromkeys(read)
            if name and name not in self._fed and graph.producer(name) is not None
        ]
        model = forward_model(graph, self._nodes, tuple(self._fed), names)
        runtime = Runtime(replace(self._file, model=model), device="cpu", optimise=False, once=True)
        found = runtime.run(self._fed, names)
        for name, value in found.items():
            kept = isinstance(value, np.ndarray)
            small = kept and (value.dtype.kind in "iub" and value.size <= _SMALL)
            if kept:  # of large tensors the shape alone
                self._found[name] = (
                    value if small else np.broadcast_to(np.zeros((), value.dtype), value.shape)
                )


_SMALL = 1 << 16


def overlay_of(file: OnnxFile, rule: Rule) -> Overlay:
    """What a rule does to the activations of a network."""
    graph = file.graph
    activations = find_activations(graph)
    ruled = {a.output: a for a in activations if rule.replaces(a) and not a.fused}
    first = rule.name == "guided" and rule.extension == "gradient-first"
    smooth = [a.output for a in ruled.values() if not is_rectifier(a)] if first else []
    marks = {mark.tensor: mark for mark in find_marks(graph, activations)}
    return Overlay(rule.name, ruled, frozenset(smooth), marks)


def _refuse_relevance(rule: Rule | None) -> None:
    """Refuse rules of relevance.

    Raises:
        MethodRefused: It is one.
    """
    if rule is not None and rule.name in RELEVANCE_RULES:
        raise MethodRefused(
            f"the {rule.name} rule of relevance is not written as ONNX operators",
            hint="--engine twin has it",
        )


def _shape(value: Array | None) -> tuple[int, ...]:
    return () if value is None else value.shape


def _rows(shape: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """A shape that was measured of one sample, for several."""
    return (samples, *shape[1:]) if samples > 1 and shape else shape


def _seed(given: Array, tensor: str, targets: Sequence[Objective]) -> Array:
    """Derivative of the sum of the targets' numbers by a tensor that they are read from."""
    total = np.zeros(given.shape, np.float32)
    for target, rows in _alike(targets):
        if tensor in target.tensors:
            total += target.slope({tensor: given}, tensor, rows)
    return total


def _scores(found: Mapping[str, Array], targets: Sequence[Objective]) -> Array:
    scores: dict[int, Any] = {}
    for target, rows in _alike(targets):
        own = target.of(found)
        scores |= {row: own[row] for row in rows}
    return np.asarray([scores[row] for row in range(len(targets))])


def _alike(targets: Sequence[Objective]) -> Iterator[tuple[Objective, list[int]]]:
    """Each target once, with the samples whose it is: those of one class share one."""
    found: dict[int, list[int]] = {}
    for row, target in enumerate(targets):
        found.setdefault(id(target), []).append(row)
    return ((targets[rows[0]], rows) for rows in found.values())

"""The gradient by the PyTorch twin: automatic differentiation of the ONNX graph itself.

A gradient with respect to a layer runs only the nodes behind that layer, on activations that ONNX
Runtime has computed; a gradient with respect to the input runs the whole twin.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converters.graph import Graph
from converters.to_torch.optable import OPS, OpTable
from converters.to_torch.program import Program
from converters.to_torch.values import NARROW
from inspector.engines import Objective, Signals, tensors_of
from inspector.engines.overlays import overlay_of
from inspector.engines.relevance import RELEVANCE_RULES, relevance_coverage
from inspector.engines.relevance_overlay import RelevanceTable, relevance_overlay
from inspector.engines.rules import Coverage, Rule, coverage
from inspector.errors import MethodRefused, NoGradient, refusing
from inspector.network.quantisation.levels import copies_of
from inspector.network.tail import Tail, tail_of

__all__ = ["TwinEngine"]

Array = np.ndarray[Any, Any]

LIGHT_WEIGHTS = 2**23
"""A tail with fewer weights, and no convolution, is done before a second thread has woken up."""

_FAILED, _UNHARMED = "the twin's gradient failed", "occlusion needs no gradient"
_ROUNDING = 1e-4
_BODIES = ("body", "then_branch")


class TwinEngine:
    """Gradients of one network by its PyTorch twin.

    Args:
        graph: The network, as its file holds it.
        device: ``auto`` and ``cuda`` take a CUDA device where torch has one.
        dtype: Precision of the twin: ``torch.float32``, or ``torch.float64`` for certifying.
        table: Operators of the twin.

    Attributes:
        program: The twin.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        table: OpTable = OPS,
    ) -> None:
        self.graph = graph
        self.program = Program(graph, dtype=dtype, table=table)
        if device != "cpu" and torch.cuda.is_available():
            self.program.to("cuda")
        self._overlays: dict[Rule, OpTable | None] = {}
        self._relevance = threading.Lock()  # an overlay of relevance keeps one ledger
        self._coverages: dict[tuple[str, tuple[str, ...], Rule], Coverage] = {}
        self._tails: dict[tuple[str, str], Tail] = {}

    def signals(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
        rule: Rule | None = None,
        *,
        known: Mapping[str, Array] | None = None,  # noqa: ARG002 - autograd needs its own
    ) -> Signals:
        """Send the targets' scores back to some tensors; see ``GradientEngine.signals``."""
        program = self.program
        names = list(tensors_of(targets))
        light = self._is_light(start, names)
        overlay = None if rule is None else self.overlay(rule)
        ledger = overlay.ledger if isinstance(overlay, RelevanceTable) else None
        with (
            self._relevance if ledger else nullcontext(),
            _threads_for(light=light),
            refusing(_FAILED, _UNHARMED),
            torch.inference_mode(mode=False),  # a caller's own mode, which knows no gradients
            torch.enable_grad(),
        ):
            leaves = {
                name: _shared(value).to(program.device, program.dtype).requires_grad_()
                for name, value in start.items()
            }
            feeds = leaves | {name: self._fed(value) for name, value in frontier.items()}
            if ledger is not None:
                ledger.clear()
            found = program.run(feeds, names, overlay)
            scores = torch.stack([target.of(found)[row] for row, target in enumerate(targets)])
            if not scores.requires_grad:
                raise NoGradient(
                    "the target's gradient stops on the way: an operator that cannot be "
                    "differentiated lies between",
                    hint=_UNHARMED,
                )
            if ledger is not None:
                _require_a_sum(scores, [found[name] for name in names])
            constants = [] if ledger is None else ledger.leaves
            gradients = torch.autograd.grad(
                scores.sum(),
                [*leaves.values(), *constants],
                allow_unused=True,
                materialize_grads=True,
            )
            kept = None if ledger is None else ledger.kept(gradients[len(leaves) :])
        return Signals(
            {name: g.cpu().numpy() for name, g in zip(leaves, gradients, strict=False)},
            scores.detach().cpu().numpy(),
            kept,
        )

    def reads(self, start: Mapping[str, Array], targets: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG002
        """None: the twin differentiates what it has computed itself."""
        return ()

    def scores(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
    ) -> Array:
        """Scores from other values of some tensors; see ``GradientEngine.scores``."""
        feeds = {name: self._fed(value) for name, value in (*start.items(), *frontier.items())}
        names = list(tensors_of(targets))
        light = self._is_light(start, names)
        with _threads_for(light=light), refusing(_FAILED, _UNHARMED), torch.no_grad():
            found = self.program.run(feeds, names)
            scores = [target.of(found)[row] for row, target in enumerate(targets)]
            return torch.stack(scores).cpu().numpy()

    def coverage(self, start: str, targets: Sequence[str], rule: Rule) -> Coverage:
        """Which activations a rule reaches, counted once; see ``GradientEngine.coverage``."""
        key = (start, tuple(targets), rule)
        if key not in self._coverages:
            nodes = [node for target in targets for node in self._tail(start, target).nodes]
            activations = self.program.activations
            if rule.name in RELEVANCE_RULES:
                found = relevance_coverage(self.graph, nodes, targets, rule, activations)
            else:
                found = coverage(self.graph, nodes, rule, activations)
            self._coverages[key] = found
        return self._coverages[key]

    def require(self, start: str, target: str) -> None:
        """Refuse operators that the twin does not hold; see ``GradientEngine.require``."""
        self.program.plan([start], [target])

    def overlay(self, rule: Rule) -> OpTable | None:
        """The overlay of a rule, made once so that the twin's plans stay cached."""
        if rule not in self._overlays:
            make = relevance_overlay if rule.name in RELEVANCE_RULES else overlay_of
            self._overlays[rule] = make(self.program, rule)
        return self._overlays[rule]

    def _fed(self, value: Array) -> Tensor:
        tensor = _shared(value).to(self.program.device)
        return tensor.to(self.program.dtype) if tensor.dtype in NARROW else tensor

    def _tail(self, start: str, target: str) -> Tail:
        key = (start, target)
        if key not in self._tails:
            self._tails[key] = tail_of(self.graph, copies_of(self.graph, start), target)
        return self._tails[key]

    def _is_light(self, start: Mapping[str, Array], targets: Sequence[str]) -> bool:
        """Whether what runs is a pooling and a linear layer or so, and no convolution."""
        weights = 0
        for node in (n for s in start for t in targets for n in self._tail(s, t).nodes):
            if "Conv" in node.op_type or any(node.attributes.get(b) for b in _BODIES):
                return False
            for name in node.inputs:
                tensor = self.graph.initialiser(name)
                weights += math.prod(tensor.dims) if tensor is not None else 0
        return weights <= LIGHT_WEIGHTS


def _shared(value: Array) -> Tensor:
    """A tensor on an array's own memory: nothing writes into it, and a copy wakes threads up."""
    return torch.from_numpy(np.require(value, requirements=["C", "W"]))


def _require_a_sum(scores: Tensor, tensors: Sequence[Tensor]) -> None:
    """Refuse a score of which relevance is not defined: it must be a sum of outputs.

    Raises:
        MethodRefused: It is not: a similarity, for example.
    """
    slopes = torch.autograd.grad(
        scores.sum(), tensors, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    pairs = list(zip(tensors, slopes, strict=True))
    parts = [(tensor.detach() * slope)[slope != 0].double() for tensor, slope in pairs]
    total = sum(float(part.sum()) for part in parts)
    scale = sum(float(part.abs().sum()) for part in parts)
    wanted = float(scores.detach().double().sum())
    if not abs(total - wanted) <= _ROUNDING * max(scale, abs(wanted)):
        raise MethodRefused(
            "relevance is passed down from a sum of outputs, and this score is none",
            hint="input-x-gradient and integrated-gradients take any score",
        )


@contextmanager
def _threads_for(*, light: bool) -> Iterator[None]:
    """Run light work on one thread: ONNX Runtime's have just gone to sleep on the others."""
    before = torch.get_num_threads()
    if not light or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

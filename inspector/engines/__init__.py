"""How is a network run, forwards and backwards?

``runtime`` runs a file forwards in ONNX Runtime.  A ``GradientEngine`` runs a network backwards:
``twin`` in PyTorch, ``gradient_graph`` as ONNX operators in ONNX Runtime, ``either`` in whichever
covers it.  ``rules`` says what a backward rule is and which
activations it reaches, from the graph alone.  Importing this package imports neither torch nor
onnxruntime.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from inspector.engines.rules import Coverage, Rule
from inspector.errors import BrokenInstallation

__all__ = ["GradientEngine", "Objective", "Signals", "require_torch", "tensors_of"]

Array = np.ndarray[Any, Any]


class OfTensors(Protocol):
    """What is read from tensors."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors."""
        ...


class Objective(OfTensors, Protocol):
    """The number that is differentiated for one sample: elements of tensors, summed."""

    @property
    def linear(self) -> bool:
        """Whether the number is a sum of elements with weights that no value changes."""
        ...

    def of(self, values: Mapping[str, Any]) -> Any:
        """The number for each sample of the tensors' values (N, ...)."""
        ...

    def slope(self, values: Mapping[str, Any], tensor: str, rows: Sequence[int]) -> Any:
        """Derivative of some samples' numbers by one tensor, NumPy, in the tensor's shape."""
        ...


def tensors_of(targets: Iterable[OfTensors]) -> tuple[str, ...]:
    """Names of all tensors that some numbers are read from, each once."""
    return tuple(dict.fromkeys(name for target in targets for name in target.tensors))


class Signals(dict[str, Array]):
    """Signals by tensor name, each in the shape of its tensor, and the scores they belong to.

    Args:
        signals: What arrives at each start tensor: the gradient, or what a rule makes of it.
        scores: (N,) scores of the objectives, as the engine itself computed them.
        kept: Under a rule of relevance, what constants and softmax kept of all scores.
    """

    def __init__(
        self, signals: Mapping[str, Array], scores: Array, kept: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(signals)
        self.scores, self.kept = scores, dict(kept or {})


class GradientEngine(Protocol):
    """A way to run one network backwards."""

    def signals(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
        rule: Rule | None = None,
        *,
        known: Mapping[str, Array] | None = None,
    ) -> Signals:
        """Send the targets' scores back to some tensors.

        Args:
            start: Values of the tensors to differentiate by, N rows each, as the graph holds
                them; only what depends on them is run.
            frontier: Values of the other tensors that are read on the way, N rows each.
            targets: One per row.
            rule: What an activation does to the signal; None for the operators' own
                derivatives, under which quantisation is straight-through.
            known: Values of tensors between start and targets, N rows each, from a forward pass
                of the same samples: an engine may spare itself the computing.  See ``reads``.

        Returns:
            One signal per start tensor, in the engine's floating point type.

        Raises:
            NoGradient: The target does not depend differentiably on the start tensors.
            UnsupportedOperator: Operators on the way that the engine cannot run.
        """
        ...

    def reads(self, start: Mapping[str, Array], targets: Sequence[str]) -> tuple[str, ...]:
        """Tensors that a forward pass had better keep, for ``known``: it need not run again.

        Args:
            start: Values of the tensors to differentiate by, of one sample.
            targets: Names of the targets' tensors.

        Returns:
            Their names; none where nothing would be spared.
        """
        ...

    def scores(
        self,
        start: Mapping[str, Array],
        frontier: Mapping[str, Array],
        targets: Sequence[Objective],
    ) -> Array:
        """Scores of the targets from other values of some tensors, (N,); forwards only.

        Args:
            start: Values of tensors in the middle of the network, N rows each.
            frontier: As ``signals``.
            targets: One per row.

        Raises:
            UnsupportedOperator: Operators on the way that the engine cannot run.
        """
        ...

    def coverage(self, start: str, targets: Sequence[str], rule: Rule) -> Coverage:
        """Which activations between a tensor and the targets' tensors a rule reaches.

        Args:
            start: Name of the tensor to start from.
            targets: Names of the targets' tensors.
            rule: The rule.

        Raises:
            MethodRefused: Activations that the rule is not defined for.
        """
        ...

    def require(self, start: str, target: str) -> None:
        """Refuse a network that cannot be run from one tensor to another, without running it.

        Raises:
            UnsupportedOperator: Operators on the way that the engine cannot run, all of them.
        """
        ...


def require_torch() -> None:
    """Refuse work of the twin where PyTorch is not installed, or does not start.

    Raises:
        BrokenInstallation: It is not, or does not.
    """
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise BrokenInstallation(
            f"PyTorch does not start ({type(error).__name__}: {said})",
            hint="pip install torch; `inspector explain --engine onnx` does without it",
        ) from None

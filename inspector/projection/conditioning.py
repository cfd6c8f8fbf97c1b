"""Does what a unit projects to the pixels depend on the image at all?  Proved, not assumed.

By the deconvnet's rule a rectifier passes the positive part of the signal, whatever came in.  So
the way down depends on the image only where something else does:

    MaxPool                  the switches: which place of a window has won
    x * f(x), a gate         the other factor
    LRN, InstanceNorm ...    the size of what came in
    Softmax, Exp, Max ...    their slope

Without any of them the reconstruction needs no image: one unit on, everything else zero
(Springenberg et al. 2015, section 4).  ``conditioning`` looks at each step that the twin would
run; ``largest_difference`` measures the same on images that have nothing in common.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph.operators import facts
from inspector.engines.rules import Rule

if TYPE_CHECKING:
    from converters.graph import Node
    from converters.to_torch.compile import Step
    from converters.to_torch.optable import OpTable
    from converters.to_torch.program import Program
    from inspector.opened import Opened
    from inspector.projection.projector import Projector, Unit

__all__ = ["TOLERANCE", "Conditioning", "blank_image", "conditioning", "largest_difference"]

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-5
"""Largest difference between projections for different images that is float32's rounding."""

_SLOPE = "its slope depends on what comes in"
_SHAPES = ("Shape", "Size")


@dataclass(frozen=True)
class Conditioning:
    """What the way from a layer down to the pixels depends on, by the deconvnet's rule.

    Attributes:
        tensor: The layer.
        node: The node nearest to the image that makes it depend on the image; empty when none.
        op_type: Its operator.
        why: What of the image it remembers.
        linear: Steps that are linear with constant coefficients.
        ruled: Activations under the rule.
        blocking: How many nodes make it depend on the image.
    """

    tensor: str
    node: str
    op_type: str
    why: str
    linear: int
    ruled: int
    blocking: int

    @property
    def free(self) -> bool:
        """Whether no image is needed."""
        return not self.blocking

    def __str__(self) -> str:
        """One sentence."""
        if self.free:
            return (
                f"the way from {self.tensor} to the pixels does not depend on the image: "
                f"{self.linear} steps are linear with constant coefficients, {self.ruled} are "
                "activations under the deconvnet's rule, and there is nothing else"
            )
        more = f" (and {self.blocking - 1} more)" if self.blocking > 1 else ""
        return (
            f"the way from {self.tensor} to the pixels depends on the image: {self.op_type} "
            f"node {self.node!r}{more}, {self.why}"
        )


def conditioning(model: "Opened", tensor: str, extension: str = "refuse") -> Conditioning:
    """Find out what the deconvnet's way from a layer to the pixels depends on.

    Args:
        model: The opened model.
        tensor: The layer.
        extension: The rule for smooth activations, one of ``projection.EXTENSIONS``.
    """
    engine = model.model.twin_engine
    twin, rules = engine.program, engine.overlay(Rule("deconvnet", extension))
    carried = {model.input.name}
    linear, ruled = 0, 0
    blocking: list[tuple[Node, str, str]] = []
    for step in twin.plan([model.input.name], [tensor], rules).steps:
        read = {name for name in (*step.sources, *step.captures) if name in carried}
        if not read or step.node.op_type in _SHAPES:
            continue  # constants, and the shape of things
        carried.update(name for name in step.outputs if name)
        if _is_ruled(step, twin, rules):
            ruled += 1
        elif step.outputs[0] in twin.composites:
            blocking.append((step.node, twin.composites[step.outputs[0]].kind, _SLOPE))
        elif _is_linear(step.node, read, twin):
            linear += 1
        else:
            blocking.append((step.node, step.node.op_type, _why(step.node)))
    node, op_type, why = blocking[0] if blocking else (None, "", "")
    name = node.name if node is not None else ""
    return Conditioning(tensor, name, op_type, why, linear, ruled, len(blocking))


def blank_image(model: "Opened") -> Array:
    """No image: zeros (1, C, H, W) for a network that must be given something."""
    size = model.size(*model.preprocessing.preprocess.size)
    return np.zeros((1, model.input.channels, *size), np.float32)


def largest_difference(projector: "Projector", unit: "Unit", seed: int = 0) -> float:
    """Project one unit for no image and for two random ones, and compare.

    Args:
        projector: Of the layer.
        unit: Channel, row and column.
        seed: Of the random images: each pixel's value is drawn by itself, from 0 to 255.

    Returns:
        Largest difference between any two of the projections, relative to their largest
        magnitude; 0 when all are 0.

    Raises:
        MethodRefused: Activations that the rule is not defined for.
    """
    model = projector.model
    preprocess = model.preprocessing.preprocess
    blank = blank_image(model)
    pixels = np.random.default_rng(seed).integers(0, 256, (2, *blank.shape[1:]))
    std, mean = (np.reshape(v, (-1, 1, 1)) for v in (preprocess.std, preprocess.mean))
    noise = ((pixels / preprocess.scale - mean) / std).astype(np.float32)
    images = np.concatenate([blank, noise])
    step = len(images) if model.batches else 1
    found = np.concatenate(
        [
            projector(part, [unit] * len(part))
            for part in (images[at : at + step] for at in range(0, len(images), step))
        ]
    ).astype(np.float64)
    peak = float(np.abs(found).max())
    return float((found.max(0) - found.min(0)).max()) / peak if peak > 0 else 0.0


def _is_ruled(step: "Step", twin: "Program", rules: "OpTable | None") -> bool:
    """Whether a step is an activation that passes the positive signal, whatever comes in."""
    from converters.to_torch.program import ACTIVATION_DOMAIN

    name = step.outputs[0]
    if rules is None or name in rules.exempt:
        return False
    composite = twin.composites.get(name)
    if composite is not None:
        return rules.lookup(ACTIVATION_DOMAIN, composite.kind, 1) is not None
    opset = twin.graph.opset(step.node.domain)
    return rules.lookup(step.node.domain, step.node.op_type, opset) is not None


def _is_linear(node: "Node", read: Collection[str], twin: "Program") -> bool:
    """Whether a node is linear in what depends on the image, with constant coefficients."""
    if node.attributes.get("activation") or node.attributes.get("training_mode"):
        return False
    check = _CHECKS.get(node.op_type)
    if check is not None:
        return check(node)
    dependent = [place for place, name in enumerate(node.inputs) if name in read]
    known = facts(node)
    if known.factors:
        factors = [place for place in dependent if place in known.factors]
        sums = [2] if node.is_op("Gemm") else []
        return len(factors) <= 1 and set(dependent) <= {*factors, *sums}
    if node.is_op("Dropout") and len(node.inputs) > 2:
        training = twin.constant(node.inputs[2]) if node.inputs[2] else None
        return training is None or not bool(training)
    return bool(dependent) and set(dependent) <= set(known.linear_in)


def _subsamples(node: "Node") -> bool:
    """Whether a max-pooling has windows of one place, of which one always wins."""
    return all(side == 1 for side in node.attributes.get("kernel_shape", (0,)))


_CHECKS: Mapping[str, Callable[["Node"], bool]] = MappingProxyType({"MaxPool": _subsamples})


def _why(node: "Node") -> str:
    """What of the image a node remembers, in words."""
    known = facts(node)
    if (known.pools in {"max", "norm"} and not known.reduces) or node.is_op("MaxRoiPool"):
        return "its switches say which place of a window has won"
    if known.factors or node.is_op("Einsum", "Div", "Pow"):
        return "it multiplies what depends on the image with what depends on the image"
    if node.is_op("DynamicQuantizeLinear") or (known.normalises and not known.softmax):
        return "it normalises by the size of what comes in"
    if known.activation or known.nonlinear or known.reduces:
        return _SLOPE
    return "it is not known to be linear with constant coefficients"

"""Backward rules, and the activations of a graph that they reach.

A rule says what an activation function does to the signal that comes down.

With R the incoming signal, x the node's input and f the activation:

    ============  =======================================  =================
    rule          backward                                 source
    ============  =======================================  =================
    gradient      f'(x) R                                  -
    deconvnet     max(R, 0)                                Zeiler & Fergus 2014, section 2.1
    guided        f'(x) max(R, 0)                          Springenberg et al. 2015, section 3.4
    ============  =======================================  =================

The papers define the last two for rectifiers.  For smooth activations (SiLU, GELU ...) there
are two readings, neither of which the papers give; they are refused unless asked for by name
and then labelled as an extension.  Gates (squeeze-excite) and Softmax always pass the gradient.

Where a quantiser does an activation's work (see ``network.fused_activations``), the rule acts on
the quantised tensor: f'(x) is 0 where the value lies at the bound that cuts it off, and 1
elsewhere.  The plain gradient is a rule as well for this reason: quantisation by itself is
straight-through, without rounding and without the range's other end.

This module needs the graph alone; ``overlays`` holds the formulas in torch.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from converters.graph import Graph, Node
from converters.graph.activations import Activation, find_activations, unknown_nonlinearities
from inspector.errors import MethodRefused
from inspector.network.quantisation.fused_activations import find_marks

__all__ = ["EXTENSIONS", "RECTIFIERS", "RULES", "Coverage", "Rule", "coverage", "is_rectifier"]

RULES = ("gradient", "deconvnet", "guided")

EXTENSIONS = ("refuse", "signal-first", "gradient-first")
"""Readings for smooth activations: f'(x) max(R, 0), or max(f'(x) R, 0); deconvnet: max(R, 0)."""

RECTIFIERS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "ThresholdedRelu"})
"""Kinds that the papers' rules are defined for (Clip: when its lower bound is zero)."""


@dataclass(frozen=True)
class Rule:
    """A backward rule.

    Attributes:
        name: One of ``RULES``, or of ``relevance.RELEVANCE_RULES``.
        extension: Reading for smooth activations, one of ``EXTENSIONS``.
        epsilon: Of relevance: what stabilises the denominators of linear layers.
        gamma: Of relevance: how much more contributions of a value's own sign count.
    """

    name: str = "gradient"
    extension: str = "refuse"
    epsilon: float = 0.0
    gamma: float = 0.0

    def replaces(self, activation: Activation) -> bool:
        """Whether an activation's own derivative gives way to the rule."""
        if self.name == "gradient" or activation.gate or activation.kind == "Softmax":
            return False
        return self.extension != "refuse" or is_rectifier(activation)


def is_rectifier(activation: Activation) -> bool:
    """Whether the papers' rules apply to an activation as they stand."""
    if activation.kind == "Clip":
        return activation.low == 0
    return activation.kind in RECTIFIERS


@dataclass(frozen=True)
class Coverage:
    """Which activations between the input and the target a rule reaches.

    Attributes:
        rule: Name of the rule.
        ruled: Activations under the rule, counted per kind.
        extended: Activations under an extension of the rule, counted per kind.
        gates: Activations that gate, and pass the gradient.
        unknown: Names of nonlinear nodes that no rule is defined for; they pass the gradient.
    """

    rule: str
    ruled: dict[str, int]
    extended: dict[str, int]
    gates: int
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """One line, as it is printed with every map."""
        covered = sum(self.ruled.values()) + sum(self.extended.values())
        kinds = Counter(self.ruled) + Counter(self.extended)
        listing = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
        line = f"{covered} of {covered + len(self.unknown)} activations under the {self.rule} rule"
        line += f": {listing}; {len(self.unknown)} unknown"
        return f"{line}; {self.gates} gates pass the gradient" if self.gates else line


def coverage(
    graph: Graph,
    nodes: Collection[Node],
    rule: Rule,
    activations: Iterable[Activation] | None = None,
) -> Coverage:
    """Count the activations that a rule reaches, and refuse those it is not defined for.

    Args:
        graph: The network.
        nodes: The nodes between the input and the target.
        rule: The rule.
        activations: What ``find_activations`` found in the network, if that is known.

    Returns:
        The coverage.

    Raises:
        MethodRefused: Smooth activations on the way, and no extension was asked for.
    """
    known = tuple(find_activations(graph) if activations is None else activations)
    between = set(nodes)
    on_path = {name for node in between for name in node.outputs}
    found = [a for a in known if a.output in on_path and a.kind != "Softmax"]
    acting = [a for a in found if not a.gate]
    smooth = [a for a in acting if not is_rectifier(a)]
    if rule.name != "gradient" and smooth and rule.extension == "refuse":
        kinds = Counter(a.kind for a in smooth).most_common()
        listing = ", ".join(f"{count} {kind}" for kind, count in kinds)
        raise MethodRefused(
            f"the {rule.name} rule is defined for rectifiers, and this model has {listing}",
            where=f"node {smooth[0].nodes[-1].name!r}",
            hint="use gradient or a CAM method, or ask for an extension of the rule with "
            "the option extension=signal-first (or gradient-first)",
        )
    unknown = [node.name for node in unknown_nonlinearities(graph) if node in between]
    marks = [mark.kind for mark in find_marks(graph, known) if mark.tensor in on_path]
    return Coverage(
        rule=rule.name,
        ruled=dict(Counter([*(_kind(a) for a in acting if is_rectifier(a)), *marks])),
        extended=dict(Counter(_kind(a) for a in smooth)),
        gates=len(found) - len(acting),
        unknown=tuple(unknown),
    )


def _kind(activation: Activation) -> str:
    if activation.kind != "Clip":
        return activation.kind
    low, high = activation.low, activation.high
    return f"Clip[{'' if low is None else f'{low:g}'},{'' if high is None else f'{high:g}'}]"

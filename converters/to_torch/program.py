"""The twin: an ONNX graph run in PyTorch, every tensor reachable under its own name.

An interpreter inside one ``nn.Module`` rather than generated modules: any tensor may be fed, any
tensor may be fetched, and only what lies between is run.  Early stop, a start in the middle,
ablation and patching are therefore one mechanism, and a backward rule is an overlay of the
operator table instead of hooks on somebody's modules.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import onnx
import torch
from torch import Tensor, nn

from converters.errors import (
    ConverterError,
    UnsupportedNode,
    UnsupportedOperator,
    out_of_memory,
)
from converters.graph import Graph, Node
from converters.graph.activations import Activation, find_activations
from converters.graph.operators import facts
from converters.to_torch import ops  # noqa: F401 - importing it fills the table
from converters.to_torch.compile import Compiler, Step
from converters.to_torch.expand import expand_functions
from converters.to_torch.gaps import REFUSED
from converters.to_torch.optable import OPS, Body, Op, OpTable
from converters.to_torch.values import CannotBind, elements

__all__ = ["ACTIVATION_DOMAIN", "Program"]

ACTIVATION_DOMAIN = "activation"
"""Domain under which a rule may replace an activation built from several nodes."""

MAX_FOLDED_ELEMENTS = 2**28
"""Constants that would fold to more elements than this are computed in each run instead."""


_PlanKey = tuple[frozenset[str], tuple[str, ...], OpTable | None]

MAX_PLANS = 512
"""Plans that one program keeps; a plan costs little, but every part of a graph has its own."""


@dataclass(frozen=True)
class Plan:
    """What has to be run to get from some tensors to others."""

    steps: tuple[Step, ...]
    constants: Mapping[str, Tensor]
    dead: tuple[tuple[str, ...], ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that will run, in order."""
        return tuple(step.node for step in self.steps)


class _Child:
    """The body of If, Loop or Scan: a program that also sees the tensors around it."""

    def __init__(self, program: "Program", graph: onnx.GraphProto) -> None:
        self.program = Program._of_graph(  # noqa: SLF001 - the same class, seen from a body
            program.graph.beside(graph=graph), program
        )
        self.formals = tuple(v.name for v in graph.input)
        self.results = tuple(v.name for v in graph.output)
        self.captures = tuple(sorted(_captured_names(graph)))

    def bind(self, env: Mapping[str, Tensor], rules: OpTable | None) -> Body:
        outer = {name: env[name] for name in self.captures}

        def call(*values: Tensor) -> tuple[Tensor, ...]:
            feeds = outer | dict(zip(self.formals, values, strict=False))
            found = self.program.run(feeds, self.results, rules)
            return tuple(found[name] for name in self.results)

        return call


def _captured_names(graph: onnx.GraphProto) -> set[str]:
    """Names that a body reads and neither makes nor declares itself."""
    local = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    read = {v.name for v in graph.output}
    for node in graph.node:
        local.update(node.output)
        read.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                read |= _captured_names(attribute.g)
    return read - local - {""}


class Program(nn.Module):
    """Run an ONNX model, or any part of it, in PyTorch.

    Args:
        model: The model; its local functions must be inlined (``onnx_file.read`` does it).
        folder: Where external data lies, if any.
        dtype: Precision of every float16, bfloat16 and float32 tensor: ``torch.float32``, or
            ``torch.float64`` for certifying gradients.  float64 tensors stay float64.
        table: Operators to use.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Graph,
        *,
        folder: Path | None = None,
        dtype: torch.dtype = torch.float32,
        table: OpTable = OPS,
    ) -> None:
        super().__init__()
        graph = model if isinstance(model, Graph) else Graph(model, folder=folder)
        self.graph = expand_functions(graph, table)
        self.dtype, self.table, self.device = dtype, table, torch.device("cpu")
        self.activations: tuple[Activation, ...] = find_activations(self.graph)
        # Spelled with several nodes, or with an operator of another name: Max(x, 0).
        self.composites = {
            a.output: a for a in self.activations if [n.op_type for n in a.nodes] != [a.kind]
        }
        self._constants: dict[str, Tensor] = {}
        self._foldable = _foldable(self.graph)
        self._compiler = Compiler(
            self.graph,
            dtype=self.dtype,
            device=self.device,
            constant=self.constant,
            subgraph=lambda body: _Child(self, body),
        )
        # By node, and for a rule by its operator: the steps of an overlay go when it goes.
        self._steps: dict[int, Step] = {}
        self._rule_steps: WeakKeyDictionary[Op, dict[int, Step]] = WeakKeyDictionary()
        self._plans: OrderedDict[_PlanKey, Plan] = OrderedDict()

    @classmethod
    def _of_graph(cls, graph: Graph, parent: "Program") -> "Program":
        return cls(graph, dtype=parent.dtype, table=parent.table).to(parent.device)

    # -- running ---------------------------------------------------------------------------

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the whole graph on its inputs, in their declared order."""
        feeds = dict(zip(self.graph.inputs, inputs, strict=True))
        found = self.run(feeds, tuple(self.graph.outputs))
        return tuple(found[name] for name in self.graph.outputs)

    def run(
        self,
        feeds: Mapping[str, Tensor],
        fetch: Sequence[str],
        rules: OpTable | None = None,
    ) -> dict[str, Tensor]:
        """Compute any tensors from any others.

        Args:
            feeds: Values by tensor name; a fed tensor is not computed, whatever makes it.
            fetch: Names of the tensors wanted.
            rules: Operators that replace those of the table, for a backward rule.

        Returns:
            The fetched tensors by name.

        Raises:
            UnsupportedOperator: operators on the way that the table does not hold, all of them.
            ConverterError: a tensor that does not exist or cannot be reached from the feeds.
        """
        plan = self.plan(tuple(feeds), tuple(fetch), rules)
        env = dict(plan.constants)
        env.update(feeds)
        for step, dead in zip(plan.steps, plan.dead, strict=True):
            self.run_step(step, env, rules)
            for name in dead:
                env.pop(name, None)
        return {name: env[name] for name in fetch}

    @staticmethod
    def run_step(step: Step, env: dict[str, Tensor], rules: OpTable | None) -> None:
        """Run one step; whatever an operator raises on a stranger's attributes names the node.

        Raises:
            ConverterError: The step failed.
        """
        where = f"{step.node.op_type} node {step.node.name!r}"
        try:
            step.run(env, rules)
        except ConverterError as error:
            error.where = error.where or where
            raise
        except Exception as error:
            if out_of_memory(error):
                raise  # the caller's limit, not the node's fault
            raise ConverterError(
                f"the PyTorch twin failed: {_reason(error)}", where=where
            ) from error

    # -- planning --------------------------------------------------------------------------

    def plan(
        self, feeds: Iterable[str], fetch: Iterable[str], rules: OpTable | None = None
    ) -> Plan:
        """The minimal list of steps from ``feeds`` to ``fetch``; the latest are kept."""
        key = (frozenset(feeds), tuple(fetch), rules)
        plan = self._plans.get(key)
        if plan is None:
            # What is kept serves gradients later, so none of it may be made in inference mode.
            with torch.inference_mode(mode=False):
                plan = self._plans[key] = self._make_plan(*key)
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return plan

    def _make_plan(
        self, feeds: frozenset[str], fetch: tuple[str, ...], rules: OpTable | None
    ) -> Plan:
        steps: dict[int, Step] = {}
        constants: dict[str, Tensor] = {}
        missing: list[UnsupportedNode] = []
        todo, seen = list(fetch), set(feeds)
        while todo:
            name = todo.pop()
            if not name or name in seen:
                continue
            seen.add(name)
            value = self.constant(name)
            if value is not None:
                constants[name] = value
                continue
            step = self._step_for(name, rules, missing)
            if step is None:  # go on behind it, so that one error names all that is missing
                node = self.graph.producer(name)
                todo += node.inputs if node else ()
            elif step.node.index not in steps:
                steps[step.node.index] = step.without(feeds)
                todo += [*step.sources, *step.captures]
        if missing:
            raise UnsupportedOperator(sorted(missing, key=lambda node: node.name))
        ordered = sorted(steps.values(), key=lambda step: step.node.index)
        return Plan(tuple(ordered), constants, _dead_after(ordered, fetch))

    def _step_for(
        self, name: str, rules: OpTable | None, missing: list[UnsupportedNode]
    ) -> Step | None:
        node = self.graph.producer(name)
        if node is None:
            known = name in self.graph.inputs
            raise ConverterError(
                "the input is not fed" if known else "no such tensor in the model", where=repr(name)
            )
        try:
            step = self._composite(name, rules) or self._compiled(node, rules)
        except CannotBind as error:
            opset = self.graph.opset(node.domain)
            missing.append(UnsupportedNode(node.name, node.op_type, node.domain, opset, str(error)))
            return None
        return step.followed(rules.behind) if rules and rules.behind else step

    def _composite(self, name: str, rules: OpTable | None) -> Step | None:
        """An activation built from several nodes, where a rule replaces it as a whole."""
        activation = self.composites.get(name)
        if activation is None or rules is None:
            return None
        op = rules.lookup(ACTIVATION_DOMAIN, activation.kind, 1)
        ruled = op is not None and name not in rules.exempt

        def call(x: Tensor) -> Tensor:
            if op is None or not ruled:
                # A Clip inside a gate is not a ReLU6: no rule may reach into the composite.
                return self.run({activation.input: x}, [activation.output])[activation.output]
            result: Tensor = op.function(x, program=self, activation=activation)
            return result

        return Step(activation.nodes[-1], call, (activation.input,), (name,), rule=ruled)

    def unsupported(self) -> tuple[UnsupportedNode, ...]:
        """Every node of the graph that the table cannot run."""
        missing: list[UnsupportedNode] = []
        for node in self.graph.nodes:
            if all(self.graph.constant(name) is None for name in node.outputs if name):
                self._step_for(next(n for n in node.outputs if n), None, missing)
        return tuple(missing)

    # -- constants -------------------------------------------------------------------------

    def constant(self, name: str) -> Tensor | None:
        """Value of a tensor that depends on no input; None when it does."""
        if name not in self._constants:
            with torch.inference_mode(mode=False):
                array = self.graph.constant(name)
                if array is not None:
                    self._constants[name] = self._compiler.tensor(array)
                else:
                    self._fold(name)
        return self._constants.get(name)

    def _fold(self, name: str) -> None:
        """Evaluate a tensor made from constants alone, and keep it."""
        pending = [name]
        order: list[Node] = []
        visited: set[int] = set()
        while pending:
            current = pending.pop()
            if not current or current in self._constants:
                continue
            if current not in self._foldable:
                return
            node = self.graph.producer(current)
            if node is None:
                array = self.graph.constant(current)
                if array is None:
                    return  # a name from around a body
                self._constants[current] = self._compiler.tensor(array)
            elif node.index not in visited:
                visited.add(node.index)
                order.append(node)
                pending += node.inputs
        with torch.no_grad():
            for node in sorted(order, key=lambda n: n.index):
                self._fold_node(node)

    def _fold_node(self, node: Node) -> None:
        if node.outputs[0] in self._constants:
            return
        made: dict[str, Tensor] = {}
        array = self.graph.constant(node.outputs[0])
        if array is not None:
            made = {node.outputs[0]: self._compiler.tensor(array)}
        else:
            env = {n: self._constants[n] for n in node.inputs if n in self._constants}
            known = all(not name or name in env for name in node.inputs)
            # What fails is not a constant: it fails again, and is said, where it is needed.
            with contextlib.suppress(CannotBind, ConverterError):
                if known:
                    self.run_step(self._compiled(node, None), env, None)
                    made = {n: env[n] for n in node.outputs if n in env}
            if sum(elements(value) for value in made.values()) > MAX_FOLDED_ELEMENTS:
                made = {}
        self._constants.update(made)
        # What was tried once is not tried again for each tensor behind it.
        self._foldable.difference_update(name for name in node.outputs if name not in made)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Program":  # noqa: ARG002 - torch's signature
        """Move to a device: torch calls this for ``.to()``, ``.cuda()`` and ``.cpu()``."""
        self.device = fn(torch.empty(0, device=self.device)).device
        self._constants = {name: value.to(self.device) for name, value in self._constants.items()}
        self._compiler.device = self.device
        self._steps.clear()
        self._rule_steps.clear()
        self._plans.clear()
        return self

    # -- compiling -------------------------------------------------------------------------

    def _compiled(self, node: Node, rules: OpTable | None) -> Step:
        """The call of a node's operator, or of a rule's in its place; made once."""
        opset = self.graph.opset(node.domain)
        ruled = rules is not None and rules.exempt.isdisjoint(node.outputs)
        rule = rules.lookup(node.domain, node.op_type, opset) if rules and ruled else None
        steps = self._steps if rule is None else self._rule_steps.setdefault(rule, {})
        if node.index not in steps:
            op = rule or self.table.lookup(node.domain, node.op_type, opset)
            if op is None:
                raise CannotBind(REFUSED.get((node.domain, node.op_type), ""))
            try:
                steps[node.index] = self._compiler.step(node, op, rule=rule is not None)
            except (CannotBind, ConverterError):
                raise
            except Exception as error:
                if out_of_memory(error):
                    raise
                raise CannotBind(f"its attributes make no sense: {_reason(error)}") from error
        return steps[node.index]


def _reason(error: Exception) -> str:
    """The first line of what an operator raised; its type where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def _foldable(graph: Graph) -> set[str]:
    """Tensors that depend on no input, on no chance and on no body, in one pass."""
    found = set(graph.initialisers)
    for node in graph.nodes:
        bodies = any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())
        if bodies or facts(node).stochastic:
            continue
        if all(not name or name in found for name in node.inputs):
            found.update(filter(None, node.outputs))
    return found


def _dead_after(steps: Sequence[Step], fetch: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """For each step, the names that nothing after it needs."""
    last: dict[str, int] = {}
    for position, step in enumerate(steps):
        for name in (*step.outputs, *step.sources, *step.captures):
            if name:
                last[name] = position
    dead: list[list[str]] = [[] for _ in steps]
    for name, position in last.items():
        if name not in fetch:
            dead[position].append(name)
    return tuple(tuple(names) for names in dead)

"""The twin: an ONNX graph run in PyTorch, every tensor reachable under its own name.

An interpreter inside one ``nn.Module`` rather than generated modules: any tensor may be fed, any
tensor may be fetched, and only what lies between is run.  Early stop, a start in the middle,
ablation and patching are therefore one mechanism, and a backward rule is an overlay of the
operator table instead of hooks on somebody's modules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from converters.errors import ConverterError, UnsupportedNode, UnsupportedOperator
from converters.graph import Graph, Node
from converters.graph.activations import Activation, find_activations
from converters.to_torch import ops  # noqa: F401 - importing it fills the table
from converters.to_torch.binding import Fixed, caller
from converters.to_torch.expand import expand_functions
from converters.to_torch.gaps import IGNORED, REFUSED
from converters.to_torch.optable import OPS, Body, Op, OpTable, Parameter, unpack
from converters.to_torch.values import NARROW, TORCH_TYPES, CannotBind, as_tensor, elements

__all__ = ["ACTIVATION_DOMAIN", "Program"]

ACTIVATION_DOMAIN = "activation"
"""Domain under which a rule may replace an activation built from several nodes."""

MAX_FOLDED_ELEMENTS = 2**28
"""Constants that would fold to more elements than this are computed in each run instead."""


@dataclass(frozen=True, eq=False)
class Step:
    """One bound call: where its values come from and where its results go."""

    node: Node
    call: Callable[..., Any]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    captures: tuple[str, ...] = ()
    bodies: Mapping[str, "_Child"] | None = None
    rule: bool = False

    def without(self, fed: frozenset[str]) -> "Step":
        """The step, made to leave tensors alone that are fed."""
        if fed.isdisjoint(self.outputs):
            return self
        return replace(self, outputs=tuple("" if n in fed else n for n in self.outputs))

    def followed(self, behind: Mapping[str, Callable[[Tensor], Tensor]]) -> "Step":
        """The step, with what a rule does to its outputs behind it."""
        after = [behind.get(name) for name in self.outputs]
        if not any(after):
            return self

        def call(*values: Any, **bodies: Any) -> Any:
            result = self.call(*values, **bodies)
            if not isinstance(result, tuple):
                return after[0](result) if after[0] else result
            made = zip(result, after, strict=False)
            return tuple(then(value) if then else value for value, then in made)

        return replace(self, call=call, rule=True)

    def run(self, env: dict[str, Tensor], rules: OpTable | None) -> None:
        """Compute the outputs of one node into ``env``."""
        values = [env[name] if name else None for name in self.sources]
        if self.bodies:
            result = self.call(
                *values, **{k: child.bind(env, rules) for k, child in self.bodies.items()}
            )
        else:
            result = self.call(*values)
        if isinstance(result, tuple):
            made = zip(self.outputs, result, strict=False)
            env.update((name, value) for name, value in made if name)
        else:
            env[self.outputs[0]] = result


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
            Graph(program.graph.model, folder=program.graph.folder, graph=graph), program
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
        self._bound: dict[tuple[int, int | None], Step] = {}
        self._plans: dict[tuple[Any, ...], Plan] = {}

    @classmethod
    def _of_graph(cls, graph: Graph, parent: "Program") -> "Program":
        child = cls(graph, dtype=parent.dtype, table=parent.table)
        child.device = parent.device
        return child

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
            try:
                step.run(env, rules)
            except ConverterError as error:
                error.where = error.where or f"{step.node.op_type} node {step.node.name!r}"
                raise
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise self._failed(step.node, error) from error
            for name in dead:
                env.pop(name, None)
        return {name: env[name] for name in fetch}

    @staticmethod
    def _failed(node: Node, error: Exception) -> Exception:
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            return error  # the caller's limit, not the node's fault
        reason = str(error).partition("\n")[0]
        return ConverterError(
            f"the PyTorch twin failed: {reason}", where=f"{node.op_type} node {node.name!r}"
        )

    # -- planning --------------------------------------------------------------------------

    def plan(
        self, feeds: Iterable[str], fetch: Iterable[str], rules: OpTable | None = None
    ) -> Plan:
        """The minimal list of steps from ``feeds`` to ``fetch``; cached."""
        key = (frozenset(feeds), tuple(fetch), rules)
        if key not in self._plans:
            self._plans[key] = self._make_plan(*key)
        return self._plans[key]

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
            step = self._composite(name, rules) or self._bind(node, rules)
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
            array = self.graph.constant(name)
            if array is not None:
                self._constants[name] = self._tensor(array)
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
            node = self.graph.producer(current)
            if node is None:
                array = self.graph.constant(current)
                if array is None:
                    return  # reaches a graph input (or a name from around a body)
                self._constants[current] = self._tensor(array)
            elif node.index not in visited:
                if node.op_type in _NEVER_FOLDED or any(
                    isinstance(v, onnx.GraphProto) for v in node.attributes.values()
                ):
                    return
                visited.add(node.index)
                order.append(node)
                pending += node.inputs
        with torch.no_grad():
            for node in sorted(order, key=lambda n: n.index):
                self._fold_node(node)

    def _fold_node(self, node: Node) -> None:
        if node.outputs[0] in self._constants:
            return
        array = self.graph.constant(node.outputs[0])
        if array is not None:
            self._constants[node.outputs[0]] = self._tensor(array)
            return
        env = {n: self._constants[n] for n in node.inputs if n in self._constants}
        try:
            self._bind(node, None).run(env, None)
        except (CannotBind, KeyError):
            return
        made = {n: env[n] for n in node.outputs if n in env}
        if sum(elements(value) for value in made.values()) <= MAX_FOLDED_ELEMENTS:
            self._constants.update(made)

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        try:
            tensor = as_tensor(array)
        except CannotBind as error:
            raise ConverterError(
                f"the twin computes with numbers, and the model holds {error}"
            ) from error
        if tensor.dtype in NARROW:
            tensor = tensor.to(self.dtype)
        return tensor.to(self.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Program":  # noqa: ARG002 - torch's signature
        """Move to a device: torch calls this for ``.to()``, ``.cuda()`` and ``.cpu()``."""
        self.device = fn(torch.empty(0, device=self.device)).device
        self._constants = {name: value.to(self.device) for name, value in self._constants.items()}
        self._bound.clear()
        self._plans.clear()
        return self

    def resolve_dtype(self, elem_type: int) -> torch.dtype:
        """The torch type that stands for an ONNX element type in this program's precision."""
        if not isinstance(elem_type, int):
            raise CannotBind(f"element type {elem_type!r}")
        dtype = TORCH_TYPES.get(elem_type)
        if dtype is None:
            raise CannotBind(f"element type {onnx.TensorProto.DataType.Name(elem_type)}")
        return self.dtype if dtype in NARROW else dtype

    # -- binding ---------------------------------------------------------------------------

    def _bind(self, node: Node, rules: OpTable | None) -> Step:
        """Find a node's function and fix what is known of its arguments."""
        opset = self.graph.opset(node.domain)
        ruled = rules is not None and rules.exempt.isdisjoint(node.outputs)
        rule = rules.lookup(node.domain, node.op_type, opset) if rules and ruled else None
        key = (node.index, id(rule) if rule else None)
        if key not in self._bound:
            op = rule or self.table.lookup(node.domain, node.op_type, opset)
            if op is None:
                raise CannotBind(REFUSED.get((node.domain, node.op_type), ""))
            self._bound[key] = self._make_step(node, op, rule=rule is not None)
        return self._bound[key]

    def _make_step(self, node: Node, op: Op, *, rule: bool) -> Step:
        keywords: dict[str, Any] = {}
        bodies: dict[str, _Child] = {}
        attributes = dict(node.attributes)
        sources, converters = self._positional(node, op, attributes)
        for name, value in attributes.items():
            parameter = op.attributes.get(name)
            if parameter is None:
                self._check_ignorable(node, name, value)
            elif isinstance(value, onnx.GraphProto):
                bodies[name] = _Child(self, value)
            else:
                keywords[name] = self._attribute(value, parameter)
        for name, parameter in op.attributes.items():
            if parameter.required and name not in keywords and name not in bodies:
                raise CannotBind(f"attribute {name!r} is missing")
        if op.wants_n_outputs:
            keywords["n_outputs"] = len(node.outputs)
        if "zero_point_type" in op.attributes and len(node.inputs) > 2:
            keywords["zero_point_type"] = self.graph.elem_type(node.inputs[2])
        captures = {name for child in bodies.values() for name in child.captures}
        return Step(
            node=node,
            call=caller(op.function, converters, keywords),
            sources=sources,
            outputs=node.outputs,
            captures=tuple(sorted(captures)),
            bodies=bodies or None,
            rule=rule,
        )

    def _positional(
        self, node: Node, op: Op, attributes: dict[str, Any]
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Where each positional parameter comes from.

        Returns:
            The tensor names to read while running, and for each position either the kind to
            unpack a tensor into (None: pass as it is) or a ``Fixed`` value.
        """
        sources: list[str] = []
        converters: list[Any] = []
        if len(node.inputs) > len(op.inputs) and not op.variadic:
            raise CannotBind(f"{len(node.inputs)} inputs where {len(op.inputs)} are known")
        for position, parameter in enumerate(op.inputs):
            name = node.inputs[position] if position < len(node.inputs) else ""
            if name:
                constant = None if parameter.kind is Tensor else self.constant(name)
                if constant is not None:
                    converters.append(Fixed(unpack(constant, parameter.kind)))
                    continue
                sources.append(name)
                converters.append(None if parameter.kind is Tensor else parameter.kind)
            elif parameter.name in attributes:
                value = self._attribute(attributes.pop(parameter.name), parameter)
                converters.append(Fixed(value))
            elif parameter.required:
                raise CannotBind(f"input {parameter.name!r} is missing")
            else:
                converters.append(Fixed(parameter.default))
        for name in node.inputs[len(op.inputs) :]:
            sources.append(name)
            converters.append(None)
        return tuple(sources), tuple(converters)

    def _attribute(self, value: Any, parameter: Parameter) -> Any:
        if parameter.kind is torch.dtype:
            return self.resolve_dtype(value)
        if isinstance(value, onnx.TensorProto):
            tensor = self._tensor(self.graph.array(value))
            return tensor if parameter.kind is Tensor else unpack(tensor, parameter.kind)
        if parameter.kind is Tensor:
            tensor = torch.as_tensor(value, device=self.device)
            return tensor.to(self.dtype) if tensor.is_floating_point() else tensor
        return unpack(value, parameter.kind)

    def _check_ignorable(self, node: Node, name: str, value: Any) -> None:
        """An attribute that the function does not know must hold the schema's default."""
        if name in IGNORED:
            return
        try:
            schema = onnx.defs.get_schema(node.op_type, self.graph.opset(node.domain), node.domain)
            default = schema.attributes[name].default_value
        except (onnx.defs.SchemaError, KeyError):
            raise CannotBind(f"attribute {name!r} is not implemented") from None
        if default.type and onnx.helper.get_attribute_value(default) == value:
            return
        raise CannotBind(f"attribute {name} = {value!r} is not implemented")


_NEVER_FOLDED = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
}


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

"""Maps of a batch: one forward pass for all samples, then every method on what it returned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.engines import tensors_of
from inspector.errors import ConverterError, InspectorError, MethodRefused, ModelRefused
from inspector.evidence import Evidence, tensors_for, tensors_read
from inspector.heatmap import SATURATED, ZERO, Attribution
from inspector.network.coordinates.lattice import Lattice
from inspector.network.coordinates.placement import Placement
from inspector.network.layer_choice import last_of
from inspector.network.outputs.elements import probability_before
from inspector.network.space import KINDS
from inspector.passes.map_values import Spread, why_empty
from inspector.printable import clean_text
from inspector.probability import has_shares, looks_like_probabilities, of_target, probabilities
from inspector.tasks.numbers import Similarity

if TYPE_CHECKING:
    from inspector.methods import Method, Request
    from inspector.opened import Opened
    from inspector.target import Target

__all__ = ["Map", "MapRefused", "forward_for", "layer_of", "maps_of"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]

_SATURATED = 1e-6
"""Distance of a probability from 0 or 1 below which float32 sees no slope."""

_REFUSALS = (MethodRefused, ModelRefused, ConverterError)


@dataclass(frozen=True, eq=False)
class Map:
    """One method's map of one target of one sample.

    Attributes:
        request: The method with its options.
        attribution: The map in its own space.
        facts: Measured figures: residuals, coverage of the backward rule, twin difference.
        notes: What the method says of itself; the attribution's notes hold these and more.
    """

    request: "Request"
    attribution: Attribution
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MapRefused:
    """A map that was not drawn, and why.

    Attributes:
        request: The method with its options.
        target: What it was asked to explain.
        error: The refusal.
    """

    request: "Request"
    target: "Target"
    error: ConverterError | InspectorError


Rows = list[list[Map | MapRefused]]


def layer_of(
    opened: "Opened",
    requests: "Sequence[Request]",
    layer: str | int | None,
    together: Sequence[tuple[str, ...]],
) -> tuple[str | None, str]:
    """Tensor that layer methods explain through, and why it is this one.

    Args:
        opened: The opened model.
        requests: The methods.
        layer: As the user named it; None for the last layer before the target.
        together: Tensors of each target: one, or all those that a sum is read from.

    Returns:
        None where no method needs a layer, and where branches part before the targets: ``maps_of``
        then takes for each target the layer that carries most of its evidence.

    Raises:
        UnknownLayer: There is no such layer.
        ModelRefused: The model has no convolution, or a target depends on none.
    """
    if layer is not None:
        found, why = opened.layer_for(layer, tokens=True)
        return found.tensor, why
    if not any(request.method.through_layer for request in requests):
        return None, ""
    choices = {names: opened.layers_before(*names) for names in together}
    lost = [names for names, (layers, _) in choices.items() if not layers]
    if lost:
        opened.layer_for(None)  # refuses a model without layers, with its own reason
        raise ModelRefused(
            f"the target {' + '.join(lost[0])!r} depends on no layer that keeps space",
            where=opened.path.name,
            hint="gradient and occlusion need none; --layer names any tensor (N, C, h, w)",
        )
    chosen = {one.tensor for layers, _ in choices.values() for one in layers}
    reason = "; ".join(dict.fromkeys(why for _, why in choices.values()))
    return (chosen.pop(), reason) if len(chosen) == 1 else (None, reason)


def forward_for(
    opened: "Opened",
    tensors: Array,
    names: Sequence[str],
    requests: "Sequence[Request]",
    layer: str | None,
    *,
    also: Sequence[str] = (),
) -> Mapping[str, Array]:
    """The one ONNX Runtime pass that all methods share.

    Args:
        opened: The opened model.
        tensors: (N, C, H, W), preprocessed.
        names: Tensors that targets are read from.
        requests: The methods.
        layer: From ``layer_of``.
        also: Other tensors that are read of the same pass.

    Returns:
        Everything that the methods need, by name, N rows each.
    """
    needs = frozenset(need for request in requests for need in request.method.needs)
    fetch = dict.fromkeys(tensors_for(opened.model, needs, layer, names))
    if "input-gradient" in needs:
        fetch |= dict.fromkeys(tensors_read(opened.model, tensors[:1], names))
    if layer is None:
        for name in names:
            fetch |= dict.fromkeys(_before(opened, needs, [name]))
    return opened.forward(tensors, list(fetch | dict.fromkeys(also)))


def _before(opened: "Opened", needs: frozenset[str], names: Sequence[str]) -> Iterator[str]:
    """What is read at the last layers before a target.

    Args:
        opened: The opened model.
        needs: What all methods need.
        names: Tensor that the target is read from; of a sum of several all of them.
    """
    layers = opened.layers_before(*names)[0] if "activation" in needs else ()
    # Between branches the gradient decides, whatever the method itself needs.
    wanted = needs | {"gradient"} if len(layers) > 1 else needs
    for one in layers:
        yield from tensors_for(opened.model, wanted, one.tensor, names)


def _with_sums(
    opened: "Opened",
    tensors: Array,
    values: Mapping[str, Array],
    targets: "Sequence[Sequence[Target]]",
    requests: "Sequence[Request]",
) -> Mapping[str, Array]:
    """Values with what sums of several tensors need: which those are may depend on the photo."""
    needs = frozenset(need for request in requests for need in request.method.needs)
    sums = dict.fromkeys(one.tensors for row in targets for one in row if len(one.tensors) > 1)
    missing = {
        name: None for names in sums for name in _before(opened, needs, names) if name not in values
    }
    return {**values, **opened.forward(tensors, list(missing))} if missing else values


def maps_of(
    opened: "Opened",
    tensors: Array,
    targets: "Sequence[Sequence[Target]]",
    requests: "Sequence[Request]",
    layer: str | None,
    *,
    values: Mapping[str, Array] | None = None,
    progress: Progress | None = None,
    keep_zero: bool = False,
) -> Rows:
    """Every method for every target of every sample of a batch.

    What fails for one sample or by one method is kept in its place, and the others are done.

    Args:
        opened: The opened model.
        tensors: (N, C, H, W), preprocessed.
        targets: The targets of each sample; as many as each has.
        requests: The methods.
        layer: From ``layer_of``; None takes the last layer before each target.
        values: From ``forward_for`` for these samples; computed when None.
        progress: Called with (what, done, total) during long work.
        keep_zero: Keep maps of targets whose gradient is zero everywhere: to a study that counts
            them they are misses, not mistakes.

    Returns:
        For each sample its maps: methods first, then targets in their order.
    """
    if values is None:
        names = tensors_of(target for row in targets for target in row)
        values = forward_for(opened, tensors, names, requests, layer)
    if layer is None:
        values = _with_sums(opened, tensors, values, targets, requests)
    if len(tensors) > 1 and not opened.batches:  # samples act on each other: each on its own
        every: Rows = []
        for i, own in enumerate(targets):
            kept = {name: value[i : i + 1] for name, value in values.items()}
            alone = tensors[i : i + 1]
            every += maps_of(
                opened,
                alone,
                [own],
                requests,
                layer,
                values=kept,
                progress=progress,
                keep_zero=keep_zero,
            )
        return every
    found: Rows = [[] for _ in targets]
    samples = _Samples(opened, tensors, values, layer, progress, keep_zero)
    for request in requests:
        for rank in range(max(map(len, targets), default=0)):
            rows = [row for row, own in enumerate(targets) if rank < len(own)]
            chosen = [targets[row][rank] for row in rows]
            for row, one in zip(rows, samples.maps(rows, chosen, request), strict=True):
                found[row].append(one)
    return found


@dataclass(frozen=True, eq=False)
class _Samples:
    """What one batch gives to its methods."""

    opened: "Opened"
    tensors: Array
    values: Mapping[str, Array]
    layer: str | None
    progress: Progress | None
    keep_zero: bool
    _chosen: "dict[tuple[int, Target], tuple[str, str]]" = field(default_factory=dict)

    def maps(
        self, rows: Sequence[int], targets: "Sequence[Target]", request: "Request"
    ) -> "Iterator[Map | MapRefused]":
        """One method on some samples together; one by one where it refuses them together."""
        try:
            layer, said = self._common_layer(rows, targets, request)
            self._require_space(request.method)
            evidence = self._evidence(rows, targets, layer, request.label)
            if said:
                evidence.note(said)
            arrays = _by_sample(evidence, request)
        except _REFUSALS as error:
            if len(rows) == 1:
                yield MapRefused(request, targets[0], error)
                return
            for row, target in zip(rows, targets, strict=True):
                yield from self.maps([row], [target], request)
            return
        chances = self._probabilities(evidence)
        unverified = self._unverified(evidence, request.method)
        ranges = Spread.of_all(arrays)
        kind: _Kind | None = None
        for place, target in enumerate(targets):
            try:
                self._require_dependence(evidence, request, place)
                own, chance, spread = arrays[place], chances[place], ranges[place]
                method = request.method
                notes = tuple(
                    self._notes(evidence, place, own, method, spread=spread, unverified=unverified)
                )
                kind = kind or self._kind(evidence, method)
                yield self._map(
                    evidence, request, place, own, kind=kind, notes=notes, probability=chance
                )
            except MethodRefused as error:  # for this sample
                yield MapRefused(request, target, error)

    def _require_space(self, method: "Method") -> None:
        """Refuse a method that is defined for pictures alone on signals and volumes.

        Raises:
            MethodRefused: It is.
        """
        space = self.opened.input.space
        if space != 2 and method.pictures_only:
            raise MethodRefused(
                f"{method.name} is defined for pictures, and this model takes {KINDS[space]}: "
                f"{method.pictures_only}",
                hint="grad-cam, layer-cam, gradient and occlusion are defined there",
            )

    def _evidence(
        self, rows: Sequence[int], targets: "Sequence[Target]", layer: str | None, label: str
    ) -> Evidence:
        every = len(rows) == len(self.tensors)
        values = self.values if every else {k: v[list(rows)] for k, v in self.values.items()}
        return Evidence(
            self.opened.model,
            self.tensors if every else self.tensors[list(rows)],
            targets,
            values,
            layer=layer,
            preprocess=self.opened.preprocessing.preprocess,
            progress=_labelled(self.progress, label),
        )

    def _common_layer(
        self, rows: Sequence[int], targets: "Sequence[Target]", request: "Request"
    ) -> tuple[str | None, str]:
        """The layer of all samples, and what is to be said of it.

        Raises:
            MethodRefused: Each sample has a layer of its own, or the choice itself is refused.
        """
        if not request.method.through_layer or self.layer is not None:
            return self.layer, ""
        found = {self._layer_for(row, target) for row, target in zip(rows, targets, strict=True)}
        if len(found) > 1:
            raise MethodRefused("the targets lie behind different layers", hint="name --layer")
        return found.pop()

    def _layer_for(self, row: int, target: "Target") -> tuple[str | None, str]:
        """The layer before a target that carries most of its evidence, and what else does.

        Levels of a pyramid on which the target does not depend have no gradient; branches that
        share a score have each a part of it.
        """
        layers, _ = self.opened.layers_before(*target.tensors)
        if len(layers) == 1:
            return layers[0].tensor, ""
        key = (row, target)
        if key not in self._chosen:
            doubt = self._doubt(target)  # settles which engine draws, too
            carried: dict[str, float] = {}
            waiting = layers
            # Behind a branch without evidence lies what it is computed from.
            while waiting and not any(carried.values()):
                ends = last_of(self.opened.graph, waiting)
                carried = {one.tensor: self._carried(row, target, one.tensor) for one in ends}
                waiting = tuple(one for one in waiting if one not in ends)
            total = sum(carried.values())
            best = max(carried, key=lambda name: carried[name])
            others = [name for name, own in carried.items() if name != best and own > 0]
            said = ""
            if others:
                said = (
                    f"{carried[best] / total:.0%} of the evidence (|g A|) passes through this "
                    f"layer, {best!r}; the rest through " + ", ".join(map(repr, others[:4]))
                )
            if doubt:
                said = "; ".join(filter(None, [said, doubt]))
            self._chosen[key] = best, said
        return self._chosen[key]

    def _doubt(self, target: "Target") -> str:
        """What is to be said of a layer that is chosen by a gradient nobody has certified."""
        try:
            verdicts = [self.opened.certificate_of(tensor) for tensor in sorted(target.tensors)]
        except _REFUSALS as error:
            return f"this layer was chosen by a gradient that is not certified ({error})"
        found = next((one for one in verdicts if one.passed is not True), None)
        if found is None:
            return ""
        return f"this layer was chosen by a gradient that is not certified ({found.text})"

    def _carried(self, row: int, target: "Target", layer: str) -> float:
        """Evidence that passes through a layer: the sum of |g A|."""
        evidence = self._evidence([row], [target], layer, "")
        return float(np.abs(evidence.gradient * evidence.activation).sum(dtype=np.float64))

    def _require_dependence(self, evidence: Evidence, request: "Request", row: int) -> None:
        """Refuse a map of a target whose gradient is zero everywhere; it says nothing.

        Raises:
            MethodRefused: The gradient is zero, at the layer or at the input.
        """
        method, target = request.method, evidence.targets[row]
        if self.keep_zero:
            return
        sloped = not method.needs.isdisjoint({"gradient", "input-gradient", "attention"})
        score = float(evidence.scores[row])
        if sloped and isinstance(target, Similarity) and abs(score) >= 1 - _SATURATED:
            raise MethodRefused(
                f"{method.name}: the similarity is {SATURATED}: at {score:.6g} a cosine has no "
                "slope",
                where=target.tensor,
                hint="compare with another photo; occlusion needs no gradient",
            )
        if "gradient" in method.needs and not evidence.sloped[row]:
            self._refuse_saturated(evidence, request, row)
            others = [
                one.tensor
                for one in self.opened.layers_before(*target.tensors)[0]
                if one.tensor != evidence.layer
            ]
            raise MethodRefused(
                f"{method.name}: {target.label!r} does not depend on this layer: the gradient is "
                "zero everywhere",
                where=repr(evidence.layer),
                hint="it lies behind " + ", ".join(map(repr, others[:4]))
                if others
                else "its value may be cut off or saturated; occlusion needs no gradient",
            )
        if "attention" in method.needs:
            last = evidence.attentions[-1]
            if not np.any(evidence.attention_gradient(last)[row]):
                self._refuse_saturated(evidence, request, row)
                raise MethodRefused(
                    f"{method.name}: {target.label!r} does not depend on this attention: the "
                    "gradient is zero everywhere",
                    where=repr(last),
                    hint="its value may be cut off or saturated; occlusion needs no gradient",
                )
        plain = method.needs == {"input-gradient"} and method.rule is None
        if plain and not np.any(evidence.input_gradient("gradient")[row]):
            self._refuse_saturated(evidence, request, row)
            raise MethodRefused(
                f"{method.name}: {target.label!r} does not depend on the image: the signal at the "
                "input is zero everywhere",
                where=target.tensor,
                hint="its value may be cut off or saturated; occlusion needs no gradient",
            )

    def _refuse_saturated(self, evidence: Evidence, request: "Request", row: int) -> None:
        """Refuse a target without a slope because it is a probability of 0 or 1.

        Raises:
            MethodRefused: It is one.
        """
        target, score = evidence.targets[row], abs(float(evidence.scores[row]))
        if min(score, abs(1 - score)) > _SATURATED:
            return
        nodes = [probability_before(self.opened.graph, name) for name in target.tensors]
        node = next(filter(None, nodes), None)
        if node is None:
            return
        raise MethodRefused(
            f"{request.method.name}: {target.label!r} is {SATURATED}: it is {score:.6g}, where "
            f"this {node.op_type.lower()} has no slope",
            where=f"{node.op_type} node {node.name!r}",
            hint=f"--target '{clean_text(node.inputs[0])}[0,...]' names an element before it; "
            "occlusion needs no gradient",
        )

    def _kind(self, evidence: Evidence, method: "Method") -> "_Kind":
        """What the maps of all samples have in common.

        Raises:
            MethodRefused: The layer's cells lie nowhere that is known.
        """
        layer = evidence.layer if method.through_layer else None
        if "head" in method.needs:
            layer = evidence.head.features
        placed = method.space == "layer" and layer is not None
        return _Kind(
            layer,
            evidence.placement(layer or "") if placed else None,
            evidence.lattice(layer if method.space == "layer" else None),
            method.unit(evidence.facts),
        )

    def _map(
        self,
        evidence: Evidence,
        request: "Request",
        row: int,
        values: Array,
        *,
        kind: "_Kind",
        notes: tuple[str, ...],
        probability: float | None,
    ) -> Map:
        method, target = request.method, evidence.targets[row]
        attribution = Attribution(
            values=np.asarray(values, dtype=np.float32),
            space=method.space,
            method=method.name,
            label=target.label,
            index=target.shown_index,
            tensor=target.tensor,
            score=float(evidence.scores[row]),
            probability=probability,
            layer=kind.layer,
            options=request.settings,
            notes=notes,
            reduction=method.reduction,
            channels=self.opened.preprocessing.preprocess.channels,
            signed=method.signed,
            placement=kind.placement,
            lattice=kind.lattice,
            opposed=target.opposed,
            unit=kind.unit,
            per_pixel="input-gradient" in method.needs,
        )
        return Map(request, attribution, dict(evidence.facts), tuple(evidence.notes))

    def _notes(
        self,
        evidence: Evidence,
        row: int,
        values: Array,
        method: "Method",
        *,
        spread: "Spread",
        unverified: str,
    ) -> Iterator[str]:
        if evidence.targets[row].note:
            yield evidence.targets[row].note
        fixed = self.opened.model.fixed
        if fixed is not None and not fixed.mixed.isdisjoint(evidence.targets[row].tensors):
            yield (
                f"the file takes {fixed.batch} images at once, and they act on each other: this "
                "photo fills all places, and beside others it would have another score"
            )
        yield from evidence.notes
        own = evidence.notes_of.get(row, [])
        yield from own
        if unverified:
            yield unverified
        if not spread.positive and not any(text.startswith(ZERO) for text in own):
            yield why_empty(evidence, row, values, method)
        if spread.flat:
            yield "the map has the same value everywhere: it points at no place"

    def _unverified(self, evidence: Evidence, method: "Method") -> str:
        """What is said of maps whose gradients no certificate proves; empty where one does."""
        if not method.differentiates:
            return ""
        names, certificate_of = sorted(tensors_of(evidence.targets)), self.opened.certificate_of
        found = [certificate_of(name, twin=method.by_twin) for name in names]
        certificate = next((one for one in found if one.passed is not True), None)
        return "" if certificate is None else f"unverified: {certificate.text}"

    def _probabilities(self, evidence: Evidence) -> list[float | None]:
        """Probability of each sample's target; None where it is not a class or not known."""
        scores, count = self.opened.scores, len(evidence.targets)
        if all(target.class_index is None for target in evidence.targets):
            return [None] * count
        values = np.asarray(evidence.values[scores.tensor]).reshape(count, -1)
        known = probabilities(values, scores.activation)
        if known is None and not has_shares(values).any():
            return [None] * count
        found: list[float | None] = []
        for row, target in enumerate(evidence.targets):
            own = (values if known is None else known.values)[row : row + 1]
            said = known is not None or bool(looks_like_probabilities(own))
            one = said and target.class_index is not None
            found.append(float(of_target(own, target)[0]) if one else None)
        return found


@dataclass(frozen=True, eq=False)
class _Kind:
    """What one method's maps of all samples have in common; fields as those of `Attribution`."""

    layer: str | None
    placement: Placement | None
    lattice: Lattice | None
    unit: str


def _by_sample(evidence: Evidence, request: "Request") -> Array:
    """What a method gives, one entry per sample."""
    found: Array = request.method(evidence, **request.options)
    return evidence.by_sample(found) if request.method.space == "layer" else found


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(label, done, total) if progress else None

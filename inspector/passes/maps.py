"""Maps of a batch: one forward pass for all samples, then every method on what it returned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ConverterError, InspectorError, MethodRefused, ModelRefused
from inspector.evidence import Evidence, tensors_for
from inspector.heatmap import Attribution
from inspector.target import probabilities

if TYPE_CHECKING:
    from inspector.methods import Request
    from inspector.opened import Opened
    from inspector.target import Target

__all__ = ["Map", "MapRefused", "forward_for", "layer_of", "maps_of"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]

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
    opened: "Opened", requests: "Sequence[Request]", layer: str | int | None
) -> str | None:
    """Tensor that layer methods explain through; None where no method needs one.

    Args:
        opened: The opened model.
        requests: The methods.
        layer: As the user named it; None for the default.

    Raises:
        UnknownLayer: There is no such layer.
        ModelRefused: The model has no convolution.
    """
    if layer is None and not any(request.method.through_layer for request in requests):
        return None
    return opened.layer_for(layer)[0].tensor


def forward_for(
    opened: "Opened",
    tensors: Array,
    names: Sequence[str],
    requests: "Sequence[Request]",
    layer: str | None,
) -> Mapping[str, Array]:
    """The one ONNX Runtime pass that all methods share.

    Args:
        opened: The opened model.
        tensors: (N, C, H, W), preprocessed.
        names: Tensors that targets are read from.
        requests: The methods.
        layer: From ``layer_of``.

    Returns:
        Everything that the methods need, by name, N rows each.
    """
    needs = frozenset(need for request in requests for need in request.method.needs)
    return opened.forward(tensors, tensors_for(opened.model, needs, layer, names))


def maps_of(
    opened: "Opened",
    tensors: Array,
    targets: "Sequence[Sequence[Target]]",
    requests: "Sequence[Request]",
    layer: str | None,
    *,
    values: Mapping[str, Array] | None = None,
    progress: Progress | None = None,
) -> Rows:
    """Every method for every target of every sample of a batch.

    What fails for one sample or by one method is kept in its place, and the others are done.

    Args:
        opened: The opened model.
        tensors: (N, C, H, W), preprocessed.
        targets: The targets of each sample; as many as each has.
        requests: The methods.
        layer: From ``layer_of``.
        values: From ``forward_for`` for these samples; computed when None.
        progress: Called with (what, done, total) during long work.

    Returns:
        For each sample its maps: methods first, then targets in their order.
    """
    if values is None:
        names = dict.fromkeys(target.tensor for row in targets for target in row)
        values = forward_for(opened, tensors, list(names), requests, layer)
    if len(tensors) > 1 and not opened.batches:  # samples act on each other: each on its own
        every: Rows = []
        for i, own in enumerate(targets):
            kept = {name: value[i : i + 1] for name, value in values.items()}
            alone = tensors[i : i + 1]
            every += maps_of(opened, alone, [own], requests, layer, values=kept, progress=progress)
        return every
    found: Rows = [[] for _ in targets]
    for request in requests:
        for rank in range(max(map(len, targets), default=0)):
            rows = [row for row, own in enumerate(targets) if rank < len(own)]
            chosen = [targets[row][rank] for row in rows]
            samples = _Samples(opened, tensors, values, layer, progress)
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

    def maps(
        self, rows: Sequence[int], targets: "Sequence[Target]", request: "Request"
    ) -> "Iterator[Map | MapRefused]":
        """One method on some samples together; one by one where it refuses them together."""
        evidence = self._evidence(rows, targets, request)
        try:
            arrays = request.method(evidence, **request.options)
        except _REFUSALS as error:
            if len(rows) == 1:
                yield MapRefused(request, targets[0], error)
                return
            for row, target in zip(rows, targets, strict=True):
                yield from self.maps([row], [target], request)
            return
        for place, target in enumerate(targets):
            try:
                yield self._map(evidence, request, place, arrays[place])
            except MethodRefused as error:  # the values of this sample are not finite
                yield MapRefused(request, target, error)

    def _evidence(
        self, rows: Sequence[int], targets: "Sequence[Target]", request: "Request"
    ) -> Evidence:
        every = len(rows) == len(self.tensors)
        values = self.values if every else {k: v[list(rows)] for k, v in self.values.items()}
        return Evidence(
            self.opened.model,
            self.tensors if every else self.tensors[list(rows)],
            targets,
            values,
            layer=self.layer,
            preprocess=self.opened.preprocessing.preprocess,
            progress=_labelled(self.progress, request.label),
        )

    def _map(self, evidence: Evidence, request: "Request", row: int, values: Array) -> Map:
        method, target = request.method, evidence.targets[row]
        layer = evidence.layer if method.through_layer else None
        if "head" in method.needs:
            layer = evidence.head.features
        attribution = Attribution(
            values=np.asarray(values, dtype=np.float32),
            space=method.space,
            method=method.name,
            label=target.label,
            index=target.class_index,
            tensor=target.tensor,
            score=float(evidence.scores[row]),
            probability=self._probability(evidence, row),
            layer=layer,
            options=request.settings,
            notes=tuple(self._notes(evidence, values, differentiates=method.differentiates)),
            reduction=method.reduction,
            channels=self.opened.preprocessing.preprocess.channels,
            signed=method.signed,
        )
        return Map(request, attribution, dict(evidence.facts), tuple(evidence.notes))

    def _notes(self, evidence: Evidence, values: Array, *, differentiates: bool) -> Iterator[str]:
        yield from evidence.notes
        certificate = self.opened.certificate if differentiates else None
        if certificate is not None and certificate.passed is not True:
            yield f"unverified: {certificate.text}"
        if not np.any(values > 0):
            yield "no positive evidence" + (" at this layer" if values.ndim == 2 else "")

    def _probability(self, evidence: Evidence, row: int) -> float | None:
        index, scores = evidence.targets[row].class_index, self.opened.scores
        if index is None:
            return None
        found = np.asarray(evidence.values[scores.tensor][row]).reshape(-1)
        known = probabilities(found, scores.activation)
        return None if known is None else float(known.values[index])


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(label, done, total) if progress else None

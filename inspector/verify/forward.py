"""Every tensor: ONNX Runtime with optimisations off against the twin in float32 and in float64.

Memory is bounded: the twins give up a tensor when it has been read for the last time, and ONNX
Runtime runs again for each group of tensors.  The
float64 twin tells which of two float32 sides rounds more, wherever they differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np

from converters.parity import TensorParity, compare
from inspector.engines.rules import is_rectifier
from inspector.engines.runtime import Runtime
from inspector.verify.subject import Probe, Subject
from inspector.verify.walk import walk

__all__ = ["GROUP_BYTES", "Forward", "TensorRecord", "compare_forward", "gate_bounds", "groups"]

Array = np.ndarray[Any, Any]

GROUP_BYTES = 2**29
"""Tensors that ONNX Runtime returns from one run, in bytes."""


@dataclass(frozen=True)
class TensorRecord:
    """One tensor, in the input where the two sides differ most.

    Attributes:
        parity: The twin in float32 against ONNX Runtime.
        probe: Name of the input.
        runtime_error: ONNX Runtime against the float64 twin, relative to the peak.
        twin_error: The float32 twin against the float64 twin, relative to the peak.
        whole: Whether the tensor holds whole numbers.
        beyond_unit: Share of elements that differ by more than one; whole tensors only.
    """

    parity: TensorParity
    probe: str
    runtime_error: float = 0.0
    twin_error: float = 0.0
    whole: bool = False
    beyond_unit: float = 0.0


@dataclass(frozen=True)
class Forward:
    """The comparison of all tensors over all inputs.

    Attributes:
        records: One entry a tensor, in graph order: the input with the largest difference.
        by_probe: Largest difference of each tensor for each input.
        gates: Gates that are open on one side and shut on the other, counted by pair of sides;
            ``gates`` is their number.
        groups: In how many parts ONNX Runtime's tensors had to be fetched; more than one for a
            model with large tensors.
    """

    records: Mapping[str, TensorRecord]
    by_probe: Mapping[str, Mapping[str, float]]
    gates: Mapping[str, int]
    groups: int = field(default=1, compare=False)

    @property
    def worst(self) -> TensorRecord | None:
        """The tensor that differs most."""
        return max(self.records.values(), key=lambda r: r.parity.worst, default=None)

    def beyond(self, tolerance: float) -> tuple[TensorRecord, ...]:
        """Records that differ by more than a tolerance, in graph order."""
        return tuple(r for r in self.records.values() if not r.parity.worst <= tolerance)


def compare_forward(subject: Subject, probes: Sequence[Probe], *, exact: bool = True) -> Forward:
    """Compare every tensor for every input.

    Args:
        subject: The model under test.
        probes: The inputs.
        exact: Whether to run the float64 twin too.
    """
    records: dict[str, TensorRecord] = {}
    by_probe: dict[str, dict[str, float]] = {probe.name: {} for probe in probes}
    gates = {"gates": 0, "runtime_twin": 0, "twin_exact": 0}
    bounds = gate_bounds(subject)
    split = list(groups(subject, probes[0], subject.names))
    # One session for all inputs where one group is enough; else one at a time.
    kept = Runtime(subject.model.file, device="cpu", optimise=False) if len(split) == 1 else None
    for probe in probes:
        for name, sides in _sides(subject, probe, split, kept, exact=exact):
            record = _record(name, probe, *sides)
            by_probe[probe.name][name] = record.parity.worst
            before = records.get(name)
            if before is None or not record.parity.worst <= before.parity.worst:
                records[name] = record
            for low, high in bounds.get(name, ()):
                _count_gates(gates, sides, low, high)
    ordered = {name: records[name] for name in subject.names if name in records}
    return Forward(ordered, by_probe, gates, len(split))


def _sides(
    subject: Subject,
    probe: Probe,
    split: Sequence[Sequence[str]],
    kept: Runtime | None,
    *,
    exact: bool,
) -> "Iterator[tuple[str, tuple[Array, Array, Array | None]]]":
    """Each tensor of ONNX Runtime, of the twin, and of the float64 twin, in graph order.

    The twins run once, side by side; ONNX Runtime runs once for each group of tensors.
    """
    from converters.to_torch.values import as_array

    feeds = subject.feeds(probe)
    home = {name: i for i, group in enumerate(split) for name in group}
    ours = walk(subject.twin, subject.tensors(subject.twin, feeds), subject.names)
    precise: Iterator[Any] = repeat(None)
    if exact:
        precise = walk(subject.exact, subject.tensors(subject.exact, feeds), subject.names)
    at, reference = -1, dict[str, Array]()
    for (step, environment), other in zip(ours, precise, strict=False):
        for name in step.outputs:
            if name not in home:
                continue
            if home[name] != at:
                at = home[name]
                reference.clear()
                runtime = kept or Runtime(subject.model.file, device="cpu", optimise=False)
                reference = runtime.run(feeds, split[at])
            value = reference.pop(name)
            if not _is_numbers(value):
                continue
            twin = as_array(environment[name])
            yield name, (value, twin, None if other is None else as_array(other[1][name]))


def groups(subject: Subject, probe: Probe, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Split tensors, in order, into groups of at most ``GROUP_BYTES``."""
    sizes: dict[str, int] = {}
    feeds = subject.tensors(subject.twin, subject.feeds(probe))
    for step, environment in walk(subject.twin, feeds, names):
        for name in step.outputs:
            value = environment.get(name)
            if value is not None and hasattr(value, "numel"):
                sizes[name] = value.numel() * value.element_size()
    group: list[str] = []
    total = 0
    for name in names:
        if group and total + sizes.get(name, 0) > GROUP_BYTES:
            yield tuple(group)
            group, total = [], 0
        group.append(name)
        total += sizes.get(name, 0)
    if group:
        yield tuple(group)


def gate_bounds(subject: Subject) -> dict[str, list[tuple[float, float | None]]]:
    """Where the gates of rectifiers open and shut, by the tensor that decides it."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    for activation in subject.twin.activations:
        if is_rectifier(activation):
            high = activation.high if activation.kind == "Clip" else None
            found.setdefault(activation.input, []).append((0.0, high))
    return found


def _record(
    name: str, probe: Probe, reference: Array, ours: Array, precise: Array | None
) -> TensorRecord:
    (parity,) = compare({name: reference}, {name: ours}, [name]).tensors
    whole = reference.dtype.kind in "iu"
    beyond = 0.0
    if whole and reference.shape == ours.shape and reference.size:
        # Whole numbers of any width, and the twin's floats that hold them.
        apart = np.abs(reference.astype(np.float64) - ours.astype(np.float64))
        beyond = float(np.mean(apart > 1))
    if precise is None or precise.shape != reference.shape or ours.shape != reference.shape:
        return TensorRecord(parity, probe.name, whole=whole, beyond_unit=beyond)
    return TensorRecord(
        parity, probe.name, _apart(reference, precise), _apart(ours, precise), whole, beyond
    )


def _apart(side: Array, precise: Array) -> float:
    """Largest difference from float64, relative to its peak; NaN and infinities left out."""
    exact = precise.astype(np.float64)
    known = np.isfinite(exact) & np.isfinite(side.astype(np.float64))
    peak = float(np.abs(exact[known]).max(initial=0.0))
    worst = float(np.abs(side.astype(np.float64) - exact)[known].max(initial=0.0))
    return worst / peak if peak else worst


def _count_gates(
    gates: dict[str, int],
    sides: tuple[Array, Array, Array | None],
    low: float,
    high: float | None,
) -> None:
    runtime, ours, precise = (None if side is None else _open(side, low, high) for side in sides)
    if runtime is None or ours is None or runtime.shape != ours.shape:
        return
    gates["gates"] += int(ours.size)
    gates["runtime_twin"] += int((runtime != ours).sum())
    if precise is not None and precise.shape == ours.shape:
        gates["twin_exact"] += int((ours != precise).sum())


def _open(x: Array, low: float, high: float | None) -> Array:
    return np.asarray((x > low) if high is None else (x > low) & (x < high))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"

"""How well a converted file agrees with its source, and where that is written down.

The source framework and ONNX Runtime compute the same inputs: random ones in batches of 1 and 3,
noise with the spectrum of photographs, and photos where there are some. Rounding does more on some
kinds of inputs than on others, so what is accepted is measured by kind (``limits``). The result
stands beside the model as ``MODEL.certificate.json`` and in the file's own metadata,
``inspector.conversion`` (which is the word of whoever wrote the file).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.conversion.inputs import KINDS, kind_of
from converters.errors import ConversionFailed
from converters.parity import TensorParity, compare, top1_agreement
from converters.plain_values import finite_number, parse_json

__all__ = [
    "METADATA_KEY",
    "ConversionRecord",
    "Trial",
    "constant_offset",
    "judged",
    "recorded",
    "run_onnx",
]

Array = NDArray[Any]

METADATA_KEY = "inspector.conversion"
"""Key of the record in a file's ``metadata_props``."""

TOLERANCE = 1e-4
"""Largest difference that is accepted, relative to the peak of an output."""

EQUAL = 0.99
"""Least share of equal elements of an output of integers (class numbers) that is not judged by
its values."""

ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Difference of two sigmoids or softmaxes of floats that their rounding makes."""

OFFSET = 0.006
"""Difference that is the same on every input, relative to the peak, that rounding does not make: a
lost constant below three quarters of a level of 8 bits changes no level for good."""

_SHOWN = 1e-5
"""A change by a millionth of the input that is worth a word."""

_SURE = 1.5
"""How many times what changes with the input it has to be; chance gives half of it at most."""

SCHEMA = 1
_MOST_BYTES = 1 << 16
_MOST_NAME = 100


@dataclass(frozen=True)
class Trial:
    """One set of inputs through both sides.

    Attributes:
        name: What the inputs were.
        samples: How many.
        worst: Largest difference of any output, relative to that output's peak.
        mean: Mean difference of the outputs' elements, likewise; the largest of all outputs.
        top1: Share of samples with the same largest score; None where no output is (N, K).
        why: What is wrong where the two cannot be compared (shapes, NaN); else empty.
        equal: Share of equal elements of the outputs of integers; the smallest of all; None where
            there are none. Class numbers that mostly agree are left out of ``worst``.
        at: The largest difference in words: output, index, and both values.
        limit: Largest difference that is accepted on such inputs.
    """

    name: str
    samples: int
    worst: float
    mean: float
    top1: float | None
    why: str = ""
    equal: float | None = None
    at: str = ""
    limit: float = TOLERANCE

    @property
    def kind(self) -> str:
        """Kind of the inputs, of ``KINDS``."""
        return kind_of(self.name)

    @property
    def apart(self) -> float:
        """How far apart the two are, the unequal share of integers included."""
        return max(self.worst, 1.0 - (1.0 if self.equal is None else self.equal))


@dataclass(frozen=True)
class ConversionRecord:
    """Record of a conversion: source, tools, and how well source and file agree.

    Attributes:
        path: The ONNX file.
        source: The source's name: of its file or folder, or ``package.module:name``.
        source_sha256: Hash of the source's content; empty where it has none of its own.
        framework: Where it comes from.
        versions: Packages that took part.
        trials: The comparisons.
        quantised: Classes were compared beside values.
        preprocess: What the source says of its input.
        labels: How many class names it brought.
        notes: What a user should know about the result.
        kernels: The same comparison between two implementations of the source's own framework, of
            a quantised source: what rounding alone can do, by kind of inputs.
        offset: Difference that all inputs have in common and that rounding does not make.
        drift: A mean difference that the kernels' rounding does not make, in words; else empty.
        changes: The source's outputs against those for inputs changed by a millionth; none where
            that was not asked.
    """

    path: Path
    source: str
    source_sha256: str
    framework: str
    versions: Mapping[str, str]
    trials: tuple[Trial, ...]
    quantised: bool
    preprocess: Mapping[str, Any]
    labels: int
    notes: tuple[str, ...] = ()
    kernels: tuple[Trial, ...] = ()
    offset: float = 0.0
    drift: str = ""
    changes: tuple[Trial, ...] = ()

    @property
    def worst(self) -> float:
        """Largest difference of all trials."""
        return max((trial.worst for trial in self.trials), default=0.0)

    @property
    def mean(self) -> float:
        """Largest mean difference of all trials."""
        return max((trial.mean for trial in self.trials), default=0.0)

    @property
    def top1(self) -> float | None:
        """Share of all samples with the same class; None where there are no classes."""
        known = [trial for trial in self.trials if trial.top1 is not None]
        total = sum(trial.samples for trial in known)
        return sum((t.top1 or 0.0) * t.samples for t in known) / total if total else None

    @property
    def equal(self) -> float | None:
        """Smallest share of equal elements of outputs of integers; None where there are none."""
        return min((t.equal for t in self.trials if t.equal is not None), default=None)

    @property
    def tolerance(self) -> float:
        """Largest difference that was accepted on any kind of inputs."""
        return max((trial.limit for trial in self.trials), default=0.0)

    @property
    def spread(self) -> float | None:
        """Largest difference between the source's own kernels; None where there is one kind."""
        return max((trial.apart for trial in self.kernels), default=None)

    @property
    def sensitivity(self) -> float | None:
        """How much the source's outputs change with a millionth of its input; None if unknown."""
        return max((trial.worst for trial in self.changes if not trial.why), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the path is left out, so that equal conversions have equal documents."""
        return {
            "schema": SCHEMA,
            "source": {
                "name": self.source,
                "sha256": self.source_sha256,
                "framework": self.framework,
            },
            "versions": dict(sorted(self.versions.items())),
            "tolerance": self.tolerance,
            "worst": self.worst,
            "mean": self.mean,
            "top1_agreement": self.top1,
            "equal_elements": self.equal,
            "kernel_spread": self.spread,
            "sensitivity": self.sensitivity,
            "quantised": self.quantised,
            "trials": [asdict(trial) for trial in self.trials],
            "preprocess": dict(self.preprocess),
            "labels": self.labels,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """One line: how well source and file agree."""
        samples = sum(trial.samples for trial in self.trials)
        agreement = "" if self.top1 is None else f", same class on {self.top1:.0%}"
        if self.equal is not None:
            agreement += f", {self.equal:.1%} of integers equal"
        if self.kernels:
            agreement += f" ({self.framework}'s own kernels differ by {self._spreads()})"
        if self.sensitivity is not None and self.sensitivity > _SHOWN:
            agreement += (
                f" (its outputs change by {self.sensitivity:.1e} with a millionth of the input)"
            )
        return (
            f"{self.framework} and ONNX Runtime differ by at most {self.worst:.1e} of the "
            f"outputs' peak (mean {self.mean:.1e}) on {samples} inputs{agreement}"
        )

    def _spreads(self) -> str:
        """How far the source's own kernels part, by kind of inputs."""
        found = {
            kind: max((trial.apart for trial in self.kernels if trial.kind == kind), default=None)
            for kind in KINDS
        }
        return ", ".join(f"{n:.1e} on {kind} inputs" for kind, n in found.items() if n is not None)


def judged(
    name: str,
    expected: Sequence[Array],
    got: Sequence[Array],
    tolerance: float,
    equal: float = EQUAL,
    *,
    squashed: Collection[int] = (),
    outputs: Sequence[str] = (),
) -> Trial:
    """Compare the outputs of the two sides.

    Args:
        name: What the inputs were.
        expected: Outputs of the source.
        got: Outputs of the file.
        tolerance: Largest difference that is accepted, relative to an output's peak.
        equal: Share of equal elements from which on an output of integers is not judged by its
            values: class 3 in the place of class 17 is one wrong element, not a large difference.
        squashed: Outputs that come out of a sigmoid or softmax: they are rounded as 1 is, however
            small they all are, and ``ROUNDING`` is not a difference.
        outputs: Their names; numbers stand for those that have none.
    """
    keys = _keys(max(len(expected), len(got)), outputs)
    shares = [_equal_share(a, b) for a, b in zip(expected, got, strict=False)]
    sides = [dict(zip(keys, arrays, strict=False)) for arrays in (expected, got)]
    for key, share in zip(keys, shares, strict=False):
        if share is not None and share >= equal:
            sides[1][key] = sides[0][key]
    for index, (a, b) in enumerate(zip(expected, got, strict=False)):
        if index in squashed and a.shape == b.shape and a.dtype.kind == b.dtype.kind == "f":
            sides[1][keys[index]] = np.where(np.abs(a - b) <= ROUNDING, a, b)
    found = compare(sides[0], sides[1], keys, tolerance=tolerance)
    worst = found.worst.worst if found.worst else float("inf")
    samples = len(expected[0]) if expected and expected[0].ndim else 1
    if found.missing or not np.isfinite(worst):
        why = f"of {len(expected)} outputs {len(expected) - len(got)} missing"
        why = why if found.missing else str(found.worst)
        return Trial(name, samples, np.finfo(np.float64).max, 0.0, None, why, limit=tolerance)
    top1, mean = None, 0.0
    for key in keys:
        a, b = sides[0][key], sides[1][key]
        if a.dtype.kind not in "fiub":
            continue
        peak = float(np.abs(a.astype(np.float64)).max(initial=0)) or 1.0
        mean = max(mean, float(np.abs(a.astype(np.float64) - b).mean() / peak))
        if top1 is None and a.ndim >= 2 and a.size == a.shape[0] * max(a.shape[1:]) > a.shape[0]:
            rows = len(a)
            top1 = top1_agreement(a.reshape(rows, -1), b.reshape(rows, -1))
    known = [share for share in shares if share is not None]
    at = _place(found.worst, *sides)
    least = min(known, default=None)
    return Trial(name, samples, worst, mean, top1, equal=least, at=at, limit=tolerance)


def _keys(count: int, outputs: Sequence[str]) -> list[str]:
    """What outputs are called, each its own: by their names, or numbers where there are none."""
    keys = [f"output {index}" for index in range(count)]
    keys[: len(outputs)] = [f"output {name[:_MOST_NAME]}" for name in outputs[:count]]
    return keys if len({*keys}) == count else [f"output {index}" for index in range(count)]


def _place(
    found: TensorParity | None, expected: Mapping[str, Array], got: Mapping[str, Array]
) -> str:
    """The largest difference in words: output, index, and both values."""
    if found is None or found.at is None:
        return ""
    a, b = (side[found.name][found.at] for side in (expected, got))
    index = list(found.at)
    return f"{found.name} at {index} is {a:.6g} in the source and {b:.6g} in the ONNX file"


def _equal_share(a: Array, b: Array) -> float | None:
    """Share of equal elements of two outputs of integers of one shape; else None."""
    if a.dtype.kind not in "iub" or b.dtype.kind not in "iub" or a.shape != b.shape:
        return None
    return float(np.mean(a == b)) if a.size else 1.0


def constant_offset(expected: Sequence[Sequence[Array]], got: Sequence[Sequence[Array]]) -> float:
    """Largest difference of an output that is the same on every input, relative to its peak.

    Rounding errors change with the input.  What is off by the same amount on all inputs has lost a
    constant, such as a bias, even where the difference is within the tolerance of levels.

    Args:
        expected: Outputs of the source, trial by trial.
        got: Outputs of the file.

    Returns:
        Root of the mean square over an output's elements; 0 where the differences change more than
        a third of it with the input, fewer than four samples say nothing, or the two sides have
        not the same number of outputs.

    Example:
        >>> import numpy as np
        >>> from converters.conversion.record import constant_offset
        >>> scores = np.eye(4)
        >>> constant_offset([[scores]], [[scores + 0.05]])
        0.05
    """
    found = 0.0
    if len({len(outputs) for outputs in (*expected, *got)}) > 1:
        return found
    for a, b in zip(zip(*expected, strict=True), zip(*got, strict=True), strict=True):
        sides = [_samples(arrays) for arrays in (a, b)]
        if sides[0] is None or sides[1] is None or sides[0].shape != sides[1].shape:
            continue
        if len(sides[0]) < 4:
            continue
        difference = sides[1] - sides[0]
        common = difference.mean(axis=0)
        offset = _root_mean_square(common)
        # Where the outputs themselves hardly change, neither do the errors of rounding.
        varies = _root_mean_square(sides[0] - sides[0].mean(axis=0))
        if offset > _SURE * _root_mean_square(difference - common) and varies > offset / 2:
            found = max(found, offset / (float(np.abs(sides[0]).max()) or 1.0))
    return round(found, 12)


def _samples(arrays: Sequence[Array]) -> NDArray[np.float64] | None:
    """All samples (N, elements) of an output of floats; None where they are not comparable."""
    if any(a.dtype.kind != "f" or a.ndim < 2 or a.shape[1:] != arrays[0].shape[1:] for a in arrays):
        return None
    if not arrays[0][0].size:
        return None
    table = np.concatenate([a.reshape(len(a), -1) for a in arrays]).astype(np.float64)
    return table if np.isfinite(table).all() else None


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def run_onnx(path: Path, inputs: Sequence[Array], where: str) -> list[Array]:
    """All outputs of a file on the CPU; a file whose batch is fixed, sample by sample.

    Raises:
        ConversionFailed: ONNX Runtime does not load or run it.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Pairs of (de)quantisation stay floats; fused, their sums saturate on some processors.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        return [np.asarray(v) for v in session.run(None, dict(zip(names, inputs, strict=True)))]
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no other root
        text = " ".join(str(error).split())[:300]
        raise ConversionFailed(
            f"ONNX Runtime does not run the converted file: {text}", where=where
        ) from None


def recorded(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The record that a file says it was converted with; None when it says nothing.

    The words are those of whoever wrote the file: only plain values of the known keys come back.
    """
    text = metadata.get(METADATA_KEY, "")
    if not text or len(text) > _MOST_BYTES:
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("source"), dict):
        return None
    source = {k: str(v)[:200] for k, v in found["source"].items() if isinstance(v, str)}
    numbers = {
        key: number
        for key in ("worst", "mean", "top1_agreement", "tolerance")
        if (number := finite_number(found.get(key))) is not None
    }
    return {"source": source, **numbers}

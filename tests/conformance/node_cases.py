"""The ONNX standard's own node cases, run through the twin and judged.

``EXCLUDED`` names what the twin refuses, with one reason a line; a refusal that is not named here
is a failure, and so is a name here that passes.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from converters.errors import ConverterError, UnsupportedOperator
from converters.to_torch.program import Program

EXCLUDED: dict[str, str] = {}


@dataclass
class Outcome:
    """What became of one case."""

    name: str
    verdict: str  # passed | refused | failed | wrong
    reason: str = ""


@dataclass
class Figures:
    """Counts over all cases and the cases behind them."""

    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, verdict: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.verdict == verdict]

    def __str__(self) -> str:
        counts = Counter(outcome.verdict for outcome in self.outcomes)
        parts = [f"{counts[v]} {v}" for v in ("passed", "refused", "failed", "wrong")]
        return f"node cases of onnx {onnx.__version__}: {len(self.outcomes)}: " + ", ".join(parts)


def collect() -> list[Any]:
    """All node cases of the installed onnx, by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, from computing the expected values
        return sorted(collect_testcases(None), key=lambda case: case.name)


def exclusion(name: str) -> str | None:
    """Reason why a case is excluded; None when it is not."""
    return next((why for pattern, why in EXCLUDED.items() if fnmatch(name, pattern)), None)


def judge(case: Any) -> Outcome:
    """Run one case and compare it at its own tolerances."""
    try:
        program = Program(case.model)
        for inputs, expected in case.data_sets:
            verdict = _difference(program, case, inputs, expected)
            if verdict:
                return Outcome(case.name, "wrong", verdict)
    except UnsupportedOperator as error:
        return Outcome(case.name, "refused", str(error))
    except ConverterError as error:
        refused = isinstance(error.__cause__, NotImplementedError)
        return Outcome(case.name, "refused" if refused else "failed", str(error))
    except Exception as error:  # noqa: BLE001 - the case is reported, with what went wrong
        return Outcome(case.name, "failed", f"{type(error).__name__}: {error}")
    return Outcome(case.name, "passed")


def _difference(program: Program, case: Any, inputs: Any, expected: Any) -> str:
    """Run one data set; say what differs, or nothing."""
    graph = case.model.graph
    feeds = {
        value.name: _value(program, array)
        for value, array in zip(graph.input, inputs, strict=False)
    }
    names = [value.name for value in graph.output]
    with torch.no_grad():
        found = program.run(feeds, names)
    for name, wanted in zip(names, expected, strict=True):
        problem = _compare(found[name], wanted, case.rtol, case.atol)
        if problem:
            return f"output {name!r}: {problem}"
    return ""


def _value(program: Program, value: Any) -> Any:
    """A feed in the twin's own types."""
    if value is None or isinstance(value, list):
        return value if value is None else [_value(program, item) for item in value]
    return program._tensor(_array(value))


def _array(value: Any) -> np.ndarray[Any, Any]:
    return (
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    )


def _compare(found: Any, wanted: Any, rtol: float, atol: float) -> str:
    if wanted is None or isinstance(wanted, list):
        if wanted is None:
            return "" if found is None else "a value where none is expected"
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"a sequence of {len(wanted)} is expected"
        return "".join(_compare(f, w, rtol, atol) for f, w in zip(found, wanted, strict=True))
    wanted = _array(wanted)
    if list(found.shape) != list(wanted.shape):
        return f"shape {list(found.shape)} instead of {list(wanted.shape)}"
    found = found.to(torch.float32) if found.dtype in _FLOAT8 else found
    actual = found.numpy()
    if not _same_kind(actual.dtype, wanted.dtype):
        return f"type {actual.dtype} instead of {wanted.dtype}"
    actual = actual.astype(wanted.dtype)  # the twin computes narrow floats in float32
    kind = np.float64 if wanted.dtype.kind not in "biuc" else wanted.dtype
    close = np.isclose(actual.astype(kind), wanted.astype(kind), rtol, atol, equal_nan=True)
    return "" if close.all() else f"{(~close).sum()} of {close.size} elements differ"


_FLOAT8 = {
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.bfloat16,
}


def _same_kind(actual: Any, wanted: Any) -> bool:
    """Equal types, up to what the twin carries in a wider type."""
    if wanted.name in {"int4", "uint4", "int2", "uint2"}:
        return actual.name == ("int8" if wanted.name.startswith("i") else "uint8")
    if wanted.itemsize <= 2 and wanted.kind not in "biu":
        return actual == np.float32
    return actual == wanted


def judged() -> Iterator[Outcome]:
    """Judge all cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect():
            yield judge(case)

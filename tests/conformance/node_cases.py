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

from converters.errors import ConverterError
from converters.to_torch.program import Program

_STRINGS = "strings are not tensors of numbers"
_RANDOM = "draws random numbers: no twin can be equal"
_CLASSIC = "classical machine learning: the program stops before it"
_TRAINING = "an optimiser's step: training only"
_OMITTED = "onnx's inliner cannot type an omitted input of a function body"
_NARROW = "a type of fewer than 8 bits, or float8e8m0, that torch does not compute with"
_AMBIGUOUS = "implementations disagree on the result"

EXCLUDED: dict[str, str] = {
    "test_adagrad*": _TRAINING,
    "test_adam*": _TRAINING,
    "test_momentum*": _TRAINING,
    "test_nesterov_momentum": _TRAINING,
    "test_ai_onnx_ml_*": _CLASSIC,
    "test_bernoulli*": _RANDOM,
    "test_training_dropout*": _RANDOM,
    "test_equal_string*": _STRINGS,
    "test_regex_full_match_*": _STRINGS,
    "test_string_*": _STRINGS,
    "test_strnorm*": _STRINGS,
    "test_tfidfvectorizer_*": "counts n-grams of text",
    "test_image_decoder_*": "decodes files, outside of any gradient",
    "test_cast_*FLOAT4E2M1*": _NARROW,
    "test_cast_*E8M0*": _NARROW,
    "test_cast_*_to_*INT[24]": _NARROW,
    "test_castlike_*FLOAT4E2M1*": _NARROW,
    "test_castlike_*_to_*INT[24]*": _NARROW,
    "test_castlike_*INT[24]_to_*INT8": _NARROW,
    "test_*quantizelinear_float4e2m1": _NARROW,
    "test_maxunpool_export_with_output_shape": _AMBIGUOUS,
    "test_resize_downsample_scales_*_align_corners": _AMBIGUOUS,
}

ROUNDING: dict[str, str] = {
    "test_attention_*bf16*": "bfloat16 is computed in float32, the case rounds at every step",
    "test_dft_inverse*": "zero, where the case holds float32 noise of 2e-7 beside values of 100",
}
"""Cases whose own tolerance asks for the very rounding of their author's machine.

They are counted apart, neither as passed nor as wrong, and only while they stay within
``ROUNDING_UNITS`` units of rounding of the output's type, relative to the output's peak.
"""

ROUNDING_UNITS = 2.0


VERDICTS = ("passed", "rounding", "refused", "failed", "wrong")


@dataclass
class Outcome:
    """What became of one case."""

    name: str
    verdict: str  # one of VERDICTS
    reason: str = ""


@dataclass
class Figures:
    """Counts over all cases and the cases behind them."""

    outcomes: list[Outcome] = field(default_factory=list)

    def of(self, verdict: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.verdict == verdict]

    def __str__(self) -> str:
        counts = Counter(outcome.verdict for outcome in self.outcomes)
        parts = [f"{counts[v]} {v}" for v in VERDICTS]
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
            found = _run(program, case, inputs)
            problem = _difference(found, expected, case.rtol, case.atol)
            if problem:
                rounding = _is_rounding(case.name, found, expected)
                return Outcome(case.name, "rounding" if rounding else "wrong", problem)
    except Exception as error:  # noqa: BLE001 - the case is reported, with what went wrong
        verdict = "refused" if _is_refusal(error) else "failed"
        return Outcome(case.name, verdict, f"{type(error).__name__}: {error}")
    return Outcome(case.name, "passed")


def _is_refusal(error: Exception) -> bool:
    """Whether the twin said no on purpose, rather than fell over."""
    if isinstance(error, ConverterError) and error.__cause__ is not None:
        return isinstance(error.__cause__, NotImplementedError)
    return isinstance(error, ConverterError | NotImplementedError)


def _run(program: Program, case: Any, inputs: Any) -> list[Any]:
    """Run one data set through the twin."""
    graph = case.model.graph
    feeds = {
        value.name: _value(program, array)
        for value, array in zip(graph.input, inputs, strict=False)
    }
    names = [value.name for value in graph.output]
    with torch.no_grad():
        found = program.run(feeds, names)
    return [found[name] for name in names]


def _difference(found: Any, expected: Any, rtol: float, atol: float) -> str:
    """Say in which output something differs, or nothing."""
    for position, (value, wanted) in enumerate(zip(found, expected, strict=True)):
        problem = _compare(value, wanted, rtol, atol)
        if problem:
            return f"output {position}: {problem}"
    return ""


def _is_rounding(name: str, found: Any, expected: Any) -> bool:
    """Whether a listed case stays within some units of rounding of each output's peak."""
    if not any(fnmatch(name, pattern) for pattern in ROUNDING):
        return False
    for value, wanted in zip(found, map(_array, expected), strict=True):
        unit = 2.0**-8 if wanted.dtype.name == "bfloat16" else float(np.finfo(wanted.dtype).eps)
        peak = float(np.abs(wanted.astype(np.float64)).max())
        if _compare(value, wanted, 0.0, ROUNDING_UNITS * unit * peak):
            return False
    return True


def _value(program: Program, value: Any) -> Any:
    """A feed in the twin's own types."""
    if value is None or isinstance(value, list):
        return value if value is None else [_value(program, item) for item in value]
    array = _array(value)
    if array.dtype.kind in "OSU" or array.dtype.name in {"float4_e2m1fn", "float8_e8m0fnu"}:
        raise NotImplementedError(f"inputs of type {array.dtype}")
    return program._compiler.tensor(array)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return (
        numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    )


def _compare(found: Any, wanted: Any, rtol: float, atol: float) -> str:
    """Say how a value (tensor, sequence, optional) differs from the expected one, or nothing."""
    if wanted is None:
        return "" if found is None else "a value where none is expected"
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"a sequence of {len(wanted)} is expected"
        return "".join(_compare(f, w, rtol, atol) for f, w in zip(found, wanted, strict=True))
    return _compare_tensors(found, _array(wanted), rtol, atol)


def _compare_tensors(
    found: torch.Tensor, wanted: np.ndarray[Any, Any], rtol: float, atol: float
) -> str:
    if list(found.shape) != list(wanted.shape):
        return f"shape {list(found.shape)} instead of {list(wanted.shape)}"
    actual = (found.to(torch.float32) if found.dtype in _FLOAT8 else found).numpy()
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

"""Two runs compared: differences are what a slow loop finds; nothing odd passes as equal."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.parity import compare, top1_agreement


def one(reference, other, tolerance=1e-4):
    parity = compare({"x": np.asarray(reference)}, {"x": np.asarray(other)}, ["x"])
    assert parity.tolerance == tolerance
    return parity.tensors[0]


def literal(reference, other):
    """The table of the module's docstring, number by number."""
    peak = max((abs(a) for a in reference if math.isfinite(a)), default=0.0)
    worst = 0.0
    for a, b in zip(reference, other, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            if a != b:
                worst = max(worst, abs(b - a) / peak if peak else math.inf)
        elif not (a == b or (math.isnan(a) and math.isnan(b))):
            return math.inf
    return worst


floats = st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


@given(
    hnp.arrays(np.float64, st.shared(st.integers(1, 6), key="n"), elements=floats),
    hnp.arrays(np.float64, st.shared(st.integers(1, 6), key="n"), elements=floats),
)
def test_worst_is_what_a_loop_finds(a, b):
    assert one(a, b).worst == pytest.approx(literal(a.tolist(), b.tolist()), rel=1e-12)
    assert one(a, a.copy()).worst == 0


def test_relative_to_the_peak_and_where_it_is():
    a = np.array([[1.0, -200.0], [3.0, 4.0]])
    b = a.copy()
    b[1, 0] += 0.5
    b[0, 1] += 0.1
    entry = one(a, b)
    assert entry.worst == pytest.approx(0.5 / 200)
    assert (entry.at, entry.peak) == ((1, 0), 200)
    assert str(entry) == "x: 2.50e-03 of its peak 200 at [1, 0]"


@pytest.mark.parametrize(
    ("reference", "other", "why"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "shape [3, 2] instead of [2, 3]"),
        (np.zeros(2), np.array([0, 1e-30]), "1e-30 instead of 0 everywhere"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), "nan instead of 2.0 at [1]"),
        (np.array([np.nan, 2.0]), np.array([1.0, 2.0]), "1.0 instead of nan at [0]"),
        (np.array([np.inf]), np.array([-np.inf]), "-inf instead of inf at [0]"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "strings differ"),
    ],
)
def test_what_cannot_be_measured_is_infinite_and_says_why(reference, other, why):
    entry = one(reference, other)
    assert entry.worst == math.inf
    assert entry.why == why


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 0)),
        np.array(3.0),
        np.array([True, False]),
        np.array(["a"]),
        np.array([2**60, -(2**60)]),
        np.array([1 + 2j, 3]),
        np.array([np.nan, np.inf, 1.0]),
        np.array([1.5], np.float16),
    ],
)
def test_every_kind_of_array_equals_itself(array):
    entry = one(array, array.copy())
    assert (entry.worst, entry.why) == (0, "")


def test_integers_and_booleans_do_not_wrap_around():
    assert one(np.array([0, 200], np.uint8), np.array([10, 200], np.uint8)).worst == 0.05
    assert one(np.array([10, 200], np.uint8), np.array([0, 200], np.uint8)).worst == 0.05
    assert one([True, False], [True, True]).worst == 1


def test_the_first_divergent_tensor_follows_the_order_not_the_size():
    reference = {name: np.ones(2) for name in "abcd"}
    other = {"d": np.ones(2) * 9, "c": np.ones(2) * 1.001, "b": np.ones(2) + 1e-6, "a": np.ones(2)}
    parity = compare(reference, other, ["a", "b", "c", "d"])
    assert [entry.name for entry in parity.divergent] == ["c", "d"]
    assert parity.first is not None
    assert parity.first.name == "c"
    assert parity.worst is not None
    assert parity.worst.name == "d"
    assert not parity.holds
    assert str(parity).startswith("2 of 4 tensors differ by more than 0.0001; first c: 1.00e-03")
    assert compare(reference, other, ["a", "b"]).holds


def test_a_missing_tensor_or_nothing_at_all_does_not_hold():
    parity = compare({"a": np.ones(1), "b": np.ones(1)}, {"a": np.ones(1)}, ["a", "b", "c"])
    assert parity.missing == ("b", "c")
    assert not parity.holds
    assert str(parity).endswith("missing: b, c")
    nothing = compare({}, {}, [])
    assert not nothing.holds
    assert nothing.worst is None
    assert str(nothing) == "nothing to compare"


def test_top1_agreement():
    a = np.array([[1, 2, 3], [3, 2, 1], [5, 5, 0], [0, 1, 2]], np.float32)
    b = np.array([[0, 0, 9], [1, 2, 1], [9, 1, 0], [0, np.nan, 2]], np.float32)
    assert top1_agreement(a, b) == 0.5
    assert top1_agreement(a, a) == 1
    for bad in (a[:2], a[0], np.zeros((0, 3))):
        with pytest.raises(ValueError, match="tables of scores"):
            top1_agreement(bad, a if bad.size else bad)

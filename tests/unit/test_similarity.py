"""Likeness of maps against scipy, literal loops and cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from inspector.measures.similarity import (
    average_ranks,
    iou_of_top,
    pearson,
    rank_correlation,
    similarity,
    top_mask,
)

small = st.lists(st.integers(-3, 3), min_size=1, max_size=30)
pairs = st.integers(2, 25).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-4, 4), min_size=n, max_size=n)] * 2)
)


@given(small)
def test_ranks_of_ties_are_their_mean(values):
    literal = [
        sum(1 for w in values if w < v) + (1 + sum(1 for w in values if w == v)) / 2 for v in values
    ]
    assert average_ranks(values).tolist() == literal
    assert average_ranks(values).tolist() == stats.rankdata(values).tolist()


@given(pairs)
def test_correlations_are_those_of_scipy(pair):
    a, b = pair
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert pearson(a, b) is None
        assert rank_correlation(a, b) is None
        return
    assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e200])
def test_correlations_do_not_depend_on_the_unit(scale):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    assert pearson(a * scale, b) == pytest.approx(pearson(a, b), rel=1e-12)
    assert pearson(a * scale, a) == pytest.approx(1, abs=1e-12)
    assert rank_correlation(a * scale, -a) == pytest.approx(-1, abs=1e-12)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40), st.sampled_from([0.1, 0.2, 0.5]))
def test_the_top_literally(values, share):
    found = top_mask(values, share)
    if len(set(values)) == 1 or max(values) <= 0:
        assert found is None
        return
    count = max(1, math.ceil(share * len(values) - 1e-9))
    bound = sorted(values, reverse=True)[count - 1]
    if bound == min(values):  # background
        assert found.tolist() == [v > bound for v in values]
    else:
        assert found.tolist() == [v >= bound for v in values]
        assert found.sum() >= count


def test_zeros_are_no_top():
    """Two maps of one positive pixel each share nothing, though 99 % of their pixels are equal."""
    a, b = np.zeros((10, 10)), np.zeros((10, 10))
    a[2, 3], b[7, 8] = 1, 1
    assert iou_of_top(a, b) == 0
    assert iou_of_top(a, a * 7) == 1
    found = similarity(a, b)
    assert found.top_shares == (0.01, 0.01)
    assert found.peaks == ((2, 3), (7, 8))
    assert found.peak_shift == pytest.approx(math.hypot(5, 5))
    assert found.peak_share == pytest.approx(0.5)
    assert found.rank == pytest.approx(-1 / 99)
    assert not found.undefined


def test_a_quarter_moved_by_hand():
    a = np.arange(25.0).reshape(5, 5)
    b = a.copy()
    b[4, 0] = 0.5  # of the five highest pixels one leaves the top, the next one enters
    assert iou_of_top(a, b) == pytest.approx(4 / 6)


def test_only_pixels_that_both_saw():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 8, 9))
    a[:, :3], b[:2] = np.nan, np.nan
    found = similarity(a, b)
    assert found.pixels == 6 * 6
    assert found.rank == pytest.approx(stats.spearmanr(a[2:, 3:].ravel(), b[2:, 3:].ravel())[0])
    assert found.peaks[0] == tuple(
        np.add(np.unravel_index(a[2:, 3:].argmax(), (6, 6)), (2, 3)).tolist()
    )


@pytest.mark.parametrize("empty", [np.zeros((4, 4)), np.full((4, 4), -2.0)])
def test_what_is_undefined_is_none_and_said(empty):
    ramp = np.arange(16.0).reshape(4, 4)
    found = similarity(ramp, empty)
    assert (found.rank, found.pearson, found.iou, found.peak_shift) == (None,) * 4
    assert found.one_sided
    assert found.undefined == (
        "B's map has no positive evidence: no top, no peak",
        "B's map is constant: no correlation, no top",
    )
    both = similarity(empty, empty)
    assert both.rank is None
    assert not both.one_sided
    assert len(both.undefined) == 4


def test_a_constant_positive_map_has_a_peak_but_no_order():
    found = similarity(np.ones((3, 3)), np.arange(9.0).reshape(3, 3))
    assert (found.rank, found.iou) == (None, None)
    assert found.peaks[0] == (0, 0)
    assert found.undefined == ("A's map is constant: no correlation, no top",)


def test_negative_maps_have_an_order_but_no_top():
    ramp = np.arange(9.0).reshape(3, 3)
    found = similarity(ramp - 100, ramp)
    assert found.rank == pytest.approx(1)
    assert found.iou is None
    assert found.undefined == ("A's map has no positive evidence: no top, no peak",)


def test_nothing_seen_in_common():
    a, b = np.ones((2, 4)), np.ones((2, 4))
    a[:, :2], b[:, 2:] = np.nan, np.nan
    found = similarity(a, b)
    assert found.rank is None
    assert "no common part" in found.undefined[0]


def test_large_photos_are_compared_on_a_grid_that_says_the_same():
    rows, columns = np.mgrid[:300, :400] / 100
    a, b = np.sin(rows * 3) + columns, np.sin(rows * 3 + 0.4) + columns
    whole, coarse = similarity(a, b), similarity(a, b, max_pixels=4000)
    assert (whole.step, coarse.step) == (1, 6)
    assert coarse.pixels == 50 * 67
    assert coarse.rank == pytest.approx(whole.rank, abs=5e-3)
    assert coarse.iou == pytest.approx(whole.iou, abs=2e-2)
    assert coarse.peaks == whole.peaks


def test_two_photos_are_refused():
    with pytest.raises(ValueError, match="one photo"):
        similarity(np.ones((2, 3)), np.ones((3, 2)))

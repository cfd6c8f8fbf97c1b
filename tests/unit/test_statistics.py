"""Intervals and tests over photos against their definitions."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest

from inspector.errors import BrokenInstallation, InspectorWarning, MissingExtra, require
from inspector.measures import statistics
from inspector.measures.statistics import bootstrap, holm, mcnemar, wald_difference, wilson
from inspector.studies import studies

QUANTILE = 1.959963984540054


@pytest.mark.parametrize(("right", "total"), [(0, 10), (7, 10), (10, 10), (31, 400), (336, 400)])
def test_wilson_ends_where_the_normal_test_just_rejects(right, total):
    low, high = wilson(right, total)
    for bound in (low, high):
        if 0 < bound < 1:
            z = (right / total - bound) / math.sqrt(bound * (1 - bound) / total)
            assert abs(z) == pytest.approx(QUANTILE)
    assert 0 <= low <= right / total <= high <= 1


def test_wilson_is_never_empty():
    assert wilson(0, 10) == (0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10) == (pytest.approx(1 - 0.2775, abs=1e-4), 1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 9), (40, 12), (0, 7)])
def test_mcnemar_counts_coins(first, second):
    total = first + second
    tail = sum(math.comb(total, k) for k in range(min(first, second) + 1))
    exact = min(Fraction(1), 2 * Fraction(tail, 2**total))
    assert mcnemar(first, second) == pytest.approx(float(exact), rel=1e-9)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_difference_is_paired():
    one, other = np.array([1, 1, 1, 1, 0, 0, 1, 0]) > 0, np.array([1, 0, 0, 1, 1, 0, 0, 0]) > 0
    gaps = one.astype(float) - other
    spread = QUANTILE * math.sqrt(gaps.var() / 8)
    expected = gaps.mean(), gaps.mean() - spread, gaps.mean() + spread
    assert wald_difference(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("chunk", [1, 40 * 7, statistics.CHUNK])
def test_the_bootstrap_draws_the_same_photos_for_all_values(monkeypatch, chunk):
    """However many samples are held at a time; here photo by photo."""
    monkeypatch.setattr(statistics, "CHUNK", chunk)
    values = np.random.default_rng(2).normal(size=(3, 40))
    low, high = bootstrap(lambda w: values @ w.T / 40, 40, seed=7, resamples=100)
    chosen = np.random.default_rng(7).integers(0, 40, (100, 40))
    means = [[np.mean([one[at] for at in row]) for row in chosen] for one in values]
    np.testing.assert_allclose(low, np.quantile(means, 0.025, axis=1))
    np.testing.assert_allclose(high, np.quantile(means, 0.975, axis=1))


def test_one_photo_gives_an_interval_without_width():
    low, high = bootstrap(lambda w: np.array([[3.0]]) @ w.T, 1, seed=0)
    assert low == high == 3


@pytest.mark.parametrize("call", [lambda: wilson(1, 2), lambda: mcnemar(1, 2)])
def test_without_scipy_the_extra_is_named(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtra) as told:
        call()
    assert told.value.hint == "pip install 'onnx-inspector[studies]'"


def test_a_package_that_is_there_and_does_not_start_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("raise ImportError('libGL.so.1: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BrokenInstallation, match=r"half_installed, which .*libGL\.so\.1"):
        require("half_installed", "drawing", "studies")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("correspondence", "matplotlib.figure"),
        ("invariance", "matplotlib.figure"),
        ("invariance", "scipy.stats"),
        ("localisation", "matplotlib.figure"),
        ("localisation", "scipy.stats"),
        ("pooling", "matplotlib.figure"),
        ("pooling", "scipy.stats"),
        ("transfer", "matplotlib.figure"),
        ("transfer", "sklearn.model_selection"),
    ],
)
def test_a_study_names_the_extra_before_it_looks_at_the_model(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    only_drawn = module.startswith("matplotlib")  # numbers are written without it, which is said
    with pytest.raises(InspectorWarning if only_drawn else MissingExtra):
        studies()[name].function(OfPictures(), [])


class OfPictures:
    """A model of which nothing can be asked but whether it takes pictures."""

    def require_pictures(self, what):
        """It does."""

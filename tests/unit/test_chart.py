"""Curves and bars as panels."""

import sys

import numpy as np
import pytest

from inspector.errors import MissingExtra
from inspector.render import csv
from inspector.render.drawing.chart import Series, bar_chart, line_chart


def ink(image):
    return (np.asarray(image).astype(int).min(2) < 200).mean()


def test_a_line_chart_has_its_size_and_its_curve():
    empty = line_chart([], size=(200, 300))
    series = Series(
        "a $x$", [1, 4, float("nan"), 2], x=[0, 1, 2, 3], low=[0, 3, 1, 1], high=[2] * 4
    )
    drawn = line_chart(
        [series, Series("b", [2, 2], x=[0, 3], dashed=True)],
        size=(200, 300),
        title="50 $",
        x_label="x",
        y_label="y",
        y_range=(0, None),
        x_ticks=[(0, "zero"), (3, "three")],
    )
    assert drawn.size == (300, 200)
    assert drawn.mode == "RGB"
    assert ink(drawn) > ink(empty)


def test_bars_grow_with_their_values():
    def blue(value):
        chart = bar_chart(
            [Series("", [value], low=[value], high=[value])], ["a"], size=(200, 200), y_range=(0, 1)
        )
        pixels = np.asarray(chart).astype(int)
        return (pixels[:, :, 2] - pixels[:, :, 0] > 80).sum()

    assert blue(0.8) == pytest.approx(2 * blue(0.4), rel=0.05)


def test_bars_of_baselines_are_grey_and_a_bar_of_nothing_stands_on_a_line():
    def drawn(*values, baselines=()):
        chart = bar_chart([Series("", values)], ["a", "b"], size=(200, 300), baselines=baselines)
        return np.asarray(chart).astype(int)

    def blue(pixels):
        return (pixels[:, :, 2] - pixels[:, :, 0] > 80).sum()

    assert blue(drawn(1, 1, baselines=[1])) == pytest.approx(blue(drawn(1, 1)) / 2, rel=0.05)
    dark = (drawn(0, -1).max(2) < 60)[:, 150:].sum(1)  # beside the words of the axis
    assert dark.max() > 100  # the line at zero, at the top where all else is negative


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match="drawing curves") as caught:
        line_chart([], size=(100, 100))
    assert "onnx-inspector[studies]" in str(caught.value)
    assert caught.value.exit_status == 2


def test_tables():
    rows = [{"a": 1, "b": "x,y"}, {"b": "=1+1", "c": np.float32(0.5)}, {"a": None}]
    assert csv.dumps(rows) == 'a,b,c\n1,"x,y",\n,\'=1+1,0.5\n,,\n'
    with pytest.raises(ValueError, match="no place"):
        csv.dumps([{"a": float("nan")}])

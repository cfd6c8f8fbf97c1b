"""Boxes of maps, against slow and literal ways to find them."""

import math

import numpy as np
import pytest

from inspector.measures.boxes import (
    box_of_map,
    centred_box,
    component_boxes,
    gaps,
    gaussian_boxes,
    overlaps,
    peak,
    sweep,
)

EDGES = [(-1, 0), (0, -1), (0, 1), (1, 0)]
CORNERS = [(-1, -1), (-1, 1), (1, -1), (1, 1)]


def flooded(mask, connectivity):
    """Boxes by flood fill from each pixel in reading order, largest first."""
    height, width = mask.shape
    left = {(y, x) for y in range(height) for x in range(width) if mask[y, x]}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        waiting, region = [start], []
        while waiting:
            y, x = waiting.pop()
            region.append((y, x))
            for dy, dx in EDGES + (CORNERS if connectivity == 8 else []):
                if (y + dy, x + dx) in left:
                    left.discard((y + dy, x + dx))
                    waiting.append((y + dy, x + dx))
        ys, xs = [y for y, _ in region], [x for _, x in region]
        found.append((len(region), (min(ys), min(xs), max(ys) + 1, max(xs) + 1)))
    return [box for _, box in sorted(found, key=lambda one: -one[0])]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.8])
def test_components_equal_a_flood_fill(connectivity, density):
    rng = np.random.default_rng(int(100 * density))
    for _ in range(15):
        mask = rng.random(rng.integers(1, 14, 2)) < density
        found = component_boxes(mask, connectivity)
        assert [tuple(box) for box in found] == flooded(mask, connectivity)


def test_connectivity_decides_diagonals():
    mask = np.eye(4, dtype=bool)
    assert component_boxes(mask, 8).tolist() == [[0, 0, 4, 4]]
    assert component_boxes(mask, 4).tolist() == [[k, k, k + 1, k + 1] for k in range(4)]


def test_a_planted_map():
    values = np.full((20, 30), 0.1)
    values[3:9, 5:17] = 1.0  # 72 pixels
    values[12:14, 20:30] = 2.0  # higher, but 20 pixels
    assert box_of_map(values, 0.2).tolist() == [[3, 5, 9, 17]]
    assert box_of_map(values, 0.6).tolist() == [[12, 20, 14, 30]]
    # The floor of 0.1 is 5 % of the maximum; min-max normalisation would have moved it to zero.
    assert box_of_map(values, 0.04).tolist() == [[0, 0, 20, 30]]
    # Strictly above: the large block lies at exactly half of the maximum.
    assert box_of_map(values, 0.5).tolist() == [[12, 20, 14, 30]]


def test_what_is_not_evidence():
    for values in (np.zeros((4, 5)), -np.ones((4, 5)), np.full((4, 5), np.nan)):
        assert box_of_map(values, 0.2).shape == (0, 4)
        assert peak(values) is None
    values = np.full((6, 6), np.nan)
    values[2:4, 1:5] = 3
    values[2, 2] = -9
    assert box_of_map(values, 0.2).tolist() == [[2, 1, 4, 5]]


def test_a_sweep_is_one_threshold_after_another():
    values = np.random.default_rng(1).normal(size=(12, 9))
    shares = [0, 0.1, 0.35, 0.99]
    for share, found in zip(shares, sweep(values, shares, 4), strict=True):
        mask = np.array([[one > share * values.max() for one in row] for row in values])
        assert [tuple(box) for box in found] == flooded(mask, 4)
        assert box_of_map(values, share, 4).tolist() == found[:1].tolist()


def test_the_peak_of_a_plateau_is_its_middle():
    values = np.zeros((9, 9), np.float32)
    values[0:3, 0:5] = 0.7
    assert peak(values) == (1.5, 2.5)
    values[8, 8] = 0.8
    assert peak(values) == (8.5, 8.5)


def test_overlaps_equal_counted_pixels():
    rng = np.random.default_rng(2)

    def boxes(count):
        ends = np.sort(rng.integers(0, 12, (count, 2, 2)), axis=1)
        ends[:, 1] += 1
        return ends.reshape(count, 4)

    a, b = boxes(12), boxes(9)
    found = overlaps(a, b)
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            grid = [
                {(y, x) for y in range(box[0], box[2]) for x in range(box[1], box[3])}
                for box in (one, other)
            ]
            assert found[i, j] == pytest.approx(len(grid[0] & grid[1]) / len(grid[0] | grid[1]))


def test_overlaps_of_fractions():
    assert overlaps([[0, 0, 1.5, 2]], [[0.5, 1, 1.5, 3]])[0, 0] == pytest.approx(1 / (3 + 2 - 1))
    assert overlaps(np.zeros((0, 4)), [[0, 0, 1, 1]]).shape == (0, 1)


def test_gaps():
    boxes = [[10, 20, 30, 40], [0, 0, 5, 5]]
    assert gaps((15, 25), boxes).tolist() == pytest.approx([0, math.hypot(10, 20)])
    assert gaps((33, 44), boxes)[0] == pytest.approx(5)  # 3 below, 4 beside
    assert gaps((5, 5), boxes)[1] == 0


def test_the_box_in_the_middle():
    assert centred_box((40, 100), 0.25).tolist() == [[10, 25, 30, 75]]
    assert centred_box((3, 5), 1).tolist() == [[0, 0, 3, 5]]


def test_the_gaussian_is_a_map_that_is_cut():
    height, width, sigma = 80, 120, 0.25
    ys = (np.arange(height) + 0.5) / height - 0.5
    xs = (np.arange(width) + 0.5) / width - 0.5
    values = np.exp(-(ys[:, None] ** 2 + xs[None] ** 2) / 2 / sigma**2)
    shares = [step / 20 for step in range(20)]
    found = gaussian_boxes((height, width), shares, sigma)
    for share, box in zip(shares, found, strict=True):
        mask = values > share  # the maximum of the continuous map is 1
        (literal,) = flooded(mask, 4) if mask.any() else [box]
        assert np.abs(box - literal).max() <= 1
    assert found[0].tolist() == [0, 0, height, width]

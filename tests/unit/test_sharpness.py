"""What can be recognised in a projection, against the definitions written out in loops."""

import math

import numpy as np
import pytest

from inspector.errors import MethodRefused
from inspector.measures import sharpness

RNG = np.random.default_rng(3)
SCALE = 1.3


def slow_smoothed(values, scale):
    height, width = values.shape
    found = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            total = weight = 0.0
            for v in range(height):
                for u in range(width):
                    if abs(v - y) > 3 * scale or abs(u - x) > 3 * scale:
                        continue
                    w = math.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * scale**2))
                    total, weight = total + w * values[v, u], weight + w
            found[y, x] = total / weight
    return found


def slow_gradients(channels):
    kernel = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
    count, height, width = channels.shape
    down, across = np.zeros((2, count, height, width))
    for c in range(count):
        for y in range(height):
            for x in range(width):
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        v, u = min(max(y + i, 0), height - 1), min(max(x + j, 0), width - 1)
                        across[c, y, x] += kernel[i + 1][j + 1] * channels[c, v, u]
                        down[c, y, x] += kernel[j + 1][i + 1] * channels[c, v, u]
    return down, across


def slow_strokes(values, scale):
    return slow_smoothed(values, scale) - slow_smoothed(values, 3 * scale)


def slow_coherence(channels, scale):
    down, across = slow_gradients(channels)
    tensor = [
        slow_smoothed(product.sum(0), scale) for product in (down * down, down * across, across**2)
    ]
    difference = total = 0.0
    for yy, yx, xx in zip(*(part.ravel() for part in tensor), strict=True):
        low, high = np.linalg.eigvalsh([[yy, yx], [yx, xx]])
        difference, total = difference + high - low, total + high + low
    return difference / total


def slow_correlation(a, b):
    a, b = a.ravel(), b.ravel()
    middle = a.mean(), b.mean()
    top = sum((p - middle[0]) * (q - middle[1]) for p, q in zip(a, b, strict=True))
    left = math.sqrt(sum((p - middle[0]) ** 2 for p in a))
    return top / (left * math.sqrt(sum((q - middle[1]) ** 2 for q in b)))


def test_all_measures_equal_the_definitions():
    projection = RNG.normal(size=(3, 12, 10))
    photos = RNG.integers(0, 256, (3, 12, 10, 3))
    box = (2, 1, 11, 9)
    edges = [sharpness.edges_of(photo, SCALE) for photo in photos]
    found = sharpness.measured(projection, box, edges[0], edges[1:], SCALE)

    slow_edges = []
    for photo in photos:
        down, across = slow_gradients(photo.transpose(2, 0, 1).astype(float))
        slow_edges.append(slow_strokes(np.sqrt((down**2 + across**2).sum(0)), SCALE))
    np.testing.assert_allclose(edges, slow_edges, rtol=1e-10, atol=1e-10)
    inside = slice(2, 11), slice(1, 9)
    sizes = np.array(
        [
            [math.sqrt(sum(projection[c, y, x] ** 2 for c in range(3))) for x in range(10)]
            for y in range(12)
        ]
    )
    lines = slow_strokes(sizes, SCALE)[inside]
    own, *others = (slow_correlation(lines, one[inside]) for one in slow_edges)
    assert found["edge correlation"] == pytest.approx(own, abs=1e-10)
    assert found["edge agreement"] == pytest.approx(own - sum(others) / 2, abs=1e-10)
    cut = sizes[inside]
    n = cut.size
    hoyer = (math.sqrt(n) - cut.sum() / math.sqrt((cut**2).sum())) / (math.sqrt(n) - 1)
    assert found["concentration"] == pytest.approx(hoyer, abs=1e-12)
    slow = slow_coherence(projection[:, 2:11, 1:9], SCALE)
    assert found["coherence"] == pytest.approx(slow, abs=1e-10)


def test_ends_of_the_scales():
    one = np.zeros((8, 8))
    one[3, 4] = -2
    assert sharpness.concentration(one) == pytest.approx(1)
    assert sharpness.concentration(np.full((8, 8), 0.3)) == pytest.approx(0, abs=1e-12)
    stripes = np.tile(np.sin(np.arange(32)), (3, 32, 1))
    assert sharpness.coherence(stripes, 1) == pytest.approx(1)
    assert sharpness.coherence(RNG.normal(size=(3, 64, 64)), 3) < 0.25
    assert sharpness.correlation(one, 3 - 2 * one) == pytest.approx(-1)


def test_nothing_is_said_where_nothing_is_defined():
    blank, edges = np.zeros((3, 6, 6)), np.zeros((6, 6))
    found = sharpness.measured(blank, (0, 0, 6, 6), edges, [edges], 1)
    assert set(found.values()) == {None}
    found = sharpness.measured(RNG.normal(size=(3, 6, 6)), (0, 0, 6, 6), RNG.random((6, 6)), [], 1)
    assert found["edge agreement"] is None
    assert found["edge correlation"] is not None
    assert sharpness.concentration(np.ones((1, 1))) is None
    with pytest.raises(MethodRefused, match="not finite"):
        sharpness.measured(np.full((3, 6, 6), np.nan), (0, 0, 6, 6), edges, [], 1)


def drawn_edges(photo):
    """A line drawing: the photo's gradient where it is strong."""
    down, across = slow_gradients(photo.transpose(2, 0, 1).astype(float))
    strength = np.sqrt(down**2 + across**2)
    return np.where(strength > np.quantile(strength, 0.8), strength, 0)


def shapes(seed):
    """A photo of bright rectangles."""
    rng = np.random.default_rng(seed)
    photo = np.zeros((32, 32, 3))
    for _ in range(4):
        y, x = rng.integers(2, 20, 2)
        photo[y : y + rng.integers(4, 11), x : x + rng.integers(4, 11)] += rng.integers(50, 99)
    return photo


def test_they_tell_a_drawing_from_a_smear_from_noise():
    """As a person would, on pictures of which it is known what they are."""
    photos = [shapes(seed) for seed in range(9)]
    edges = [sharpness.edges_of(photo, 1) for photo in photos]
    y, x = np.mgrid[:32, :32]
    bell = np.exp(-((y - 16) ** 2 + (x - 16) ** 2) / 72)
    made = {
        "drawing": drawn_edges(photos[0]),
        "smear": np.stack([bell] * 3) * (1 + 0.5 * np.sin(x)),  # the same for every photo
        "noise": np.stack([bell] * 3) * RNG.normal(size=(3, 32, 32)),
        "another": drawn_edges(photos[1]),
    }
    found = {
        name: sharpness.measured(signal, (0, 0, 32, 32), edges[0], edges[1:], 1)
        for name, signal in made.items()
    }
    agreement = {name: numbers["edge agreement"] for name, numbers in found.items()}
    assert agreement["drawing"] > 0.5
    assert all(agreement[name] < 0.2 for name in ("smear", "noise", "another"))
    assert found["smear"]["concentration"] < found["drawing"]["concentration"] - 0.1
    assert found["noise"]["coherence"] < found["drawing"]["coherence"] - 0.2


def test_scale_grows_with_the_image():
    assert sharpness.scale_for(32, 32) == 1
    assert sharpness.scale_for(224, 320) == 3.5

"""Measures of faithfulness against values that algebra gives, and literal implementations."""

import numpy as np
import pytest

from inspector.measures import faithfulness as measures
from inspector.measures import imputation

SIZE = 12
RNG = np.random.default_rng(3)
IMAGE = RNG.normal(size=(2, SIZE, SIZE))
WEIGHT = RNG.normal(size=(2, SIZE, SIZE))
ZERO = imputation.constant(np.zeros(2))
EXACT = (WEIGHT * IMAGE).sum(0)


def linear(images):
    return (images * WEIGHT).sum((1, 2, 3))


def test_deletion_in_the_order_of_the_exact_map_falls_by_its_values():
    curve = measures.deletion(linear, IMAGE, EXACT, ZERO, steps=SIZE * SIZE)
    falls = -np.diff(curve.scores)
    assert np.allclose(falls, np.sort(EXACT.ravel())[::-1])
    assert curve.scores[-1] == pytest.approx(0, abs=1e-12)
    assert curve.area == pytest.approx(np.trapezoid(curve.scores, dx=1 / (SIZE * SIZE)))


def test_insertion_mirrors_deletion_of_a_linear_model():
    taken = measures.deletion(linear, IMAGE, EXACT, ZERO, steps=7)
    put = measures.insertion(linear, IMAGE, EXACT, ZERO, steps=7)
    assert np.allclose(put.scores, linear(IMAGE[None]) - taken.scores)


def test_no_order_deletes_faster_than_the_exact_map():
    best = measures.deletion(linear, IMAGE, EXACT, ZERO).area
    others = [RNG.normal(size=EXACT.shape) for _ in range(20)]
    assert best < min(measures.deletion(linear, IMAGE, m, ZERO).area for m in others)


def test_equal_values_have_no_order_of_their_own():
    """A constant map is a random one, not one from the top left corner."""
    masks = [measures.removed(np.ones((SIZE, SIZE)), 0.5, seed=seed) for seed in range(40)]
    assert np.abs(np.mean(masks, 0) - 0.5).max() < 0.35
    assert {mask.sum() for mask in masks} == {SIZE * SIZE // 2}


def test_removed_most_and_least_are_the_two_ends():
    most = measures.removed(EXACT, 0.25)
    least = measures.removed(EXACT, 0.25, least=True)
    assert EXACT[most].min() >= np.sort(EXACT.ravel())[-SIZE * SIZE // 4]
    assert EXACT[least].max() < EXACT[most].min()


def test_sets_that_measures_share_are_asked_once():
    """Nine sets of those that count most, nine of those that count least, all pixels and none."""
    asked = []

    def score(images):
        asked.extend(images)
        return linear(images)

    removal = measures.Removal(score, IMAGE, ZERO)
    deletion = removal.deletion(EXACT, steps=10)
    insertion = removal.insertion(EXACT, steps=10)
    road = removal.road(EXACT)
    assert len(asked) == 9 + 9 + 2
    assert np.allclose(insertion.scores + deletion.scores, linear(IMAGE[None])[0])
    assert road == pytest.approx((insertion.scores[1:-1] - deletion.scores[1:-1]).mean())
    removal.deletion(-EXACT, steps=10)
    assert len(asked) == 20, "another order of the same sets"


def literal_imputation(image, mask):
    """Every unknown pixel is the mean of its neighbours inside the image, by one dense solve."""
    pixels = [(int(y), int(x)) for y, x in np.argwhere(mask)]
    a, b = np.zeros((len(pixels),) * 2), np.zeros((len(pixels), len(image)))
    for i, (y, x) in enumerate(pixels):
        for ny in range(y - 1, y + 2):
            for nx in range(x - 1, x + 2):
                if (ny, nx) == (y, x) or not (0 <= ny < SIZE and 0 <= nx < SIZE):
                    continue
                weight = 1 / 6 if ny == y or nx == x else 1 / 12
                a[i, i] += weight
                if mask[ny, nx]:
                    a[i, pixels.index((ny, nx))] -= weight
                else:
                    b[i] += weight * image[:, ny, nx]
    return np.linalg.solve(a, b).T


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_imputation_solves_all_pixels_at_once(share, monkeypatch):
    monkeypatch.setattr(imputation, "_NOISE", 0.0)
    mask = measures.removed(EXACT, share)
    found = imputation.neighbours(0)(IMAGE, mask)
    assert np.allclose(found[:, mask], literal_imputation(IMAGE, mask))
    assert np.array_equal(found[:, ~mask], IMAGE[:, ~mask])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2), (12, 12), (33, 20)])
def test_each_pixel_is_eliminated_once(shape):
    order = imputation._dissection(*shape)
    assert sorted(order) == list(range(shape[0] * shape[1]))


def test_the_order_of_elimination_fills_little(monkeypatch):
    """Without nested dissection the factors of a larger picture hold far more numbers."""
    from scipy.sparse import linalg

    found, factorise = [], linalg.splu

    def counting(*arguments, **options):
        found.append(factorise(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(linalg, "splu", counting)
    image = np.random.default_rng(0).random((3, 96, 96))
    mask = measures.removed(np.random.default_rng(1).random((96, 96)), 0.9)
    imputation.neighbours(0)(image, mask)
    assert found[0].nnz < 60 * mask.sum()


def test_imputation_of_everything_is_the_mean_colour():
    found = imputation.neighbours(0)(IMAGE, np.ones((SIZE, SIZE), bool))
    assert np.allclose(found.mean((1, 2)), IMAGE.mean((1, 2)), atol=0.05)


@pytest.mark.parametrize("size", [1, 10, 100])
def test_sensitivity_of_the_exact_map_is_one(size):
    given = {"size": size, "subsets": 50}
    assert measures.sensitivity_n(linear, IMAGE, EXACT, ZERO, **given) == pytest.approx(1)
    other = RNG.normal(size=EXACT.shape)
    assert abs(measures.sensitivity_n(linear, IMAGE, other, ZERO, **given)) < 0.6
    flat = np.ones_like(EXACT)
    assert np.isnan(measures.sensitivity_n(linear, IMAGE, flat, ZERO, **given))


def test_infidelity_of_the_exact_map_is_zero_at_any_scale():
    for scale in (1, -1, 1000):
        found = measures.infidelity(linear, IMAGE, scale * EXACT, ZERO, window=3)
        assert found == pytest.approx(0, abs=1e-12)
    nothing = np.zeros_like(EXACT)
    assert measures.infidelity(linear, IMAGE, nothing, ZERO, window=3) == 1
    other = RNG.normal(size=EXACT.shape)
    assert 0.5 < measures.infidelity(linear, IMAGE, other, ZERO, window=3) <= 1


def test_max_sensitivity_is_the_largest_relative_change():
    def explain(images):
        return images.sum(1)

    found = measures.max_sensitivity(explain, IMAGE, radius=0.1, count=5, seed=1)
    noise = np.random.default_rng(1).uniform(-0.1, 0.1, (5, *IMAGE.shape))
    norms = np.linalg.norm(noise.sum(1).reshape(5, -1), axis=1)
    assert found == pytest.approx(norms.max() / np.linalg.norm(IMAGE.sum(0)))
    assert np.isnan(measures.max_sensitivity(lambda x: x[:, 0] * 0, IMAGE, radius=0.1))


def test_grid_share_counts_what_is_positive_inside():
    heatmap = np.array([[1.0, 3.0], [-5.0, np.nan]])
    assert measures.grid_share(heatmap, (0, 1, 2, 2)) == 0.75
    assert np.isnan(measures.grid_share(-np.ones((2, 2)), (0, 0, 1, 1)))


def test_reference_maps_know_only_the_picture():
    image = np.zeros((3, 20, 30))
    image[:, :, 15:] = 1
    maps = measures.reference_maps(image)
    assert set(maps) == {"random", "edges", "centre"}
    assert {m.shape for m in maps.values()} == {(20, 30)}
    assert np.flatnonzero(maps["edges"].any(0)).tolist() == [14, 15]
    assert np.allclose(maps["centre"], maps["centre"][::-1, ::-1])
    peak = np.unravel_index(maps["centre"].argmax(), (20, 30))
    assert peak in {(9, 14), (9, 15), (10, 14), (10, 15)}

import numpy as np
import pytest

from inspector.errors import MethodRefused
from inspector.heatmap import REDUCTIONS, Attribution, Heatmap, normalise, reduce, upsample
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.photos.preprocess import Preprocess


def layer_map(values, **more):
    return Attribution(np.asarray(values), "layer", "grad-cam", **more)


def test_reductions_equal_their_names():
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    literal = {
        "max_abs": lambda pixel: max(abs(v) for v in pixel),
        "sum": sum,
        "mean_abs": lambda pixel: sum(abs(v) for v in pixel) / len(pixel),
        "l2": lambda pixel: sum(v * v for v in pixel) ** 0.5,
        "positive": lambda pixel: sum(v for v in pixel if v > 0),
    }
    assert set(literal) == set(REDUCTIONS)
    for how, oracle in literal.items():
        expected = [
            [oracle([float(v) for v in values[:, y, x]]) for x in range(5)] for y in range(4)
        ]
        np.testing.assert_allclose(reduce(values, how), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(reduce(values[0], "l2"), values[0])
    with pytest.raises(ValueError, match="unknown"):
        reduce(values, "median")


def test_normalising_keeps_zero_and_divides_by_the_maximum():
    np.testing.assert_array_equal(normalise([[0, 1], [2, 4]]), [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(normalise([[0, 1], [-4, 2]]), [[0, 0.25], [-1, 0.5]])
    np.testing.assert_array_equal(normalise([[0, 0]]), [[0, 0]])
    np.testing.assert_array_equal(normalise([[np.nan, 2]]), [[np.nan, 1]])
    np.testing.assert_array_equal(normalise([[1e-44, 0]]), [[1, 0]])
    # min-max normalisation would move this map's zero
    assert normalise([[2, 4]])[0, 0] == 0.5


def test_upsampling_is_not_aligned_to_corners():
    found = upsample([[0.0, 1.0]], (1, 4))
    np.testing.assert_allclose(found, [[0, 0.25, 0.75, 1]])


def test_an_empty_map_is_known_as_one():
    assert layer_map(np.zeros((7, 7))).empty
    assert layer_map(-np.ones((7, 7))).empty
    assert not layer_map(np.eye(7)).empty
    assert Attribution(np.zeros((3, 8, 8)), "input", "gradient").empty
    assert not Attribution(-np.ones((3, 8, 8)), "input", "gradient").empty
    assert Attribution(-np.ones((1, 8, 8)), "input", "occlusion", reduction="sum").empty


def test_occlusion_keeps_its_sign_and_gradients_take_the_largest_magnitude():
    values = np.array([[[-2.0, 1.0]]])
    occluded = Attribution(values, "input", "occlusion", reduction="sum")
    assert occluded.reduced().tolist() == [[-2, 1]]
    assert Attribution(values, "input", "gradient").reduced().tolist() == [[2, 1]]
    rise = Attribution(values, "input", "rise", reduction="sum")
    assert rise.reduced().tolist() == [[-2, 1]]
    assert Attribution(values, "input", "occlusion", reduction="sum").projection is None
    assert Attribution(values, "input", "gradient").projection is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(MethodRefused, match="finite"):
        layer_map([[1.0, bad]], layer="relu")


@pytest.mark.parametrize(
    ("shape", "space"),
    [((3, 7, 7), "layer"), ((7,), "input"), ((0, 7), "layer"), ((7, 7), "pixel")],
)
def test_shapes_that_do_not_fit_the_space(shape, space):
    with pytest.raises(ValueError, match="space"):
        Attribution(np.zeros(shape), space, "cam")


def test_a_layer_map_lands_on_the_photo_unnormalised():
    photo = Photo.of(np.zeros((120, 200, 3), np.uint8))
    _, geometry = Preprocess((60, 60)).apply(photo)
    values = np.zeros((6, 6))
    values[1, 4] = 8
    found = Heatmap.of(layer_map(values), geometry)
    assert found.values.shape == (120, 200)
    # unit (1, 4) is centred on input pixel (14.5, 44.5), photo pixel (29.5, 129.5)
    y, x = np.unravel_index(np.nanargmax(found.values), found.values.shape)
    assert abs(y - 29.5) <= 0.5
    assert abs(x - 129.5) <= 0.5
    assert found.maximum == pytest.approx(8, rel=0.1)
    assert found.minimum == 0
    assert np.isnan(found.values[:, :40]).all()
    assert np.isnan(found.values[~found.seen]).all()
    assert np.nanmax(found.normalised()) == 1


def test_an_input_map_must_have_the_inputs_size():
    geometry = Geometry.identity((8, 8))
    with pytest.raises(ValueError, match="input"):
        Heatmap.of(Attribution(np.zeros((3, 4, 4)), "input", "gradient"), geometry)


def test_a_photo_of_which_nothing_was_seen_has_no_extremes():
    geometry = Geometry((1, 9), (4, 4), (4.0, 4.0), (0.0, -100.0))
    found = Heatmap.of(layer_map(np.eye(4)), geometry)
    assert (found.maximum, found.minimum, found.limit) == (0, 0, 0)

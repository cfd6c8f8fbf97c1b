import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inspector.heatmap import upsample
from inspector.photos.geometry import Geometry, sample_bilinear
from inspector.photos.photo import Photo, load_photo
from inspector.photos.preprocess import Preprocess

RESIZES = ("crop", "squash", "letterbox")
SIZES = ((480, 640), (640, 480), (300, 301), (40, 33))


def blob(size, y, x, sigma):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def centroid(values):
    values = np.nan_to_num(values).clip(0)
    rows, columns = np.mgrid[: values.shape[0], : values.shape[1]]
    return (rows * values).sum() / values.sum(), (columns * values).sum() / values.sum()


def bilinear_oracle(values, y, x):
    """One value, pixel by pixel, edges continued."""
    height, width = values.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    total = 0.0
    for row in range(height):
        for column in range(width):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            total += weight * values[row, column]
    return total


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", SIZES)
def test_a_blob_on_the_photo_comes_back_where_it_was(resize, size):
    y, x, sigma = size[0] * 0.47, size[1] * 0.55, min(size) / 12
    pixels = np.repeat(255 * blob(size, y, x, sigma)[:, :, None], 3, axis=2)
    to = Preprocess(size=(96, 112), resize=resize, crop_pct=0.875, scale=1.0)
    array, geometry = to.apply(Photo.of(pixels))
    laid, seen = geometry.lay_back(array[0])
    assert seen[round(y), round(x)]
    found = centroid(np.where(laid > 40, laid, 0))
    assert abs(found[0] - y) <= 0.5
    assert abs(found[1] - x) <= 0.5


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_blob_on_a_turned_photo_comes_back_on_the_upright_one(tmp_path, orientation):
    pixels = np.repeat((255 * blob((90, 140), 30, 100, 6))[:, :, None], 3, 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    photo = load_photo(path)
    array, geometry = Preprocess(size=(64, 64), resize="letterbox", scale=1.0).apply(photo)
    laid, _ = geometry.lay_back(array[0])
    expected = centroid(np.where(photo.pixels[:, :, 0] > 40, photo.pixels[:, :, 0], 0))
    found = centroid(np.where(laid > 40, laid, 0))
    assert np.hypot(found[0] - expected[0], found[1] - expected[1]) <= 0.5


def test_the_centre_crop_hides_the_ends_of_the_long_side():
    _, geometry = Preprocess(size=(100, 100)).apply(Photo.of(np.zeros((100, 160, 3), np.uint8)))
    assert geometry.seen_box == (0, 30, 100, 130)
    seen = geometry.seen()
    assert seen.sum() == 100 * 100
    laid, mask = geometry.lay_back(np.ones((100, 100)))
    np.testing.assert_array_equal(np.isnan(laid), ~seen)
    np.testing.assert_array_equal(mask, seen)


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
@pytest.mark.parametrize("size", SIZES)
def test_squash_and_letterbox_see_everything(resize, size):
    photo = Photo.of(np.zeros((*size, 3), np.uint8))
    _, geometry = Preprocess(size=(224, 224), resize=resize).apply(photo)
    assert geometry.seen().all()


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="shape"):
        Geometry.identity((5, 5)).lay_back(np.zeros((4, 4)))


def test_an_identity_changes_nothing():
    values = np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32)
    laid, seen = Geometry.identity((6, 9)).lay_back(values)
    np.testing.assert_array_equal(laid, values)
    assert seen.all()


coordinate = st.floats(-1e4, 1e4)
positive = st.floats(0.01, 50)


@given(
    y=coordinate,
    x=coordinate,
    scale=st.tuples(positive, positive),
    shift=st.tuples(coordinate, coordinate),
)
def test_to_photo_undoes_to_input(y, x, scale, shift):
    geometry = Geometry((10, 10), (10, 10), scale, shift)
    back = geometry.to_photo(*geometry.to_input(y, x))
    np.testing.assert_allclose(back, (y, x), atol=1e-6, rtol=1e-9)


def test_sampling_equals_the_literal_sum():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(5, 4))
    rows, columns = rng.uniform(-2, 6, 7), rng.uniform(-2, 6, 6)
    expected = [[bilinear_oracle(values, y, x) for x in columns] for y in rows]
    np.testing.assert_allclose(sample_bilinear(values, rows, columns), expected, atol=1e-6)


@pytest.mark.parametrize("old", [(7, 7), (8, 14), (1, 1), (1, 5), (56, 31)])
@pytest.mark.parametrize("new", [(224, 224), (32, 50), (7, 7), (5, 3), (1, 1)])
def test_upsampling_equals_torch(old, new):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(2).normal(size=old).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values).double()[None, None], new, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample(values, new), expected[0, 0].numpy(), atol=1e-6, rtol=1e-6)

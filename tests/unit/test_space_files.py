"""Files of signals, volumes and bands: what is read, what is refused, what is drawn."""

import math
import sys

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx.helper import make_node as node
from PIL import Image
from space_networks import BANDS, RNG, SIZES, Network, load, sample, saved

import inspector
from inspector.errors import (
    ImageRefused,
    MissingExtra,
    UsageError,
)
from inspector.heatmap import Attribution, Heatmap
from inspector.network.coordinates.lattice import Lattice
from inspector.photos import bands
from inspector.photos.geometry import Geometry
from inspector.render.drawing.spaces import shown


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("spaces"))


def test_arrays_are_read_with_bands_first_or_last(networks, tmp_path):
    _, model = networks[2]
    values = RNG.random((5, 12, 10)).astype(np.float32)
    np.save(tmp_path / "first.npy", values)
    np.save(tmp_path / "last.npy", np.moveaxis(values, 0, -1))
    np.savez(tmp_path / "only.npz", values)
    pages = [Image.fromarray(plane) for plane in values]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    photos = [
        model.photo(tmp_path / name) for name in ("first.npy", "last.npy", "only.npz", "pages.tif")
    ]
    for photo in photos:
        tensor, geometry = model.preprocessing.preprocess.apply(photo)
        np.testing.assert_array_equal(tensor, values)
        assert geometry == Geometry.identity((12, 10))
        assert photo.drawn == (0, 1, 2)
    assert model.photo(tmp_path / "first.npy", (5, 1, 2)).drawn == (4, 0, 1)
    with pytest.raises(ImageRefused, match="there is no band 6"):
        model.photo(tmp_path / "first.npy", (6,))


def test_bands_of_another_size_are_resized_like_photos(networks):
    _, model = networks[2]
    photo = model.photo(RNG.random((5, 24, 20)).astype(np.float32) * 3000)
    tensor, geometry = model.preprocessing.preprocess.apply(photo)
    assert tensor.shape == (5, 12, 10)
    assert geometry.photo == (24, 20)
    assert tensor.max() > 255


@pytest.mark.parametrize("shape", [(7, 12, 10), (12, 10, 3)])
def test_another_number_of_bands_is_refused_with_both_numbers(networks, tmp_path, shape):
    _, model = networks[2]
    path = tmp_path / "other.npy"
    np.save(path, np.zeros(shape, np.float32))
    count = min(shape)
    with pytest.raises(ImageRefused, match=f"{count} bands .* and the model takes 5"):
        model.photo(path)


def test_a_photo_is_refused_by_a_model_of_bands(networks, tmp_path):
    Image.new("RGB", (10, 12)).save(tmp_path / "photo.png")
    for space in (1, 2, 3):
        with pytest.raises(ImageRefused, match=r"FILE\.npy"):
            networks[space][1].photo(tmp_path / "photo.png")


def test_a_signal_of_another_length_is_refused_with_a_command(networks):
    with pytest.raises(ImageRefused, match="50 places, and the model takes 40") as error:
        networks[1][1].photo(np.zeros((2, 50), np.float32))
    assert "to 40" in error.value.hint
    with pytest.raises(UsageError, match="images of 50 places, and the model takes 40"):
        networks[1][1].attribute(np.zeros((1, 2, 50), np.float32), target=1)


@pytest.mark.parametrize(("stride", "pads"), [(1, (1, 1)), (2, (0, 0)), (3, (2, 1))])
def test_the_length_that_a_dense_layer_asks_for_is_found(tmp_path, stride, pads):
    """A file may leave the length free although a flattened map of it is multiplied."""
    length, rng = 41, np.random.default_rng(0)
    cells = ((length + sum(pads) - 3) // stride + 1) // 2
    shortest = (2 * cells - 1) * stride + 3 - sum(pads)
    nodes = [
        node("Conv", ["x", "w1"], ["c"], pads=pads, strides=[stride]),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2], strides=[2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w3"], ["y"], transB=1),
    ]
    constants = {
        "w1": rng.standard_normal((4, 2, 3)).astype(np.float32),
        "w3": rng.standard_normal((3, 4 * cells)).astype(np.float32),
    }
    path = tmp_path / "free.onnx"
    onnx.save(onnx_model(nodes, {"x": ["n", 2, "l"]}, {"y": ["n", 3]}, constants), path)
    model = load(path)
    assert model.size() == (1, shortest)
    x = rng.standard_normal((2, shortest)).astype(np.float32)
    assert model.explain(x, "grad-cam", target="1").explanations
    with pytest.raises(ImageRefused, match=f"of {shortest - 2} places, and the model takes"):
        model.photo(x[:, :-2])


@pytest.mark.parametrize(
    ("shape", "sizes", "doubtful"),
    [
        ((5, 5, 5), (12, 10), True),
        ((5, 9, 5), (12, 10), True),
        ((5, 12, 5), (12, 5), False),
        ((5, 12, 5), (5, 12), False),
        ((5, 9, 7), (12, 10), False),
    ],
)
def test_bands_that_may_come_first_or_last_are_said(tmp_path, shape, sizes, doubtful):
    model = load(Network(2).save(tmp_path / "five.onnx", sizes=sizes))
    values = RNG.random(shape).astype(np.float32)
    photo = model.photo(values)
    assert any("whether they come first or last" in text for text in photo.warnings) == doubtful
    last = shape[:-1] == sizes
    np.testing.assert_array_equal(photo.bands, np.moveaxis(values, -1, 0) if last else values)


def test_signals_of_any_length_where_the_file_leaves_it_free(tmp_path):
    model = load(Network(1).save(tmp_path / "free.onnx", sizes=("l",)))
    x = [RNG.standard_normal((2, length)).astype(np.float32) for length in (40, 40, 64)]
    found = model.explain(x, ["grad-cam", "occlusion"], target="1")
    for image, own in zip(found.images, x, strict=True):
        alone = model.attribute(own[None], "grad-cam", target=1)[0]
        np.testing.assert_allclose(image.explanations[0].attribution.own, alone, atol=1e-6)
        assert image.explanations[1].heatmap.own.shape == (own.shape[1],)


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_a_tiff_file_of_several_bands_per_pixel_is_read(networks, tmp_path, layout, kind):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    _, model = networks[2]
    values = RNG.integers(0, 200, (5, 12, 10)).astype(kind)
    path, packed = tmp_path / "bands.tif", tmp_path / "packed.tif"
    saved = values if layout == "separate" else np.moveaxis(values, 0, -1)
    tifffile.imwrite(path, saved, planarconfig=layout, photometric="minisblack")
    tifffile.imwrite(
        packed, saved, planarconfig=layout, photometric="minisblack", compression="zlib"
    )
    for own in (path, packed):
        np.testing.assert_array_equal(model.photo(own).bands, values)
    with pytest.raises(ImageRefused):
        inspector.Photo.open(path)  # a picture of the first band alone would be no picture of it


def test_tiff_files_that_are_not_to_be_decoded_are_refused(networks, tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    _, model = networks[2]
    path, values = tmp_path / "bands.tif", np.zeros((5, 12, 10), np.float32)
    settings = {"planarconfig": "separate", "photometric": "minisblack"}
    for _ in range(2):
        tifffile.imwrite(path, values, append=path.exists(), **settings)
    with pytest.raises(ImageRefused, match="2 page"):
        model.photo(path)
    tifffile.imwrite(path, values, **settings)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageRefused):
        model.photo(path)
    path.write_bytes(data)
    monkeypatch.setattr("inspector.photos.band_tiff.MAX_DECODED_BYTES", 100)
    with pytest.raises(ImageRefused, match="bytes of bands"):
        model.photo(path)


def with_samples(path, count, size=(10, 12)):
    """A TIFF file whose header says so many samples per pixel."""
    Image.new("RGB", size).save(path)
    data = bytearray(path.read_bytes())
    order = "little" if data[:2] == b"II" else "big"
    at = data.index((277).to_bytes(2, order) + (3).to_bytes(2, order))  # SamplesPerPixel
    data[at + 8 : at + 10] = count.to_bytes(2, order)
    path.write_bytes(bytes(data))
    return path


def test_that_tifffile_is_missing_is_said_before_work(networks, tmp_path, monkeypatch):
    _, model = networks[2]
    np.save(tmp_path / "fine.npy", np.zeros((5, 12, 10), np.float32))
    path = with_samples(tmp_path / "bands.tif", 5)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    monkeypatch.setattr(model, "photo", lambda *_: pytest.fail("a photo was opened"))
    with pytest.raises(MissingExtra, match=r"onnx-inspector\[tiff\]"):
        model.explain([tmp_path / "fine.npy", path], "grad-cam", target="1")


def test_free_sizes_are_named(tmp_path):
    network = Network(3)
    path = network.save(tmp_path / "free.onnx", sizes=("d", "h", "w"))
    model = load(path, overrides=("size=4,6,8",))
    x = RNG.standard_normal((1, 4, 6, 8)).astype(np.float32)
    assert model.attribute(x[None], "grad-cam", target=1).shape == (1, 2, 3, 4)
    fixed = network.save(tmp_path / "fixed.onnx")
    with pytest.raises(UsageError, match="the model takes 6"):
        load(fixed, overrides=("size=4,8,10",))
    signal = load(Network(1).save(tmp_path / "free1.onnx", sizes=("l",)), overrides=("size=1,24",))
    assert signal.attribute(np.ones((1, 2, 24), np.float32), "grad-cam", target=1).shape == (1, 12)


@pytest.mark.parametrize("kind", ["pickle", "long", "two", "text", "infinite"])
def test_hostile_arrays_are_refused(networks, tmp_path, kind):
    _, model = networks[1]
    path = tmp_path / "bad.npy"
    if kind == "pickle":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif kind == "long":
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (2, 2**40)}
            )
    elif kind == "two":
        path = tmp_path / "bad.npz"
        np.savez(path, np.zeros(3), np.zeros(4))
    elif kind == "text":
        path.write_bytes(b"not an array at all")
    else:
        np.save(path, np.full((2, 40), np.inf, np.float32))
    with pytest.raises(ImageRefused):
        model.photo(path)


def test_a_named_recipe_is_applied_to_bands(networks, tmp_path):
    network, _ = networks[1]
    model = load(network.save(tmp_path / "recipe.onnx"), overrides=("mean=2", "std=4"))
    values = RNG.random((2, 40)).astype(np.float32)
    tensor, _ = model.preprocessing.preprocess.apply(model.photo(values))
    np.testing.assert_allclose(tensor[:, 0], (values - 2) / 4, rtol=1e-6)


# -- pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [1, 2, 3])
def test_figures_sheets_and_files_are_made(networks, tmp_path, space):
    _, model = networks[space]
    report = model.explain(sample(space)[0], ["grad-cam", "gradient"], target="1")
    report.save(tmp_path, sheet=True)
    (numbers,) = tmp_path.glob("array.grad-cam.*.npz")
    with np.load(numbers) as saved:
        if space != 2:  # a picture's map is laid on the photo again when it is read
            assert saved["heatmap"].shape == saved["seen"].shape == SIZES[space]
        assert saved["attribution"].shape == tuple(size // 2 for size in SIZES[space])
    whole = report.images[0].to_dict()
    assert whole["image"]["size"] == list(SIZES[space])
    document = whole["results"]
    assert document[1]["attribution"]["shape"] == [BANDS[space], *SIZES[space]]
    with Image.open(tmp_path / "array.sheet.png") as sheet:
        assert sheet.width > 300


@pytest.mark.parametrize("length", [40, 3000, 100_000])
def test_a_curve_stands_at_the_samples_that_its_axis_and_its_map_name(length):
    """A step at two thirds: the curve climbs there, and the map of the same step begins there."""
    step = np.arange(length) >= length * 2 // 3
    values = step.astype(np.float32)[None]
    bands = values[None]
    photo = inspector.Photo(
        np.zeros((1, length, 3), np.uint8), "s", "", bands=bands, space=1, drawn=(0,)
    )
    lattice = Lattice((length,), (length,))
    attribution = Attribution(values, "layer", "x", lattice=lattice)
    drawn = shown(photo, Heatmap.of(attribution, Geometry.identity((1, length))), 600)
    dark = drawn.photo.pixels[:145, :, 0] < 100
    rows = np.array([np.flatnonzero(column).mean() for column in dark.T[10:-10]])
    climbs = 10 + np.flatnonzero(rows < rows.max() / 2)[0]
    begins = step.argmax() * 600 / length
    assert abs(climbs - begins) <= 9
    assert abs(np.flatnonzero(drawn.heatmap.values[0] > 0.5)[0] - begins) <= 1


def test_the_slice_of_the_peak_is_always_drawn():
    depth = 40
    values = np.zeros((depth, 6, 8), np.float32)
    values[23, 2, 3] = 1.0
    found = inspector.Photo(np.zeros((depth * 6, 8, 3), np.uint8), "v", "", space=3, depth=depth)
    attribution = Attribution(
        values.reshape(-1, 8), "layer", "x", lattice=Lattice((depth, 6, 8), (depth, 6, 8))
    )
    heatmap = Heatmap.of(attribution, Geometry.identity((depth * 6, 8)))
    drawn = shown(found, heatmap)
    assert "slice 23" in [text for _, _, text in drawn.labels]
    assert drawn.heatmap.maximum == pytest.approx(1.0)
    assert math.isclose(drawn.photo.size[1], 760, rel_tol=0.02)


def test_pages_of_a_file_are_counted_no_further_than_they_are_read():
    seen = []

    class Endless:
        def seek(self, page):
            seen.append(page)

    assert bands._count(Endless()) == bands._PAGES + 1
    assert len(seen) == bands._PAGES + 1

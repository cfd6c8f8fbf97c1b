"""Signals, volumes and pictures of any number of bands: maps against native PyTorch, and files."""

import math
import sys

import numpy as np
import onnx
import pytest
import torch
from networks import onnx_model
from onnx.helper import make_node as node
from PIL import Image
from torch.nn import functional

import inspector
from inspector.compare import compare
from inspector.errors import (
    ImageRefused,
    MethodRefused,
    MissingExtra,
    ModelRefused,
    UsageError,
)
from inspector.heatmap import Attribution, Heatmap, upsample
from inspector.network.lattice import Lattice
from inspector.overview import overview
from inspector.photos import bands
from inspector.photos.geometry import Geometry
from inspector.photos.occluder import windows_of
from inspector.render.drawing.spaces import shown

CLOSE = 1e-5
CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
SIZES = {1: (40,), 2: (12, 10), 3: (6, 8, 10)}
BANDS = {1: 2, 2: 5, 3: 1}
RNG = np.random.default_rng(14)


class Network:
    """conv - relu - maxpool 2 - conv - relu - mean - linear, over one to three axes of space."""

    def __init__(self, space, bands=None, seed=0):
        rng = np.random.default_rng(seed)
        self.space, self.bands = space, bands or BANDS[space]
        self.w1 = rng.standard_normal((4, self.bands, *[3] * space)).astype(np.float32)
        self.w2 = rng.standard_normal((6, 4, *[3] * space)).astype(np.float32)
        self.w3 = rng.standard_normal((3, 6)).astype(np.float32)

    def native(self, x):
        """Scores in PyTorch, and the activation of the last convolution."""
        w1, w2 = (torch.from_numpy(w).to(x.dtype) for w in (self.w1, self.w2))
        convolve, pool = CONVOLVE[self.space], POOL[self.space]
        layer = functional.relu(
            convolve(pool(functional.relu(convolve(x, w1, padding=1)), 2), w2, padding=1)
        )
        return layer, self.head(layer)

    def head(self, layer):
        w3 = torch.from_numpy(self.w3).to(layer.dtype)
        return layer.mean(tuple(range(2, self.space + 2))) @ w3.T

    def save(self, path, sizes=None, last=False):
        sizes = SIZES[self.space] if sizes is None else sizes
        pads = [1] * 2 * self.space
        axes = range(self.space)
        first = [0, self.space + 1, *(i + 1 for i in axes)]
        shape = ["n", *sizes, self.bands] if last else ["n", self.bands, *sizes]
        nodes = [
            node(
                "Transpose" if last else "Identity",
                ["x"],
                ["x0"],
                **({"perm": first} if last else {}),
            ),
            node("Conv", ["x0", "w1"], ["c1"], pads=pads),
            node("Relu", ["c1"], ["r1"]),
            node("MaxPool", ["r1"], ["p"], kernel_shape=[2] * self.space, strides=[2] * self.space),
            node("Conv", ["p", "w2"], ["c2"], pads=pads),
            node("Relu", ["c2"], ["r2"]),
            node("GlobalAveragePool", ["r2"], ["g"]),
            node("Flatten", ["g"], ["f"]),
            node("Gemm", ["f", "w3"], ["y"], transB=1),
        ]
        constants = {"w1": self.w1, "w2": self.w2, "w3": self.w3}
        onnx.save(onnx_model(nodes, {"x": shape}, {"y": ["n", 3]}, constants), path)
        return path


def load(path, **more):
    return inspector.load(path, device="cpu", unverified=True, **more)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spaces")
    found = {}
    for space in (1, 2, 3):
        network = Network(space)
        found[space] = network, load(network.save(folder / f"{space}.onnx"))
    return found


def sample(space, count=2, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, BANDS[space], *SIZES[space])).astype(np.float32)


def native_maps(network, x, method):
    """The formulas of the papers over any axes of space, on PyTorch's own gradients."""
    layer, _ = network.native(torch.from_numpy(x).double())
    layer = layer.detach().requires_grad_()
    network.head(layer)[:, 1].sum().backward()
    a, g = layer.detach().numpy(), layer.grad.numpy()
    axes = tuple(range(2, a.ndim))
    if method == "cam":
        return np.einsum("k,nk...->n...", network.w3[1].astype(np.float64), a)
    if method == "hires-cam":
        return np.maximum((g * a).sum(1), 0)
    if method == "layer-cam":
        return np.maximum((np.maximum(g, 0) * a).sum(1), 0)
    if method == "grad-cam":
        weights = g.mean(axes, keepdims=True)
    elif method == "x-grad-cam":
        weights = (g * a).sum(axes, keepdims=True) / a.sum(axes, keepdims=True)
    else:
        total = a.sum(axes, keepdims=True)
        weights = ((g != 0) / (2 + g * total) * np.maximum(g, 0)).sum(axes, keepdims=True)
    return np.maximum((weights * a).sum(1), 0)


LAYER_METHODS = ["cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "x-grad-cam"]


@pytest.mark.parametrize("space", [1, 2, 3])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_layer_methods_are_the_papers_formulas_over_any_axes_of_space(networks, space, method):
    network, model = networks[space]
    x = sample(space)
    found = model.attribute(x, method, target=1)
    theirs = native_maps(network, x, method)
    assert found.shape == theirs.shape == (2, *(size // 2 for size in SIZES[space]))
    np.testing.assert_allclose(found, theirs, rtol=CLOSE, atol=CLOSE * np.abs(theirs).max())


@pytest.mark.parametrize("space", [1, 2, 3])
def test_the_gradient_at_the_input_is_pytorchs(networks, space):
    network, model = networks[space]
    x = torch.from_numpy(sample(space)).requires_grad_()
    network.native(x)[1][:, 1].sum().backward()
    found = model.attribute(x.detach().numpy(), "gradient", target=1)
    np.testing.assert_allclose(
        found, x.grad.numpy(), rtol=1e-4, atol=CLOSE * x.grad.abs().max().item()
    )


@pytest.mark.parametrize("space", [1, 2, 3])
def test_occlusion_hides_spans_squares_and_cubes(networks, space):
    network, model = networks[space]
    x = sample(space, count=1)
    found = model.attribute(x, "occlusion:window=4,stride=2,measure=score", target=1)[0, 0]
    fill = x[0].mean(tuple(range(1, space + 1)))
    total, count = np.zeros(SIZES[space]), np.zeros(SIZES[space])
    whole = network.native(torch.from_numpy(x))[1][0, 1].item()
    for box in windows_of(SIZES[space], 4, 2):
        inside = tuple(slice(a, b) for a, b in zip(box[:space], box[space:], strict=True))
        hidden = x.copy()
        hidden[0][(slice(None), *inside)] = fill.reshape(-1, *[1] * space)
        total[inside] += whole - network.native(torch.from_numpy(hidden))[1][0, 1].item()
        count[inside] += 1
    assert count.min() > 0
    np.testing.assert_allclose(found, total / count, atol=1e-4 * np.abs(total).max())


PLANTED = [
    *("grad-cam", "hires-cam", "layer-cam", "occlusion", "gradient"),
    *("rise:masks=200", "recipro-cam", "score-cam"),
]


@pytest.mark.parametrize("space", [1, 3])
@pytest.mark.parametrize("method", PLANTED)
def test_planted_evidence_is_found_in_a_signal_and_in_a_volume(tmp_path, space, method):
    """One bump in a sample of zeros: the class that counts it lies there alone."""
    network = Network(space, bands=1)
    network.w1[:] = 0.0
    network.w1[0] = 1.0
    network.w2[:] = 0.0
    network.w2[2, 0] = 1.0
    network.w3[:] = 0.0
    network.w3[1, 2] = 1.0
    model = load(network.save(tmp_path / "planted.onnx"))
    x = np.zeros((1, 1, *SIZES[space]), np.float32)
    place = tuple(size // 4 * 3 for size in SIZES[space])
    x[(0, 0, *place)] = 5.0
    report = model.explain(x[0], method, target="1")
    peak = report.images[0].to_dict()["results"][0]["peak"]
    found = [peak[axis] for axis in ("xyz"[:space])][::-1]
    assert np.abs(np.subtract(found, place)).max() <= 3
    assert report.explanation.heatmap.own.shape == SIZES[space]


@pytest.mark.parametrize("space", [1, 3])
def test_recipro_cam_is_the_score_of_one_place_at_a_time(networks, space):
    network, model = networks[space]
    x = sample(space, count=1)
    layer, _ = network.native(torch.from_numpy(x))
    found = model.attribute(x, "recipro-cam:window=no", target=1)[0]
    empty = network.head(torch.zeros_like(layer))[0, 1].item()
    for place in [(0,) * space, tuple(size // 3 for size in found.shape)]:
        alone = torch.zeros_like(layer)
        alone[(0, slice(None), *place)] = layer[(0, slice(None), *place)]
        wanted = network.head(alone)[0, 1].item() - empty
        assert found[place] == pytest.approx(wanted, abs=1e-6)


def test_a_volume_and_its_transpose_have_transposed_maps(tmp_path):
    """No axis is another's: turning kernels and sample turns the map."""
    network = Network(3)
    model = load(network.save(tmp_path / "a.onnx"))
    turned = Network(3)
    turned.w1, turned.w2 = (
        np.ascontiguousarray(w.transpose(0, 1, 4, 2, 3)) for w in (network.w1, network.w2)
    )
    sizes = (SIZES[3][2], *SIZES[3][:2])
    other = load(turned.save(tmp_path / "b.onnx", sizes))
    x = sample(3, count=1)
    for method in ("grad-cam", "occlusion:window=3", "recipro-cam"):
        mine = model.attribute(x, method, target=1)
        theirs = other.attribute(np.ascontiguousarray(x.transpose(0, 1, 4, 2, 3)), method, target=1)
        np.testing.assert_allclose(
            np.moveaxis(theirs, -3, -1), mine, atol=1e-4 * np.abs(mine).max()
        )


@pytest.mark.parametrize("space", [1, 3])
def test_channels_may_come_last(tmp_path, networks, space):
    network, model = networks[space]
    last = load(network.save(tmp_path / "last.onnx", last=True))
    assert last.input.layout == "NHWC"
    x = sample(space)
    for method in ("grad-cam", "gradient"):
        mine, theirs = (one.attribute(x, method, target=1) for one in (last, model))
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("space", [1, 3])
def test_methods_of_pictures_are_refused_with_their_reason(networks, space):
    _, model = networks[space]
    for method in ("d-rise", "attention-rollout", "attention-gradient"):
        with pytest.raises(MethodRefused, match="is defined for pictures"):
            model.attribute(sample(space, count=1), method, target=1)
    with pytest.raises(ModelRefused, match="the task 'detector' is defined for pictures"):
        model.explain(sample(space)[0], task="detector")
    with pytest.raises(ModelRefused, match="comparing is defined for pictures"):
        compare(model, model, [sample(space)[0]])


@pytest.mark.parametrize("space", [1, 3])
def test_layers_are_listed_with_their_own_axes(networks, space):
    _, model = networks[space]
    first, second = overview(model).rows
    assert (first.stride, second.stride) == ((1.0,) * space, (2.0,) * space)
    assert (first.field, second.field) == ("x".join(["3"] * space), "x".join(["8"] * space))
    assert second.shape == (6, *(size // 2 for size in SIZES[space]))
    assert second.default


@pytest.mark.parametrize("bands", [1, 2, 4, 5, 13])
@pytest.mark.parametrize("shape", ["fixed", "free", "last", "unknown"])
def test_any_number_of_bands_is_read_off_the_graph(tmp_path, bands, shape):
    network = Network(2, bands=bands)
    path = network.save(
        tmp_path / "bands.onnx", ("h", "w") if shape == "free" else (12, 10), last=shape == "last"
    )
    if shape == "unknown":
        proto = onnx.ModelProto.FromString(path.read_bytes())
        proto.graph.input[0].type.tensor_type.shape.dim[1].Clear()
        path.write_bytes(proto.SerializeToString())
    model = load(path, overrides=("size=12,10",))
    assert (model.input.channels, model.input.space) == (bands, 2)
    assert model.input.layout == ("NHWC" if shape == "last" else "NCHW")
    x = RNG.standard_normal((1, bands, 12, 10)).astype(np.float32)
    theirs = native_maps(network, x, "grad-cam")
    found = model.attribute(x, "grad-cam", target=1)
    np.testing.assert_allclose(found, theirs, rtol=CLOSE, atol=CLOSE * np.abs(theirs).max())


# -- where cells lie -------------------------------------------------------------------------------


def unpadded(path, space, cut=False):
    """A convolution of 9 places without padding, before a mean: cells 4 places off the border."""
    weights = np.ones((2, 1, *[9] * space), np.float32)
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"])]
    if cut:
        nodes = [
            node("Slice", ["x", "s", "e", "a"], ["x1"]),
            node("Conv", ["x1", "w"], ["c"]),
            nodes[1],
        ]
    nodes += [
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "m"], ["y"], transB=1),
    ]
    constants = {"w": weights, "m": np.eye(2, dtype=np.float32)}
    if cut:
        constants |= {"s": np.array([8]), "e": np.array([1000]), "a": np.array([2])}
    onnx.save(onnx_model(nodes, {"x": [1, 1, *[32] * space]}, {"y": [1, 2]}, constants), path)
    return load(path)


@pytest.mark.parametrize("space", [1, 3])
def test_cells_of_an_unpadded_layer_are_laid_at_their_own_places(tmp_path, space):
    model = unpadded(tmp_path / "valid.onnx", space)
    x = np.zeros((1, *[32] * space), np.float32)
    x[(0, *[20] * space)] = 1.0
    heatmap = model.explain(x, "grad-cam", target="1").explanation.heatmap
    seen = heatmap.seen.reshape(heatmap.own.shape)
    inside = (slice(4, 28),) * space
    assert seen[inside].all()
    assert seen.sum() == 24**space
    found = np.argwhere(np.nan_to_num(heatmap.own) > 0.99 * np.nanmax(heatmap.own))
    assert (found.min(0) == 16).all()
    assert (found.max(0) == 24).all()


def test_a_cut_signal_is_laid_where_it_was_cut(tmp_path):
    heatmap = (
        unpadded(tmp_path / "cut.onnx", 1, cut=True)
        .explain(np.ones((1, 32), np.float32), "grad-cam", target="1")
        .explanation.heatmap
    )
    assert np.flatnonzero(heatmap.seen).tolist() == list(range(12, 28))


def test_what_moves_places_unknown_ways_is_named(tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["c0"], pads=[1, 1]),
        node("Transpose", ["c0"], ["t"], perm=[0, 2, 1]),
        node("Conv", ["t", "v"], ["c"], pads=[1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["y"]),
    ]
    constants = {
        "w": RNG.standard_normal((4, 1, 3)).astype(np.float32),
        "v": RNG.standard_normal((4, 16, 3)).astype(np.float32),
    }
    path = tmp_path / "turned.onnx"
    onnx.save(onnx_model(nodes, {"x": [1, 1, 16]}, {"y": [1, 4]}, constants), path)
    with pytest.raises(MethodRefused, match="not known which places"):
        load(path).explain(np.ones((1, 16), np.float32), "grad-cam", target="1", layer="r")


def test_the_stretch_of_a_picture_is_that_of_a_lattice():
    values = RNG.random((5, 7))
    laid, seen = Lattice((20, 21), (5, 7)).laid(values)
    assert seen.all()
    np.testing.assert_allclose(laid, upsample(values, (20, 21)), rtol=1e-6)


# -- files -----------------------------------------------------------------------------------------


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

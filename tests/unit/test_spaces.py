"""Signals, volumes and pictures of any number of bands: maps against native PyTorch, and files."""

import numpy as np
import onnx
import pytest
import torch
from networks import onnx_model
from onnx.helper import make_node as node
from space_networks import CLOSE, RNG, SIZES, Network, load, sample, saved

from inspector.compare import compare
from inspector.errors import (
    MethodRefused,
    ModelRefused,
)
from inspector.heatmap import upsample
from inspector.network.coordinates.lattice import Lattice
from inspector.overview import overview
from inspector.photos.occluder import windows_of


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("spaces"))


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

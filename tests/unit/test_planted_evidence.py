"""A network that looks at red squares by construction: every method must point at the square.

Its first convolution averages red minus green minus blue over 5x5 pixels and its bias lets it fire
only where nearly the whole window is red; a second channel does the same for blue.  The score of
class 0 is the pooled red response minus the pooled blue one.  So the right map is known without
running anything: it is the square.

The pooling is the mean (then CAM is exact) or the maximum (then CAM is not, and must say so; and
a small occluder lowers nothing, because the square attains the maximum elsewhere too).  Deconvnet
ignores which units fired: behind a mean it has no switches to localise with, and its map is the
same for every picture.  That, too, is shown here; its projection of one unit, which is what the
paper does, points at the square.
"""

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper
from oracles import convolutional

import inspector
from inspector.errors import MethodRefused
from inspector.methods import methods
from inspector.photos.preprocess_choice import Preprocess

SIZE, KERNEL = 32, 5
RED, BLUE = 0, 1
OCCLUDER = 4
SOFT = {"rise", "score-cam"}
"""RISE's random masks are wider than the square; Score-CAM dims a small square by its own map,
below the threshold of the detector. Both have tests of their own."""
LOCALISING = {
    "mean": [name for name in convolutional() if name not in {"deconvnet", *SOFT}],
    # To lower a maximum an occluder must hide every place that attains it: no small one does.
    "max": [name for name in convolutional() if name not in {"cam", "occlusion", *SOFT}],
}


def planted(head, layout):
    """The network, raw pixels / 255 in, two scores out."""
    detector = np.zeros((2, 3, KERNEL, KERNEL), np.float32)
    detector[RED] = np.array([1, -1, -1])[:, None, None] / KERNEL**2
    detector[BLUE] = np.array([-1, -1, 1])[:, None, None] / KERNEL**2
    nodes = []
    image = "image"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
        image = "planes"
    pool = {"mean": "GlobalAveragePool", "max": "GlobalMaxPool"}[head]
    nodes += [
        helper.make_node("Conv", [image, "detector", "threshold"], ["response"], pads=[2] * 4),
        helper.make_node("Relu", ["response"], ["fires"]),
        helper.make_node(pool, ["fires"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weights"], ["scores"], transB=1),
    ]
    shape = ["n", 3, SIZE, SIZE] if layout == "NCHW" else ["n", SIZE, SIZE, 3]
    constants = {
        "detector": detector,
        "threshold": np.full(2, -0.7, np.float32),
        "weights": np.array([[1, -1], [-1, 1]], np.float32),
    }
    return onnx_model(nodes, {"image": shape}, {"scores": ["n", 2]}, constants, opset=17)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    kept = {}

    def open_(head="mean", layout="NCHW", **preprocess):
        key = (head, layout, tuple(preprocess.items()))
        if key not in kept:
            path = folder / f"{head}_{layout}.onnx"
            onnx.save(planted(head, layout), path)
            recipe = Preprocess(size=(SIZE, SIZE), layout=layout, **preprocess)
            kept[key] = inspector.load(path, device="cpu", preprocess=recipe)
        return kept[key]

    return open_


def picture(height, width, square, seed=0, *, other=(0, 255, 255)):
    """Grey noise with a green, a white and a cyan (or ``other``) square, the red one on top.

    ``square`` is (top, left, side) in pixels.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (height, width, 1)).repeat(3, axis=2).astype(np.uint8)
    side = square[2]
    for colour, (y, x) in {
        (0, 255, 0): (0, width - side),
        other: (height - side, 0),
        (255, 255, 255): (height - side, width - side),
    }.items():
        pixels[y : y + side, x : x + side] = colour
    top, left, side = square
    pixels[top : top + side, left : left + side] = (255, 0, 0)
    return pixels


def requests(head):
    """Every method that localises behind this head, as the command line takes them."""
    occlusion = f"occlusion:window={OCCLUDER},stride=2"
    return [occlusion if name == "occlusion" else name for name in LOCALISING[head]]


def reach(method):
    """Input pixels beyond the square that a map may rightly colour.

    A window of 5 pixels that fires with one column outside; an occluder that hides one column.
    """
    return OCCLUDER - 1 if method == "occlusion" else 1


def share_inside(heatmap, square, margin=0):
    """Share of the map's positive mass within the square, widened by ``margin`` pixels."""
    top, left, side = square
    positive = np.nan_to_num(np.maximum(heatmap, 0))
    y0, x0 = max(0, top - margin), max(0, left - margin)
    inside = positive[y0 : top + side + margin, x0 : left + side + margin].sum()
    return inside / positive.sum()


def points_at(heatmap, square):
    """Whether the highest pixel lies in the square."""
    y, x = np.unravel_index(np.nanargmax(heatmap), heatmap.shape)
    top, left, side = square
    return top <= y < top + side and left <= x < left + side


SQUARES = [(3, 4, 9), (20, 2, 10), (12, 11, 8), (21, 21, 9)]


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("head", ["mean", "max"])
def test_every_method_points_at_the_square(opened, head, layout, square):
    model = opened(head, layout)
    pixels = picture(SIZE, SIZE, square, seed=square[0])
    report = model.explain(pixels, requests(head), target=str(RED))
    assert [e.attribution.method for e in report.explanations] == LOCALISING[head]
    for explanation in report.explanations:
        values = explanation.heatmap.values
        assert values.shape == (SIZE, SIZE)
        assert points_at(values, square), explanation.label
        method = explanation.attribution.method
        assert share_inside(values, square, reach(method)) > 0.99, explanation.label
        if method != "occlusion":
            assert share_inside(values, square) > 0.9, explanation.label


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("head", ["mean", "max"])
@pytest.mark.parametrize(
    ("size", "square"),
    [
        ((64, 100), (20, 30, 20)),  # landscape
        ((64, 100), (10, 50, 22)),
        ((150, 90), (55, 25, 30)),  # portrait
        ((96, 96), (40, 15, 28)),
    ],
)
def test_the_map_lies_on_the_photo_s_own_pixels(opened, head, layout, size, square):
    """A larger photo, scaled and cropped: the square is found where it is on the photo."""
    height, width = size
    model = opened(head, layout, crop_pct=0.8)
    pixels = picture(height, width, square, seed=1)
    report = model.explain(pixels, requests(head), target=str(RED))
    scale = min(height, width) * 0.8 / SIZE  # photo pixels an input pixel
    for explanation in report.explanations:
        values = explanation.heatmap.values
        assert values.shape == (height, width)
        assert np.isnan(values).any()  # cropped: what the network did not see
        assert not np.isnan(values[square[0] + 5, square[1] + 5])
        assert points_at(values, square), explanation.label
        method = explanation.attribution.method
        margin = int(np.ceil(reach(method) * scale))
        assert share_inside(values, square, margin) > 0.99, explanation.label
        if method != "occlusion":
            assert share_inside(values, square) > 0.9, explanation.label


@pytest.mark.parametrize("head", ["mean", "max"])
def test_the_other_class_points_at_the_other_square(opened, head):
    model = opened(head)
    red, blue = (4, 18, 9), (SIZE - 9, 0, 9)
    pixels = picture(SIZE, SIZE, red, other=(0, 0, 255))
    for target, here in ((RED, red), (BLUE, blue)):
        report = model.explain(pixels, requests(head), target=str(target))
        for explanation in report.explanations:
            method = explanation.attribution.method
            if method in {"gradient", "smooth-grad"} or not methods()[method].class_specific:
                continue  # signed: both squares matter, and its heatmap shows the magnitude
            assert points_at(explanation.heatmap.values, here), (target, explanation.label)


def test_the_maps_are_exactly_what_was_planted(opened):
    """CAM and Grad-CAM against the response computed from the pixels by hand."""
    square = (6, 7, 10)
    pixels = picture(SIZE, SIZE, square, seed=3, other=(0, 0, 255))
    x = np.pad(pixels.astype(np.float64) / 255, ((2, 2), (2, 2), (0, 0)))
    fires = np.zeros((2, SIZE, SIZE))
    for i, j in np.ndindex(SIZE, SIZE):
        r, g, b = x[i : i + KERNEL, j : j + KERNEL].mean(axis=(0, 1))
        fires[:, i, j] = max(r - g - b - 0.7, 0), max(b - r - g - 0.7, 0)
    model = opened()
    cam = model.explain(pixels, "cam", target=str(RED)).attribution
    np.testing.assert_allclose(cam, fires[0] - fires[1], atol=1e-6)
    grad_cam = model.explain(pixels, "grad-cam", target=str(RED)).attribution
    np.testing.assert_allclose(grad_cam, fires[0] / SIZE**2, atol=1e-8)
    # Grad-CAM++: g = 1/Z in the red channel alone.
    weight = SIZE**2 * (1 / SIZE**2) / (2 + fires[0].sum() / SIZE**2)
    plus_plus = model.explain(pixels, "grad-cam++", target=str(RED)).attribution
    np.testing.assert_allclose(plus_plus, weight * fires[0], atol=1e-6)
    assert fires[0][square[0] + 5, square[1] + 5] == pytest.approx(0.3)


def test_no_red_square_no_evidence(opened):
    pixels = picture(SIZE, SIZE, (0, 0, 9))
    pixels[:9, :9] = 128
    report = opened().explain(pixels, ["grad-cam", "cam"], target=str(RED))
    assert all(explanation.attribution.empty for explanation in report.explanations)


def test_a_square_in_the_part_that_was_cropped_away_is_no_evidence(opened):
    pixels = picture(64, 160, (20, 130, 20))
    pixels[44:, :] = 128  # and no other colours
    report = opened(crop_pct=0.8).explain(pixels, ["grad-cam"], target=str(RED))
    assert report.explanation.attribution.empty
    assert np.isnan(report.heatmap[30, 140])


def test_cam_is_refused_behind_the_maximum(opened):
    pixels = picture(SIZE, SIZE, SQUARES[0])
    with pytest.raises(MethodRefused, match="maximum"):
        opened("max").explain(pixels, "cam", target=str(RED))


def test_deconvnet_behind_a_mean_is_blind_and_its_projection_of_one_unit_is_not(opened):
    model = opened()
    first, second = (3, 4, 9), (20, 18, 9)
    maps = [
        model.explain(picture(SIZE, SIZE, square), "deconvnet", target=str(RED)).attribution
        for square in (first, second)
    ]
    np.testing.assert_array_equal(maps[0], maps[1])
    for square in (first, second):
        pixels = picture(SIZE, SIZE, square)
        y, x = square[0] + 4, square[1] + 4
        report = model.explain(pixels, "deconvnet", target=f"fires[{RED},{y},{x}]")
        values = report.heatmap
        assert points_at(values, square)
        assert share_inside(values, square) == pytest.approx(1)
        # The projection is the filter itself, flipped by nothing: red up, green and blue down.
        window = report.attribution[:, y - 2 : y + 3, x - 2 : x + 3]
        wanted = np.array([1, -1, -1])[:, None, None] / KERNEL**2
        np.testing.assert_allclose(window, np.broadcast_to(wanted, window.shape), atol=1e-7)

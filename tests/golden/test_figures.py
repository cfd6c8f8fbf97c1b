import numpy as np
import pytest

from inspector.heatmap import Attribution, Heatmap
from inspector.photos.photo import Photo
from inspector.photos.preprocess import Preprocess
from inspector.render import png, sheet

SIZE = (60, 90)


def blob(size, y, x, sigma):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


@pytest.fixture
def photo():
    """A green meadow with a red ball, drawn here: no third party's picture."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = np.stack([60 + columns, 140 + rows // 2, 90 - columns // 3], axis=2).astype(np.uint8)
    pixels[(rows - 24) ** 2 + (columns - 38) ** 2 < 100] = (210, 40, 30)
    return Photo.of(pixels, "meadow.png")


def heatmap(photo, values, method, **more):
    _, geometry = Preprocess((48, 48)).apply(photo)
    space = "layer" if "cam" in method and "guided" not in method else "input"
    known = {"label": "red ball", "index": 7, "score": 9.25, "probability": 0.87} | more
    return Heatmap.of(Attribution(values, space, method, **known), geometry)


def grad_cam(photo, **more):
    return heatmap(photo, 4.5 * blob((6, 6), 2, 2, 1.2), "grad-cam", layer="/features/relu", **more)


def occlusion(photo):
    values = 0.6 * blob((48, 48), 19, 18, 8) - 0.2 * blob((48, 48), 38, 38, 7)
    return heatmap(photo, values[None], "occlusion", reduction="sum")


def guided(photo):
    rows, columns = np.mgrid[:48, :48]
    wave = np.sin(rows / 1.5) * np.cos(columns / 2.0) * blob((48, 48), 19, 18, 7)
    values = np.stack([wave, -0.5 * wave, 0.2 * np.abs(wave)])
    note = "guided backpropagation is weakly class-dependent (Nie et al. 2018)"
    return heatmap(photo, values, "guided-backprop", notes=(note,))


def test_layer_map(golden, photo):
    golden(png.overlay(photo, grad_cam(photo), model="net.onnx"), "grad_cam")


def test_signed_projection(golden, photo):
    golden(png.overlay(photo, guided(photo), model="net.onnx"), "guided_backprop")


def test_diverging_map(golden, photo):
    golden(png.overlay(photo, occlusion(photo), model="net.onnx"), "occlusion")


def test_empty_map(golden, photo):
    empty = heatmap(photo, np.zeros((6, 6)), "grad-cam", layer="/features/relu")
    golden(png.overlay(photo, empty, model="net.onnx"), "empty")


def test_contact_sheet(golden, photo):
    second = grad_cam(photo, label="meadow", index=3, score=2.5, probability=0.05)
    maps = [grad_cam(photo), guided(photo), occlusion(photo), second]
    golden(sheet.contact_sheet(photo, maps, model="net.onnx"), "sheet")


def test_the_comparison_can_fail(golden, photo):
    wrong = heatmap(photo, 4.5 * blob((6, 6), 4, 4, 1.2), "grad-cam", layer="/features/relu")
    if golden.updates:
        pytest.skip("would draw the wrong picture")
    with pytest.raises(AssertionError, match="differ"):
        golden(png.overlay(photo, wrong, model="net.onnx"), "grad_cam")

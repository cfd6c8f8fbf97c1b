import numpy as np
import pytest
from PIL import Image

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


def card(width, height, name="card.png"):
    """A photo of few colours, which makes a small file: a blue half, and a yellow disc."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.full((height, width, 3), (70, 110, 170), np.uint8)
    pixels[:, width // 2 :] = (200, 205, 210)
    near = (rows - 0.4 * height) ** 2 + (columns - 0.4 * width) ** 2
    pixels[near < (0.3 * min(width, height)) ** 2] = (240, 200, 40)
    return Photo.of(pixels, name)


@pytest.mark.parametrize(("width", "height"), [(60, 900), (1600, 80)])
def test_photos_with_one_long_side(golden, width, height):
    photo = card(width, height)
    squashed = Preprocess((48, 48), resize="squash", crop_pct=1.0).apply(photo)[1]
    found = grad_cam(photo).attribution
    golden(png.overlay(photo, Heatmap.of(found, squashed)), f"photo_{width}x{height}")


def test_a_photo_of_32_pixels_under_a_signed_map_with_a_value_per_pixel(golden):
    photo = card(32, 32)
    rows, columns = np.mgrid[:32, :32]
    values = np.sin(rows * 1.7) * np.cos(columns * 1.3) * blob((32, 32), 13, 13, 5) ** 2
    values[3, 28] = 20.0  # one pixel far above all others, which full colour does not follow
    geometry = Preprocess((32, 32), crop_pct=1.0).apply(photo)[1]
    found = Attribution(
        values[None], "input", "input-x-gradient", label="disc", reduction="sum", per_pixel=True
    )
    golden(png.overlay(photo, Heatmap.of(found, geometry)), "photo_32x32")


SCRIPTS = {
    "latin": "h\u00e9risson \u0151\u015f\u00df",
    "greek": "\u03b3\u03ac\u03c4\u03b1",
    "cyrillic": "\u043a\u043e\u0448\u043a\u0430",
    "cjk_without_a_font": "\u864e tiger",
}


def headings(names):
    """The titles of figures below each other: little but text, so that a lost letter counts."""
    strips = []
    for name in names:
        photo = card(32, 32, f"{name.split()[0]}.png")
        figure = png.overlay(photo, grad_cam(photo, label=name))
        strips.append(np.asarray(figure.crop((16, 18, 356, 106))))
    return Image.fromarray(np.concatenate(strips))


def test_names_in_four_scripts(golden, system_fonts):
    """The machine's own fonts decide nothing here: there are none in ``system_fonts``."""
    golden(headings(SCRIPTS.values()), "scripts")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_that_is_lost_is_found(golden, system_fonts, script):
    lost = SCRIPTS | {script: "\ufffd" * len(SCRIPTS[script])}
    if golden.updates:
        pytest.skip("would draw the wrong picture")
    with pytest.raises(AssertionError, match="differ"):
        golden(headings(lost.values()), "scripts")


def test_the_comparison_can_fail(golden, photo):
    wrong = heatmap(photo, 4.5 * blob((6, 6), 4, 4, 1.2), "grad-cam", layer="/features/relu")
    if golden.updates:
        pytest.skip("would draw the wrong picture")
    with pytest.raises(AssertionError, match="differ"):
        golden(png.overlay(photo, wrong, model="net.onnx"), "grad_cam")

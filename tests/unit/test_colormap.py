import subprocess
import sys

import numpy as np
import pytest

from inspector.heatmap import Attribution, Heatmap
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.render.drawing import colormap
from inspector.render.drawing.colormap import (
    LIGHT,
    apply_diverging,
    apply_sequential,
    diverging,
    sequential,
    to_oklab,
)
from inspector.render.drawing.panels import Scale, bar_colours, overlay_panel, scale_of

# Linear-light confusion of the two common dichromacies (Vienot, Brettel & Mollon 1999).
TO_LMS = np.array(
    [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
)
BLIND = {
    "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
}


def seen_by(kind, rgb):
    linear = (np.asarray(rgb) / 255.0) ** 2.2
    matrix = np.linalg.inv(TO_LMS) @ BLIND[kind] @ TO_LMS
    return np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2) * 255


def test_oklab_of_known_colours():
    np.testing.assert_allclose(to_oklab([255, 255, 255]), [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(to_oklab([0, 0, 0]), [0, 0, 0], atol=1e-9)
    np.testing.assert_allclose(to_oklab([255, 0, 0]), [0.627955, 0.224863, 0.125846], atol=1e-5)


def cielab_lightness(rgb):
    """L* of CIELAB under D65, from sRGB colours (..., 3)."""
    encoded = np.asarray(rgb, float) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


@pytest.mark.parametrize("shade", [0, 64, 128, 192, 255])
def test_what_is_seen_of_the_heat_map_gets_lighter_on_any_grey(shade):
    """Of the colours as they lie on a greyed photo, not of the table."""
    values = np.linspace(0, 1, 256)[None].repeat(8, 0)
    photo = Photo.of(np.full((8, 256, 3), shade, np.uint8), "grey")
    attribution = Attribution(values, "input", "x", reduction="sum")
    found = Heatmap.of(attribution, Geometry.identity((8, 256)))
    shown = np.asarray(overlay_panel(photo, found, (8, 256), scale_of(found)))[0]
    lightness = cielab_lightness(shown)
    later = lightness[16:] - lightness[:-16]
    assert later.min() > (0.5 if shade <= 128 else -3)
    assert lightness[-1] - lightness[0] > 45


def test_what_is_seen_of_a_diverging_map_has_no_notch_at_zero():
    bar = np.asarray(bar_colours(257, 1, Scale(1, 1, signed=True)))[:, 0]
    lightness = cielab_lightness(bar)
    assert lightness.argmax() in range(124, 133)
    np.testing.assert_allclose(np.diff(lightness[::4])[:32] > 0, True)
    np.testing.assert_allclose(np.diff(lightness[::4])[32:] < 0, True)
    assert lightness[128] - max(lightness[0], lightness[-1]) > 40  # contrast of both ends
    np.testing.assert_allclose(lightness, lightness[::-1], atol=4)


def test_on_paper_the_colours_get_darker():
    bar = np.asarray(bar_colours(256, 1, Scale(1, 1, signed=False, light=True)))[::-1, 0]
    lightness = cielab_lightness(bar)
    assert lightness[0] == pytest.approx(100)
    assert (lightness[16:] - lightness[:-16] < 0).all()


@pytest.mark.parametrize("kind", [None, "protan", "deutan"])
def test_sequential_lightness_rises_for_everybody(kind):
    table = sequential() if kind is None else seen_by(kind, sequential())
    lightness = to_oklab(table)[:, 0]
    steps = lightness[16:] - lightness[:-16]
    assert (steps > 0.015).all()
    assert lightness[-1] - lightness[0] > 0.5


def test_sequential_steps_are_even():
    distance = np.linalg.norm(np.diff(to_oklab(sequential())[::8], axis=0), axis=1)
    assert distance.max() / distance.min() < 2.2


def test_diverging_is_symmetric_in_lightness_with_a_neutral_middle():
    lab = to_oklab(diverging())
    np.testing.assert_allclose(lab[:, 0], lab[::-1, 0], atol=0.01)
    assert np.abs(lab[127:129, 1:]).max() < 0.01
    zero = to_oklab([sum(LIGHT) / 2] * 3)[0]  # of a grey photo under the map
    np.testing.assert_allclose(lab[127:129, 0], zero, atol=0.01)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_diverging_ends_stay_apart_for_colour_blind_eyes(kind):
    lab = to_oklab(seen_by(kind, diverging()))
    assert np.linalg.norm(lab[:96] - lab[::-1][:96], axis=1).min() > 0.08


def test_anchors_lie_inside_srgb():
    for anchors in (
        colormap._SEQUENTIAL,
        (*colormap._DIVERGING_COLD, colormap._DIVERGING_ZERO, *colormap._DIVERGING_WARM),
    ):
        lightness, chroma, hue = np.asarray(anchors).T
        angle = np.deg2rad(hue)
        lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=1)
        cones = (lab @ np.linalg.inv(colormap._TO_LAB).T) ** 3
        linear = cones @ np.linalg.inv(colormap._TO_CONES).T
        assert linear.min() > -0.001
        assert linear.max() < 1.001


def test_values_outside_the_range_and_nan():
    table = sequential()
    found = apply_sequential([-1, 0, 1, 2, np.nan])
    np.testing.assert_array_equal(found, table[[0, 0, 255, 255, 0]])
    found = apply_diverging([-2, -1, 1, 3])
    np.testing.assert_array_equal(found, diverging()[[0, 0, 255, 255]])


def test_drawing_imports_neither_matplotlib_nor_a_runtime():
    code = (
        "import sys, inspector.render.png, inspector.render.sheet, inspector.photos.preprocess;"
        "print([m for m in ('torch', 'onnxruntime', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert found.stdout.strip() == "[]"

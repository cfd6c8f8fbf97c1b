"""The report as data: what a number in the JSON stands for."""

import json

import numpy as np
import pytest

from inspector.heatmap import Attribution, Heatmap
from inspector.photos.photo import Photo
from inspector.photos.preprocess import Preprocess
from inspector.report import Explanation, ImageReport

SIZE = (40, 90)


def document(values, tmp_path, *, space="input", method="occlusion", preprocess=None):
    """The JSON of a report of one map on a photo of ``SIZE``."""
    photo = Photo.of(np.zeros((*SIZE, 3), np.uint8), "wide.png")
    _, geometry = (preprocess or Preprocess(SIZE)).apply(photo)
    heatmap = Heatmap.of(Attribution(values, space, method), geometry)
    explanation = Explanation(heatmap, method, {}, {})
    path = ImageReport(photo, (explanation,), {}, ()).save(tmp_path)[-1]
    return json.loads(path.read_text(encoding="utf-8"))["results"][0]


@pytest.mark.parametrize(("y", "x"), [(7, 61), (0, 89), (39, 0), (30, 12)])
def test_the_peak_is_the_pixel_with_the_largest_value_x_across_and_y_down(tmp_path, y, x):
    values = np.zeros((1, *SIZE), np.float32)
    values[0, y, x] = 2.0
    assert document(values, tmp_path)["peak"] == {"x": x, "y": y}


def test_the_peak_lies_on_the_photo_not_in_the_network_s_input(tmp_path):
    """The centre crop of 40 x 90 pixels starts 25 pixels from the left, here scaled by two."""
    values = np.zeros((1, 80, 80), np.float32)
    values[0, 20:22, 60:62] = 1.0
    found = document(values, tmp_path, preprocess=Preprocess((80, 80)))
    assert found["peak"] == {"x": 25 + 30, "y": 10}


def test_the_peak_of_a_layer_map_is_the_middle_of_its_cell(tmp_path):
    values = np.zeros((4, 9), np.float32)
    values[1, 7] = 1.0
    peak = document(values, tmp_path, space="layer", method="grad-cam")["peak"]
    assert peak["x"] in {74, 75}
    assert peak["y"] in {14, 15}


def test_the_range_and_the_shape_are_those_of_the_raw_map(tmp_path):
    values = np.zeros((1, *SIZE), np.float32)
    values[0, 3, 5], values[0, 8, 8] = 2.5, -1.25
    found = document(values, tmp_path)["attribution"]
    assert (found["maximum"], found["minimum"], found["shape"]) == (2.5, -1.25, [1, *SIZE])

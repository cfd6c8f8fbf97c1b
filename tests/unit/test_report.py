"""The report as data: what a number in the JSON stands for."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from inspector.heatmap import Attribution, Heatmap
from inspector.photos.photo import Photo
from inspector.photos.preprocess import Preprocess
from inspector.render.timeline import Timelines
from inspector.report import Explanation, ImageReport, file_stems

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


LONG = "rise:masks=2000,error=0.125,cells=7,keep=0.25,fill=grey,seed=1234567"


@pytest.mark.parametrize("letter", ["a", "é", "猫", "म", "𠀀"])
def test_no_name_is_longer_than_a_file_system_takes(tmp_path, letter):
    photo = Photo.of(np.zeros((*SIZE, 3), np.uint8), letter * 240 + ".png")
    _, geometry = Preprocess(SIZE).apply(photo)
    values = np.ones((1, *SIZE), np.float32)
    attribution = Attribution(values, "input", "rise", label=letter * 200)
    explanation = Explanation(Heatmap.of(attribution, geometry), LONG, {}, {})
    found = ImageReport(photo, (explanation,) * 12, {}, ())
    stems = file_stems([photo.name] * 3)
    assert len(set(stems)) == 3
    paths = found.save(tmp_path, stems[-1], sheet=True, formats=("npz", "json"))
    assert len(set(paths)) == 13
    assert max(len(path.name.encode()) for path in paths) <= 255


def test_photos_of_one_name_are_told_apart_by_their_folders():
    names, folders = ["01.png", "01.jpg", "a.png", "01.png"], ["cats", "dogs", "cats", "cats"]
    assert file_stems(names, folders) == ["cats-01", "dogs-01", "a", "cats-01-2"]
    assert file_stems(["01.png", "01.png"]) == ["01", "01-2"]
    assert len(file_stems(["a.png"] * 2, ["é" * 300, ""])[0].encode()) <= 255


def test_photos_named_with_symbols_keep_their_names():
    # Cat, dog, thumb of a shade of skin; a zero-width joiner and a slash are not part of a name.
    names = ["\N{CAT FACE}.jpg", "\N{DOG FACE}.jpg", "\N{THUMBS UP SIGN}\U0001f3fd 45°.jpg"]
    assert file_stems(names) == [name.removesuffix(".jpg") for name in names]
    assert file_stems(["a\u200db^`:.jpg"]) == ["a_b___"]


@pytest.mark.parametrize(
    ("label", "part"),
    [
        ("tiger cat", "tiger-cat"),
        ("नमस्ते", "नमस्ते"),
        ("น้ำ", "น้ำ"),
        ("cafe\u0301 / bar", "cafe\u0301-bar"),
        ("output[0,3]", "output-0-3"),
        ("../../etc", "etc"),
        ("a" * 99, "a" * 40),
        ("猫" * 99, "猫" * 18),
        ("***", ""),
    ],
)
def test_a_label_keeps_the_marks_of_its_letters_in_a_file_s_name(label, part):
    photo = Photo.of(np.zeros((*SIZE, 3), np.uint8), "p.png")
    _, geometry = Preprocess(SIZE).apply(photo)
    heatmap = Heatmap.of(Attribution(np.ones((2, 2)), "layer", "cam", label=label), geometry)
    report = ImageReport(photo, (Explanation(heatmap, "cam", {}, {}),), {}, ())
    [name] = [name for name, _ in report._named()]
    assert name == ".".join(filter(None, ["p", "cam", part]))


def test_videos_of_one_name_have_a_timeline_each(tmp_path):
    photo = Photo.of(np.zeros((*SIZE, 3), np.uint8), "frame.png")
    _, geometry = Preprocess(SIZE).apply(photo)
    heatmap = Heatmap.of(Attribution(np.ones((2, 2)), "layer", "cam", label="cat"), geometry)
    report = ImageReport(photo, (Explanation(heatmap, "cam", {}, {}),), {}, ())
    timelines = Timelines(tmp_path, file_stems)
    for folder in ("one", "two"):
        for number in (0, 30):
            video = SimpleNamespace(path=Path(folder, "clip" + "猫" * 80 + ".mp4"))
            timelines.add(SimpleNamespace(video=video, number=number), report)
    timelines.add(photo, report)  # no frame
    written = timelines.save()
    assert len(set(written)) == 2
    assert max(len(path.name.encode()) for path in written) <= 255

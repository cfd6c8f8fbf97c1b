"""Whole photos processed alike: found, and proved where the network decides by it."""

from io import BytesIO

import numpy as np
import onnx
import processing_scenes as scenes
import pytest
from PIL import Image, ImageFilter

from inspector.audit.processing import find_processing
from inspector.audit.run import AuditOptions, audit
from inspector.measures.jpeg_traces import jpeg_qualities
from inspector.measures.photo_traces import luma_of, traces_of
from inspector.opening import Opening

OPTIONS = AuditOptions(workers=1, thumbnails=False)


@pytest.fixture(scope="module", params=scenes.KINDS)
def marked(request, tmp_path_factory):
    """A kind of processing and a folder of photos that carry it."""
    place = tmp_path_factory.mktemp(request.param)
    return request.param, scenes.folder(place / "data", request.param)


def findings(model, data, place):
    path = place / "model.onnx"
    onnx.save(model, path)
    opening = Opening(path, overrides=("mean=0", "std=1"))
    contents = audit(opening, data, place / "out", OPTIONS).contents
    return [one for one in contents["findings"] if one["rule"] == "shared-processing"]


WORDS = {"blur": "blur (", "jpeg": "JPEG at quality 12", "frame": "frame of the colour #2828e6"}


def test_a_network_that_decides_by_the_processing_is_proved_to(marked, tmp_path):
    kind, data = marked
    found = findings(scenes.network(kind), data, tmp_path)
    (one,) = (one for one in found if one["confirmed"])
    assert (one["class"], one["level"], one["region"]) == ("thing", "error", [0, 0, 1, 1])
    assert one["photos"] == [f"thing/{number:03}.png" for number in range(8)]
    assert WORDS[kind] in one["sentence"]
    (test,) = one["interventions"]
    assert test["kind"] == "process"
    assert test["excess"]["low"] > 0.1


def test_a_network_that_does_not_is_not_accused(marked, tmp_path):
    kind, data = marked
    found = findings(scenes.network(None), data, tmp_path)
    (one,) = (one for one in found if WORDS[kind] in one["sentence"])
    assert (one["class"], one["level"], one["confirmed"]) == ("thing", "note", False)
    assert not any(one["confirmed"] for one in found)


def rows(own, rest, **more):
    """Rows of 20 photos of class a and 100 of class b, with one trace each."""
    plain = {"sharpness": 1.5, "jpeg_quality": 100, "frame": 0.0, "frame_colour": None}
    return [
        plain | {"predicted": name, "photo": str(i)} | value | more
        for name, values in (("a", own), ("b", rest))
        for i, value in enumerate(values)
    ]


def test_what_all_classes_have_alike_is_not_suspected():
    rng = np.random.default_rng(0)
    draws = [{"sharpness": float(v), "jpeg_quality": 75} for v in rng.uniform(0.2, 2, 120)]
    assert find_processing(rows(draws[:20], draws[20:])) == []


def test_a_lower_quality_than_that_of_the_others_is_suspected():
    qualities = [{"jpeg_quality": 30}] * 6 + [{"jpeg_quality": 90}] * 14
    (found,) = find_processing(rows(qualities, [{"jpeg_quality": 90}] * 100))
    assert (found.kind, found.name, found.members) == ("jpeg", "a", tuple(range(6)))
    assert (found.amount, found.share, found.others) == (30, 0.3, 0)
    assert found.p < 1e-3


def test_frames_of_several_colours_are_described_by_the_most_common():
    own = [{"frame": 0.1, "frame_colour": "#ffffff"}] * 3
    own += [{"frame": 0.06, "frame_colour": c} for c in ("#c89628", "#c89729", "#c79628") * 3]
    (found,) = find_processing(rows(own + [{}] * 8, [{}] * 100))
    assert (found.kind, found.colour, found.amount) == ("frame", (200, 150, 40), 0.06)
    assert found.members == tuple(range(3, 12))


def test_photos_of_another_class_that_are_taken_for_this_one_do_not_count():
    own = [{"sharpness": 0.3, "correct": False}] * 6 + [{}] * 14
    assert find_processing(rows(own, [{}] * 100)) == []
    own = [{"sharpness": 0.3, "correct": True}] * 6 + [{}] * 14
    assert len(find_processing(rows(own, [{}] * 100))) == 1


def test_too_few_photos_say_nothing():
    assert find_processing(rows([{"jpeg_quality": 30}] * 6, [{}] * 100)) == []
    assert find_processing([]) == []


# -- traces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 48), (300, 517)])
@pytest.mark.parametrize("quality", [20, 50, 75, 92])
def test_the_quality_of_a_jpeg_is_read_from_its_pixels(quality, size):
    rng = np.random.default_rng(quality)
    coarse = Image.fromarray(rng.integers(40, 215, (24, 24, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), float)
    pixels = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    assert traces_of(pixels).jpeg_quality == 100
    assert abs(traces_of(np.asarray(Image.open(stream))).jpeg_quality - quality) <= 1


def test_sharpness_is_that_of_theory():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (200, 200, 1)).repeat(3, 2)
    assert traces_of(noise).sharpness == pytest.approx(3, abs=0.1)
    # A Gaussian of s pixels leaves 3 / (2 s^2) of second over first differences of white noise.
    blurred = Image.fromarray(noise.astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    assert traces_of(np.asarray(blurred)).sharpness == pytest.approx(3 / 8, rel=0.25)
    assert traces_of(np.full((20, 20, 3), 7)).sharpness is None


def test_small_and_odd_photos_have_traces():
    for size in ((1, 1), (2, 9), (7, 7), (9, 300)):
        found = traces_of(np.random.default_rng(0).integers(0, 255, (*size, 3)))
        assert (found.jpeg_quality, found.frame) == (100, 0)


def test_a_frame_is_on_all_sides_and_narrow():
    pixels = np.random.default_rng(0).integers(0, 200, (40, 80, 3))
    pixels[:4] = pixels[-2:] = pixels[:, :3] = (250, 10, 10)
    assert traces_of(pixels).frame == 0
    pixels[:, -5:] = (250, 10, 10)
    found = traces_of(pixels)
    assert (found.frame, found.colour) == (2 / 40, (250, 10, 10))
    # An even background with an object in the middle is not a frame.
    pixels[:] = 255
    pixels[18:22, 35:45] = 0
    assert traces_of(pixels).frame == 0


def test_photos_measured_together_have_the_quality_that_each_has_alone():
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (12, 9, 3)).astype(np.uint8) for _ in range(12)]
    planes = []
    for number, own in enumerate(coarse):
        photo = Image.fromarray(own).resize((72, 96), Image.Resampling.BICUBIC)
        if number % 3 == 0:  # many coefficients of one size, whose order decides which are taken
            photo = Image.fromarray(np.kron(own // 128 * 200, np.ones((8, 8, 1), np.uint8)))
        if number % 2:
            stream = BytesIO()
            photo.save(stream, "JPEG", quality=20 + 6 * number)
            photo = Image.open(stream)
        planes.append(luma_of(np.asarray(photo)))
    together = jpeg_qualities(np.stack(planes))
    assert together == [jpeg_qualities(plane[None])[0] for plane in planes]
    assert sum(quality < 100 for quality in together) >= 4
    assert jpeg_qualities(np.zeros((2, 16, 16))) == [100, 100]

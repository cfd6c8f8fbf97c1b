"""Outlines of objects in data sets: polygons and run lengths, on the photo turned upright."""

import json

import numpy as np
import pytest
from PIL import Image

from inspector.audit.data_set import Entry, open_data_set
from inspector.audit.data_set.frames import on_upright_photo
from inspector.audit.evidence_places import evidence_places, marks_of
from inspector.errors import ImageRefused, UsageError
from inspector.measures.outlines import polygon_cover, run_box, run_lengths, runs_at
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo, turned_within_its_size
from inspector.tasks.planes import mask_on_grid

HEIGHT, WIDTH = 20, 40


def written(counts):
    """Run lengths as text, as pycocotools' ``rleToString`` writes them."""
    text = ""
    for place, count in enumerate(counts):
        value = int(count) - (int(counts[place - 2]) if place > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def counted(mask):
    """Run lengths of a mask, column by column."""
    counts, now = [0], False
    for value in mask.T.ravel():
        if value != now:
            counts.append(0)
            now = value
        counts[-1] += 1
    return counts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_run_lengths_of_both_spellings_are_the_mask(seed, density):
    random = np.random.default_rng(seed)
    height, width = (int(v) for v in random.integers(1, 90, 2))
    mask = random.random((height, width)) < density
    if seed == 4:
        mask = np.zeros((height, width), bool)
        mask[height // 3 : height // 2 + 1, width // 4 : width // 2 + 1] = True
    counts = counted(mask)
    rows, columns = np.mgrid[:height, :width]
    for spelled in (counts, written(counts)):
        runs = run_lengths(spelled, (height, width))
        np.testing.assert_array_equal(runs, counts)
        np.testing.assert_array_equal(runs_at(runs, height, rows, columns), mask)
    box = run_box(runs, height)
    if not mask.any():
        assert box is None
        return
    inside = np.argwhere(mask)
    assert box == (*inside.min(0), *(inside.max(0) + 1))


def test_a_known_text_of_coco_is_read():
    """Written by pycocotools 2.0 of a mask of 9x9 with the rows 2 to 5 of the columns 3 to 6."""
    mask = np.zeros((9, 9), bool)
    mask[2:6, 3:7] = True
    assert run_lengths("m04500000`0", (9, 9)).tolist() == counted(mask)


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([3, 4], (2, 4)),
        ([-1, 9], (2, 4)),
        ([2.5, 5.5], (2, 4)),
        ("", (2, 4)),
        ("é", (2, 4)),
        ("o" * 50, (2, 4)),
        ("P", (2, 4)),
        ("oooooooooo0", (2, 4)),
        (None, (2, 4)),
        ([2**70], (2, 4)),
    ],
)
def test_run_lengths_that_are_none_are_refused(counts, size):
    with pytest.raises(ValueError, match="its run lengths"):
        run_lengths(counts, size)


@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_filled_by_even_and_odd_crossings(seed):
    random = np.random.default_rng(seed)
    x, y = random.random((2, int(random.integers(3, 8)))) * 30 - 5
    steps, (height, width) = 16, (18, 20)
    across = (np.arange(width * steps) + 0.5) / steps
    inside = np.zeros((height * steps, width * steps), bool)
    for k, at in enumerate((np.arange(height * steps) + 0.5) / steps):
        for i in range(len(x)):
            if (y[i - 1] <= at) != (y[i] <= at):
                share = (at - y[i - 1]) / (y[i] - y[i - 1])
                inside[k] ^= across > x[i - 1] + share * (x[i] - x[i - 1])
    slow = inside.reshape(height, steps, width, steps).mean((1, 3))
    found = polygon_cover(x, y, (height, width))
    assert np.abs(found - slow).mean() < 0.005
    assert np.abs(found - slow).max() < 0.1


def test_a_rectangle_and_its_hole_are_exact():
    """A hole is what the polygon goes round as well, along a cut there and back."""
    ring = [(1, 1), (7, 1), (7, 7), (1, 7), (1, 1), (2.5, 3), (2.5, 5), (4, 5), (4, 3), (2.5, 3)]
    x, y = np.array(ring, float).T
    found = polygon_cover(x, y, (8, 8))
    assert found.sum() == pytest.approx(36 - 3)
    assert found[3, 2] == pytest.approx(0.5)
    assert found[3, 3] == 0


def test_polygons_without_end_are_refused():
    x, y = np.tile([[0.0, 1.0], [-1e8, 1e8]], 60_000)
    with pytest.raises(ValueError, match="cross the rows"):
        polygon_cover(x, y, (224, 224))


def data(folder, segmentation, orientation=1, stored=(HEIGHT, WIDTH), **more):
    """COCO's annotations of one photo."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((*stored, 3), np.uint8)).save(folder / "a.png", exif=exif)
    height, width = more.pop("size", stored)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [
            {"id": 9, "image_id": 1, "category_id": 7, "segmentation": one, **more}
            for one in segmentation
        ],
        "categories": [{"id": 7, "name": "dog"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return open_data_set(folder)


def mask_of(entry):
    """What is marked on the upright photo, as the network sees it whole."""
    size = Photo.open(entry.path).size
    return marks_of(on_upright_photo(entry, size), Geometry.identity(size))


def triangle():
    """A shape that differs when it is turned or mirrored, as polygon and as mask."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:10, 4:12] = True
    mask[2:4, 12:30] = True
    return [4, 2, 30, 2, 30, 4, 12, 4, 12, 10, 4, 10], mask


KINDS = {
    "polygon": lambda points, mask: [points],
    "run lengths": lambda points, mask: {"size": [HEIGHT, WIDTH], "counts": counted(mask)},
    "text": lambda points, mask: {"size": [HEIGHT, WIDTH], "counts": written(counted(mask))},
}


@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_outlines_of_a_stored_photo_lie_on_the_upright_one(tmp_path, orientation, kind):
    points, mask = triangle()
    (entry,) = data(tmp_path, [KINDS[kind](points, mask)], orientation).entries
    assert entry.objects[0].corners == (2, 4, 10, 30)  # without a bbox
    Image.fromarray(mask).save(tmp_path / "stored.png")
    with Image.open(tmp_path / "a.png") as image:
        exif = image.getexif()
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "turned.png", exif=exif)
    upright = Photo.open(tmp_path / "turned.png").pixels[:, :, 0] > 0
    np.testing.assert_array_equal(mask_of(entry).mask, upright)
    # A mask in a file of its own, of the stored picture and of the upright one.
    Image.fromarray(upright).save(tmp_path / "upright.png")
    for name in ("stored.png", "upright.png"):
        alone = Entry("a.png", entry.path, mask=tmp_path / name)
        np.testing.assert_array_equal(mask_of(alone).mask, upright)


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_inside_the_outline_is_less_than_in_its_box(tmp_path, kind):
    points, mask = triangle()
    (entry,) = data(tmp_path, [KINDS[kind](points, mask)], bbox=[4, 2, 26, 8]).entries
    geometry = Geometry.identity((HEIGHT, WIDTH))
    heat = np.ones((HEIGHT, WIDTH))
    (row,) = evidence_places([heat], [geometry], [marks_of(entry, geometry)])
    assert row["inside_box"] == pytest.approx(26 * 8 / mask.size)
    assert row["inside_mask"] == row["mask_area"] == pytest.approx(mask.mean())
    # On an input of another size it is the same share.
    half = Geometry((HEIGHT, WIDTH), (10, 20), (0.5, 0.5), (0, 0))
    (row,) = evidence_places([np.ones((10, 20))], [half], [marks_of(entry, half)])
    assert row["mask_area"] == pytest.approx(mask.mean(), abs=0.02)


def test_a_mask_of_neither_photo_is_refused(tmp_path):
    points, mask = triangle()
    (entry,) = data(tmp_path, [KINDS["text"](points, mask)], 1, (30, 30)).entries
    with pytest.raises(ImageRefused, match=r"it has 30x30 pixels, and a mask .* 40x20"):
        mask_of(entry)
    Image.fromarray(mask.T).save(tmp_path / "m.png")
    Image.fromarray(mask).save(tmp_path / "b.png")  # without an orientation
    with pytest.raises(ImageRefused, match="the mask has 20x40 pixels and the photo 40x20"):
        mask_on_grid(str(tmp_path / "m.png"), Geometry.identity(mask.shape), mask.shape, "b")


def test_photos_that_are_turned_within_their_size_are_told(tmp_path):
    points, mask = triangle()
    for stored, orientation, told in (
        ((20, 40), 3, True),
        ((20, 40), 6, False),
        ((30, 30), 6, True),
        ((30, 30), 1, False),
    ):
        data(tmp_path, [KINDS["text"](points, mask)], orientation, stored)
        assert turned_within_its_size(tmp_path / "a.png") is told


def test_objects_without_an_outline_are_counted_by_their_box_and_told(tmp_path):
    points, mask = triangle()
    found = data(tmp_path, [[points], [], [[1, 2]], "x", [[1, 2, 3]]], bbox=[30, 10, 10, 10])
    assert found.remarks == (
        "4 of 5 objects have no outline: their boxes count in masks",
        (
            "a segmentation that cannot be read, whose box counts: annotation 9: it is neither "
            "polygons nor run lengths, annotation 9: its polygons are not lists of x, y in turn"
        ),
    )
    wanted = mask.copy()
    wanted[10:20, 30:40] = True
    np.testing.assert_array_equal(mask_of(found.entries[0]).mask, wanted)
    assert found.facts()["masked"] == 1


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [2**20, 2**20], "counts": [2**40]},
        {"size": [20, 40], "counts": [1]},
        {"size": "x", "counts": "x"},
        {"counts": []},
        [[1e300, 0, 0, 1e300, 5, 5]],
        [[0, 0, 1, 1, 2, 0] * 40_000],
        [[0, 0, 1, "x", 2, 0]],
        {"size": [True, 800], "counts": [800]},
    ],
)
def test_hostile_outlines_without_a_box_are_refused(tmp_path, segmentation):
    with pytest.raises(UsageError, match="annotation 9: it"):
        data(tmp_path, [segmentation])


def test_polygons_of_yolo_are_outlines(tmp_path):
    points, mask = triangle()
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    shares = np.array(points).reshape(-1, 2) / [WIDTH, HEIGHT]
    line = " ".join(map(str, shares.ravel()))
    (tmp_path / "labels" / "a.txt").write_text(f"0 {line}\n")
    (entry,) = open_data_set(tmp_path).entries
    np.testing.assert_allclose(mask_of(entry).mask, mask, atol=1e-5)

"""Annotations and tables as other programs write them: odd ones are read, wrong ones named."""

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from inspector.audit.data_set import open_data_set
from inspector.errors import UsageError

IMAGES = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
CLASSES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def box(numbers, image=1, category=1, **more):
    return {"image_id": image, "category_id": category, "bbox": numbers, **more}


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "images/a.png", "JPEGImages/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def coco(folder, annotations, images=None, categories=None):
    document = {
        "images": IMAGES if images is None else images,
        "categories": CLASSES if categories is None else categories,
        "annotations": annotations,
    }
    (folder / "coco.json").write_text(json.dumps(document))
    return open_data_set(folder / "coco.json")


@pytest.mark.parametrize(
    "other",
    [
        box([0, 0, 30, 15], category=2, iscrowd=1),
        box([3, 3, 0, 0], category=2),
        {"image_id": 1, "category_id": 2, "keypoints": [1, 2, 2]},
        {"image_id": 1, "category_id": 2, "segmentation": {"counts": "abc", "size": [20, 40]}},
        box([1, 1, 2, 2], image=99, category=2),
    ],
    ids=["crowd", "no area", "key points", "run lengths", "another image"],
)
def test_what_is_no_object_of_a_photo_changes_nothing(folder, other):
    found = coco(folder, [box([1, 2, 3, 4]), other])
    assert [(e.label, len(e.objects)) for e in found.entries] == [("cat", 1), (None, 0)]


def test_a_polygon_without_a_box_reaches_as_far_as_its_points(folder):
    outline = {
        "image_id": 1,
        "category_id": 1,
        "segmentation": [[1, 2, 9, 2, 5, 8], [20, 3, 21, 4]],
    }
    found = coco(folder, [outline])
    assert found.entries[0].objects[0].corners == (2, 1, 8, 21)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": [IMAGES[0], {**IMAGES[1], "id": 1}]}, "two images have the id 1"),
        ({"categories": [CLASSES[0], {**CLASSES[1], "id": 1}]}, "two categories have the id 1"),
        ({"images": [{**IMAGES[0], "id": "1"}]}, "no annotation has the id of an image"),
    ],
)
def test_identities_that_lead_to_another_photo_or_class_are_refused(folder, change, said):
    with pytest.raises(UsageError, match=said):
        coco(folder, [box([1, 2, 3, 4])], **change)


@pytest.mark.parametrize(
    "numbers", [[1, 2, -3, 4], [1, 2, "3", 4], [1, 2, 3], "box", [1, None, 2, 2]]
)
def test_boxes_that_are_none_are_named(folder, numbers):
    with pytest.raises(UsageError, match="annotation 7: bbox is not left"):
        coco(folder, [box(numbers, id=7)])


def test_identities_that_are_lists_and_names_that_are_nothing(folder):
    odd = coco(
        folder, [box([1, 2, 3, 4], image=[1], category={})], images=[{**IMAGES[0], "id": [1]}]
    )
    assert odd.entries[0].photo == "a.png"
    named = coco(folder, [box([1, 2, 3, 4])], categories=[{"id": 1, "name": None}])
    assert named.entries[0].label == "id 1"


def test_a_photo_that_is_described_twice_is_one_photo(folder):
    images = [IMAGES[0], {"id": 2, "file_name": "a.png"}]
    (found,) = coco(folder, [box([1, 2, 3, 4]), box([5, 5, 2, 2], image=2)], images).entries
    assert (found.label, len(found.objects)) == ("cat", 2)


def yolo(folder, data, names="names: {0: cat, '1': dog}"):
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_bytes(data)
    (folder / "data.yaml").write_text(names)
    return open_data_set(folder)


@pytest.mark.parametrize(
    ("line", "label", "corners"),
    [
        (b"\xef\xbb\xbf0 .5 .5 .2 .4", "cat", (0.3, 0.4, 0.7, 0.6)),
        (b"1 .5 .5 .2 .4 .93", "dog", (0.3, 0.4, 0.7, 0.6)),
        (b"1 .1 .2 .9 .2 .5 .7", "dog", (0.2, 0.1, 0.7, 0.9)),
        (b"\n \n1 .5 .5 .2 .4\r\n", "dog", (0.3, 0.4, 0.7, 0.6)),
    ],
    ids=["byte order mark", "confidence", "polygon", "blank lines"],
)
def test_yolo_as_it_is_written(folder, line, label, corners):
    (found,) = yolo(folder, line).entries
    assert found.label == label
    assert found.objects[0].corners == pytest.approx(corners)


def test_a_blank_file_of_labels_is_a_photo_without_objects(folder):
    (found,) = yolo(folder, b"").entries
    assert (found.label, found.objects) == (None, ())


@pytest.mark.parametrize(
    "line", [b"-1 .5 .5 .2 .2", b"0 .1 .2 .3", b"0 .1 .1 .2 .2 .3 .3 .4", b"0,1"]
)
def test_yolo_lines_that_are_neither_are_named(folder, line):
    with pytest.raises(UsageError, match="line 1 is not"):
        yolo(folder, line)


ENTITY = '<?xml version="1.0" encoding="{0}"?><!DOCTYPE a [<!ENTITY b "x">]><annotation/>'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ENTITY.format("utf-16").encode("utf-16"), "declares entities"),
        (ENTITY.format("utf-8").encode(), "declares entities"),
        (ENTITY.format("utf-16le").encode("utf-16-le"), "is not UTF-8 text"),
        (b'<?xml version="1.0" encoding="nosuch"?><annotation/>', "is not XML"),
        (b"\xff\xfe\xd8", "is not XML"),
    ],
)
def test_voc_in_odd_encodings(folder, data, said):
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_bytes(data)
    with pytest.raises(UsageError, match=said):
        open_data_set(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"image;label\na.png;cat\nb.png;dog\n",
        "image\tlabel\na.png\tcat\nb.png\tdog\n".encode("utf-16"),
        "\ufeffimage,label\r\na.png,cat\r\nb.png,dog".encode(),
        b"image,label\ra.png,cat\rb.png,dog\r",
        b'image,label,note\na.png,cat,"two\nlines"\nb.png,dog,"x"\n',
        b",image,label\n0,a.png,cat\n1,b.png,dog\n",
    ],
    ids=["semicolons", "UTF-16 and tabs", "byte order mark", "old Mac", "quoted lines", "index"],
)
def test_tables_as_other_programs_write_them(folder, data):
    (folder / "t.csv").write_bytes(data)
    found = open_data_set(folder / "t.csv")
    assert {e.photo: e.label for e in found.entries} == {"a.png": "cat", "b.png": "dog"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label,label\na.png,cat,dog\n", "two columns 'label'"),
        ("image,label\n,cat\n", "line 2 names no photo"),
        ("image,label,x0,y0,x1,y1\na.png,cat,1,2,,4\n", "line 2: corners"),
        ("image,label,x0,y0\na.png,cat,1,2\n", "line 2: corners"),
        ("image,label,x0,y0,x1,y1\na.png,cat,1,2,1e400,4\n", "line 2: corners"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(folder, text, said):
    (folder / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=said):
        open_data_set(folder / "t.csv")


def test_a_name_that_is_too_long_is_a_photo_that_is_not_there(folder):
    (folder / "t.csv").write_text(f"image,label\n{'x' * 5000}.png,cat\na.png,dog\n")
    found = open_data_set(folder / "t.csv")
    assert len(found.entries) == len(found.missing) == 1
    assert len(coco(folder, [], [*IMAGES, {"id": 3, "file_name": "y" * 5000}]).missing) == 1


def test_a_table_of_pandas_has_no_index_and_no_missing_numbers(folder):
    columns = {
        "image": [b"a.png", b"b.png"],
        "label": ["cat", None],
        **{name: [1.0 + at, float("nan")] for at, name in enumerate(("x0", "y0", "x1", "y1"))},
        "__index_level_0__": [5, 6],
    }
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    one, other = open_data_set(folder / "t.parquet").entries
    assert one.objects[0].corners == (2, 1, 4, 3)
    assert (other.label, other.objects, other.groups) == (None, (), {})

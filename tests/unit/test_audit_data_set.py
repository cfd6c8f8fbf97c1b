"""Data sets: every kind that is read, and what a stranger may write into it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspector.audit.data_set import open_data_set
from inspector.audit.data_set.frames import on_upright_photo
from inspector.errors import ImageRefused, UsageError
from inspector.photos.photo import Photo


def photos(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(path)
    return folder


def test_folders_of_classes_at_any_depth(tmp_path):
    photos(tmp_path, "site-a/dog/1.jpg", "site-b/dog/old/2.png", "cat/3.png", "4.png")
    (tmp_path / "cat" / "notes.txt").write_text("no photo")
    found = open_data_set(tmp_path, ["Dog", "cat"])
    assert found.kind == "class folders"
    assert {e.photo: e.label for e in found.entries} == {
        "4.png": None,
        "cat/3.png": "cat",
        "site-a/dog/1.jpg": "dog",
        "site-b/dog/old/2.png": "dog",
    }
    assert found.classes == {"cat": 1, "dog": 2}


def test_folders_that_are_links_are_not_entered(tmp_path):
    photos(tmp_path / "elsewhere", "1.png")
    photos(tmp_path / "data", "2.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert [e.photo for e in open_data_set(tmp_path / "data").entries] == ["2.png"]


TABLE = """image,label,x0,y0,x1,y1,mask,site,comment
a.png,dog,1,2,11,12,m.png,north,{0}
a.png,cat,20,2,30,12,,north,{0}
b.png,dog,,,,,,south,{1}
gone.png,dog,,,,,,south,{1}
"""


@pytest.fixture
def table(tmp_path):
    photos(tmp_path, "a.png", "b.png", "m.png")
    (tmp_path / "t.csv").write_text(TABLE.format("one", "two"))
    return tmp_path / "t.csv"


def test_a_table_of_labels_boxes_masks_and_groups(table):
    found = open_data_set(table)
    one, other = found.entries
    assert [(o.label, o.corners) for o in one.objects] == [
        ("dog", (2, 1, 12, 11)),
        ("cat", (2, 20, 12, 30)),
    ]
    assert one.mask == table.parent / "m.png"
    assert other.objects == ()
    assert found.groups == {"site": ("north", "south"), "comment": ("one", "two")}
    assert dict(found.missing) == {"gone.png": "the file is not there"}
    assert found.facts()["photos"] == 3


def test_a_column_of_many_values_names_no_groups(tmp_path):
    names = [f"{i}.png" for i in range(60)]
    photos(tmp_path, *names)
    lines = [f"{name},{i % 2},{i}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("image,site,serial\n" + "\n".join(lines))
    assert list(open_data_set(tmp_path / "t.csv").groups) == ["site"]


def test_a_parquet_table_says_what_the_csv_table_says(table):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    assert pa is not None
    parquet.write_table(csv.read_csv(table), table.with_suffix(".parquet"))
    assert open_data_set(table.with_suffix(".parquet")).entries == open_data_set(table).entries


def odd_columns():
    import pyarrow as pa

    offsets, letters = pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")
    return (
        pa.array([2**62], pa.timestamp("us")),  # a year that Python does not have
        pa.array([2**62], pa.duration("s")),
        pa.Array.from_buffers(pa.string(), 1, [None, offsets, letters]),  # no UTF-8
    )


def test_a_parquet_table_of_impossible_values_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    photos(tmp_path, "a.png")
    for column in odd_columns():
        parquet.write_table(pa.table({"image": ["a.png"], "site": column}), tmp_path / "t.parquet")
        with pytest.raises(UsageError, match="is not a Parquet table"):
            open_data_set(tmp_path / "t.parquet")


def test_a_value_that_stands_in_every_row_does_not_fill_the_memory(tmp_path, monkeypatch):
    """Of a megabyte that a table holds once, a million rows would be a terabyte."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    photos(tmp_path, "a.png")
    monkeypatch.setattr("inspector.audit.data_set.parquet_file.MOST_CHARACTERS", 20_000)
    for name, dictionary in (("plain", False), ("kept", True)):
        site = pa.array(["x" * 5_000] * 1_000)
        site = site.dictionary_encode() if dictionary else site
        table = pa.table({"image": ["a.png"] * 1_000, "site": site})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
        assert (tmp_path / f"{name}.parquet").stat().st_size < 20_000
        with pytest.raises(UsageError, match="values of more than 20,000 characters"):
            open_data_set(tmp_path / f"{name}.parquet")


DEEP = "/".join(["folder" * 10] * 4)


@pytest.mark.parametrize("names", [(f"{DEEP}/1.png", f"{DEEP}/2.png"), ("a .png", "a  .png")])
@pytest.mark.parametrize("kind", ["table", "folder", "coco"])
def test_photos_whose_names_look_alike_are_two(tmp_path, names, kind):
    """A name that was cut short, or cleaned, for the report was the identity of its photo."""
    photos(tmp_path, *names)
    source = tmp_path
    if kind == "table":
        source = tmp_path / "t.csv"
        source.write_text("image,label\n" + "\n".join(f'"{name}",dog' for name in names))
    elif kind == "coco":
        images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
        content = {"images": images, "annotations": [], "categories": []}
        (tmp_path / "annotations.json").write_text(json.dumps(content))
    found = open_data_set(source)
    assert {entry.path for entry in found.entries} == {tmp_path / name for name in names}
    assert len({entry.photo for entry in found.entries}) == 2
    assert all(len(entry.photo) <= 200 for entry in found.entries)


def test_coco(tmp_path):
    photos(tmp_path, "images/a.png", "images/b.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 5]},
            {"image_id": 2, "category_id": 7, "bbox": [1, 2, 10, 5]},
            {"image_id": 2, "category_id": 8, "bbox": [0, 0, 3, 3]},
            {"image_id": 2, "category_id": 9, "segmentation": []},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    found = open_data_set(tmp_path)
    assert found.kind == "coco"
    assert [entry.label for entry in found.entries] == ["dog", None]
    assert found.entries[0].objects[0].corners == (2, 1, 7, 11)
    assert len(found.entries[1].objects) == 2
    again = open_data_set(tmp_path / "annotations.json")
    assert again.entries == found.entries


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names: [dog, 'big cat']"),
        ("data.yaml", "nc: 2\nnames:\n  0: dog\n  1: big cat\n"),
        ("classes.txt", "dog\nbig cat\n"),
    ],
)
def test_yolo(tmp_path, name, text):
    photos(tmp_path, "images/train/a.png", "images/train/b.png")
    (tmp_path / name).write_text(text)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    found = open_data_set(tmp_path)
    one, other = found.entries
    assert found.kind == "yolo"
    assert one.label == "big cat"
    assert one.objects[0].relative
    assert one.objects[0].corners == pytest.approx((0.3, 0.4, 0.7, 0.6))
    assert (other.label, other.objects) == (None, ())


VOC = """<annotation><filename>a.png</filename><object><name>dog</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object></annotation>"""


def test_voc(tmp_path):
    photos(tmp_path, "JPEGImages/a.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(VOC)
    found = open_data_set(tmp_path)
    assert found.kind == "voc"
    assert found.entries[0].label == "dog"
    assert found.entries[0].objects[0].corners == (0, 0, 20, 10)


def test_voc_without_a_name_is_the_photo_of_its_own_name(tmp_path):
    text = VOC.replace(
        "<filename>a.png</filename>", "<size><width>40</width><height>20</height></size>"
    )
    (one,) = open_data_set(_voc(tmp_path, text)).entries
    assert (one.photo, one.size) == ("a.png", (20, 40))


def test_classes_without_a_name_are_not_the_model_s_numbers(tmp_path):
    photos(tmp_path, "images/a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("7 0.5 0.5 0.2 0.4\n")
    (one,) = open_data_set(tmp_path).entries
    assert one.label == "id 7"


def _voc(tmp_path, text):
    photos(tmp_path, "JPEGImages/a.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    return tmp_path


def _csv(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    return tmp_path / "t.csv"


def _coco(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    return tmp_path


HOSTILE = {
    "nothing there": (lambda p: p / "gone", "does not exist"),
    "no photos": (lambda p: p, "no photos in the folder"),
    "another kind of file": (lambda p: Path(__file__), "is not a data set"),
    "table that leads outside": (lambda p: _csv(p, "image\n../../etc/passwd\n"), "outside"),
    "table without photos": (lambda p: _csv(p, "image\na.png\n"), "none of its 1 photos"),
    "table without an image column": (lambda p: _csv(p, "x,y\n1,2\n"), "no column 'image'"),
    "COCO that leads outside": (
        lambda p: _coco(p, '{"images": [{"id": 1, "file_name": "/etc/passwd"}]}'),
        "outside",
    ),
    "COCO that is nested without end": (lambda p: _coco(p, "[" * 100_000), "is not JSON"),
    "COCO that is another document": (lambda p: _coco(p, "[1, 2]"), "is not COCO"),
    "COCO with boxes that are none": (
        lambda p: _coco(
            p,
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": '
            '[{"id": 5, "image_id": 1, "bbox": [0, 0, -1, 3]}, {"image_id": 1, "bbox": "x"}]}',
        ),
        "annotation 5: bbox is not .*; annotation 1: bbox",
    ),
    "table without rows": (lambda p: _csv(p, "image,label\n"), "has no rows"),
    "two labels of one photo": (
        lambda p: _csv(photos(p, "a.png"), "image,label\na.png,cat\na.png,dog\n"),
        "line 3: a.png has another label",
    ),
    "VOC with corners that are none": (
        lambda p: _voc(p, VOC.replace("<xmax>10", "<xmax>0")),
        "a.xml: corners",
    ),
    "VOC with entities": (
        lambda p: _voc(p, '<!DOCTYPE a [<!ENTITY b "c">]>' + VOC),
        "declares entities",
    ),
    "VOC that is cut off": (lambda p: _voc(p, VOC[:50]), "is not XML"),
    "VOC that leads outside": (lambda p: _voc(p, VOC.replace("a.png", "../a.png")), "outside"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_data_set_is_refused(tmp_path, kind):
    make, text = HOSTILE[kind]
    with pytest.raises(UsageError, match=text):
        open_data_set(make(tmp_path))


def test_boxes_the_wrong_way_round_are_listed_together(tmp_path):
    photos(tmp_path, "a.png")
    text = "image,x0,y0,x1,y1\na.png,5,5,1,1\na.png,1,1,5,nan\na.png,1,1,5,5\n"
    with pytest.raises(UsageError, match=r"line 2: .*; line 3: "):
        open_data_set(_csv(tmp_path, text))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_boxes_of_a_stored_photo_lie_on_the_upright_one(tmp_path, orientation, kind):
    stored = np.zeros((20, 40, 3), np.uint8)
    stored[2:7, 1:11] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder = tmp_path / ("images" if kind == "coco" else "JPEGImages")
    folder.mkdir()
    Image.fromarray(stored).save(folder / "a.png", exif=exif)
    if kind == "coco":
        _coco(tmp_path, json.dumps(one_box(40, 20, [1, 2, 10, 5])))
    else:
        corners = "<xmin>2</xmin><ymin>3</ymin><xmax>11</xmax><ymax>7</ymax>"
        size = "<size><width>40</width><height>20</height></size>"
        box = f"<object><name>dog</name><bndbox>{corners}</bndbox></object>"
        (tmp_path / "Annotations").mkdir()
        (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{size}{box}</annotation>")
    (entry,) = open_data_set(tmp_path).entries
    photo = Photo.open(entry.path)
    found = on_upright_photo(entry, photo.size)
    if photo.size == (20, 40):  # nothing tells of which of the two it is
        assert found == entry
        return
    top, left, bottom, right = (int(v) for v in found.objects[0].corners)
    inside = photo.pixels[top:bottom, left:right]
    assert (inside == 255).all()
    assert (inside == 255).sum() == (stored == 255).sum()


def one_box(width, height, box):
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": width, "height": height}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": box}],
        "categories": [{"id": 7, "name": "dog"}],
    }


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (one_box(40, 20, [1, 15, 10, 20]), "reach beyond it: they are of the upright photo"),
        (one_box(41, 20, [1, 2, 10, 5]), "20x40 pixels, and its annotations are of 41x20"),
    ],
)
def test_boxes_of_neither_photo_are_refused(tmp_path, content, text):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    (entry,) = open_data_set(_coco(tmp_path, json.dumps(content))).entries
    with pytest.raises(ImageRefused, match=text):
        on_upright_photo(entry, Photo.open(entry.path).size)


def test_annotations_beside_their_photos_are_read(tmp_path):
    """As LabelImg and Darknet write them; they were photos without labels."""
    photos(tmp_path / "yolo", "a.png", "b.png")
    (tmp_path / "yolo" / "a.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "yolo" / "b.txt").write_text("")
    (tmp_path / "yolo" / "classes.txt").write_text("dog\n")
    found = open_data_set(tmp_path / "yolo")
    assert (found.kind, [e.label for e in found.entries]) == ("yolo", ["dog", None])
    photos(tmp_path / "voc", "a.png")
    (tmp_path / "voc" / "a.xml").write_text(VOC)
    found = open_data_set(tmp_path / "voc")
    assert (found.kind, [e.label for e in found.entries]) == ("voc", ["dog"])


def test_other_texts_beside_photos_are_no_annotations(tmp_path):
    photos(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text("a dog on a lawn, 1990\n")
    (tmp_path / "b.xml").write_text("<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    assert open_data_set(tmp_path).kind == "photos"


def test_key_points_behind_a_box_are_no_outline(tmp_path):
    photos(tmp_path, "images/a.png")
    (tmp_path / "data.yaml").write_text("kpt_shape: [2, 3]\nnames: [dog]\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.9 0.9 1\n")
    (entry,) = open_data_set(tmp_path).entries
    assert entry.objects[0].corners == pytest.approx((0.3, 0.4, 0.7, 0.6))


def test_coco_of_several_parts_is_not_a_folder_of_classes(tmp_path):
    for part in ("train", "valid"):
        photos(tmp_path / part, "a.png")
        text = json.dumps(one_box(40, 20, [1, 2, 10, 5]))
        (tmp_path / part / "_annotations.coco.json").write_text(text)
    with pytest.raises(UsageError, match=r"has several annotations: train/_ann.*, valid/"):
        open_data_set(tmp_path)
    (tmp_path / "valid" / "_annotations.coco.json").unlink()
    assert open_data_set(tmp_path).kind == "coco"


def test_coco_whose_ids_or_files_are_missing_is_refused(tmp_path):
    photos(tmp_path, "a.png")
    content = one_box(40, 20, [1, 2, 10, 5])
    content["annotations"][0]["category_id"] = "7"
    with pytest.raises(UsageError, match="no annotation has the id of a category"):
        open_data_set(_coco(tmp_path, json.dumps(content)))
    content = one_box(40, 20, [1, 2, 10, 5])
    del content["images"][0]["file_name"]
    with pytest.raises(UsageError, match="image 1 has no file_name"):
        open_data_set(_coco(tmp_path, json.dumps(content)))
    content["images"][0]["coco_url"] = "http://images.cocodataset.org/val2017/a.png"
    assert open_data_set(_coco(tmp_path, json.dumps(content))).entries[0].photo == "a.png"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "image,label\nin\\a.png,dog\n"),
        ("t.tsv", "image\tlabel\nin/a.png\tdog\n"),
        ("t.csv", "file_name,label\nin/a.png,dog\n"),
    ],
)
def test_tables_as_other_programs_write_them(tmp_path, name, text):
    photos(tmp_path, "in/a.png")
    (tmp_path / name).write_text(text)
    (entry,) = open_data_set(tmp_path / name).entries
    assert (entry.photo, entry.label) == ("in/a.png", "dog")


@pytest.mark.parametrize("name", [r"C:\data\a.png", r"..\a.png", r"in\..\..\a.png"])
def test_paths_of_windows_lead_to_no_other_folder(tmp_path, name):
    photos(tmp_path, "data/b.png")
    photos(tmp_path, "a.png")
    with pytest.raises(UsageError, match="line 2 names a file outside the folder"):
        open_data_set(_csv(tmp_path / "data", f"image,label\n{name},dog\n"))


def test_a_parquet_table_of_the_photos_themselves_says_so(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    photos(tmp_path, "a.png")
    data = (tmp_path / "a.png").read_bytes()
    for cell in (data, {"bytes": data, "path": None}, {"bytes": data, "path": "gone.png"}):
        parquet.write_table(pa.table({"image": [cell]}), tmp_path / "t.parquet")
        with pytest.raises(UsageError, match="holds the photos themselves"):
            open_data_set(tmp_path / "t.parquet")
    for name in (b"a.png", {"bytes": data, "path": "a.png"}):
        parquet.write_table(pa.table({"image": [name]}), tmp_path / "t.parquet")
        assert [e.photo for e in open_data_set(tmp_path / "t.parquet").entries] == ["a.png"]


def test_large_files_of_xml_beside_a_photo_are_no_annotations(tmp_path):
    """They refused the whole folder, whatever they held."""
    photos(tmp_path, "a.png")
    (tmp_path / "a.xml").write_bytes(b"<log>" + b" " * (5 << 20) + b"</log>")
    assert open_data_set(tmp_path).kind == "photos"
    (tmp_path / "a.xml").write_bytes(b"<annotation>" + b" " * (5 << 20) + b"</annotation>")
    with pytest.raises(UsageError, match="more than 4 MiB"):
        open_data_set(tmp_path)


def test_annotations_in_letters_of_two_bytes_are_seen(tmp_path):
    photos(tmp_path, "a.png")
    (tmp_path / "a.xml").write_text(VOC, encoding="utf-16")
    assert open_data_set(tmp_path).entries[0].label == "dog"


@pytest.mark.parametrize("room", ["JPEGImages", "images", ""])
@pytest.mark.parametrize("apart", ["Annotations", "annotations"])
def test_pairs_beside_a_folder_of_annotations_are_both_read(tmp_path, room, apart):
    """The pairs were read alone; photos in ``images/`` were a class of that name."""
    photos(tmp_path, *(str(Path(room) / name) for name in ("a.png", "c.png")))
    (tmp_path / apart).mkdir()
    (tmp_path / apart / "a.xml").write_text(VOC)
    found = open_data_set(tmp_path)
    assert [(e.photo, e.label) for e in found.entries] == [("a.png", "dog")]
    assert found.remarks == ("photos without a file of annotations are left out: c.png",)
    photos(tmp_path, "b.png", *(["a.png"] if room else []))
    for name in ("b", "a") if room else ("b",):
        text = VOC.replace("a.png", f"{name}.png").replace("dog", "cat")
        (tmp_path / f"{name}.xml").write_text(text)
    found = open_data_set(tmp_path)
    own = {f"{room}/a.png": "dog", "a.png": "cat"} if room else {"a.png": "dog"}
    assert {e.photo: e.label for e in found.entries} == {**own, "b.png": "cat"}


def test_annotations_that_lie_deeper_are_no_classes(tmp_path):
    """Photos were labelled JPEGImages or images."""
    _voc(tmp_path / "voc" / "VOCdevkit" / "VOC2007", VOC)
    photos(tmp_path / "yolo" / "a" / "b", "images/a.png")
    (tmp_path / "yolo" / "a" / "b" / "labels").mkdir()
    photos(tmp_path / "coco" / "a" / "b", "val2017/a.png")
    (tmp_path / "coco" / "a" / "b" / "annotations").mkdir()
    (tmp_path / "coco" / "a" / "b" / "annotations" / "instances_val2017.json").write_text("{}")
    for kind, inner in (("voc", "VOCdevkit/VOC2007"), ("yolo", "a/b"), ("coco", "a/b")):
        with pytest.raises(UsageError, match=f"in a folder below: {inner}; name that folder"):
            open_data_set(tmp_path / kind)


def test_two_masks_of_a_photo_are_refused(tmp_path):
    """The second one was left out in silence."""
    photos(tmp_path, "a.png", "m.png", "n.png")
    with pytest.raises(UsageError, match=r"line 3: a.png has another mask above"):
        open_data_set(_csv(tmp_path, "image,mask\na.png,m.png\na.png,n.png\n"))


def test_what_is_not_read_of_a_data_set_is_told(tmp_path):
    photos(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,dog\n")
    (remark,) = open_data_set(tmp_path).remarks
    assert remark == "tables beside the photos are not read, unless one is named: metadata.csv"
    content = one_box(40, 20, [1, 2, 10, 5])
    content["annotations"] = [{"image_id": 1, "segments_info": []}]
    found = open_data_set(_coco(tmp_path, json.dumps(content)))
    assert "1 annotation(s) without a box or an outline are no objects" in found.remarks[0]


def test_annotations_beside_photos_of_classes_are_told(tmp_path):
    """LabelImg writes them there; the folders stay classes."""
    photos(tmp_path, "dog/a.png", "cat/b.png")
    (tmp_path / "dog" / "a.xml").write_text(VOC)
    found = open_data_set(tmp_path)
    assert found.classes == {"cat": 1, "dog": 1}
    (remark,) = found.remarks
    assert remark.endswith("where that folder itself is named: dog")


def test_coco_in_a_folder_beside_the_photos_of_its_part(tmp_path):
    photos(tmp_path, "images/train/a.png")
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(json.dumps(one_box(40, 20, [1, 2, 10, 5])))
    assert [e.label for e in open_data_set(tmp_path).entries] == ["dog"]


def test_a_quote_that_nobody_closes_is_refused(tmp_path):
    """The lines behind it were part of one label."""
    photos(tmp_path, "a.png", "b.png")
    with pytest.raises(UsageError, match=r"after line 2 .*a quote begins and ends a whole cell"):
        open_data_set(_csv(tmp_path, 'image,label\na.png,dog\na.png,"dog\nb.png,cat\n'))


def test_objects_of_images_that_are_not_named_are_told(tmp_path):
    photos(tmp_path, "a.png")
    content = one_box(40, 20, [1, 2, 10, 5])
    content["annotations"].append({**content["annotations"][0], "id": 2, "image_id": 99})
    found = open_data_set(_coco(tmp_path, json.dumps(content)))
    assert found.remarks == ("1 object(s) of images that it does not name are left out",)


def test_whole_paths_of_coco_that_lead_below_the_folder(tmp_path):
    """As tables are read."""
    photos(tmp_path, "in/a.png")
    content = one_box(40, 20, [1, 2, 10, 5])
    content["images"][0]["file_name"] = str(tmp_path / "in" / "a.png")
    assert open_data_set(_coco(tmp_path, json.dumps(content))).entries[0].photo == "in/a.png"
    content["images"][0]["file_name"] = "/elsewhere/a.png"
    with pytest.raises(UsageError, match=r"outside the folder.*paths below the folder"):
        open_data_set(_coco(tmp_path, json.dumps(content)))


@pytest.mark.parametrize("name", ["/home/me/b.png", r"C:\me\b.png", r"\\server\me\b.png"])
def test_voc_whose_photos_are_called_by_their_place_on_another_machine(tmp_path, name):
    _voc(tmp_path, VOC.replace("a.png", name))
    assert [e.photo for e in open_data_set(tmp_path).entries] == ["a.png"]  # the file's own name
    photos(tmp_path, "JPEGImages/b.png")
    assert [e.photo for e in open_data_set(tmp_path).entries] == ["b.png"]


def test_a_corner_without_end_is_refused(tmp_path):
    _voc(tmp_path, VOC.replace("<xmax>10", "<xmax>inf"))
    with pytest.raises(UsageError, match="corners that are not numbers"):
        open_data_set(tmp_path)


def test_yolo_with_folders_in_capitals_and_classes_as_floats(tmp_path):
    """Images/ was a class, and a class of 1.0 refused."""
    photos(tmp_path, "Images/a.png")
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Labels" / "a.txt").write_text("1.0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]")
    found = open_data_set(tmp_path)
    assert (found.kind, found.entries[0].label) == ("yolo", "dog")

"""Annotations and tables as other programs write them: odd ones are read, wrong ones named."""

import json
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from inspector.audit.data_set import open_data_set
from inspector.audit.data_set.same_content import copies_named
from inspector.errors import UsageError
from inspector.photos.dataset import class_indices

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
        {"image_id": 1, "category_id": 2, "segmentation": {"counts": [800], "size": [20, 40]}},
        box([1, 1, 2, 2], image=99, category=2),
    ],
    ids=["crowd", "no area", "key points", "empty mask", "another image"],
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
    assert found.entries[0].objects[0].corners == (2, 1, 8, 9)  # two points enclose nothing


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


def table(folder, text, name="t.csv"):
    (folder / name).write_text(text)
    return open_data_set(folder / name)


@pytest.mark.parametrize(
    ("heading", "cells", "corners", "relative"),
    [
        ("xmin,ymin,xmax,ymax", "4,2,28,12", (2, 4, 12, 28), False),
        ("x1,y1,x2,y2", "4,2,28,12", (2, 4, 12, 28), False),
        ("left,top,width,height", "4,2,24,10", (2, 4, 12, 28), False),
        ("left,top,right,bottom,width,height", "4,2,28,12,40,20", (2, 4, 12, 28), False),
        ("x_center,y_center,width,height", "16,7,24,10", (2, 4, 12, 28), False),
        ("x0,y0,x1,y1", ".125,.25,.75,1", (0.25, 0.125, 1, 0.75), True),
        ("cx,cy,w,h", ".5,.5,.25,.5", (0.25, 0.375, 0.75, 0.625), True),
    ],
)
def test_boxes_of_tables_in_other_columns_and_units_are_read_and_said(
    folder, heading, cells, corners, relative
):
    found = table(folder, f"image,label,{heading}\na.png,cat,{cells}\n")
    (one,) = found.entries[0].objects
    assert (one.corners, one.relative) == (pytest.approx(corners), relative)
    assert not found.groups
    unit = "shares of the photo" if relative else "pixels"
    assert any(said.endswith(unit) for said in found.remarks)


@pytest.mark.parametrize(
    ("heading", "said"),
    [
        ("x,y,w,h", "may be a corner or the centre"),
        ("left,top,width,height,x_center,y_center", "boxes in two ways"),
    ],
)
def test_boxes_whose_meaning_is_not_known_are_refused(folder, heading, said):
    cells = ",".join("4" for _ in heading.split(","))
    with pytest.raises(UsageError, match=said):
        table(folder, f"image,label,{heading}\na.png,cat,{cells}\n")


def test_a_column_that_differs_between_rows_of_one_photo_names_no_groups(folder):
    rows = "a.png,cat,n,0\na.png,cat,s,0\nb.png,cat,s,1\n"
    found = table(folder, "image,label,site,device\n" + rows)
    assert list(found.groups) == ["device"]
    assert found.remarks == ("columns that differ between rows of one photo name no groups: site",)


def test_a_row_with_more_cells_than_the_heading_is_refused(folder):
    with pytest.raises(UsageError, match="more cells than the heading in line 3"):
        table(folder, "image,label\na.png,dog\nb.png,tiger, cat\n")
    assert table(folder, "image,label\na.png,dog,,\n").entries[0].label == "dog"


@pytest.mark.parametrize(
    "text", ["sep=;\nimage;label\na.png;cat\n", '\n\nimage;"label";"kind, place"\na.png;cat;x\n']
)
def test_what_sets_columns_apart_is_told_by_the_column_of_photos(folder, text):
    assert table(folder, text).entries[0].label == "cat"


def test_whole_paths_below_the_folder_are_names_in_it(folder):
    found = table(folder, f"image,label\n{folder / 'a.png'},cat\n")
    assert (found.entries[0].photo, found.entries[0].label) == ("a.png", "cat")
    with pytest.raises(UsageError, match="outside"):
        table(folder, f"image,label\n{folder}/../{folder.name}2/a.png,cat\n")


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_with_accents_are_found_however_they_are_composed(folder, written, stored):
    (folder / "a.png").rename(folder / unicodedata.normalize(stored, "caf\u00e9.png"))
    name = unicodedata.normalize(written, "caf\u00e9.png")
    assert not table(folder, f"image,label\n{name},cat\n").missing
    images = [{"id": 1, "file_name": name}]
    assert not coco(folder, [box([1, 2, 3, 4])], images).missing


def test_cells_of_parquet_that_hold_lists_and_pictures(folder):
    columns = {
        "image": [{"bytes": b"x", "path": "a.png"}, {"bytes": b"x", "path": "b.png"}],
        "label": [["cat", "dog"], ["dog"]],
    }
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    found = open_data_set(folder / "t.parquet")
    assert {e.photo: e.label for e in found.entries} == {"a.png": "cat|dog", "b.png": "dog"}


def test_categories_without_an_annotation_are_named(folder):
    found = coco(folder, [box([1, 2, 3, 4])])
    assert found.unused == ("dog",)
    assert found.named(lambda name: name.replace("dog", "cat")).unused == ()
    assert found.facts()["unused"] == ["dog"]


@pytest.mark.parametrize("place", ["val2017", "images", "."])
def test_coco_in_its_own_layout(folder, place):
    root = folder / "coco"
    (root / place).mkdir(parents=True)
    (folder / "a.png").rename(root / place / "a.png")
    (root / "annotations").mkdir()
    document = {"images": [IMAGES[0]], "categories": CLASSES, "annotations": [box([1, 2, 3, 4])]}
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(document))
    assert [e.label for e in open_data_set(path).entries] == ["cat"]
    assert open_data_set(root).kind == "coco"
    path.with_name("instances_train2017.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="several annotations: annotations/instances_train2017"):
        open_data_set(root)


def test_yolo_with_folders_of_training_and_validation(folder):
    for part in ("train", "valid"):
        (folder / "set" / part / "images").mkdir(parents=True)
        (folder / "set" / part / "labels").mkdir()
        for name, text in (("a", "0 .5 .5 .2 .4"), ("gone", "0 .5 .5 .2 .4")):
            (folder / "set" / part / "labels" / f"{name}.txt").write_text(text)
        picture = (folder / "a.png").read_bytes()
        (folder / "set" / part / "images" / "a.png").write_bytes(picture)
    (folder / "set" / "args.yaml").write_text("epochs: 3\n")
    (folder / "set" / "data.yaml").write_text("train: ../train/images\nnames: [cat, dog]\n")
    found = open_data_set(folder / "set")
    assert found.kind == "yolo"
    labels = {e.photo: e.label for e in found.entries}
    assert labels == {"train/images/a.png": "cat", "valid/images/a.png": "cat"}
    assert found.unused == ("dog",)
    said = "train/labels/gone.txt, valid/labels/gone.txt"
    assert found.remarks == (f"labels of which the photo is not there: {said}",)


def test_yolo_names_beside_the_labels_or_nowhere(folder):
    found = yolo(folder, b"1 .5 .5 .2 .4", "epochs: 3")
    assert found.entries[0].label == "id 1"
    assert "numbers alone" in found.remarks[0]
    (folder / "labels" / "classes.txt").write_text("cat\ndog\n")
    found = open_data_set(folder)
    assert (found.entries[0].label, found.remarks) == ("dog", ())


def test_voc_of_another_suffix_and_photos_without_a_file(folder):
    (folder / "Annotations").mkdir()
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>20</ymax>"
    (folder / "Annotations" / "a.xml").write_text(
        "<annotation><filename>a.jpeg</filename><object><name>cat</name>"
        f"<bndbox>{corners}</bndbox></object></annotation>"
    )
    (folder / "JPEGImages" / "b.jpg").write_bytes((folder / "b.png").read_bytes())
    found = open_data_set(folder)
    assert ([e.photo for e in found.entries], dict(found.missing)) == (["a.jpg"], {})
    left_out = "photos without a file of annotations are left out"
    assert found.remarks == (f"{left_out}: a.png, b.png, b.jpg and 1 more",)


def test_folders_in_which_no_photo_lies_are_named_at_any_depth(folder):
    for name in ("ghost/.gitkeep", "text/deep/notes.txt", "cat/old/notes.txt", "cat/1.png"):
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / name).write_bytes(b"")
    listing = open_data_set(folder / "set").listing
    assert [str(path) for path in listing.empty] == ["cat/old", "ghost", "text"]


def test_copies_of_a_photo_are_named_with_their_labels(folder):
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    Image.fromarray(np.full((20, 40, 3), 9, np.uint8)).save(folder / "b.png")
    found = table(folder, "image,label\na.png,cat\nb.png,cat\nc.png,dog\n")
    copies, labels = copies_named(found.entries)
    assert copies.endswith("count twice: c.png (as a.png)")
    assert labels.endswith("another label: c.png (dog; a.png: cat)")
    assert copies_named(found.entries[:2]) == []


NAMES = ("tench, Tinca tinca", "golden retriever", "t_shirt", "2.0")


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("golden_retriever", (1,)),
        ("Tinca_tinca", (0,)),
        ("t_shirt", (2,)),
        ("t shirt", (2,)),
        ("1.0", (1,)),
        ("2.0", (3,)),
        ("1.5", ()),
        ("n01440764", ()),
        ("golden_retriever|0", (1, 0)),
    ],
)
def test_labels_as_tables_and_folders_spell_them(label, meant):
    assert class_indices(label, NAMES, len(NAMES)) == meant


def voc_object(folder, text):
    """The object of the one photo, described by some XML."""
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename>"
        f"<object><name>dog</name>{text}</object></annotation>"
    )
    return open_data_set(folder).entries[0].objects[0]


@pytest.mark.parametrize(
    "text",
    [
        "<polygon><x1>2</x1><y1>3</y1><x2>9</x2><y2>3</y2><x3>5</x3><y3>8</y3></polygon>",
        "<polygon><pt><x>2</x><y>3</y></pt><pt><x>9</x><y>3</y></pt><pt><x>5</x><y>8</y></pt></polygon>",
    ],
    ids=["numbered", "points"],
)
def testvoc_objects_with_a_polygon_alone(folder, text):
    """The whole data set was refused for corners that are not numbers."""
    found = voc_object(folder, text)
    assert (found.label, found.corners) == ("dog", (3, 2, 8, 9))
    assert np.frombuffer(found.outline.polygons[0], np.float32).tolist() == [2, 3, 9, 3, 5, 8]


def test_turned_boxes_of_rolabelimg(folder):
    text = "<robndbox><cx>20</cx><cy>10</cy><w>8</w><h>4</h><angle>1.5707963</angle></robndbox>"
    found = voc_object(folder, text)
    assert found.corners == pytest.approx((6, 18, 14, 22), abs=1e-5)  # standing upright


@pytest.mark.parametrize("wrong", ["<x1>2</x1>", "<x1>a</x1><y1>3</y1>"])
def test_polygons_of_voc_that_are_none_are_refused(folder, wrong):
    with pytest.raises(UsageError, match="not pairs of x and y"):
        voc_object(folder, f"<polygon>{wrong}</polygon>")


def test_a_table_of_names_without_suffixes_is_told_where_the_photos_lie(folder):
    (folder / "t.csv").write_text("image_id,label\na,cat\n")
    with pytest.raises(UsageError, match=r"'a' may be '(JPEGImages/)?a\.(png|jpg)'"):
        open_data_set(folder / "t.csv")
    (folder / "t.csv").write_text("image,label\nz.png,cat\n")
    with pytest.raises(UsageError, match=r"the table's own folder$"):
        open_data_set(folder / "t.csv")

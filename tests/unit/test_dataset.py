"""Folders of photos, tables of classes and boxes; also those that strangers wrote."""

import pytest
from PIL import Image

from inspector.errors import InspectorWarning, UsageError
from inspector.photos.dataset import class_indices, labelled_photos, pictures, read_boxes
from inspector.photos.own_figures import is_own_figure
from inspector.render import png


@pytest.fixture
def folder(tmp_path):
    for name in ("dog/b.PNG", "dog/a.jpg", "cat/z.png", "cat/notes.txt", "loose.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "set"


def test_a_folder_a_class(folder):
    found = [(p.path.name, p.label) for p in labelled_photos([folder])]
    assert found == [("z.png", "cat"), ("a.jpg", "dog"), ("b.PNG", "dog")]


def test_pictures_of_a_folder(folder):
    with pytest.warns(InspectorWarning, match=r"1 file\(s\) left out .*: notes.txt"):
        found = [p.name for p in pictures([folder])]
    assert found[0] == "loose.png"
    assert {"a.jpg", "b.PNG"} < set(found)
    assert [p.name for p in pictures([folder / "dog", folder / "loose.png"])] == [
        "a.jpg",
        "b.PNG",
        "loose.png",
    ]
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="no picture files"):
        list(pictures([folder / "empty"]))


def test_figures_of_this_package_are_not_photos(folder):
    figure = png.write(folder / "dog" / "a.cam.png", Image.new("RGB", (8, 8)))
    Image.new("RGB", (8, 8)).save(folder / "dog" / "photo.png")
    assert is_own_figure(figure)
    with pytest.warns(InspectorWarning, match=r"dog: 1 figure\(s\) of onnx-inspector left out"):
        found = [p.name for p in pictures([folder / "dog"])]
    assert found == ["a.jpg", "b.PNG", "photo.png"]
    assert list(pictures([figure])) == [figure], "a file that is named is tried"
    with pytest.warns(InspectorWarning, match="1 figure"):
        labelled = labelled_photos([folder])
    assert "a.cam.png" not in {p.path.name for p in labelled}
    only = folder / "only"
    png.write(only / "x.png", Image.new("RGB", (8, 8)))
    with (
        pytest.warns(InspectorWarning, match="1 figure"),
        pytest.raises(UsageError, match="no picture files"),
    ):
        list(pictures([only]))


def test_a_table_of_classes(folder):
    table = folder / "truth.csv"
    table.write_text("\ufeffImage, Label\nloose.png, tabby cat\ndog/a.jpg,3\n", encoding="utf-8")
    found = [(p.path, p.label) for p in labelled_photos([], table)]
    assert found == [(folder / "loose.png", "tabby cat"), (folder / "dog" / "a.jpg", "3")]


def test_photos_of_a_table_in_another_folder(folder, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("file,class\na.jpg,1\nnowhere.png,2\n")
    found = [p.path for p in labelled_photos([folder / "cat", folder / "dog"], table)]
    assert found == [folder / "dog" / "a.jpg", folder / "cat" / "nowhere.png"]  # refused when read


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "a\0b.png", ""])
def test_a_table_names_nothing_outside(folder, name):
    table = folder / "truth.csv"
    table.write_text(f'image,label\nloose.png,1\n"{name}",2\n')
    with pytest.raises(UsageError, match=r"line 3 names (a file outside|no photo)"):
        labelled_photos([], table)


def test_tables_that_are_none(folder, tmp_path):
    table = tmp_path / "t.csv"
    with pytest.raises(UsageError, match="cannot be read"):
        labelled_photos([], table)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        labelled_photos([], table)
    for text in ("", "a,b\n1,2\n", "image,kind\nx.png,1\n"):
        table.write_text(text)
        with pytest.raises(UsageError, match="has no column"):
            labelled_photos([], table)
    table.write_text("image,label\n")
    with pytest.raises(UsageError, match="has no column"):
        labelled_photos([], table)
    table.write_text('image,label\n"' + "x" * 200_000 + '",1\n')
    with pytest.raises(UsageError, match="not a CSV table"):
        labelled_photos([], table)
    with pytest.raises(UsageError, match="no labelled photos"):
        labelled_photos([folder / "dog"])
    with pytest.raises(UsageError, match="no labelled photos"):
        labelled_photos([folder / "loose.png"])


def test_boxes(folder):
    table = folder / "boxes.csv"
    table.write_text("image,imagenet_indices,x0,y0,x1,y1\ndog/a.jpg,151-268,2.5,1,10,20\n")
    (box,) = read_boxes(table)
    assert (box.path, box.label, box.row) == (folder / "dog" / "a.jpg", "151-268", 2)
    assert box.corners == (1, 2.5, 20, 10)


def test_wrong_boxes_are_all_named(folder):
    table = folder / "boxes.csv"
    table.write_text(
        "image,label,x0,y0,x1,y1\nl.png,1,5,5,5,9\nl.png,1,a,0,1,1\nl.png,1,0,0,nan,1\n"
        "l.png,1,0,0,inf,1\nl.png,1,0,0,1,1\n"
    )
    with pytest.raises(UsageError) as caught:
        read_boxes(table)
    for line in ("line 2", "line 3", "line 4", "line 5"):
        assert line in str(caught.value)
    assert "line 6" not in str(caught.value)
    table.write_text("image,label,x0,y0,x1\nl.png,1,5,5,5\n")
    with pytest.raises(UsageError, match="corners that are not numbers"):
        read_boxes(table)


def test_classes_by_name_and_number():
    names = ("tench, Tinca tinca", "Goldfish", "cat", "cat")
    assert class_indices("tinca tinca", names, 4) == (0,)
    assert class_indices("TENCH, Tinca tinca", names, 4) == (0,)
    assert class_indices("cat", names, 4) == (2, 3)
    assert class_indices("goldfish|0", names, 4) == (1, 0)
    assert class_indices("1-2 | 9", names, 4) == (1, 2)
    assert class_indices("1-99999999999999", names, 4) == ()
    assert class_indices("fish", names, 4) == ()
    assert class_indices("", names, 4) == ()
    assert class_indices("7", (), None) == (7,)

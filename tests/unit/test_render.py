import base64
import csv
import io
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspector import render, whole_file
from inspector.errors import UsageError
from inspector.heatmap import Attribution, Heatmap
from inspector.network.coordinates.placement import Grid, Line, Placement
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.photos.preprocess import Preprocess
from inspector.printable import percent
from inspector.render import csv as render_csv
from inspector.render import json as render_json
from inspector.render import notebook, npz, png, sheet
from inspector.render.drawing.page import Page, width_of
from inspector.render.drawing.panels import (
    Scale,
    overlay_panel,
    panel_size,
    projection_panel,
    scale_of,
    widens,
)
from inspector.studies import Findings
from inspector.whole_file import write_whole


def grey(size=(40, 60), value=120):
    return Photo.of(Image.fromarray(np.full((*size, 3), value, np.uint8)), "photo.png")


def heatmap(values, photo=None, method="grad-cam", space="layer", **more):
    photo = photo or grey()
    geometry = Geometry.identity(photo.size)
    return Heatmap.of(Attribution(np.asarray(values), space, method, **more), geometry)


# -- panels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((32, 32), (384, 384)),
        ((224, 224), (448, 448)),
        ((480, 640), (480, 640)),
        ((4000, 6000), (640, 960)),
        ((1, 1), (360, 360)),
        ((3, 9000), (1, 960)),
    ],
)
def test_small_photos_grow_by_whole_factors_and_large_ones_shrink(size, shown):
    assert panel_size(size) == shown


def test_the_overlay_is_coloured_where_the_map_is_and_grey_elsewhere():
    values = np.zeros((40, 60))
    values[5:15, 10:20] = 3.0
    found = heatmap(values, method="cam")
    panel = np.asarray(overlay_panel(grey(), found, (40, 60), scale_of(found)), int)
    chroma = panel.max(axis=2) - panel.min(axis=2)
    assert (chroma[values == 0] <= 1).all()
    assert (chroma[values > 0] > 30).all()


def test_opacity_grows_with_the_value():
    values = np.linspace(0, 1, 60)[None].repeat(40, 0)
    found = heatmap(values, method="cam")
    scale = scale_of(found)
    black = np.asarray(overlay_panel(grey(value=0), found, (40, 60), scale), int)
    white = np.asarray(overlay_panel(grey(value=255), found, (40, 60), scale), int)
    shining_through = (white - black)[0].sum(axis=1)
    assert (np.diff(shining_through) <= 2).all()  # rounding
    assert shining_through[0] > 5 * shining_through[-1]


def test_what_was_not_seen_is_dimmed_behind_a_frame():
    photo = grey((40, 80))
    _, geometry = Preprocess((40, 40)).apply(photo)
    found = Heatmap.of(Attribution(np.ones((4, 4)), "layer", "cam"), geometry)
    panel = np.asarray(overlay_panel(photo, found, (40, 80), scale_of(found)), int)
    unseen = panel[~found.seen]
    assert np.unique(unseen, axis=0).tolist() == [[36, 36, 36]]  # of 120
    assert panel[:, [20, 59]].min() > 220  # the outermost columns that were seen


def test_signed_maps_diverge():
    values = np.zeros((1, 40, 60))
    values[0, :, :20], values[0, :, 40:] = -1, 0.5
    found = heatmap(values, method="occlusion", space="input", reduction="sum")
    scale = scale_of(found)
    assert (scale.limit, scale.signed) == (1, True)
    panel = np.asarray(overlay_panel(grey(), found, (40, 60), scale), int)
    assert panel[0, 0, 2] > panel[0, 0, 0] + 50  # blue
    assert panel[0, 59, 0] > panel[0, 59, 2] + 30  # red
    assert np.ptp(panel[0, 30]) <= 1


def test_the_projection_is_grey_at_zero_and_shows_channels():
    values = np.zeros((3, 40, 60))
    values[0, 0, 0], values[2, 0, 1] = 2.0, -2.0
    found = heatmap(values, method="gradient", space="input")
    panel = np.asarray(projection_panel(found, (40, 60)))
    assert panel[0, 0].tolist() == [255, 128, 128]
    assert panel[0, 1].tolist() == [128, 128, 1]
    assert panel[5, 5].tolist() == [128, 128, 128]
    turned = heatmap(values, method="gradient", space="input", channels="BGR")
    assert np.asarray(projection_panel(turned, (40, 60)))[0, 0].tolist() == [128, 128, 255]
    assert projection_panel(heatmap(np.eye(4)), (40, 60)) is None


def test_pixelwise_maps_are_clipped_for_colour_only_and_say_so():
    values = np.full((3, 40, 60), 1e-3)
    values[0, 0, 0] = 1.0
    scale = scale_of(heatmap(values, method="gradient", space="input"))
    assert scale.clipped
    assert scale.limit == pytest.approx(1e-3)
    assert scale.maximum == 1
    assert not scale_of(heatmap(np.eye(4))).clipped


@pytest.mark.parametrize("reduction", ["sum", "max_abs"])
def test_a_signed_map_with_a_value_per_pixel_is_clipped_and_widened_and_says_so(reduction):
    values = np.zeros((3, 600, 900))
    values[:, ::6, ::9] = np.random.default_rng(0).normal(0, 1e-3, (3, 100, 100))
    values[0, 0, 0] = 1.0
    photo = grey((600, 900))
    kinds = {
        fine: heatmap(values, photo, "a", "input", reduction=reduction, per_pixel=fine)
        for fine in (True, False)
    }
    fine = kinds[True]
    assert scale_of(fine).clipped
    assert widens(fine, (200, 300))
    assert not widens(fine, (1200, 1800))
    assert np.array_equal(fine.values, kinds[False].values)  # drawn otherwise, not another map
    page = np.asarray(sheet.contact_sheet(photo, [fine]), int)
    assert page.shape != np.asarray(sheet.contact_sheet(photo, [kinds[False]])).shape or (
        reduction == "max_abs"
    )  # by the line that says so

    def coloured(found):
        panel = overlay_panel(photo, found, (200, 300), scale_of(found), small=True)
        pixels = np.asarray(panel, int)
        return (np.ptp(pixels, axis=2) > 30).mean()

    assert coloured(fine) > 0.1
    if reduction == "sum":
        assert coloured(kinds[False]) < 0.01


def test_a_map_of_squares_is_neither_clipped_nor_widened():
    values = np.zeros((1, 40, 60))
    values[:, 10, 10] = 1
    found = heatmap(values, method="occlusion", space="input", reduction="sum", signed=True)
    assert not scale_of(found).clipped
    assert not widens(found, (20, 30))


def test_the_title_of_a_bar_stays_on_the_page_beside_long_numbers():
    values = np.zeros((3, 40, 60))
    values[:, ::2, ::3] = np.where(np.arange(400).reshape(20, 20) % 2, -6.68e-5, 6.68e-5)
    values[0, 0, 0] = 1
    found = heatmap(
        values, space="input", reduction="sum", per_pixel=True, unit="part of the score"
    )
    figure = np.asarray(png.overlay(grey(), found), int)
    assert (figure[:, -6:] == 255).all()
    assert (figure[:, -45:-6] < 255).any()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_empty_map_is_said_and_never_drawn(value):
    found = heatmap(np.full((4, 4), value))
    scale = scale_of(found)
    assert scale.message == "no positive evidence at this layer"
    panel = np.asarray(overlay_panel(grey(), found, (40, 60), scale), int)
    assert np.ptp(panel, axis=2).max() <= 1
    figure = png.overlay(grey(), found)
    assert figure.size == png.overlay(grey(), heatmap(np.zeros((4, 4)))).size


def test_an_empty_map_says_what_the_method_knows():
    known = "saturated: the probability is 1 all over; ask for measure=score"
    found = heatmap(np.zeros((4, 4)), notes=("no batch", known))
    assert scale_of(found).message == "saturated: the probability is 1 all over"
    assert not scale_of(heatmap(np.eye(4), notes=(known,))).message


def test_what_stands_on_the_map_is_not_said_again_below():
    bare = heatmap(np.zeros((4, 4)))
    noted = heatmap(np.zeros((4, 4)), notes=("no positive evidence at this layer",))
    more = heatmap(np.zeros((4, 4)), notes=("no positive evidence at this layer", "careful"))
    for draw in (lambda m: png.overlay(grey(), m), lambda m: sheet.contact_sheet(grey(), [m])):
        assert draw(noted).size == draw(bare).size
        assert draw(more).height > draw(bare).height


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (3, 2)])
@pytest.mark.parametrize("draw", [png.overlay, lambda photo, m: sheet.contact_sheet(photo, [m])])
def test_words_of_an_empty_map_stand_below_it_where_they_do_not_fit_on_it(monkeypatch, size, draw):
    notes = []
    monkeypatch.setattr(Page, "notes", lambda _, said, *a, **k: notes.extend(said))
    draw(grey(size), heatmap(np.zeros((4, 4)), grey(size)))
    said = [note for note in notes if note.endswith("no positive evidence at this layer")]
    assert len(said) == (0 if size == (3, 2) else 1)


def test_notes_keep_to_their_lines_and_say_how_many_are_left_out(monkeypatch):
    drawn = []
    monkeypatch.setattr(Page, "text", lambda self, text, *a, **k: drawn.append(text))
    long = "a sentence that goes on for a while " * 6
    Page(640).notes(["first", "second", "third", "fourth"])
    assert drawn == ["first", "second", "third", "fourth"]
    drawn.clear()
    Page(640).notes(["first", long, long, "last"])
    assert drawn[0] == "first"
    assert len(drawn) == 5
    assert drawn[-1] == "… and 2 more in the report"
    drawn.clear()
    Page(640).notes([long * 9, "second"], most=1)
    assert len(drawn) == 4
    assert drawn[-1] == "… and 1 more in the report"


# -- numbers on the figures ------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch):
    """The texts put at places of their own, in order: among them the colour bar's numbers."""
    texts, at = [], Page.at

    def keep(page, place, text, *more, **options):
        texts.append(text)
        return at(page, place, text, *more, **options)

    monkeypatch.setattr(Page, "at", keep)
    return texts


def test_the_colour_bar_of_a_map_ends_at_its_maximum(written):
    values = np.zeros((40, 60))
    values[5, 7], values[9, 9] = 3.5, 1.0
    png.overlay(grey(), heatmap(values, method="grad-cam"))
    assert written == ["3.5", "1.75", "0"]
    written.clear()
    sheet.contact_sheet(grey(), [heatmap(values, method="grad-cam")])
    assert written[-2:] == ["0", "3.5"]


def test_the_colour_bar_of_a_signed_map_has_its_limit_on_both_sides(written):
    values = np.zeros((1, 40, 60))
    values[0, 0, 0], values[0, 9, 9] = -0.75, 0.5
    found = heatmap(values, method="occlusion", space="input", reduction="sum")
    png.overlay(grey(), found)
    assert written == ["0.75", "0", "-0.75"]
    written.clear()
    sheet.contact_sheet(grey(), [found])
    assert written[-2:] == ["-0.75", "0.75"]


def test_the_colour_bar_of_a_clipped_map_says_so_and_names_the_maximum(written):
    values = np.full((3, 40, 60), 2e-3)
    values[0, 0, 0] = 1.5
    png.overlay(grey(), heatmap(values, method="gradient", space="input"))
    assert written == ["> 0.002", "0.001", "0", "max 1.5"]


def test_full_colour_is_reached_at_the_number_on_the_bar():
    values = np.zeros((40, 60))
    values[5, 7], values[9, 9] = 3.5, 1.75
    found = heatmap(values, method="cam")
    scale = scale_of(found)
    assert scale.limit == 3.5
    panel = np.asarray(overlay_panel(grey(value=0), found, (40, 60), scale), int)
    twice = np.asarray(
        overlay_panel(grey(value=0), found, (40, 60), Scale(7.0, 7.0, scale.signed)), int
    )
    assert (panel[9, 9] != panel[5, 7]).any()
    np.testing.assert_allclose(twice[5, 7], panel[9, 9], atol=1)


# -- figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2), (32, 32), (1500, 1200)])
@pytest.mark.parametrize("method", ["grad-cam", "gradient"])
def test_any_photo_gets_a_figure_of_a_sane_size(size, method):
    photo = grey(size)
    space = "layer" if method == "grad-cam" else "input"
    shape = (3, 3) if space == "layer" else (3, 16, 16)
    _, geometry = Preprocess((16, 16), resize="squash").apply(photo)
    values = np.random.default_rng(0).normal(size=shape)
    found = Heatmap.of(Attribution(values, space, method, notes=("careful",) * 9), geometry)
    for figure in (png.overlay(photo, found, model="m.onnx"), sheet.contact_sheet(photo, [found])):
        assert 200 <= figure.width <= 3200
        assert 100 <= figure.height <= 1600


@pytest.mark.parametrize("size", [(900, 2), (900, 60), (300, 180)])
def test_what_stands_below_a_panel_is_not_drawn_over_the_number_below_its_bar(size, monkeypatch):
    boxes = []
    real = Page._draw

    def draw(page, place, text, type_size, colour, anchor):
        (x, y), middle = place, type_size // 2 if anchor == "lm" else 0
        boxes.append((text, x, y - middle, x + width_of(text, type_size), y - middle + type_size))
        real(page, place, text, type_size, colour, anchor)

    monkeypatch.setattr(Page, "_draw", draw)
    _, geometry = Preprocess((16, 16), resize="crop").apply(grey(size))
    values = np.random.default_rng(0).normal(size=(3, 16, 16))
    png.overlay(grey(size), Heatmap.of(Attribution(values, "input", "gradient"), geometry))
    assert any(text.startswith("max") for text, *_ in boxes)
    for (one, *a), (other, *b) in itertools.combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (one, other)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.001, "<1%"), (0.51, "51%"), (0.999, ">99%"), (1 - 1e-10, "100%"), (1, "100%")],
)
def test_a_share_is_nothing_or_everything_only_where_it_is(share, text):
    assert percent(share) == text


def test_a_sheet_has_a_column_a_method_and_a_row_a_target():
    one = [
        heatmap(np.eye(4), label="cat", index=1),
        heatmap(np.eye(4), method="cam", label="cat", index=1),
    ]
    two = [heatmap(np.eye(4), label="dog", index=2)]
    small = sheet.contact_sheet(grey(), one)
    tall = sheet.contact_sheet(grey(), one + two)
    wide = sheet.contact_sheet(grey(), [*one, heatmap(np.eye(4), method="x", label="cat", index=1)])
    again = sheet.contact_sheet(grey(), [*one, *one])
    assert tall.width == small.width < wide.width < again.width
    assert tall.height > small.height == wide.height
    with pytest.raises(ValueError, match="map"):
        sheet.contact_sheet(grey(), [])


# -- files -----------------------------------------------------------------------------------


def test_npz_holds_the_map_in_its_own_space_and_gives_it_back_on_the_photo(tmp_path):
    photo = grey((400, 800))
    _, geometry = Preprocess((40, 40)).apply(photo)
    found = Heatmap.of(Attribution(5 * np.eye(4), "layer", "cam"), geometry)
    path = npz.write(tmp_path / "new" / "a.npz", found)
    assert path.stat().st_size < 4000
    with np.load(path) as data:
        np.testing.assert_array_equal(data["attribution"], 5 * np.eye(4))
        assert "heatmap" not in data
    np.testing.assert_array_equal(npz.load_heatmap(path), found.values)
    values = np.random.default_rng(0).normal(size=(3, 40, 40))
    found = Heatmap.of(Attribution(values, "input", "gradient", reduction="l2"), geometry)
    path = npz.write(tmp_path / "b.npz", found)
    np.testing.assert_array_equal(npz.load_heatmap(path), found.values)


def test_a_map_whose_cells_are_placed_is_kept_on_the_photo_too(tmp_path):
    line = Line(offset=9.5, stride=10.0, start=0, stop=4)
    placed = Attribution(
        np.eye(4), "layer", "cam", placement=Placement((Grid(0, line, line, swapped=False),))
    )
    found = Heatmap.of(placed, Geometry.identity((60, 60)))
    assert not found.seen.all()
    path = npz.write(tmp_path / "a.npz", found)
    with np.load(path) as data:
        np.testing.assert_array_equal(np.isnan(data["heatmap"]), ~data["seen"])
    np.testing.assert_array_equal(npz.load_heatmap(path), found.values)


@pytest.mark.parametrize(
    "changed",
    [
        {"photo_size": [10**9, 10**9]},
        {"photo_size": [-1, 4]},
        {"input_size": [3]},
        {"scale": [np.nan, 1.0]},
        {"scale": [0.0, 1.0]},
        {"space": "elsewhere"},
        {"reduction": "none"},
        {"attribution": np.ones((2, 2), dtype="U3")},
        {"attribution": np.full((2, 2), np.inf)},
    ],
)
def test_a_forged_map_is_refused_with_its_path(tmp_path, changed):
    path = npz.write(tmp_path / "a.npz", heatmap(np.eye(4)))
    with np.load(path) as data:
        arrays = dict(data)
    np.savez(path, **arrays | changed)
    with pytest.raises(UsageError, match=r"a\.npz: cannot be read as a map"):
        npz.load_heatmap(path)
    path.write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"a\.npz: cannot be read as a map"):
        npz.load_heatmap(path)
    with pytest.raises(UsageError, match=r"none\.npz"):
        npz.load_heatmap(tmp_path / "none.npz")


def test_png_is_read_back_as_drawn(tmp_path):
    figure = png.overlay(grey(), heatmap(np.eye(4)))
    path = png.write(tmp_path / "a.png", figure)
    with Image.open(path) as again:
        np.testing.assert_array_equal(np.asarray(again), np.asarray(figure))


@dataclass
class Point:
    x: int


def test_json_is_canonical_and_plain(tmp_path):
    document = {
        "b": np.float32(0.5),
        "a": np.int64(3),
        "path": Path("x") / "y",
        "list": (1, np.array([2.0])),
        "flag": np.bool_(True),
        "none": None,
        "point": Point(1),
        "set": {"b", "a"},
        "text": "ä",
    }
    path = render_json.write(tmp_path / "a.json", document)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "a": 3,
        "b": 0.5,
        "flag": True,
        "list": [1, [2.0]],
        "none": None,
        "path": "x/y",
        "point": {"x": 1},
        "set": ["a", "b"],
        "text": "ä",
    }
    assert text == render_json.dumps(dict(reversed(document.items())))
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")
    assert json.loads(render_json.dumps({"name": "x\udcff.png"})) == {"name": "x\udcff.png"}


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), np.array([np.nan])])
def test_json_has_no_nan_and_writes_nothing_then(tmp_path, value):
    with pytest.raises(ValueError, match="no place"):
        render_json.write(tmp_path / "a.json", {"x": [value]})
    with pytest.raises(TypeError, match="not data"):
        render_json.write(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch, error, step):
    path = tmp_path / "report.json"
    path.write_text("old", encoding="utf-8")

    def fail(*args):
        raise error

    if step == "fsync":
        monkeypatch.setattr(whole_file.os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises((UsageError, KeyboardInterrupt)):
        write_whole(path, b"new")
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_write_replaces_and_keeps_permissions(tmp_path):
    path = write_whole(tmp_path / "deep" / "er" / ("n" * 200), b"one")
    assert path.read_bytes() == b"one"
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    path.chmod(0o640)
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        write_whole(tmp_path / "file" / "a.png", b"x")
    assert "\n" not in str(caught.value)


def test_notebooks_get_a_picture_that_needs_no_file():
    image = Image.new("RGB", (4, 3), "red")
    text = notebook.html(image, 'a "cat" <script>')
    assert "<script>" not in text
    data = base64.b64decode(notebook.data_uri(image).partition(",")[2])
    assert data == notebook.png_bytes(image)
    with Image.open(io.BytesIO(data)) as again:
        assert again.size == (4, 3)


# -- formats ---------------------------------------------------------------------------------


class Drawn(Exception):
    """A picture was drawn that nobody asked for."""


class Result:
    """A result with a figure, a table and a map; ``extra`` is a figure of its own."""

    name = "all"

    def document(self):
        return {"b": 1, "a": "\u00e4"}

    def figures(self):
        def never():
            raise Drawn

        return {"one": lambda: Image.new("RGB", (3, 2)), "extra": never}

    def tables(self):
        return {"one": [{"x": 1}]}

    def maps(self):
        return {"one": heatmap(np.ones((2, 2)))}


def test_a_result_is_saved_name_by_name_with_the_document_last(tmp_path):
    written = render.save(Result(), tmp_path / "new", without=["extra"])
    assert [path.name for path in written] == ["one.png", "one.csv", "one.npz", "all.json"]
    assert (tmp_path / "new" / "all.json").read_text("utf-8") == render_json.dumps(
        Result().document()
    )
    assert (tmp_path / "new" / "one.csv").read_text() == "x\n1\n"


def test_no_cell_of_a_table_is_a_formula():
    """Headings are a stranger's too: groups of a data set are called as in its table."""
    rows = [{"photo": "=1+1", "=HYPERLINK(1)": "\n=2", "@x": "-3", "n": -3}]
    heading, *lines = csv.reader(io.StringIO(render_csv.dumps(rows)))
    assert heading == ["photo", "'=HYPERLINK(1)", "'@x", "n"]
    assert lines == [["'=1+1", "'\n=2", "'-3", "-3"]]


def test_folders_inside_an_output_folder_are_no_links(tmp_path):
    """An unpacked `inspection/` may bring one that leads to other files of the user's."""
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    (tmp_path / "named").symlink_to(tmp_path / "elsewhere")
    folder = tmp_path / "named"
    assert whole_file.inside(folder, "inner/one.png") == folder / "inner" / "one.png"
    (tmp_path / "elsewhere" / "link").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "inner" / "nowhere").symlink_to(tmp_path / "missing")
    for name in ("link", "link/one.png", "inner/nowhere/one.png"):
        with pytest.raises(UsageError, match="is a link to another folder"):
            whole_file.inside(folder, name)


def test_a_figure_is_drawn_only_for_a_format_that_shows_it(tmp_path):
    written = render.save(Result(), tmp_path, ["json", "csv"])
    assert [path.name for path in written] == ["all.json", "one.csv"]
    with pytest.raises(Drawn):
        render.save(Result(), tmp_path, ["png"])
    found = Findings("s", {}, {}, {"n": 1}, (), draw=Result().figures()["extra"])
    assert found.document()["result"] == {"n": 1}
    assert [path.name for path in found.save(tmp_path, formats=["json"])] == ["s.json"]
    with pytest.raises(Drawn):
        _ = found.figure


def test_a_format_is_one_function(tmp_path, monkeypatch):
    known = dict(render.formats())
    assert set(render.FORMATS) <= set(known)
    monkeypatch.setattr(render, "formats", lambda: known)

    def files(result):
        yield render.File(f"{result.name}.txt", lambda: b"text")

    known["txt"] = files
    assert [path.read_bytes() for path in render.save(Result(), tmp_path, ["txt"])] == [b"text"]


def test_an_unknown_format_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match="no output format 'tiff'"):
        render.save(Result(), tmp_path / "new", ["json", "tiff"])
    assert not (tmp_path / "new").exists()

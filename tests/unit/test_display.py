"""Looks that are asked for, text in any script, and figures as SVG and PDF."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables.DefaultTable import DefaultTable
from PIL import Image

from inspector.errors import InspectorWarning, UsageError
from inspector.heatmap import Attribution, Heatmap
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.printable import percent
from inspector.render import png, sheet, vector
from inspector.render.drawing import fonts
from inspector.render.drawing.chart import Series, line_chart
from inspector.render.drawing.display import Display
from inspector.render.drawing.page import Page, heading, illegible
from inspector.render.drawing.panels import common_scale, overlay_panel, scale_of

SIZE = (48, 64)


def photo(size=SIZE):
    pixels = np.full((*size, 3), 120, np.uint8)
    return Photo.of(Image.fromarray(pixels), "photo.png")


def heatmap(values=None, method="grad-cam", size=SIZE, **more):
    values = np.eye(4) if values is None else values
    space = more.pop("space", "layer")
    known = {"label": "cat", "index": 3, "score": 2.5, "probability": 0.9} | more
    return Heatmap.of(Attribution(values, space, method, **known), Geometry.identity(size))


def panel(display, values=None):
    found = heatmap(values)
    return np.asarray(overlay_panel(photo(), found, SIZE, scale_of(found), display), int)


# -- looks -----------------------------------------------------------------------------------------


def test_opacity_decides_how_much_of_the_photo_is_seen():
    grey = panel(Display(alpha=0))
    assert np.ptp(grey, axis=2).max() == 0
    opaque, half = panel(Display(alpha=1.0)), panel(Display(alpha=0.5))
    assert np.ptp(opaque, axis=2).max() > np.ptp(half, axis=2).max() > 20


def test_a_bare_map_is_colours_at_the_photos_size():
    figure = png.overlay(photo(), heatmap(), display=Display(raw=True, colormap="gray"))
    assert figure.size == SIZE[::-1]
    pixels = np.asarray(figure, int)
    assert np.ptp(pixels, axis=2).max() == 0
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_contours_leave_the_photo_and_draw_lines():
    values = np.ones((48, 64)) * np.linspace(0, 1, 64)
    found = panel(Display(contour=True), values)
    lines = (found != 120).any(axis=(0, 2))
    for level in (0.25, 0.5, 0.75):
        assert lines[round(level * 64) - 2 : round(level * 64) + 3].any()
    assert not lines[:10].any()


def test_the_grid_is_that_of_the_layers_cells():
    plain, gridded = panel(Display()), panel(Display(grid=True))
    drawn = (plain != gridded).any(axis=2)
    assert drawn[:, [16, 32, 48]].all()
    assert drawn[[12, 24, 36]].all()
    assert not drawn[1:11, 1:15].any()


def test_columns_fold_a_sheet():
    maps = [heatmap(method=name) for name in ("a", "b", "c", "d")]
    wide = sheet.contact_sheet(photo(), maps)
    folded = sheet.contact_sheet(photo(), maps, display=Display(columns=2))
    assert folded.width < wide.width
    assert folded.height > wide.height


@pytest.mark.parametrize("wrong", [{"alpha": 2.0}, {"alpha": -1.0}, {"colormap": "viridi"}])
def test_looks_that_there_are_not(wrong):
    with pytest.raises(UsageError):
        Display(**wrong)


# -- scales ----------------------------------------------------------------------------------------


def test_a_scale_has_two_sides_where_something_is_negative():
    assert not scale_of(heatmap(np.eye(4), signed=True)).signed
    assert scale_of(heatmap(np.eye(4) - 0.1, signed=True)).signed


def test_maps_of_one_method_share_a_scale_in_a_row(monkeypatch):
    texts, put = [], Page.at
    monkeypatch.setattr(
        Page,
        "at",
        lambda page, at, text, *a, **k: (texts.append(text), put(page, at, text, *a, **k)),
    )
    maps = [heatmap(np.eye(4) * n, options={"n": n}) for n in (1, 3)]
    assert common_scale(maps).limit == scale_of(maps[1]).limit
    sheet.contact_sheet(photo(), [*maps, heatmap(np.eye(4), method="cam")])
    assert [text for text in texts if text[0].isdigit()] == ["0", "3", "0", "3", "0", "1"]


# -- text ------------------------------------------------------------------------------------------

HAN = "\u864e"  # tiger


def make_font(path, character):
    """A font with one character, a square."""
    pen = TTGlyphPen(None)
    for step, place in enumerate([(0, 0), (0, 700), (700, 700), (700, 0)]):
        (pen.lineTo if step else pen.moveTo)(place)
    pen.closePath()
    square = pen.glyph()
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder([".notdef", "square"])
    made.setupCharacterMap({ord(character): "square"})
    made.setupGlyf({".notdef": square, "square": square})
    made.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    made.save(path)


@pytest.mark.parametrize(
    "text",
    [
        "cat",
        "h\u00e9risson \u0151\u015f",
        "\u03b3\u03ac\u03c4\u03b1",
        "\u043a\u043e\u0448\u043a\u0430",
    ],
)
def test_latin_greek_and_cyrillic_need_no_font_of_the_system(system_fonts, text):
    assert fonts.legible(text)
    assert heading(heatmap(label=text).attribution)[0] == text
    drawn = np.asarray(png.overlay(photo(), heatmap(label=text)))
    boxes = np.asarray(png.overlay(photo(), heatmap(label="\u25a1" * len(text))))
    assert drawn.shape != boxes.shape or (drawn != boxes).any()


def test_a_script_without_a_font_goes_by_its_number_and_says_so(system_fonts):
    found = heatmap(label=HAN).attribution
    assert not fonts.legible(HAN)
    with pytest.warns(InspectorWarning, match="install Noto Sans CJK"):
        heading(found)
    assert heading(found) == ("class 3", "probability 0.900 · score 2.5")
    assert "no font of this machine" in illegible(found)
    plain = png.overlay(photo(), heatmap())
    assert png.overlay(photo(), heatmap(label=HAN)).height > plain.height  # by the warning


def test_a_font_of_the_system_is_found(system_fonts):
    (system_fonts / "damaged.ttf").write_bytes(b"no font")
    make_font(system_fonts / "square.ttf", HAN)
    assert fonts.legible(f"cat {HAN}")
    assert heading(heatmap(label=HAN).attribution)[0] == HAN
    runs = fonts._runs(f"cat {HAN} 3")
    assert "".join(text for _, text in runs) == f"cat {HAN} 3"
    assert [path.endswith("square.ttf") for path, _ in runs] == [False, True, False]
    assert fonts.width_of(HAN, 20) == pytest.approx(17, abs=1)


# -- SVG and PDF -----------------------------------------------------------------------------------


def test_text_stays_text_in_svg():
    figure = png.overlay(
        photo(), heatmap(label="\u043a\u043e\u0448\u043a\u0430 $1^2$ <b>"), model="net.onnx"
    )
    data = vector.dumps(figure, "svg")
    assert data == vector.dumps(figure, "svg")
    words = " ".join("".join(one.itertext()).strip() for one in ET.fromstring(data).iter())  # noqa: S314 - ours
    assert "\u043a\u043e\u0448\u043a\u0430 $1^2$ <b>" in words
    assert "net.onnx" in words


def test_pdf_is_one_page_of_the_figures_size():
    figure = png.overlay(photo(), heatmap())
    data = vector.dumps(figure, "pdf")
    assert data.startswith(b"%PDF-")
    width, height = (round(side * 0.72, 2) for side in figure.size)
    assert f"/MediaBox [ 0 0 {width:g} {height:g} ]".encode() in data
    assert vector.dumps(Image.new("RGB", (8, 8)), "pdf").startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.0%"), (1e-9, "<0.1%"), (0.5, "50.0%"), (0.9999992, ">99.9%")]
)
def test_a_probability_is_certain_only_where_it_is(share, text):
    assert percent(share, 1) == text


def test_characters_in_a_row_that_no_font_has_are_one_mark(system_fonts):

    assert fonts.width_of("猫猫猫猫.png", 20) == fonts.width_of("猫.png", 20)
    assert fonts.width_of("猫a猫.png", 20) > fonts.width_of("猫.png", 20)
    assert not fonts.legible("猫猫")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("猫.png", "Noto Sans CJK"),
        ("ねこ", "Noto Sans CJK"),
        ("고양이", "Noto Sans CJK"),
        ("แมว", "Noto Sans Thai|Raqm"),
        ("बिल्ली", "Noto Sans Devanagari|Raqm"),
        ("ꦏꦸꦕꦶꦁ", "Noto Sans Javanese"),
        ("cat \U0001f996", "font with symbols"),
    ],
)
def test_text_that_is_drawn_without_its_font_is_warned_of_once(system_fonts, text, advice):
    with pytest.warns(InspectorWarning, match=advice) as caught:
        Page(400).paragraphs([text, f"{text} again"])
    assert len(caught) == 1
    assert f"characters of '{text.split()[-1]}'" in str(caught[0].message)


@pytest.mark.parametrize("text", ["h\u00e9risson", "γάτα", "кошка", "a \ufffd b", ""])
def test_text_that_has_its_font_is_not_warned_of(system_fonts, text):
    Page(400).text(text, 20)
    assert fonts.what_to_install(text) == ""


def test_a_missing_typeface_is_named_where_it_is_needed(system_fonts, monkeypatch):
    monkeypatch.setattr(fonts, "_own_path", lambda: None)
    assert fonts.what_to_install("plain é") == ""
    assert "pip install matplotlib" in fonts.what_to_install("кошка")


def test_a_photo_whose_name_no_font_has_is_warned_of(system_fonts):
    named = Photo.of(Image.new("RGB", (60, 40)), f"{HAN}.png")
    with pytest.warns(InspectorWarning, match=f"all characters of .*{HAN}.png"):
        png.overlay(named, heatmap())


def test_a_curve_is_named_in_a_font_of_the_system(system_fonts):
    def drawn(name):
        return np.asarray(
            line_chart([Series(name, [1, 2], x=[0, 1])], size=(160, 240), x_ticks=[(0, name)])
        )

    with pytest.warns(InspectorWarning, match="Noto Sans CJK"):
        lost = drawn(HAN)  # as one mark: Matplotlib's own warning of a missing letter is an error
    make_font(system_fonts / "square.ttf", HAN)
    for cached in (fonts._system_files, fonts._system_font, fonts._runs, fonts._characters):
        cached.cache_clear()
    found = drawn(HAN)
    assert (found != lost).any()
    assert (found != drawn("\N{REPLACEMENT CHARACTER}")).any()


def test_a_font_of_pictures_of_one_size_is_passed_over(system_fonts):
    """Colour emoji of usual machines: Pillow opens them at their own size alone."""
    make_font(system_fonts / "emoji.ttf", HAN)
    with TTFont(system_fonts / "emoji.ttf") as opened:
        opened["CBDT"] = DefaultTable("CBDT")
        opened["CBDT"].data = b""
        opened.save(system_fonts / "emoji.ttf")
    assert fonts.what_to_install(HAN)

"""Text on figures: lines that fit, numbers, headings."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from inspector.heatmap import Attribution
from inspector.render.drawing.fonts import draw_line
from inspector.render.drawing.page import MARKS, Page, fit, heading, number, width_of, wrap


def test_text_from_a_model_is_one_short_printable_line():
    evil = "cat\n\x1b[31mred\u202egnp.exe\u200b" + "x" * 10_000
    line = fit(evil, 14, 300)
    assert line.isprintable()
    assert width_of(line, 14) <= 300
    assert all(width_of(part, 12) <= 200 for part in wrap(evil + " word" * 90, 12, 200))
    assert len(wrap("word " * 500, 12, 200)) == 3
    assert wrap("", 12, 200) == []


def test_lines_are_shortened_in_the_middle():
    line = fit("/layer4/layer4.2/relu_2/Relu_output_0", 14, 120)
    assert line.startswith("/la")
    assert line.endswith("t_0")
    assert "…" in line


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (0.123456, "0.123"),
        (-11.26, "-11.3"),
        (1e-7, "1.00e-07"),
        (123456, "1.23e+05"),
        (0.0274, "0.0274"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_the_heading_names_what_is_known():
    full = Attribution(np.eye(2), "layer", "cam", label="cat", index=3, score=2.5, probability=0.9)
    assert heading(full) == ("cat", "class 3 · probability 0.900 · score 2.5")
    tiny = Attribution(np.eye(2), "layer", "cam", label="cat", probability=1e-9)
    assert heading(tiny) == ("cat", "probability < 0.001")
    assert heading(Attribution(np.eye(2), "layer", "cam", tensor="out[0]")) == ("out[0]", "")


def test_a_text_without_a_width_goes_on_in_a_second_line():
    page = Page(300)
    page.text("above the patch that the unit sees, below the projection of its activation", 14)
    drawn = page.finish().info[MARKS]
    lines = ["".join(piece.text for piece in mark.pieces) for mark in drawn if mark.pieces]
    assert len(lines) == 2
    assert "…" not in "".join(lines)
    assert all(width_of(line, 14) <= page.inner for line in lines)
    narrow = Page(300)
    narrow.text("one line of a column that is too long for it", 14, width=80)
    assert len(narrow.finish().info[MARKS]) == 1


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no Raqm")
@pytest.mark.parametrize("word", ["קובץ", "قطة"])
def test_a_separator_behind_a_word_from_right_to_left_stands_behind_it(word):
    draw = ImageDraw.Draw(Image.new("RGB", (400, 40)))
    pieces = draw_line(draw, (0, 0), f"photo {word}.png", 14, (0, 0, 0))
    assert [piece.text for piece in pieces] == ["photo ", word, ".png"]

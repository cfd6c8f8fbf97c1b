"""Text on figures: lines that fit, numbers, headings."""

import numpy as np
import pytest

from inspector.heatmap import Attribution
from inspector.render.drawing.page import fit, heading, number, width_of, wrap


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

"""The one reader of numbers and plain data that somebody else wrote."""

import pytest

from converters.plain_values import (
    LARGEST,
    finite_number,
    parse_json,
    parse_literal,
    parse_toml,
    parse_yaml,
    quoted,
    whole_number,
)

DIGITS = "9" * 5000


WHOLE = {
    "12": 12,
    " -3 ": -3,
    "+3": 3,
    str(LARGEST): LARGEST,
    str(LARGEST + 1): None,
    DIGITS: None,
    "\u0663": None,  # a digit of another script
    "\u00b2": None,  # "decimal" for some, no number for int()
    "--5": None,
    "1.0": None,
    "": None,
    "1_0": None,
}


def test_whole_numbers():
    assert {text: whole_number(text) for text in WHOLE} == WHOLE


def test_finite_numbers():
    assert [finite_number(value) for value in (3, 0.5, -(10**300))] == [3.0, 0.5, -1e300]
    for value in (float("inf"), float("nan"), 10**400, True, "3", None, [3], 1j):
        assert finite_number(value) is None


def test_documents_are_read():
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, "b", null, true]}') == {
        "a": [1, 2.5, "b", None, True]
    }
    assert parse_toml("a.b = [1, 2]\nc = 'x'") == {"a": {"b": [1, 2]}, "c": "x"}
    assert parse_literal("{0: 'a', 1: ('b', -2)}") == {0: "a", 1: ("b", -2)}
    assert parse_json('"' + "[" * 100 + '"') == "[" * 100  # brackets in text nest nothing
    assert parse_json("1e999", finite=False) == float("inf")


BROKEN = {
    parse_json: [
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 5_000,
        "[" * 17 + "]" * 17,
        "NaN",
        "1e999",
        "-Infinity",
        DIGITS,
        "9" * 400,
        '{"a": [' + "9" * 25 + "]}",
        b"\xff\xfe",
        '["a"',
    ],
    parse_toml: [
        "a",
        "a = " + "[" * 5_000,
        "a = " + "[" * 17 + "]" * 17,
        "a." * 5_000 + "b = 1",
        "a = inf",
        "a = nan",
        f"a = {DIGITS}",
        "a = 0x" + "f" * 20_000,
        "a = " + "9" * 400,
        "a = {b = " * 500,
        "\0",
    ],
    parse_literal: [
        "",
        "[" * 5_000,
        "[" * 17 + "]" * 17,
        "-" * 50_000 + "1",
        "1e999",
        f"[{DIGITS}]",
        "9" * 400,
        "f()",
        "{[]: 1}",
        "a" * (5 << 20),
        "1 +" * 20_000 + "1",
        "a\0b",
        "{" + DIGITS[:400] + ": 'a'}",
    ],
}


@pytest.mark.parametrize("parse", BROKEN)
def test_whatever_cannot_be_read_is_a_sentence(parse):
    for text in BROKEN[parse]:
        with pytest.raises(ValueError, match=r".") as caught:
            parse(text)
        assert len(str(caught.value)) < 200, text[:20]
        assert "set_int_max_str_digits" not in str(caught.value), text[:20]


def test_a_value_in_a_message_is_short_and_printable():
    for value in ("x" * 10**6, 16**20_000, [[[]]] * 10**5, "\x1b[2J\u202e", b"x"):
        text = quoted(value)
        assert len(text) <= 80
        assert text.isascii()
        assert text.isprintable()


NO_YAML = {
    "an alias": "a: &a [x]\nnames: *a\n",
    "a list of itself": "names: &a [*a]\n",
    "a merged mapping": "a: &a {k: v}\nb: {<<: [*a, *a]}\n",
    "an integer without digits": 'names: !!int ""\n',
    "a flag that is none": "names: !!bool perhaps\n",
    "a date that is none": "names: !!timestamp never\n",
    "an object of Python": "!!python/object/apply:os.getcwd []\n",
    "lists within lists": "[" * 5000,
    "a little deeper than is read": "[" * 17 + "]" * 17,
    "digits without end": f"nc: {DIGITS}\n",
    "more than is read": "a" * (1 << 21),
    "a control character": "names: [\x01]\n",
}


@pytest.mark.parametrize("text", NO_YAML.values(), ids=NO_YAML)
def test_yaml_that_is_not_plain_data_is_one_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - any, with a clause for people
        parse_yaml(text)


def test_yaml_is_read():
    assert parse_yaml("nc: 2\nnames:\n  0: dog\n  1: big cat\n") == {
        "nc": 2,
        "names": {0: "dog", 1: "big cat"},
    }


def test_aliases_do_not_grow():
    """A kilobyte of aliases, which as text would be a list of a hundred million names."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml("\n".join([*lines, "names: [*a7, *a7]"]))

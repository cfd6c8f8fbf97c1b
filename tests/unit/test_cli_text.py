"""What a stranger's model may put on the terminal."""

from inspector.cli.check import _shown
from inspector.printable import clean_text, distinct_text


def test_nothing_of_a_model_reaches_the_terminal_as_a_control_character():
    escape = "a\x1b[2Jb"
    for value in (escape, [escape], (escape,), {escape: escape}, {"k": [escape]}):
        assert _shown(value).isprintable(), value
    assert _shown([]) == "none"


def test_name_that_cannot_be_decoded_is_not_shown_as_nothing():
    name = b"\xff\xfe\xe9 \x1b[2J.png".decode(errors="surrogateescape")
    assert clean_text(name) == "\ufffd\ufffd\ufffd [2J.png"
    assert distinct_text(b"\xff.png".decode(errors="surrogateescape")) != distinct_text(
        b"\xfe.png".decode(errors="surrogateescape")
    )

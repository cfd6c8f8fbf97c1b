"""What a stranger's model may put on the terminal."""

from inspector.cli.check import _shown


def test_nothing_of_a_model_reaches_the_terminal_as_a_control_character():
    escape = "a\x1b[2Jb"
    for value in (escape, [escape], (escape,), {escape: escape}, {"k": [escape]}):
        assert _shown(value).isprintable(), value
    assert _shown([]) == "none"

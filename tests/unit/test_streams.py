"""The one door to standard output and standard error."""

import io
import json
import os
import re
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from inspector.cli import streams
from inspector.errors import UsageError
from inspector.printable import distinct_text, safe_lines

EVIL = "a\x1b[2Jb\x07\x9b31m\u202ec\u2066d\x00\x7f\ud800\u2028e"
"""Escapes, the C1 introducer, NUL, DEL, bidirectional controls, half a pair, a line separator."""


def _is_safe(text):
    return all(character == "\n" or character.isprintable() for character in text)


def test_safe_lines_keep_every_place():
    assert len(safe_lines(EVIL)) == len(EVIL)
    assert _is_safe(safe_lines(EVIL))
    assert safe_lines("two\nlines  apart \u00e9\u732b") == "two\nlines  apart \u00e9\u732b"


def test_distinct_texts_stay_distinct():
    texts = [
        EVIL,
        EVIL + "\x00",
        "a b",
        "a  b",
        "x" * 200,
        "x" * 201,
        "x" * 202,
        "\ud800",
        "\udfff",
    ]
    shown = [distinct_text(text) for text in texts]
    assert len({*shown}) == len(texts)
    assert all(_is_safe(text) and len(text) <= 200 for text in shown)
    assert shown[2] == "a b"
    assert shown[4] == texts[4]


def test_whatever_a_caller_forgot_is_made_safe(capsys):
    streams.show(EVIL, (EVIL, {"fg": "red"}))
    streams.say(EVIL)
    streams.show_json({EVIL: EVIL})
    table = Table()
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL))
    console = streams.table_console()
    console.print(table)
    console.print(Text.assemble((EVIL, "bold"), EVIL))
    console.print()
    try:
        int(EVIL)
    except ValueError:
        streams.show_traceback()
    out, err = capsys.readouterr()
    assert _is_safe(out)
    assert _is_safe(err)
    assert "error: a [2Jb 31m c d" in err


def test_no_line_of_a_table_in_a_pipe_ends_with_spaces(capsys):
    table = Table(box=None, padding=(0, 2))
    table.add_column("name", width=40)
    table.add_row("a")
    table.add_row("b c")
    streams.table_console().print(table)
    lines = capsys.readouterr().out.split("\n")
    assert [line.strip() for line in lines] == ["name", "a", "b c", ""]
    assert all(line == line.rstrip() for line in lines)


def test_json_says_what_it_said(capsys):
    streams.show_json({"name": "\u732b\x7f\x1b\u202e", "n": [1, 2.5, None]}, indent=2)
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "\u732b\x7f\x1b\u202e", "n": [1, 2.5, None]}


def test_a_character_that_the_encoding_lacks_stops_nothing(monkeypatch):
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, buffer in written.items():
        stream = io.TextIOWrapper(buffer, encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, name, stream)
    streams.ready()
    streams.show("caf\u00e9 \u732b")
    streams.say("\u732b")
    streams.table_console().print(Text("\u732b"))
    assert written["stdout"].getvalue() == b"caf\\xe9 \\u732b\n\\u732b\n"
    assert written["stderr"].getvalue() == b"error: \\u732b\n"


def test_one_message_is_not_endless(capsys):
    streams.say("x" * 10**6)
    assert len(capsys.readouterr().err) < 6000


class _Full(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        del text
        raise self.error


@pytest.mark.parametrize(
    "write", [lambda: streams.show("a"), lambda: streams.table_console().print("a")]
)
def test_a_full_output_is_a_sentence_and_a_closed_one_is_none(monkeypatch, write):
    monkeypatch.setattr(sys, "stdout", _Full(OSError(28, "No space left on device")))
    with pytest.raises(UsageError, match=r"standard output: cannot be written to .No space left"):
        write()
    monkeypatch.setattr(sys, "stdout", _Full(BrokenPipeError(32, "Broken pipe")))
    with pytest.raises(BrokenPipeError):
        write()


def test_an_error_is_never_an_error_itself(monkeypatch):
    monkeypatch.setattr(sys, "stderr", _Full(OSError(28, "No space left on device")))
    streams.say("lost")


@pytest.mark.skipif(os.name != "posix", reason="descriptors of POSIX")
def test_closed_streams_lead_nowhere():
    code = (
        "import os; os.close(0); os.close(1); os.close(2); import sys; sys.stdout = None\n"
        "from inspector.cli import streams; streams.ready()\n"
        "streams.show('lost'); streams.say('lost')\n"
        "os._exit(0 if os.open('/dev/null', os.O_RDONLY) > 2 else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0  # noqa: S603


class Terminal(io.StringIO):
    """Keeps what is written to a terminal."""

    def isatty(self):
        return True

    def screen(self):
        """The lines that stand on it in the end."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif part == "\r":
                column = 0
            elif part == "\x1b[1A":
                row -= 1
            elif part == "\x1b[2K":
                lines[row] = ""
            elif not part.startswith("\x1b"):
                lines[row] = (
                    lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
                )
                column += len(part)
        return lines


@pytest.mark.parametrize("photos", [1, 2])  # of several, the bar takes two lines
def test_what_is_printed_beside_a_bar_stands_above_it_and_none_of_it_stays(monkeypatch, photos):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    with streams.progress_bar("2 image(s)") as advance:
        advance(streams.PHOTOS, 0, photos)
        advance("occlusion", 3, 8)
        streams.show("first")
        streams.say("second", "note")
        with streams.above_the_bar():
            streams.show("third")
            streams.show("fourth")
        advance(streams.PHOTOS, 1, photos)
        assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" in stream.getvalue()
    streams.show("last")
    assert stream.screen() == ["first", "note: second", "third", "fourth", "last", ""]


def test_standard_output_in_a_pipe_is_not_sent_to_the_terminal_of_the_bar(monkeypatch):
    stream, pipe = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setenv("TERM", "xterm")
    with streams.progress_bar("1 image(s)"):
        sys.stdout.write("numbers\n")  # whoever goes past the door
        streams.show("more")
    assert pipe.getvalue() == "numbers\nmore\n"
    assert "more" not in stream.getvalue()


def test_a_name_in_brackets_is_a_name(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with streams.progress_bar("[/red]" + EVIL) as advance:
        assert advance is not None
        advance("[/bold]a.png\x1b]0;title\x07", 1, 2)
    shown = stream.getvalue()
    assert "[/bold]a.png" in shown
    assert "\x1b]0" not in shown
    assert "\u202e" not in shown

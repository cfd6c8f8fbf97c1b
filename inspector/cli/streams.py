"""Standard output and standard error: the one door through which commands write to them.

What a stranger named (tensors, files, class names) reaches a terminal as printable text: control
characters, terminal escapes, bidirectional overrides and halves of surrogate pairs become spaces,
whatever a caller forgot.  A character that the stream's encoding does not have is written as its
escape and stops nothing.  A reader that has gone ends the run without a word; a disk that is full
ends it with a sentence.
"""

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import click

from inspector.errors import UsageError
from inspector.printable import clean_text, safe_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

__all__ = [
    "Styled",
    "above_the_bar",
    "forget_stdout",
    "progress_bar",
    "ready",
    "say",
    "say_usage",
    "show",
    "show_json",
    "show_traceback",
    "table_console",
]

Styled = tuple[str, dict[str, Any]]
"""Text, and how ``click.style`` is to colour it."""

_LONGEST = 5000
"""Characters of one message; the findings on a model that contradicts itself are the longest."""

_ESCAPED_IN_JSON = re.compile(r"[^\x20-\x7e\n]")


def ready() -> None:
    """Make both streams ready: open, and able to write every character.

    A process that was started with a closed stream gets one that leads nowhere; without, the next
    file that is opened would take its number, and native libraries would write into that file.
    """
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        with contextlib.suppress(OSError):
            try:
                os.fstat(number)
            except OSError:
                # The lowest free number is taken, which is this one.
                os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123 - stays open
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a test runner's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def show(*parts: str | Styled) -> None:
    """Lines on standard output, made of parts that may be coloured.

    Raises:
        UsageError: Standard output cannot be written to.
        BrokenPipeError: Its reader has gone.
    """
    _write(sys.stdout, "".join(map(_safe, parts)) + "\n")


def show_json(document: Any, **options: Any) -> None:
    """A document on standard output, in ASCII.

    Args:
        document: Plain data.
        options: As for ``json.dumps``.

    Raises:
        UsageError: Standard output cannot be written to.
        BrokenPipeError: Its reader has gone.
    """
    text = json.dumps(document, **options)
    _write(sys.stdout, _ESCAPED_IN_JSON.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")


def say(text: str, kind: str = "error") -> None:
    """One line on standard error: never an error itself."""
    colour = "red" if kind == "error" else "yellow"
    _on_stderr(f"{click.style(kind, fg=colour)}: {clean_text(text, limit=_LONGEST)}\n")


def show_traceback() -> None:
    """The traceback of the exception that is being handled, on standard error."""
    import traceback

    _on_stderr(safe_lines(traceback.format_exc()))


def say_usage(error: click.ClickException) -> None:
    """What is wrong with the command that was typed, and how it is written."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the help
        _on_stderr(safe_lines(f"{error.format_message()}\n"))
        return
    context = getattr(error, "ctx", None)
    if context is not None:
        _on_stderr(safe_lines(f"{context.get_usage()}\n"))
        _on_stderr(safe_lines(f"Try '{context.command_path} --help' for help.\n\n"))
    _on_stderr(f"Error: {clean_text(error.format_message(), limit=_LONGEST)}\n")


def table_console() -> "Console":
    """A console for tables on standard output.

    Wide in a pipe, where nothing needs to fit a window; every text that is printed through it is
    made safe, whatever the caller has done.
    """
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment

    class Safe:
        """Anything that can be printed, its text made safe."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for part in console.render(self.inner, options):
                yield Segment(safe_lines(part.text), part.style, part.control)

    class Door(Console):
        """The console, which wraps what it prints."""

        def print(self, *objects: Any, **options: Any) -> None:
            with above_the_bar(), _printing(sys.stdout):
                if sys.stdout.isatty():
                    super().print(*map(Safe, objects), **options)
                else:  # a pager's window would break lines that are filled up with spaces
                    with self.capture() as printed:
                        super().print(*map(Safe, objects), **options)
                    lines = printed.get().split("\n")
                    sys.stdout.write("\n".join(line.rstrip(" ") for line in lines))
                sys.stdout.flush()

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Door(highlight=False, width=None if sys.stdout.isatty() else 160)


@contextmanager
def _printing(stream: IO[str]) -> Iterator[None]:
    """Turns a stream that cannot be written to into an error for people."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget(stream)
        reason = error.strerror or str(error)
        raise UsageError(f"cannot be written to ({reason})", where="standard output") from None


def forget_stdout() -> None:
    """Let buffered output for a reader that has gone go nowhere, without a message."""
    _forget(sys.stdout)


def _safe(part: str | Styled) -> str:
    if isinstance(part, str):
        return safe_lines(part)
    text, style = part
    return click.style(safe_lines(text), **style)


def _write(stream: IO[str], text: str) -> None:
    with above_the_bar(), _printing(stream):
        click.echo(text, file=stream, nl=False)
        stream.flush()


def _on_stderr(text: str) -> None:
    try:
        with above_the_bar():
            click.echo(text, file=sys.stderr, nl=False)
            sys.stderr.flush()
    except (OSError, ValueError):
        _forget(sys.stderr)


def _forget(stream: IO[str]) -> None:
    """Turn a stream that cannot be written to into one that leads nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Bar:
    """A bar at the bottom of the terminal, which is taken away while something is printed.

    Args:
        live: Makes what draws it. Each is used once: shown again, Rich's would erase as many of
            the lines that were printed meanwhile as it had itself.
    """

    def __init__(self, live: "Callable[[], Live]") -> None:
        self._live = live
        self._shown: Live | None = None
        self._lock = threading.RLock()
        self._printing = 0

    def show(self) -> None:
        """Draw it from now on."""
        self._shown = self._live()
        self._shown.start(refresh=True)

    def hide(self) -> None:
        """Erase it."""
        if self._shown is not None:
            self._shown.stop()
        self._shown = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nothing of it on the terminal."""
        with self._lock:
            self._printing += 1
            if self._printing == 1:
                self.hide()
            try:
                yield
            finally:
                self._printing -= 1
                if self._printing == 0:
                    self.show()


_BARS: list[_Bar] = []
"""The bar that is on the terminal now, if there is one."""


@contextmanager
def above_the_bar() -> Iterator[None]:
    """What is printed inside stands above a progress bar, and leaves nothing of it behind.

    Whatever is printed does so by itself; around several lines it spares drawing the bar between.
    """
    with _BARS[-1].away() if _BARS else contextlib.nullcontext():
        yield


PHOTOS = "photos"
"""What is counted, where it is photos: their bar stays, and says how many are done per second."""


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on standard error, on a terminal only; called with (what, done, total).

    Photos have a bar of their own, above that of the work on one of them.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Photos per second."""

        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            known = rate is not None and task.description == PHOTOS
            return Text(f"{rate:.1f} photos/s" if known else "")

    # Without markup: a name in brackets is a name.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, auto_refresh=False)
    task = bar.add_task(clean_text(title), total=None)
    photos = bar.add_task(PHOTOS, visible=False)

    def live() -> Live:
        # What is printed has its own door, and goes where it is sent.
        return Live(
            bar,
            console=console,
            transient=True,
            refresh_per_second=10,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    _BARS.append(_Bar(live))
    try:
        _BARS[-1].show()

        def advance(what: str, done: int, total: int) -> None:
            if what == PHOTOS:
                bar.update(photos, completed=done, total=total or None, visible=total > 1)
                # One of the two is always there: Rich before 14.1 leaves a blank line of no bar.
                bar.update(task, visible=total <= 1)
            else:
                name = clean_text(what)
                bar.update(
                    task, description=name, completed=done, total=total or None, visible=True
                )

        yield advance
    finally:
        _BARS.pop().hide()

"""What commands that take many photos share: folders of them, and a progress bar."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

__all__ = ["PICTURES", "pictures", "progress_bar"]

PICTURES = frozenset({
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm",
})  # fmt: skip
"""What is taken from a folder; a file that is named is tried whatever it is called."""


def pictures(images: Sequence[Path]) -> Iterator[Path]:
    """Files as given; folders become the picture files directly inside them.

    Raises:
        UsageError: a folder without any.
    """
    for path in images:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
            if not inside:
                raise click.UsageError(f"no picture files in folder {path}")
            yield from inside
        else:
            yield path


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on standard error, on a terminal only; called with (what, done, total)."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - late: not needed in a pipe
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield advance

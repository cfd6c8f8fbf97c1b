"""The command line: parse, one library call, print.

Each command is a file of this folder, named as the command, with a ``command`` in it.  They are
imported when they are called, and heavy libraries inside them, so that ``--help`` is immediate.
"""

import gc
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import click

from converters.plain_values import quoted
from inspector.cli.streams import ready, say

__all__ = ["CommandGroup", "Commands", "main", "program", "say"]


class CommandGroup(click.Group):
    """A group of commands: whole summaries in its help, suggestions for a mistyped name."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their first sentences, which are never cut."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(1000)) for name, one in found if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names.

        Raises:
            click.UsageError: There is none, with those that are spelled alike.
        """
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            import difflib

            near = difflib.get_close_matches(word, self.list_commands(ctx), n=3, cutoff=0.6)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {quoted(word)}.{hint}")
        return super().resolve_command(ctx, args)


class Commands(CommandGroup):
    """A group whose commands are the modules of ``inspector.cli``; a file is explained."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names; ``explain`` where it names a model."""
        if _is_model(args[0], self.list_commands(ctx)):
            args = ["explain", *args]
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        del ctx
        plumbing = {"completion", "options", "rights", "streams", "supervise", "terminal"}
        return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in plumbing)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command


def _is_model(word: str, commands: Sequence[str]) -> bool:
    """Whether the first word is a file or folder rather than a mistyped command."""
    if word in commands or word.startswith("-"):
        return False
    separators = filter(None, (os.sep, os.altsep))
    return bool(Path(word).suffix) or any(one in word for one in separators) or Path(word).exists()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnx-inspector", prog_name="inspector")
def program() -> None:
    """Show where an ONNX vision model looks, why, and whether the picture can be trusted.

    `inspector MODEL IMAGE...` is `inspector explain MODEL IMAGE...`.

    Exit status: 0 done; 1 a gate that you set failed; 2 usage; 3 the model is refused; 4 an
    image is refused (the others are done); 5 a limit or the time ran out; 6 the installation is
    broken (see `inspector doctor`); 128 + n ended by signal n (130: interrupted).
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every error becomes one line and a status here."""
    # A command makes its objects once: looking through all of them again and again for rings that
    # nobody holds takes a twentieth of a short command's time, and finds next to none.
    gc.set_threshold(_BETWEEN_COLLECTIONS)
    sys.exit(run(arguments))


_BETWEEN_COLLECTIONS = 20_000
"""Objects made and not given back between two rounds of the garbage collector; Python has 700."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; a text for whatever went wrong."""
    ready()
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    from inspector.cli.supervise import outcome

    return outcome(lambda: program.main(arguments, prog_name="inspector", standalone_mode=False))


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Show this package's warnings in its own form, and keep other libraries' to themselves."""
    from inspector.errors import InspectorWarning

    if issubclass(category, InspectorWarning):
        say(str(message), "warning")

"""The command line: parse, one library call, print.

Each command is a file of this folder, named as the command, with a ``command`` in it.  They are
imported when they are called, and heavy libraries inside them, so that ``--help`` is immediate.
"""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence

import click

from inspector.cli.streams import ready, say

__all__ = ["Commands", "main", "program", "say"]


class Commands(click.Group):
    """A group whose commands are the modules of ``inspector.cli``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        del ctx
        plumbing = {"options", "rights", "streams", "supervise", "terminal"}
        return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in plumbing)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None when there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnx-inspector", prog_name="inspector")
def program() -> None:
    """Show where an ONNX vision model looks, why, and whether the picture can be trusted.

    Exit status: 0 done; 1 a gate that you set failed; 2 usage; 3 the model is refused; 4 an
    image is refused (the others are done); 5 a limit or the time ran out; 6 the installation is
    broken (see `inspector doctor`); 128 + n ended by signal n (130: interrupted).
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; every error becomes one line and a status here."""
    sys.exit(run(arguments))


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

"""``inspector study``: the papers' experiments; a sub-command for each file of the studies."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli import say
from inspector.cli.options import model_options, open_model, supervised
from inspector.cli.terminal import pictures, progress_bar

if TYPE_CHECKING:
    from inspector.study import Study

IMAGE_REFUSED = 4


class _Studies(click.Group):
    """A group whose commands are the studies."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all studies."""
        from inspector.study import studies  # noqa: PLC0415 - keeps `inspector --help` lean

        del ctx
        return list(studies())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a study; None when there is none of that name."""
        from inspector.study import studies  # noqa: PLC0415 - as above

        del ctx
        found = studies().get(cmd_name)
        return None if found is None else _command(found)


@click.group("study", cls=_Studies)
def command() -> None:
    """Do one of the papers' experiments on a model: a figure and its numbers."""


def _command(study: "Study") -> click.Command:
    """A study as a command; its options are the function's."""

    @click.command(study.name, help=study.documentation)
    @click.argument("model", type=click.Path(path_type=Path))
    @click.argument("images", metavar="IMAGE..." if study.images else "[IMAGE]...", nargs=-1,
                    required=study.images, type=click.Path(path_type=Path))  # fmt: skip
    @click.option("-o", "--output", metavar="DIR", default="inspection", show_default=True,
                  type=click.Path(file_okay=False, path_type=Path),
                  help=f"Folder for {study.name}.png and {study.name}.json.")  # fmt: skip
    @click.option("--json", "as_json", is_flag=True,
                  help="Print the report as JSON on standard output and nothing else.")  # fmt: skip
    @model_options
    def run(**options: Any) -> int:  # noqa: ANN401 - click's keyword arguments
        limits = {name: options.pop(name) for name in ("timeout", "memory")}
        return supervised(lambda: _study(study, **options), device=options["device"], **limits)

    run.params[2:2] = [_option(option.name, option.default, option.help)
                       for option in study.options.values()]  # fmt: skip
    return run


def _option(name: str, default: Any, text: str) -> click.Option:  # noqa: ANN401 - of any type
    kind = str if default is None else type(default)
    return click.Option(
        [f"--{name.replace('_', '-')}", name], type=kind, default=default, help=text,
        metavar={int: "N", float: "X"}.get(kind, "TEXT"), show_default=default is not None,
    )  # fmt: skip


def _study(
    study: "Study",
    *,
    model: Path,
    images: Sequence[Path],
    output: Path,
    as_json: bool,
    device: str,
    preprocess: str | None,
    overrides: Sequence[str],
    labels: Path | None,
    **options: Any,  # noqa: ANN401 - the study's own
) -> int:
    explainer = open_model(
        model, device=device, preprocess=preprocess, overrides=overrides, labels=labels
    )
    paths = list(pictures(images))
    with progress_bar(f"{len(paths)} image(s)") as progress:
        found = study.function(explainer, paths, **options, progress=progress)
    written = found.save(output)
    for text in found.warnings:
        say(text, "warning")
    for error in found.refused:
        say(str(error))
    if as_json:
        sys.stdout.write(written[-1].read_text(encoding="utf-8"))
    else:
        for sentence in found.sentences:
            click.echo(_clean(sentence))
        click.echo("\n" + "\n".join(str(path) for path in written))
    return IMAGE_REFUSED if found.refused else 0


def _clean(text: str) -> str:
    """What names from a file may put on a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

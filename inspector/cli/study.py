"""``inspector study``: the papers' experiments; a sub-command for each file of the studies."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli import CommandGroup, say
from inspector.cli.options import (
    OPENING,
    Command,
    Number,
    WholeNumber,
    json_report,
    model_options,
    named_paths,
    open_model,
    output_folder,
    supervised,
)
from inspector.cli.streams import progress_bar, show, show_json
from inspector.declarations import Declaration, declarations
from inspector.errors import ImageRefused
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.passes.journal import Journal
    from inspector.studies import Findings, Study


class _Studies(CommandGroup):
    """A group whose commands are the studies; their help is read from the files' text."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all studies."""
        del ctx
        return sorted(_described())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a study; None when there is none of that name."""
        del ctx
        found = _described().get(cmd_name)
        return None if found is None else _command(found)


@cache
def _described() -> Mapping[str, Declaration]:
    """Every study's name, documentation and options; importing the studies takes a second."""
    if found := declarations("inspector.studies", "study"):
        return found
    from inspector.studies import studies

    return {
        name: Declaration(
            one.function.__module__,
            name,
            {"images": one.images, "labelled": one.labelled},
            one.documentation,
            one.options,
        )
        for name, one in studies().items()
    }


@click.group("study", cls=_Studies)
def command() -> None:
    """Do one of the papers' experiments on a model: a figure and its numbers."""


def _command(study: Declaration) -> click.Command:
    """A study as a command; its options are the function's."""

    @click.command(study.name, cls=Command, help=study.documentation)
    @click.argument("model", type=click.Path(path_type=Path))
    @click.argument(
        "images",
        metavar="IMAGE..." if study.facts["images"] else "[IMAGE]...",
        nargs=-1,
        required=study.facts["images"],
        type=click.Path(path_type=Path),
    )
    @output_folder(f"Folder for {study.name}.png, .csv and .json.")
    @json_report
    @click.option("--fresh", is_flag=True, help="Begin anew where an interrupted run could go on.")
    @model_options
    def run(**options: Any) -> int:
        limits = {name: options.pop(name) for name in ("timeout", "memory")}
        opening = {name: options.pop(name) for name in OPENING}

        def work() -> int:
            # The process that only waits loads nothing: what it holds costs time again at its end.
            from inspector.studies import study_named

            return _study(study_named(study.name), opening, **options)

        return supervised(work, device=opening["device"], **limits)

    own = [_option(option.name, option.default, option.help) for option in study.options.values()]
    run.params[2:2] = [*([_TRUTH] if study.facts.get("labelled") else []), *own]
    return run


_TRUTH = click.Option(
    ["--truth"],
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="F",
    help="CSV table of the photos' classes, columns image and label; else one folder per class.",
)


def _option(name: str, default: Any, text: str) -> click.Option:
    flag = [f"--{name.replace('_', '-')}", name]
    if isinstance(default, tuple):
        flag += ["-m"] if name == "method" else []  # as in `inspector explain`
        return click.Option(flag, multiple=True, metavar="TEXT", help=f"{text} May be repeated.")
    if isinstance(default, bool):
        return click.Option([f"{flag[0]}/--no-{flag[0][2:]}", name], default=default, help=text)
    kind = str if default is None else type(default)
    return click.Option(
        flag,
        type={int: WholeNumber(), float: Number()}.get(kind, kind),
        default=default,
        help=text,
        metavar={int: "N", float: "X"}.get(kind, "TEXT"),
        show_default=default not in (None, ""),
    )


def _study(
    study: "Study",
    opening: Mapping[str, Any],
    *,
    model: Path,
    images: Sequence[Path],
    output: Path,
    as_json: bool,
    fresh: bool,
    truth: Path | None = None,
    **options: Any,
) -> int:
    from inspector.photos.dataset import labelled_photos, pictures

    explainer = open_model(model, **opening)
    photos: Sequence[Any]
    if study.labelled:
        photos = labelled_photos(images, truth)
        paths = [photo.path for photo in photos]
    else:
        photos = paths = list(pictures(images, named_paths()))
    facts = {"study": study.name, "options": options, **explainer.context(None)}
    journal = _journal(output / f"{study.name}.partial.jsonl", facts, paths, fresh=fresh)
    try:
        with progress_bar(f"{len(paths)} image(s)" if paths else study.name) as progress:
            found = study.function(explainer, photos, **options, progress=progress, journal=journal)
    except KeyboardInterrupt:
        if journal.kept:
            say(f"{journal.kept} results are kept; the same command goes on from them", "note")
        raise
    finally:
        journal.close()
    written = found.save(output)
    journal.finish()
    _print(found, written, as_json=as_json)
    return ImageRefused.exit_status if found.refused else 0


def _journal(path: Path, facts: Mapping[str, Any], photos: list[Path], *, fresh: bool) -> "Journal":
    """What an interrupted run of the same study left, or an empty journal."""
    from inspector.passes.journal import Journal, discard, identity_of

    named = [Path(text) for text in _texts(facts["options"]) if len(text) < 4096]
    if fresh:
        discard(path)
    journal = Journal(path, identity_of(facts, [*photos, *named]))
    if journal.found:
        say(
            f"goes on where an interrupted run stopped ({journal.found} results); "
            "--fresh begins anew",
            "note",
        )
    return journal


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    """Texts among the options, of which some name files."""
    for value in options.values():
        yield from (
            v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, str) and v
        )


def _print(found: "Findings", written: Sequence[Path], *, as_json: bool) -> None:
    from inspector.render.json import plain

    for text in found.warnings:
        say(text, "warning")
    for error in found.refused:
        say(str(error))
    if as_json:
        show_json(plain(found.document()), indent=2, sort_keys=True, allow_nan=False)
        return
    for sentence in found.sentences:
        show(clean_text(sentence, limit=None))
    show("\n" + "\n".join(clean_text(str(path), limit=None) for path in written))

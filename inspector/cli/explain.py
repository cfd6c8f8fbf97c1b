"""``inspector explain``: heatmaps of photos."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.plain_values import quoted, whole_number
from inspector.cli import say
from inspector.cli.options import (
    Command,
    json_report,
    model_options,
    open_model,
    output_folder,
    supervised,
)
from inspector.cli.streams import progress_bar, show_json
from inspector.errors import ImageRefused, UsageError
from inspector.photos.dataset import pictures

if TYPE_CHECKING:
    from inspector.explain import Explainer
    from inspector.report import ImageReport


class _ExplainCommand(Command):
    """A command whose help lists every method and option from the code itself."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the methods' section."""
        from inspector.methods import methods

        del ctx
        with formatter.section("Methods"):
            rows = []
            for method in methods().values():
                rows.append((method.name, method.summary))
                rows += [
                    (f"  :{option.name}={option.default}", option.help)
                    for option in method.options.values()
                ]
            formatter.write_dl(rows, col_max=28)


@click.command("explain", cls=_ExplainCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-m",
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help="A method as listed below, with options as METHOD:option=value,option=value; "
    "may be repeated.  [default: grad-cam; hires-cam for a detector]",
)
@click.option(
    "--target",
    "targets",
    metavar="T",
    multiple=True,
    help="What to explain: top1, top3 (one map each), a class index, a label, or "
    "OUTPUT[i,j,...] for one element of any tensor; with a leading - the opposite direction; "
    "'sum(A; -B)' for several together; may be repeated, one map each. "
    "Of a detector also CLASS#2, box:LEFT,TOP,RIGHT,BOTTOM and CLASS@X,Y; of a segmenter "
    "CLASS@X,Y and mask:FILE; of a reader of text char:3.  [default: top1; the best three boxes "
    "of a detector, every character of a reader]",
)
@click.option(
    "--task",
    metavar="TASK",
    help="What the outputs mean: classifier, detector, segmenter, embedding, sequence or dense; "
    "detector:OUTPUT where boxes can be read in several ways.  "
    "[default: found out; `inspector check` says which]",
)
@click.option(
    "--similar-to",
    "similar_to",
    metavar="PHOTO",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Reference photo of an embedding: what makes the two alike is explained.",
)
@click.option(
    "--layer",
    metavar="L",
    help="Layer for the CAM methods: a tensor name as `inspector layers` prints it, "
    "an index, or last.  [default: the last convolution's activation]",
)
@click.option(
    "--bands",
    metavar="R,G,B",
    default="",
    help="Bands that are drawn of a file that holds more than colours (.npy, .npz, TIFF of several "
    "pages), counted from 1.  [default: 1,2,3; 1 where there are fewer]",
)
@output_folder("Folder for STEM.METHOD.png, STEM.METHOD.npz and STEM.json.")
@click.option(
    "--sheet",
    is_flag=True,
    help="Also write STEM.sheet.png: all methods and targets side by side; several items of a "
    "detector or segmenter are always drawn so.",
)
@json_report
@click.option(
    "--unverified",
    is_flag=True,
    help="Draw gradient methods even if the model's certificate (`inspector verify`) "
    "fails; the maps are labelled.",
)
@model_options
def command(**options: Any) -> int:
    """Show where MODEL looks in each IMAGE (files, or folders of them).

    Writes for each image an overlay picture and the numbers per method, and one report with
    hashes, versions, options and warnings.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _explain(**options), device=options["device"], **limits)


def _explain(
    *,
    model: Path,
    images: Sequence[Path],
    methods: Sequence[str],
    targets: Sequence[str],
    task: str | None,
    similar_to: Path | None,
    layer: str | None,
    bands: str,
    output: Path,
    sheet: bool,
    as_json: bool,
    unverified: bool,
    **opening: Any,
) -> int:
    from inspector.render.json import plain
    from inspector.report import file_stems

    explainer = open_model(model, **opening)
    explainer.unverified = unverified
    paths = list(pictures(images))
    stems = file_stems([path.name for path in paths])
    said: set[str] = set()
    _say_once(explainer.preprocessing.warnings, said)
    done: list[dict[str, Any]] = []
    refused: list[str] = []
    blank: list[ImageReport] = []
    drawn = 0
    with progress_bar(f"{len(paths)} image(s)") as progress:
        found = explainer.explain_each(
            paths,
            methods or None,
            target=targets or None,
            layer=layer,
            task=task,
            similar_to=similar_to,
            bands=_bands(bands),
            progress=progress,
        )
        for stem, item in zip(stems, found, strict=True):
            if isinstance(item, ImageRefused):
                say(str(item))
                refused.append(str(item))
                continue
            _say_once(item.warnings, said)
            if not item.explanations:
                blank.append(item)
                continue
            _say_once(_refusals(item), said)
            for explanation in item.explanations:
                source = f"{item.photo.name}, {explanation.label}: "
                _say_once([source + text for text in explanation.warnings], said)
            drawn += 1
            named = replace(item, stem=stem)
            several = len([one for one in named.items if one["explained"]]) > 1
            written = named.save(output, sheet=sheet or several)
            if as_json:
                done.append(plain(named.document()))
            else:
                _print(explainer, named, written)
    if blank and not drawn:
        raise blank[0].refused[0].error
    for item in blank:
        _say_once(_refusals(item), said)
    if as_json:
        show_json({"images": done, "refused": refused}, indent=2, sort_keys=True)
    return ImageRefused.exit_status if refused else 0


def _bands(text: str) -> tuple[int, ...]:
    """``3,2,1`` as numbers."""
    found = [whole_number(piece.strip()) for piece in text.split(",") if piece.strip()]
    if any(one is None or one < 1 for one in found):
        raise UsageError(f"--bands {quoted(text)}", hint="bands count from 1: --bands 3,2,1")
    return tuple(one or 1 for one in found)


def _refusals(item: "ImageReport") -> Iterator[str]:
    """What was asked for and not drawn; what holds for the model does not name the photo."""
    for refusal in item.refused:
        name = f"{item.photo.name}, " if refusal.target else ""
        yield f"{name}{refusal.method} is not drawn: {refusal.error}"


def _say_once(texts: Iterable[str], said: set[str]) -> None:
    """Print warnings, but what holds for the whole model not again for every photo."""
    for text in texts:
        if text not in said:
            said.add(text)
            say(text, "warning")


def _print(explainer: "Explainer", item: "ImageReport", written: Sequence[Path]) -> None:
    from inspector.cli.terminal import show_report

    del explainer
    show_report(item, written)

"""``inspector explain``: heatmaps of photos."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.plain_values import quoted, whole_number
from inspector.cli import completion, say
from inspector.cli.options import (
    Command,
    WholeNumber,
    display_of,
    display_options,
    json_report,
    model_options,
    named_paths,
    open_model,
    output_folder,
    supervised,
)
from inspector.cli.streams import above_the_bar, progress_bar, show, show_json
from inspector.earlier_files import NOTHING, WHEN, Earlier, When, earlier_files
from inspector.errors import ImageRefused, UsageError
from inspector.photos.own_figures import is_own_figure
from inspector.photos.sources import sources

if TYPE_CHECKING:
    from inspector.photos.photo import Photo
    from inspector.photos.video import Frame
    from inspector.render.drawing.display import Display
    from inspector.report import ImageReport
    from inspector.run import Progress

    _Source = Path | Frame | Photo


class _ExplainCommand(Command):
    """A command whose help lists every method and option from the code itself."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the methods' section."""
        del ctx
        with formatter.section("Methods"):
            rows = []
            for method in completion.described_methods():
                rows.append((method.name, method.summary))
                rows += [
                    (f"  :{option.name}={option.default}", option.help)
                    for option in method.options.values()
                ]
            formatter.write_dl(rows, col_max=28)


FORMATS = ("png", "svg", "pdf", "npz", "npy", "json")
"""Files that are written of a photo."""


def _formats(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """``png`` as names of formats, in the order of their files; the report is always written."""
    del context
    found = {piece.strip().lower() for piece in text.split(",") if piece.strip()}
    unknown = sorted(found.difference(FORMATS))
    if unknown or not found:
        said = f"no format {quoted(unknown[0])}" if unknown else "no format is named"
        raise click.BadParameter(f"{said}; one or more of {','.join(FORMATS)}", param=parameter)
    return tuple(name for name in FORMATS if name in {*found, "json"})


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
    shell_complete=completion.methods,
    help="A method as listed below, with options as METHOD:option=value,option=value; "
    "may be repeated.  [default: grad-cam; hires-cam for a detector]",
)
@click.option(
    "-t",
    "--target",
    "targets",
    metavar="T",
    multiple=True,
    shell_complete=completion.targets,
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
    shell_complete=completion.layers,
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
@click.option(
    "--every",
    type=WholeNumber(1),
    default=30,
    show_default=True,
    help="Of a video, one frame of so many is explained; VIDEO.timeline.png has them in order.",
)
@output_folder("Folder for STEM.METHOD.TARGET.png, STEM.METHOD.TARGET.npz and STEM.json.")
@click.option(
    "--sheet",
    is_flag=True,
    help="Also write STEM.sheet.png: all methods and targets side by side; several items of a "
    "detector or segmenter are always drawn so.",
)
@click.option(
    "--format",
    "formats",
    metavar="F,F",
    default="png,npz,json",
    show_default=True,
    callback=_formats,
    help="What is written of each photo: png, svg, pdf (figures), npz (numbers in the map's own "
    "space), npy (the map in the photo's pixels); json (the report) always.",
)
@display_options
@click.option(
    "--exist",
    type=click.Choice(WHEN),
    default="replace",
    show_default=True,
    help="Where the folder holds results of the same photo and model: replace them, skip the "
    "photo, or fail. Results of another photo or model are never replaced.",
)
@click.option("--open", "opens", is_flag=True, help="Show the figures when they are done.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Also print where each preprocessing setting comes from, why this layer, and what runs.",
)
@json_report
@click.option(
    "--unverified",
    is_flag=True,
    help="Draw gradient methods even if the model's certificate (`inspector verify`) "
    "fails; the maps are labelled.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "onnx", "twin"]),
    default="auto",
    show_default=True,
    help="What runs the network backwards: twin, its copy in PyTorch; onnx, its gradient as ONNX "
    "operators in ONNX Runtime, without torch; auto, onnx where it covers the model.",
)
@model_options
def command(**options: Any) -> int:
    """Show where MODEL looks in each IMAGE: files, folders, quoted patterns, videos, or -.

    Writes for each image an overlay picture and the numbers per method, and one report with
    hashes, versions, options and warnings.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    _check_looks(options)
    opens, begun = options.pop("opens"), time.time()

    def work() -> int:
        # The process that only waits loads nothing: what it holds costs time again when it ends.
        return _explain(display=display_of(options), **options)

    status = supervised(work, device=options["device"], **limits)
    if opens and status in {0, ImageRefused.exit_status}:
        _open(options["output"], begun)
    return status


def _check_looks(options: dict[str, Any]) -> None:
    """Refuse what cannot be had together; a number of columns asks for the sheet.

    Raises:
        UsageError: Options that exclude each other, or ask for a picture where none is written.
    """
    for one, other in (("raw", "contour"), ("raw", "grid"), ("quiet", "verbose")):
        if options[one] and options[other]:
            raise UsageError(f"--{one} and --{other} exclude each other", hint="leave one out")
    options["sheet"] = options["sheet"] or options["columns"] is not None
    wanted = [name for name in ("raw", "contour", "grid", "sheet") if options[name]]
    drawn = not {"png", "svg", "pdf"}.isdisjoint(options["formats"])
    if wanted and not drawn:
        raise UsageError(
            f"--{wanted[0]} asks for a picture, and --format {','.join(options['formats'])} "
            "has none",
            hint="add png, svg or pdf to --format",
        )
    if options["opens"] and "png" not in options["formats"]:
        raise UsageError("--open shows PNG files, and --format has none", hint="add png to it")


def _open(folder: Path, begun: float) -> None:
    """Show the figures that were written since a time: the sheets, where there are any."""
    from inspector.render.notebook import has_display

    made = [path for path in sorted(folder.glob("*.png")) if path.stat().st_mtime >= begun - 1]
    made = [path for path in made if is_own_figure(path)]
    sheets = [path for path in made if path.name.endswith(".sheet.png")]
    for path in (sheets or made)[:_OPENED]:
        if not has_display() or click.launch(str(path)):
            say(f"nothing here opens pictures: look at {path}", "note")
            return


_OPENED = 4
"""Figures that are shown at once, at most."""


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
    every: int,
    output: Path,
    sheet: bool,
    formats: Sequence[str],
    exist: When,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    unverified: bool,
    display: "Display",
    **opening: Any,
) -> int:
    from inspector.methods import parse_requests
    from inspector.printable import clean_text
    from inspector.render.json import plain
    from inspector.render.timeline import Timelines
    from inspector.report import file_stems

    explainer = open_model(model, **opening)
    explainer.unverified = unverified
    refused: list[str] = []
    photos = list(sources(images, every, lambda error: _refuse(error, refused), named_paths()))
    lost = len(refused)  # videos, of which no frame is among the photos
    folders = [photo.parent.name if isinstance(photo, Path) else "" for photo in photos]
    stems = file_stems([photo.name for photo in photos], folders)
    named = list(zip(stems, photos, strict=True))
    earlier = earlier_files(output, named, explainer.file.sha256, exist)
    named = _without(earlier, named) if exist == "skip" else named
    said: set[str] = set()
    _say_once(explainer.preprocessing.warnings, said)
    done: list[dict[str, Any]] = []
    timelines = Timelines(output, file_stems)
    blank: list[ImageReport] = []
    with progress_bar(f"{len(named)} image(s)") as progress:
        found = explainer.explain_each(
            [path for _, path in named],
            parse_requests(methods) if methods else None,
            target=targets or None,
            layer=layer,
            task=task,
            similar_to=similar_to,
            bands=_bands(bands),
            progress=progress,
        )
        stems_of = (stem for stem, _ in named)
        for number, (item, written) in enumerate(
            kept(zip(stems_of, found, strict=True), output, formats, display, sheet=sheet), 1
        ):
            _advance(progress, number, len(named))
            if isinstance(item, ImageRefused):
                _refuse(item, refused)
                continue
            _say_warnings(item, said)
            if not item.explanations:
                blank.append(item)
                continue
            timelines.add(named[number - 1][1], item)
            earlier.get(item.name, NOTHING).remove(written)
            if as_json:
                done.append(plain(item.document()))
            elif not quiet:
                from inspector.cli.terminal import show_report

                with above_the_bar():
                    show_report(item, written, details=verbose)
    if blank and len(blank) + len(refused) - lost == len(named):  # nothing was drawn at all
        raise blank[0].refused[0].error
    for item in blank:
        _say_once(_refusals(item), said)
    drawn = timelines.save() if "png" in formats else []
    if as_json:
        show_json({"images": done, "refused": refused}, indent=2, sort_keys=True)
    for path in [] if as_json or quiet else drawn:
        show(clean_text(str(path), limit=None))
    return ImageRefused.exit_status if refused else 0


def _refuse(error: ImageRefused, refused: list[str]) -> None:
    """Say that an image is refused, and keep it for the end."""
    say(str(error))
    refused.append(str(error))


def _advance(progress: "Progress | None", done: int, total: int) -> None:
    """Move the bar of the photos, where there is one."""
    if progress:
        progress("photos", done, total)


def kept(
    found: "Iterable[tuple[str, ImageReport | ImageRefused]]",
    output: Path,
    formats: Sequence[str],
    display: "Display",
    *,
    sheet: bool,
) -> "Iterator[tuple[ImageReport | ImageRefused, list[Path]]]":
    """Write the files of reports in threads, beside the next photos' passes.

    Args:
        found: Start of the file names, and report, of each photo.
        output: The folder.
        formats: Names of formats.
        display: How maps are drawn.
        sheet: Whether to write contact sheets; several items of one photo always have one.

    Yields:
        Each report and its files, in order.
    """
    from inspector.passes.prefetch import cores, prefetched

    def keep(
        named: "tuple[str, ImageReport | ImageRefused]",
    ) -> "tuple[ImageReport | ImageRefused, list[Path]]":
        stem, item = named
        if isinstance(item, ImageRefused) or not item.explanations:
            return item, []
        report = replace(item, stem=stem, formats=formats, display=display)
        return report, report.save(output, sheet=sheet or _several(report), formats=formats)

    return prefetched(
        found, keep, ahead=_WAITING, workers=cores(), weight=lambda one: _held(one[1])
    )


_WAITING = 16
"""Photos whose files may wait to be written, at most."""


def _held(item: "ImageReport | ImageRefused") -> int:
    """Bytes that a report holds until its files are written."""
    if isinstance(item, ImageRefused):
        return 0
    maps = sum(one.heatmap.values.nbytes for one in item.explanations)
    return item.photo.pixels.nbytes + maps


def _without(
    earlier: Mapping[str, Earlier], named: "Sequence[tuple[str, _Source]]"
) -> "list[tuple[str, _Source]]":
    """The photos that are not explained yet; how many are, is said."""
    if earlier:
        say(f"{len(earlier)} photo(s) that are explained already are left out", "note")
    return [one for one in named if one[0] not in earlier]


def _several(report: "ImageReport") -> bool:
    """Whether several items of one photo are explained, which one sheet shows together."""
    return len([one for one in report.items if one["explained"]]) > 1


def _bands(text: str) -> tuple[int, ...]:
    """``3,2,1`` as numbers."""
    found = [whole_number(piece.strip()) for piece in text.split(",") if piece.strip()]
    if any(one is None or one < 1 for one in found):
        raise UsageError(f"--bands {quoted(text)}", hint="bands count from 1: --bands 3,2,1")
    return tuple(one or 1 for one in found)


def _say_warnings(item: "ImageReport", said: set[str]) -> None:
    """Print what must be known to read the maps of a photo, if there are any."""
    _say_once(item.warnings, said)
    if item.explanations:
        _say_once(_refusals(item), said)
    for explanation in item.explanations:
        source = f"{item.photo.name}, {explanation.label}: "
        _say_once([source + text for text in explanation.warnings], said)


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

"""``inspector compare``: two networks on the same photos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli import say
from inspector.cli.options import (
    OPENING,
    Command,
    Number,
    WholeNumber,
    json_report,
    model_options,
    open_model,
    output_folder,
    supervised,
)
from inspector.cli.streams import progress_bar, show_json, table_console
from inspector.errors import ImageRefused
from inspector.photos.dataset import pictures

if TYPE_CHECKING:
    from inspector.compare import Comparison
    from inspector.explain import Explainer

GATE_FAILED = 1


@click.command("compare", cls=Command)
@click.argument("model_a", metavar="A", type=click.Path(path_type=Path))
@click.argument("model_b", metavar="B", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-m",
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help="A method as `explain` takes it; may be repeated.  [default: grad-cam; hires-cam for "
    "a detector]",
)
@click.option(
    "--target",
    metavar="T",
    default="top1",
    show_default=True,
    help="What both explain: top1 (A's prediction, and B's own where it differs; of a detector or "
    "segmenter the items that `explain` takes, each with the one of B that overlaps it), a class "
    "index, a label, an item, or OUTPUT[i,j,...].",
)
@click.option("--target-b", metavar="T", help="The same in B, where OUTPUT has another name there.")
@click.option(
    "--layer-a", metavar="L", help="Layer of A for the CAM methods.  [default: as `explain`]"
)
@click.option("--layer-b", metavar="L", help="Layer of B.  [default: the counterpart of --layer-a]")
@click.option("--preprocess-a", metavar="P", help="Preprocessing of A, over --preprocess.")
@click.option("--preprocess-b", metavar="P", help="Preprocessing of B, over --preprocess.")
@click.option(
    "--set-a",
    "overrides_a",
    metavar="KEY=VALUE",
    multiple=True,
    help="One preprocessing option of A; may be repeated.",
)
@click.option(
    "--set-b",
    "overrides_b",
    metavar="KEY=VALUE",
    multiple=True,
    help="One preprocessing option of B; may be repeated.",
)
@click.option(
    "--layer-images",
    metavar="N",
    type=WholeNumber(min=0),
    default=16,
    show_default=True,
    help="Photos over which layers are compared; 0 leaves it out.",
)
@click.option(
    "--worst",
    metavar="N",
    type=WholeNumber(min=0),
    default=6,
    show_default=True,
    help="Cases on the contact sheet; 0 for no sheet.",
)
@click.option(
    "--min-iou",
    metavar="X",
    type=Number(0, 1),
    help="Fail if the top 20 % of any photo's maps overlap less (IoU).",
)
@click.option(
    "--min-rank",
    metavar="X",
    type=Number(-1, 1),
    help="Fail if any photo's maps have a lower rank correlation.",
)
@click.option(
    "--max-flips", metavar="N", type=WholeNumber(min=0), help="Fail if more predictions differ."
)
@output_folder("Folder for comparison.json and comparison.png.")
@json_report
@model_options
def command(**options: Any) -> int:
    """Compare where models A and B look in each IMAGE (files, or folders of them).

    For a float and an int8 model, two versions, or an original and its conversion: which
    predictions flip, how alike the maps of the same target are on the photo's pixels, and, where
    the graphs can be aligned, the layer at which they part. A gate that fails ends with status 1.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _compare(**options), device=options["device"], **limits)


def _compare(
    *,
    images: Sequence[Path],
    output: Path,
    as_json: bool,
    methods: Sequence[str],
    worst: int,
    layer_images: int,
    **options: Any,
) -> int:
    from inspector.compare import Gates, compare
    from inspector.render.json import plain

    both = [_opened(letter, options) for letter in "ab"]
    gates = Gates(**{name: options[name] for name in ("min_iou", "min_rank", "max_flips")})
    paths = list(pictures(images))
    with progress_bar(f"{len(paths)} image(s)") as progress:
        found = compare(
            both[0],
            both[1],
            paths,
            methods or None,
            target=options["target"],
            target_b=options["target_b"],
            layer_a=options["layer_a"],
            layer_b=options["layer_b"],
            gates=gates,
            worst=worst,
            layer_images=layer_images,
            progress=progress,
        )
    written = found.save(output)
    _say(found)
    if as_json:
        show_json(plain(found.document()), indent=2, sort_keys=True, allow_nan=False)
    else:
        from inspector.compare.table import show_comparison

        show_comparison(found, written, table_console())
    if found.failures:
        return GATE_FAILED
    return ImageRefused.exit_status if found.refused else 0


def _opened(letter: str, options: dict[str, Any]) -> "Explainer":
    """One of the two models, with its own preprocessing over the common one."""
    preprocess = options[f"preprocess_{letter}"] or options["preprocess"]
    overrides = (*options["overrides"], *options[f"overrides_{letter}"])
    model = options[f"model_{letter}"]
    opening = {name: options[name] for name in OPENING}
    if model.suffix.lower() == ".onnx":  # the other one is the source, then
        opening |= {"inputs": (), "weights": ""}
    return open_model(model, **{**opening, "preprocess": preprocess, "overrides": overrides})


def _say(found: "Comparison") -> None:
    """What is not part of the result: warnings, refused photos and failed gates."""
    for text in found.warnings:
        say(text, "warning")
    for image in found.images:
        for pair in image.maps:
            for text in (*pair.notes, *pair.similarity.undefined):
                say(f"{image.name}, {pair.method}: {text}", "warning")
    for error in found.refused:
        say(str(error))
    for text in found.failures:
        say(f"gate failed: {text}")

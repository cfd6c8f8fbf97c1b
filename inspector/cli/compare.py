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
    count,
    json_report,
    model_options,
    named_paths,
    open_model,
    output_folder,
    supervised,
)
from inspector.cli.streams import progress_bar, show_json, table_console
from inspector.errors import ImageRefused, UsageError
from inspector.photos.sources import pictures

if TYPE_CHECKING:
    from inspector.compare import Comparison
    from inspector.explain import Explainer

GATE_FAILED = 1


@click.command("compare", cls=Command)
@click.argument("model_a", metavar="A", type=click.Path(path_type=Path))
@click.argument(
    "others", metavar="[B] IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--on",
    metavar="A,B",
    help="Run the one file A in several ways and compare these, the reference first: execution "
    "providers (cpu, cuda, openvino, tensorrt, ...), each with +plain (no optimisations), "
    "+threads=N or +float16 (converted), as in cpu,cpu+plain.",
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
@count("--layer-images", 16, "Photos over which layers are compared; 0 leaves it out.")
@count(
    "--noise-images",
    4,
    "Photos over which it is measured how far two float32 runs of A differ; 0 leaves it out.",
)
@count("--seed", 0, "Of the intervals and of the noise.")
@count("--worst", 6, "Cases on the contact sheet; 0 for no sheet.")
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
    """Compare models A and B, or A with itself (--on), on each IMAGE (files, or folders of them).

    For a float and an int8 model, two versions, an original and its conversion, or one file on
    two execution providers: how far the outputs are apart, which predictions flip, how alike the
    maps of the same target are on the photo's pixels, whether that is more than two float32 runs
    of A differ by, and, where the graphs can be aligned, the layer at which they part. A gate that
    fails ends with status 1.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _compare(**options), device=options["device"], **limits)


def _compare(
    *,
    model_a: Path,
    others: Sequence[Path],
    on: str | None,
    output: Path,
    as_json: bool,
    methods: Sequence[str],
    **options: Any,
) -> int:
    from inspector.compare import Gates, compare, compare_executions
    from inspector.compare.executions import required_executions
    from inspector.render.json import plain

    ways = None if on is None else required_executions(on)
    images = others if ways is not None else others[1:]
    if not images:
        raise UsageError(
            "no image to compare on", hint="inspector compare A B IMAGE..., or A IMAGE... --on A,B"
        )
    models = [model_a] if ways is not None else [model_a, others[0]]
    converts = not all(map(_is_onnx, models))
    a = _opened("a", model_a, options, converts=converts)
    gates = Gates(**{name: options[name] for name in ("min_iou", "min_rank", "max_flips")})
    paths = list(pictures(images, named_paths()))
    asked = {name: options[name] for name in ("target", "target_b", "layer_a", "layer_b")}
    asked |= {name: options[name] for name in ("worst", "layer_images", "noise_images", "seed")}
    with progress_bar(f"{len(paths)} image(s)") as progress:
        asked |= {"gates": gates, "progress": progress}
        if ways is not None:
            found = compare_executions(a, ways, paths, methods or None, **asked)
        else:
            b = _opened("b", others[0], options, converts=converts)
            found = (compare(a, b, paths, methods or None, **asked),)
    written = [one.save(output) for one in found]
    for one in found:
        _say(one)
    if as_json:
        documents = [plain(one.document()) for one in found]
        whole = documents[0] if len(found) == 1 else {"comparisons": documents}
        show_json(whole, indent=2, sort_keys=True, allow_nan=False)
    else:
        from inspector.compare.table import show_comparison

        for one, files in zip(found, written, strict=True):
            show_comparison(one, files, table_console())
    if any(one.failures for one in found):
        return GATE_FAILED
    return ImageRefused.exit_status if any(one.refused for one in found) else 0


def _is_onnx(model: Path) -> bool:
    return model.suffix.lower() == ".onnx"


def _opened(letter: str, model: Path, options: dict[str, Any], *, converts: bool) -> "Explainer":
    """One of the models, with its own preprocessing over the common one.

    Args:
        letter: ``a`` or ``b``.
        model: Its file or source.
        options: What the command line says of both.
        converts: Whether one of them is converted, which options of sources are for.
    """
    preprocess = options[f"preprocess_{letter}"] or options["preprocess"]
    overrides = (*options["overrides"], *options[f"overrides_{letter}"])
    opening = {name: options[name] for name in OPENING}
    if converts and _is_onnx(model):  # the other one is the source, then
        opening |= {"inputs": (), "weights": "", "signature": ""}
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

"""``inspector convert``: any supported framework to ONNX, with a record of the conversion."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli import say
from inspector.cli.options import (
    Command,
    Number,
    OutputFile,
    WholeNumber,
    limit_options,
    shapes,
    source_options,
    supervised,
)
from inspector.cli.streams import show, show_json

if TYPE_CHECKING:
    from converters.conversion import ConversionRecord


@click.command("convert", cls=Command)
@click.argument("source")
@click.option(
    "-o",
    "--output",
    metavar="MODEL.onnx",
    required=True,
    type=OutputFile(),
    help="The ONNX file; MODEL.onnx.certificate.json comes beside it.",
)
@click.option(
    "--from",
    "framework",
    metavar="NAME",
    default="",
    help="The framework, where it is not to be guessed.",
)
@click.option("--trust", is_flag=True, help="Run the source's own program, if it is one.")
@source_options
@click.option("--opset", type=WholeNumber(7), metavar="N", help="Version of the operator set.")
@click.option("--static-batch", is_flag=True, help="Keep the batch size of the source.")
@click.option(
    "--labels",
    metavar="F",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Class names; the source's own when not given.",
)
@click.option(
    "--preprocess",
    metavar="P",
    help="What to do with a photo, written into the file; the source's own when not given.",
)
@click.option(
    "--image",
    "photos",
    metavar="PHOTO",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A photo to compare source and file on, beside random inputs; may be repeated.",
)
@click.option(
    "--tolerance",
    type=Number(min=0, min_open=True),
    metavar="X",
    help="Largest difference that is accepted, relative to the outputs' peak.  "
    "[default: 1e-4; quantised 0.1]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
@limit_options
def command(**options: Any) -> int:
    """Convert SOURCE, a model of another framework, to ONNX and prove the result.

    SOURCE is a file, a folder, or package.module:name of a function that makes the model. It is
    converted in a process of its own; then the framework and ONNX Runtime compute the same
    inputs, and what differs too much is refused.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _convert(**options, **limits), device="cpu", **limits)


def _convert(
    *,
    source: str,
    output: Path,
    inputs: Sequence[str],
    labels: Path | None,
    preprocess: str | None,
    photos: Sequence[Path],
    as_json: bool,
    weights: str,
    signature: str,
    opset: int | None,
    static_batch: bool,
    timeout: float,
    memory: float | None,
    **how: Any,
) -> int:
    from converters.conversion import convert
    from converters.source import Options
    from inspector.network.outputs.labels import read_labels
    from inspector.opening import photo_inputs
    from inspector.photos.preprocess import Preprocess
    from inspector.whole_file import make_folder

    known = None if preprocess is None else _preprocess(preprocess, Preprocess)
    make_folder(output.parent)
    record = convert(
        source,
        output,
        options=Options(
            inputs=shapes(inputs),
            weights=os.path.realpath(weights) if weights else "",
            opset=opset,
            dynamic_batch=not static_batch,
            signature=signature,
        ),
        labels=() if labels is None else read_labels(labels),
        preprocess=None if known is None else known.to_dict(),
        samples=photo_inputs(photos, known) if photos else None,
        seconds=timeout or None,
        memory=math.ceil(memory * 2**30) if memory else None,
        **how,
    )
    if as_json:
        show_json(record.to_dict(), indent=2, sort_keys=True)
        return 0
    _print(record)
    return 0


def _print(record: "ConversionRecord") -> None:
    for note in record.notes:
        say(note, "note")
    show(str(record))
    for trial in record.trials:
        same = "" if trial.top1 is None else f", same class on {trial.top1:.0%}"
        show(f"  {trial.name} ({trial.samples}): {trial.worst:.1e}, mean {trial.mean:.1e}{same}")
    show(f"\n{record.path}\n{record.path}.certificate.json")


def _preprocess(text: str, kind: Any) -> Any:
    return kind.from_file(text) if os.path.exists(text) else kind.preset(text)  # noqa: PTH110 - of any length

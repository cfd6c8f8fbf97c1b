"""``inspector embed``: the heatmap as an output of the model itself."""

from pathlib import Path
from typing import Any

import click

from inspector.cli.options import Command, OutputFile, model_options, open_model, supervised
from inspector.cli.streams import show
from inspector.printable import clean_text


@click.command("embed", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="OUT.onnx",
    required=True,
    type=OutputFile(),
    help="The file to write; it must not exist.",
)
@click.option(
    "-m",
    "--method",
    metavar="METHOD",
    default="grad-cam",
    show_default=True,
    help="cam, grad-cam, grad-cam++, hires-cam, layer-cam, gradient, guided-backprop, deconvnet "
    "or guided-grad-cam, with options as METHOD:option=value.",
)
@click.option(
    "-t",
    "--target",
    metavar="T",
    default="top1",
    show_default=True,
    help="What is explained of every image: the best class, or one class index, label or "
    "OUTPUT[i,j,...].",
)
@click.option("--layer", metavar="L", help="Layer for the CAM methods.  [default: the last one]")
@click.option(
    "--size",
    type=click.Choice(["input", "layer"]),
    default="input",
    show_default=True,
    help="Size of the heatmap: (N, H, W) of the input, or (N, h, w) of the layer.",
)
@click.option(
    "--class-input",
    is_flag=True,
    help="Add an input heatmap_class (int32, may be left out) that picks the class per image; "
    "-1 is the best one.",
)
@click.option(
    "--for",
    "runtime",
    type=click.Choice(["web", "mobile", "openvino", "tensorrt"]),
    help="Avoid operators that a runtime lacks (onnxruntime-web on WebGPU, ONNX Runtime's reduced "
    "mobile package, OpenVINO, TensorRT), and say which remain.",
)
@model_options
def command(**options: Any) -> int:
    """Write MODEL with one more output: the heatmap of its own answer.

    The file runs wherever ONNX Runtime runs, without Python. Its other outputs are those of MODEL,
    which is checked before it is written; `inspector verify OUT.onnx` proves the heatmap.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _embed(**options), device=options["device"], **limits)


def _embed(
    *,
    model: Path,
    output: Path,
    method: str,
    target: str,
    layer: str | None,
    size: str,
    class_input: bool,
    runtime: str | None,
    **opening: Any,
) -> int:
    from inspector.embed import RUNTIMES, embed

    explainer = open_model(model, **opening)
    found = embed(
        explainer,
        output,
        method,
        target=target,
        layer=layer,
        size=size,
        class_input=class_input,
        runtime=runtime or "",
    )
    grown = (found.after - found.before) / max(found.before, 1)
    layer_text = f" at {clean_text(found.facts['layer'])}" if found.facts["layer"] else ""
    show(
        f"{found.path}: output heatmap, {clean_text(found.facts['method'])} of "
        f"{clean_text(found.facts['target'])}{layer_text}; {grown:+.2%} bytes"
    )
    if runtime:
        asked = RUNTIMES[runtime]
        left = ", ".join(map(clean_text, found.left_over))
        note = f": {asked.note}" if asked.note else ""
        show(f"{asked.name} lacks {left}{note}" if left else f"{asked.name} has every operator")
    return 0

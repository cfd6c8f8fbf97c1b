"""``inspector embed``: the heatmap as an output of the model itself."""

from pathlib import Path
from typing import Any

import click

from inspector.cli.options import (
    Command,
    OutputFile,
    OutputFolder,
    model_options,
    open_model,
    supervised,
)
from inspector.cli.streams import show
from inspector.printable import clean_text


@click.command("embed", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="OUT.onnx",
    type=OutputFile(),
    help="The file to write; it must not exist.",
)
@click.option(
    "--page",
    metavar="DIR",
    type=OutputFolder(),
    help="Write DIR/index.html: a page with the model inside, for photos that are dropped on it; "
    "needs --web-runtime.",
)
@click.option(
    "--web-runtime",
    metavar="FILE.tgz",
    type=click.Path(path_type=Path),
    help="The package of onnxruntime-web, as `npm pack onnxruntime-web` stores it.",
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
    _require_output(options)
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _embed(**options), device=options["device"], **limits)


def _require_output(options: dict[str, Any]) -> None:
    """Refuse a command that writes nothing, or a page without its runtime.

    Raises:
        UsageError: It does.
    """
    from inspector.embed.page import PAGE
    from inspector.embed.page.runtime import COMMAND
    from inspector.whole_file import require_new

    if not (options["output"] or options["page"]):
        raise click.UsageError("Missing option '-o' (a file) or '--page' (a folder).")
    if options["page"] and not options["web_runtime"]:
        raise click.UsageError(f"--page needs --web-runtime FILE.tgz; fetch it with: {COMMAND}")
    if options["web_runtime"] and not options["page"]:
        raise click.UsageError("--web-runtime belongs to --page.")
    alone = [name for name in ("class_input", "runtime") if options[name]]
    if options["page"] and (alone or options["size"] != "input"):
        raise click.UsageError("--size, --class-input and --for belong to -o, not to --page.")
    # Both before either is written, and before a model is opened for nothing.
    if options["output"]:
        require_new(options["output"], "name another file with -o")
    if options["page"]:
        require_new(options["page"] / PAGE, "name another folder with --page")


def _embed(
    *,
    model: Path,
    output: Path | None,
    page: Path | None,
    web_runtime: Path | None,
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
    if page is not None and web_runtime is not None:
        from inspector.embed.page import write_page

        made = write_page(explainer, page, method, runtime=web_runtime, target=target, layer=layer)
        show(
            f"{made.path}: {clean_text(made.facts['method'])} of "
            f"{clean_text(made.facts['target'])}, with {made.runtime}; "
            f"{made.size / 2**20:.1f} MiB; open it in a browser"
        )
    if output is None:
        return 0
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
    if fed := found.facts["constants"]:
        show(f"constants in it, inputs of {clean_text(model.name)}: {clean_text(', '.join(fed))}")
    if runtime:
        asked = RUNTIMES[runtime]
        left = ", ".join(map(clean_text, found.left_over))
        note = f": {asked.note}" if asked.note else ""
        show(f"{asked.name} lacks {left}{note}" if left else f"{asked.name} has every operator")
    return 0

"""A model file whose extra output is the heatmap of its own answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspector.embed.checks import base_of, checks_of, output_checks
from inspector.embed.plan import Plan
from inspector.embed.runtimes import RUNTIMES, left_over
from inspector.errors import MethodRefused, ModelRefused, UsageError
from inspector.methods import Request, parse_request
from inspector.opened import Opened
from inspector.surgery.embedded import HEATMAP, facts_of, with_heatmap
from inspector.surgery.gradient.builder import Builder
from inspector.whole_file import check_file, write_whole

__all__ = ["METHODS", "RUNTIMES", "Embedded", "base_of", "checks_of", "embed"]

METHODS = (
    *("cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "gradient"),
    *("guided-backprop", "deconvnet", "guided-grad-cam"),
)
"""Methods that can be written into a file."""


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        path: The file.
        facts: What stands in its metadata.
        before: Bytes of the model.
        after: Bytes of the file.
        left_over: Operators of the file that the runtime in mind lacks.
    """

    path: Path
    facts: Mapping[str, Any]
    before: int
    after: int
    left_over: tuple[str, ...] = ()


def embed(
    opened: Opened,
    path: str | Path,
    method: str = "grad-cam",
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
    size: str = "input",
    class_input: bool = False,
    runtime: str = "",
) -> Embedded:
    """Write a model whose last output ``heatmap`` (N, H, W) is the map of its own answer.

    Raw values, as the library saves them: of a method through a layer stretched to the input
    linearly, of one at the input reduced over the channels. The other outputs are not changed.

    Args:
        opened: The opened model.
        path: The file to write; nothing may be there.
        method: One of ``METHODS``, with options as ``guided-backprop:extension=signal-first``.
        target: ``top1``, or one class, label or element for all images.
        layer: The layer, as ``inspector layers`` names it; the default one when None.
        size: ``input``, or ``layer`` for a map of the layer's own size.
        class_input: Add an input ``heatmap_class``, int32, which may be left out; a class index
            per image or one for all, -1 for the best class.
        runtime: A runtime of ``RUNTIMES``, whose missing operators are avoided.

    Returns:
        What was written.

    Raises:
        MethodRefused: The method cannot be written into this model.
        UnsupportedOperator: An operator on the gradient's path has no rule.
        UsageError: The file exists, or an argument cannot be read.

    Example:
        >>> import inspector
        >>> from inspector.embed import embed
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> embed(model, "resnet20_grad_cam.onnx").facts["method"]
        'grad-cam'
    """
    path = Path(path)
    check_file(path)
    if path.exists():
        raise UsageError("the file exists already", where=str(path), hint="name another with -o")
    request = parse_request(method)
    _require_plain(opened, request, size, runtime)
    plan = Plan(opened, request, target)
    wanted = plan.embedding(layer, size, class_input=class_input)
    avoided = RUNTIMES[runtime].avoided if runtime else ()
    builder = Builder(opened.graph, plan.measured, avoid=avoided)
    model = with_heatmap(opened.graph, wanted, builder)
    plan.fix_size(model)
    data = model.SerializeToString()
    file = replace(opened.file, model=model)
    failed = [check.text for check in output_checks(opened, file) if check.status == "fail"]
    if failed:
        raise ModelRefused(f"the file would not be the model: {failed[0]}", where=opened.path.name)
    write_whole(path, data)
    left = left_over(model, runtime)
    return Embedded(path, wanted.facts, opened.graph.model.ByteSize(), len(data), left)


def _require_plain(opened: Opened, request: Request, size: str, runtime: str) -> None:
    """Refuse what cannot be written at all, before anything is computed."""
    name = opened.path.name
    if request.method.name not in METHODS:
        raise MethodRefused(
            f"{request.method.name} cannot be written into a model",
            hint="one of " + ", ".join(METHODS),
        )
    if size not in {"input", "layer"}:
        raise UsageError(f"no such size: {size!r}", hint="input or layer")
    if runtime and runtime not in RUNTIMES:
        raise UsageError(f"no such runtime: {runtime!r}", hint="one of " + ", ".join(RUNTIMES))
    if facts_of(opened.file.metadata) is not None:
        raise ModelRefused("the file has a heatmap already", where=name, hint="embed the original")
    if HEATMAP in opened.graph.outputs or HEATMAP in opened.graph.tensors:
        raise ModelRefused(f"the model has a tensor named {HEATMAP!r} already", where=name)
    if opened.model.constants or opened.input.name.endswith("[None]"):
        raise ModelRefused(
            "inputs that are not images, or images without an axis of samples", where=name
        )
    if opened.input.space != 2:
        raise ModelRefused("a heatmap is written for pictures", where=name)
    if opened.input.integer and request.method.space == "input":
        raise MethodRefused(
            "the image enters as whole numbers, and a map at the input is of real ones",
            where=name,
            hint="a method through a layer needs none: grad-cam, hires-cam, layer-cam",
        )

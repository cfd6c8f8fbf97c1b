"""The bytes of a model with one more output, the heatmap of its own answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx

from converters.graph import Graph
from inspector.embed.checks import output_checks
from inspector.embed.plan import METHODS, SIZES, Plan
from inspector.embed.runtimes import RUNTIMES, left_over
from inspector.errors import MethodRefused, ModelRefused, UsageError
from inspector.methods import Request, parse_request
from inspector.opened import Opened
from inspector.printable import clean_text
from inspector.surgery.embedded import HEATMAP, with_heatmap
from inspector.surgery.embedded_facts import facts_of
from inspector.surgery.embedded_target import CLASS_INPUT
from inspector.surgery.gradient.builder import ADDED, Builder

__all__ = ["Written", "written"]

LARGEST = (1 << 31) - (1 << 25)
"""Bytes of a network that can be written with its heatmap: no ONNX file holds 2 GiB."""


@dataclass(frozen=True)
class Written:
    """A model with its heatmap, not yet in a file.

    Attributes:
        data: The file's bytes.
        model: The same, parsed.
        method: Name of the method.
        facts: What stands in its metadata.
        left_over: Operators that the runtime in mind lacks.
    """

    data: bytes
    model: onnx.ModelProto
    method: str
    facts: Mapping[str, Any]
    left_over: tuple[str, ...] = ()


def written(
    opened: Opened,
    method: str,
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
    size: str = "input",
    class_input: bool = False,
    runtime: str = "",
) -> Written:
    """Write the model in memory; arguments and errors are those of ``inspector.embed.embed``."""
    request = parse_request(method)
    _require_plain(opened, request, size, runtime)
    if class_input and runtime and not RUNTIMES[runtime].feeds_defaults:
        raise UsageError(
            f"{RUNTIMES[runtime].name} takes an input that may be left out for a constant, and "
            "cannot be fed heatmap_class",
            hint="leave --class-input out, or write one file per class with --target",
        )
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
        raise ModelRefused(
            f"the file would not be the model: {failed[0]}",
            where=opened.path.name,
            hint="float16 networks are rounded otherwise where inner tensors are read: embed the "
            "float32 network that the file was made from, or name a later --layer of grad-cam, "
            "hires-cam or layer-cam, which read few",
        )
    left = left_over(model, runtime)
    facts = facts_of({entry.key: entry.value for entry in model.metadata_props})
    return Written(data, model, request.method.name, facts or wanted.facts, left)


def _require_plain(opened: Opened, request: Request, size: str, runtime: str) -> None:
    """Refuse what cannot be written at all, before anything is computed."""
    name = opened.path.name
    if request.method.name not in METHODS:
        raise MethodRefused(
            f"{request.method.name} cannot be written into a model",
            hint="one of " + ", ".join(METHODS),
        )
    if size not in SIZES:
        raise UsageError(f"no such size: {size!r}", hint=" or ".join(SIZES))
    if runtime and runtime not in RUNTIMES:
        raise UsageError(f"no such runtime: {runtime!r}", hint="one of " + ", ".join(RUNTIMES))
    if facts_of(opened.file.metadata) is not None:
        raise ModelRefused("the file has a heatmap already", where=name, hint="embed the original")
    if opened.model.file.bytes_written > LARGEST:
        raise ModelRefused(
            f"the file would hold more than {LARGEST >> 20} MiB of weights, which no ONNX file can",
            where=name,
            hint="embed the network with float16 or int8 weights",
        )
    if taken := _taken(opened.graph):
        raise ModelRefused(
            f"the model has a tensor named {clean_text(taken)!r}, as those of a heatmap are",
            where=name,
            hint="rename that tensor",
        )
    if opened.input.name.endswith("[None]"):
        raise ModelRefused(
            "takes an image without an axis of samples",
            where=name,
            hint="export the network for images of (N, C, H, W)",
        )
    if opened.input.space != 2:
        raise ModelRefused(
            "a heatmap is written for pictures",
            where=name,
            hint="inspector explain draws signals and volumes",
        )
    if opened.input.integer and request.method.space == "input":
        raise MethodRefused(
            "the image enters as whole numbers, and a map at the input is of real ones",
            where=name,
            hint="a method through a layer needs none: grad-cam, hires-cam, layer-cam",
        )


def _taken(graph: Graph) -> str:
    """A name of the network that would be taken for one of the heatmap; empty without one."""
    names = (*graph.inputs, *graph.initialisers, *graph.tensors, *graph.outputs)
    own = {HEATMAP, CLASS_INPUT}
    return next((one for one in names if one in own or one.startswith(ADDED)), "")

"""Whether a file with a heatmap is the model that it was made of, and its heatmap the twin's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import onnx

from converters import onnx_file
from converters.errors import UnsafeModel
from inspector.embed.plan import METHODS, SIZES, Plan, probe_images
from inspector.engines.runtime import Runtime
from inspector.errors import ImageRefused, MethodRefused, ModelRefused, UsageError
from inspector.heatmap import lay_on_input
from inspector.methods import parse_request
from inspector.opened import Opened
from inspector.surgery.embedded import HEATMAP, network_digest, without
from inspector.surgery.embedded_facts import METADATA_KEY, NETWORK, facts_of
from inspector.verify.certificate import Check
from inspector.verify.graph_gradient import allowed

__all__ = ["base_of", "checks_of", "output_checks"]

Array = np.ndarray[Any, Any]
Kind = TypeVar("Kind", bound=Opened)

OUTPUTS, MAPS = 1e-6, 1e-4
"""Largest differences of outputs and of heatmaps, relative to their peak."""

HALF_MAPS = 2e-3
"""The same of a network in float16, whose twin computes in float32."""


def base_of(opened: Kind) -> tuple[Kind, Mapping[str, Any]] | None:
    """The model without its heatmap, and what the file says of that; None without one."""
    facts = facts_of(opened.file.metadata)
    if facts is None or HEATMAP not in opened.graph.outputs:
        return None
    metadata = {k: v for k, v in opened.file.metadata.items() if k != METADATA_KEY}
    try:
        whole = without(opened.model.file.whole_model())
        file = onnx_file.from_proto(whole, opened.file.folder, weights_apart=True)
    except UnsafeModel as error:
        raise ModelRefused(
            f"the nodes of its heatmap cannot be told from those of the model: {error.what}",
            where=opened.path.name,
            hint="another tool changed the file after inspector embed wrote it; let that tool "
            "change the original, and embed what it writes",
        ) from error
    file = replace(file, path=opened.path, metadata=metadata)
    return type(opened)(file, device=opened.device, **opened.settings), facts


def checks_of(opened: Opened, base: Opened, facts: Mapping[str, Any]) -> list[Check]:
    """Whether a file's heatmap is the twin's, and its other outputs are those of the model.

    Args:
        opened: The file with the heatmap.
        base: From ``base_of``.
        facts: From ``base_of``.

    Raises:
        UsageError: The metadata do not say what the heatmap is.
    """
    plan, layer, size = _said(base, facts)
    request = plan.request
    found = [*_network_check(opened, facts), *output_checks(base, opened.file)]
    values = _run(base, opened.file, [HEATMAP], optimise=False)[HEATMAP]
    most, worst, whose = HALF_MAPS if _is_half(base.graph.model) else MAPS, float("inf"), ""
    maps: list[Array] = []
    for exact in (False, True):  # rounding flips gates of the float32 twin, too
        try:
            expected = plan.by_twin(layer, exact=exact)
        except ImageRefused as error:
            text = f"{request.label}: not compared, for {error}"
            return [*found, Check("heatmap", "undecided", text, about="map")]
        if size == "input" and request.method.space == "layer":
            place = base.model.placement(layer or "", plan.side)
            expected = np.stack([lay_on_input(one, place, plan.side) for one in expected])
        peak = float(np.abs(expected).max(initial=0)) or 1.0
        maps.append(expected / peak)
        values = values[: len(expected)]  # a fixed batch is filled up
        if values.shape == expected.shape:
            apart = float(np.abs(values - expected).max()) / peak
            worst, whose = min((worst, whose), (apart, " in float64" if exact else ""))
        if worst <= most:
            break
    text = f"{request.label}: {worst:.1e} of the peak from the map by the twin's gradient{whose}"
    if worst > most:  # gates flip by rounding: those of the twin itself, too
        flips = float(np.abs(maps[0] - maps[1]).max(initial=0))
        text += f", whose own maps in float32 and float64 are {flips:.1e} apart"
        most = allowed(most, flips)
    return [*found, Check("heatmap", "pass" if worst <= most else "fail", text, about="map")]


def _said(base: Opened, facts: Mapping[str, Any]) -> tuple[Plan, str | None, str]:
    """What the metadata say: the plan, the layer and the size.

    Raises:
        UsageError: They lack something, or say what cannot be.
    """
    where = base.path.name
    try:
        method, target, layer, size = (
            facts[name] for name in ("method", "target", "layer", "size")
        )
    except KeyError as error:
        raise UsageError(f"the metadata of the heatmap lack {error}", where=where) from None
    try:
        request = parse_request(str(method))
        plan = Plan(base, request, str(target))
    except (UsageError, MethodRefused) as error:
        raise UsageError(
            f"the metadata of the heatmap say what cannot be: {error.what}", where=where
        ) from error
    name = None if layer is None else str(layer)
    for known, wrong in (
        (request.method.name in METHODS, f"a method {method!r}, which no file is written with"),
        (size in SIZES, f"a size {size!r}, which is not {' or '.join(SIZES)}"),
        (name is not None or not plan.layered, f"no layer, which {request.method.name} reads"),
        (
            name is None or name in base.graph.tensors,
            f"a layer {layer!r}, which the model does not have",
        ),
    ):
        if not known:
            raise UsageError(f"the heatmap's metadata name {wrong}", where=where)
    return plan, name, size


def _network_check(opened: Opened, facts: Mapping[str, Any]) -> list[Check]:
    """Whether nodes and weights are those of the file as it was written; older ones do not say."""
    if NETWORK not in facts:
        return []
    same = network_digest(opened.graph.model, opened.graph.array) == facts[NETWORK]
    text = "its nodes and weights are those that the heatmap was written for"
    if not same:
        text = (
            "its nodes or weights were changed since the heatmap was written, by hand or by a tool "
            "such as an optimiser: embed the changed model itself"
        )
    return [Check("network", "pass" if same else "fail", text, about="map")]


def _is_half(model: onnx.ModelProto) -> bool:
    """Whether the network computes in float16, in which gates flip that the twin leaves alone."""
    narrow = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(tensor.data_type in narrow for tensor in model.graph.initializer)


def _run(
    opened: Opened, file: onnx_file.OnnxFile, names: Sequence[str], *, optimise: bool
) -> Mapping[str, Array]:
    """Tensors of the probe images from a file."""
    images = probe_images(opened)
    value = opened.model.as_in_graph(opened.input.name, opened.input.arrange(images))
    runtime = Runtime(file, device="cpu", optimise=optimise)
    return runtime.run({opened.input.name: value}, names)


def output_checks(base: Opened, file: onnx_file.OnnxFile) -> list[Check]:
    """Whether a file's outputs are those of the model: to the bit, and as it is really run.

    Args:
        base: The model.
        file: The file with the heatmap.
    """
    names = [name for name in base.graph.outputs if name != HEATMAP]
    found = []
    for optimise, most in ((False, 0.0), (True, OUTPUTS)):
        ours = _run(base, file, names, optimise=optimise)
        theirs = _run(base, base.file, names, optimise=optimise)
        worst = max((_apart(ours[n], theirs[n]) for n in names), default=0.0)
        how = "optimised" if optimise else "as the graph is spelled"
        text = f"{worst:.1e} of the peak from the model's own, {how}"
        name = "outputs, optimised" if optimise else "outputs"
        found.append(Check(name, "pass" if worst <= most else "fail", text, about="map"))
    return found


def _apart(ours: Any, theirs: Any) -> float:
    """Largest difference, as a share of the peak; of a sequence that of its members."""
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return max(map(_apart, ours, theirs), default=0.0)
    if isinstance(ours, dict) and isinstance(theirs, dict) and [*ours] == [*theirs]:
        return _apart(np.array([*ours.values()]), np.array([*theirs.values()]))  # of a ZipMap
    if not (isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray)):
        return 0.0 if ours is theirs else float("inf")
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    peak = float(np.abs(theirs).max(initial=0)) or 1.0
    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    return float(np.abs(ours - theirs).max()) / peak

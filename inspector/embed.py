"""A model file whose extra output is the heatmap of its own answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx

from converters import onnx_file
from inspector.engines.gradient_graph import Measured, overlay_of
from inspector.engines.rules import Rule, coverage
from inspector.engines.runtime import Runtime
from inspector.errors import MethodRefused, ModelRefused, UsageError
from inspector.heatmap import lay_on_input, reduce
from inspector.methods import Request, parse_request
from inspector.network.head import LinearHead
from inspector.network.quantisation import copies_of
from inspector.network.tail import tail_of
from inspector.opened import Opened
from inspector.surgery.embedded import (
    HEATMAP,
    METADATA_KEY,
    Embedding,
    Part,
    facts_of,
    with_heatmap,
    without,
)
from inspector.surgery.gradient.builder import Builder
from inspector.target import Target, TargetSpec
from inspector.verify.certificate import Check
from inspector.verify.subject import noise
from inspector.versions import versions
from inspector.whole_file import check_file, write_whole

__all__ = ["LACKS", "METHODS", "Embedded", "base_of", "checks_of", "embed"]

Array = np.ndarray[Any, Any]
Kind = TypeVar("Kind", bound=Opened)

METHODS = (
    *("cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "gradient"),
    *("guided-backprop", "deconvnet", "guided-grad-cam"),
)
"""Methods that can be written into a file."""

LACKS = {"web": ("ScatterElements", "OneHot", "TopK", "Max", "Min", "And", "Or")}
"""Operators that a runtime lacks: onnxruntime-web on WebGPU."""

OUTPUTS, MAPS = 1e-6, 1e-4
"""Largest differences of outputs and of heatmaps, relative to their peak."""

HALF_MAPS = 2e-3
"""The same of a network in float16, whose twin computes in float32."""


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        path: The file.
        facts: What stands in its metadata.
        before: Bytes of the model.
        after: Bytes of the file.
    """

    path: Path
    facts: Mapping[str, Any]
    before: int
    after: int


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
        runtime: ``web`` avoids operators that onnxruntime-web lacks on WebGPU.

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
    plan = _Plan(opened, request, target)
    wanted = plan.embedding(layer, size, class_input=class_input)
    builder = Builder(opened.graph, plan.measured, avoid=LACKS.get(runtime, ()))
    model = with_heatmap(opened.graph, wanted, builder)
    plan.fix_size(model)
    data = model.SerializeToString()
    file = replace(opened.file, model=model)
    failed = [check.text for check in _output_checks(opened, file) if check.status == "fail"]
    if failed:
        raise ModelRefused(f"the file would not be the model: {failed[0]}", where=opened.path.name)
    write_whole(path, data)
    return Embedded(path, wanted.facts, opened.graph.model.ByteSize(), len(data))


def base_of(opened: Kind) -> tuple[Kind, Mapping[str, Any]] | None:
    """The model without its heatmap, and what the file says of that; None without one."""
    facts = facts_of(opened.file.metadata)
    if facts is None or HEATMAP not in opened.graph.outputs:
        return None
    metadata = {k: v for k, v in opened.file.metadata.items() if k != METADATA_KEY}
    file = onnx_file.from_proto(without(opened.graph.model))
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
    try:
        request = parse_request(str(facts["method"]))
        plan = _Plan(base, request, str(facts["target"]))
        layer = None if facts["layer"] is None else str(facts["layer"])
        size = str(facts["size"])
    except KeyError as error:
        raise UsageError(
            f"the metadata of the heatmap lack {error}", where=opened.path.name
        ) from None
    found = _output_checks(base, opened.file)
    expected = plan.by_twin(layer)
    values = _run(base, opened.file, [HEATMAP], optimise=False)[HEATMAP]
    if size == "input" and request.method.space == "layer":
        place = base.model.placement(layer or "", plan.side)
        expected = np.stack([lay_on_input(one, place, plan.side) for one in expected])
    peak = float(np.abs(expected).max(initial=0)) or 1.0
    worst = (
        float(np.abs(values - expected).max()) / peak
        if values.shape == expected.shape
        else float("inf")
    )
    text = f"{request.label}: {worst:.1e} of the peak from the map by the twin's gradient"
    most = HALF_MAPS if _is_half(base.graph.model) else MAPS
    return [*found, Check("heatmap", "pass" if worst <= most else "fail", text, about="map")]


def _is_half(model: onnx.ModelProto) -> bool:
    """Whether the network computes in float16, in which gates flip that the twin leaves alone."""
    narrow = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return any(tensor.data_type in narrow for tensor in model.graph.initializer)


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
    if runtime and runtime not in LACKS:
        raise UsageError(f"no such runtime: {runtime!r}", hint="one of " + ", ".join(LACKS))
    if facts_of(opened.file.metadata) is not None:
        raise ModelRefused("the file has a heatmap already", where=name, hint="embed the original")
    if HEATMAP in opened.graph.outputs or HEATMAP in opened.graph.tensors:
        raise ModelRefused(f"the model has a tensor named {HEATMAP!r} already", where=name)
    if opened.model.constants or opened.input.name.endswith("[None]"):
        raise ModelRefused(
            "inputs that are not images, or images without an axis of samples", where=name
        )
    if opened.input.space != 2 or opened.input.integer:
        raise ModelRefused("a heatmap is written for pictures in floating point", where=name)


class _Plan:
    """What is differentiated by what, for one method and one target."""

    def __init__(self, opened: Opened, request: Request, target: str | int) -> None:
        self.opened, self.request, self.words = opened, request, str(target)
        self.model, self.graph = opened.model, opened.graph
        probe = noise(self.model, opened.preprocessing.preprocess).image
        self.images = probe if opened.input.batch else np.concatenate([probe, probe[..., ::-1]])
        self.side: tuple[int, int] = (probe.shape[2], probe.shape[3])
        self.target: Target | None = None
        self.tensor = opened.scores.tensor
        if self.words == "top1":
            if not opened.scores.classifier:
                raise MethodRefused(
                    "top1 is a class, and this model is not a classifier",
                    hint="name an element for all images: --target OUTPUT[i,j]",
                )
        else:
            spec = TargetSpec.parse(target, scores=opened.scores, labels=opened.class_labels.names)
            found = spec.resolve(None)
            if len(found) != 1:
                raise UsageError(f"{self.words!r} names several targets", hint="ask for one")
            if len(found[0].tensors) > 1:
                raise UsageError(
                    f"{self.words!r} is read from several tensors, and a file that draws is "
                    "written for one",
                    hint="name parts of one tensor; inspector explain takes such a sum",
                )
            self.target, self.tensor = found[0], found[0].tensor
        image = opened.input.name
        one = self.model.as_in_graph(image, opened.input.arrange(probe).astype(np.float32))
        self._nodes = tail_of(self.graph, [image], self.tensor).nodes
        self.measured = Measured(opened.file, self._nodes, {image: one})

    def embedding(self, layer: str | int | None, size: str, *, class_input: bool) -> Embedding:
        """All that the file needs."""
        request, opened = self.request, self.opened
        method, options = request.method, dict(request.options)
        layered = method.through_layer or "head" in method.needs
        through = self._layer(layer) if layered else None
        image = None
        if method.space == "input":
            rule = Rule(method.rule or "gradient", str(options.get("extension", "refuse")))
            coverage(self.graph, self._nodes, rule)
            last = opened.input.layout == "NHWC"
            overlay = overlay_of(opened.file, rule)
            image = Part((opened.input.name,), self._nodes, last, overlay)
        known = None if self.target is None else self.measured(self.tensor)
        return Embedding(
            method=method.name,
            target=self.tensor,
            slope=None
            if self.target is None or known is None
            else self.target.slope(
                {self.tensor: np.zeros((1, *known.shape[1:]), np.float32)}, self.tensor
            ),
            layer=through,
            image=image,
            reduction=method.reduction,
            factor=self._factor(through) if method.name == "cam" else 1.0,
            laid=None
            if through is None or (size == "layer" and image is None)
            else self._laid(through),
            class_input=class_input and self.target is None,
            facts={
                "method": request.label,
                "target": self.words,
                "tensor": self.tensor,
                "layer": None if through is None else through.start[0],
                "size": size,
                "model": opened.file.sha256,
                "preprocessing": opened.preprocessing.to_dict(),
                "versions": {k: v for k, v in versions().items() if k in _MADE_BY},
            },
        )

    def _layer(self, layer: str | int | None) -> Part:
        opened, method = self.opened, self.request.method.name
        if method == "cam":
            head = self.model.head
            if not isinstance(head, LinearHead):
                raise MethodRefused(
                    f"CAM is not exact for this head: {head.reason}",
                    where=f"node {head.node!r}" if head.node else "",
                    hint="grad-cam needs no such head",
                )
            name = head.features
        elif layer is not None:
            name = opened.layer_for(layer)[0].tensor
        else:
            before, _ = opened.layers_before(self.tensor)
            if len(before) != 1:
                raise MethodRefused(
                    "the target lies behind several layers, or behind none", hint="name --layer"
                )
            name = before[0].tensor
        form = self.model.form(name, self.side)
        if form.tokens is not None or form.levels is not None:
            raise MethodRefused(
                "a layer of tokens or of quantised levels is not written into a file yet",
                where=repr(name),
            )
        start = copies_of(self.graph, name)
        tail = tail_of(self.graph, start, self.tensor)
        if not tail.connected:
            raise MethodRefused(
                f"the target {self.tensor!r} does not depend on the layer", where=repr(name)
            )
        return Part(start, tail.nodes, last=form.axis == 3)

    def _laid(self, part: Part) -> tuple[Array, Array]:
        """Two matrices that lay the layer's map on the input.

        Raises:
            MethodRefused: Its cells are mirrored at a diagonal, or are several grids.
        """
        name = part.start[0]
        value = self.measured(name)
        shape: tuple[int, ...] = () if value is None else value.shape
        cells = (shape[1], shape[2]) if part.last else (shape[2], shape[3])
        placement = self.model.placement(name, self.side)
        whole = lay_on_input(np.ones(cells, np.float32), placement, self.side)
        row, column = np.unravel_index(int(whole.argmax()), whole.shape)
        found = []
        for axis, place in ((0, (slice(None), column)), (1, (row, slice(None)))):
            lines = []
            for index in range(cells[axis]):
                unit = np.zeros(cells, np.float32)
                unit[(index, slice(None)) if axis == 0 else (slice(None), index)] = 1
                lines.append(lay_on_input(unit, placement, self.side)[place])
            found.append(np.stack(lines, axis=1).astype(np.float32))
        rows, columns = found
        probe = np.random.default_rng(0).random(cells).astype(np.float32)
        known = lay_on_input(probe, placement, self.side)
        if not np.allclose(rows @ probe @ columns.T, known, atol=1e-5):
            raise MethodRefused(
                "the layer's cells lie on the input in no rows and columns",
                where=repr(name),
                hint="--size layer writes the map in the layer's own size",
            )
        return rows, columns

    def _factor(self, part: Part | None) -> float:
        """From mean gradients to the weights of CAM."""
        head = self.model.head
        shape = None if part is None else self.measured(part.start[0])
        if not isinstance(head, LinearHead) or shape is None or part is None:
            return 1.0
        _, *sides = np.shape(shape)
        cells = int(np.prod(sides[:2] if part.last else sides[1:]))
        return (1.0 if head.summed else float(cells)) / head.scale

    def by_twin(self, layer: Any) -> Array:
        """The method's own map of the probe images, from the twin's gradients.

        The forward pass is one without optimisations, as that of the heatmap is: fused operators
        round float16 and quantised levels at other places, and gates flip.
        """
        kept = self.model.runtime
        self.model.runtime = Runtime(self.opened.file, device="cpu", optimise=False)
        self.model.runtime.batches = kept.batches
        try:
            return self._by_twin(layer)
        finally:
            self.model.runtime = kept

    def _by_twin(self, layer: Any) -> Array:
        from inspector.evidence import Evidence, tensors_for

        opened, request = self.opened, self.request
        name = str(layer) if layer is not None else None
        needs = request.method.needs
        values = opened.forward(self.images, tensors_for(self.model, needs, name, [self.tensor]))
        targets = []
        for row in range(len(self.images)):
            scores = np.asarray(values[self.tensor][row]).reshape(-1)
            spec = TargetSpec.parse(
                self.words, scores=opened.scores, labels=opened.class_labels.names
            )
            targets.append(spec.resolve(scores)[0])
        evidence = Evidence(
            self.model,
            self.images,
            targets,
            values,
            layer=name,
            preprocess=opened.preprocessing.preprocess,
        )
        found: Array = request.method(evidence, **request.options)
        if request.method.space == "layer":
            return found
        return np.stack([reduce(one, request.method.reduction) for one in found])

    def fix_size(self, model: onnx.ModelProto) -> None:
        """Declare height and width where the model leaves them free: shapes were measured."""
        for value in model.graph.input:
            if value.name == self.opened.input.name:
                dims = value.type.tensor_type.shape.dim
                axes = (1, 2) if self.opened.input.layout == "NHWC" else (2, 3)
                for axis, length in zip(axes, self.side, strict=True):
                    if len(dims) == 4:
                        dims[axis].dim_value = length


_MADE_BY = ("onnx-inspector", "onnx", "onnxruntime")


def _run(
    opened: Opened, file: onnx_file.OnnxFile, names: Sequence[str], *, optimise: bool
) -> Mapping[str, Array]:
    """Tensors of the probe images from a file."""
    probe = noise(opened.model, opened.preprocessing.preprocess).image
    images = probe if opened.input.batch else np.concatenate([probe, probe[..., ::-1]])
    value = opened.model.as_in_graph(opened.input.name, opened.input.arrange(images))
    runtime = Runtime(file, device="cpu", optimise=optimise)
    return runtime.run({opened.input.name: value}, names)


def _output_checks(base: Opened, file: onnx_file.OnnxFile) -> list[Check]:
    """Whether a file's outputs are those of the model: to the bit, and as it is really run."""
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
    if not isinstance(ours, np.ndarray):
        return 0.0 if ours == theirs else float("inf")
    if ours.shape != theirs.shape:
        return float("inf")
    if ours.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else float("inf")
    peak = float(np.abs(theirs).max(initial=0)) or 1.0
    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    return float(np.abs(ours - theirs).max()) / peak

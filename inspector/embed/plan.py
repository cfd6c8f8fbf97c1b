"""What is differentiated by what, for one method and one target."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from inspector.embed.choices import Choice, choice_of, element_hint
from inspector.engines.gradient_graph import Measured, overlay_of
from inspector.engines.rules import Rule, coverage
from inspector.engines.runtime import Runtime
from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.heatmap import lay_on_input, reduce
from inspector.methods import Request
from inspector.network.classifier.head import LinearHead
from inspector.network.quantisation.levels import copies_of
from inspector.network.tail import tail_of
from inspector.opened import Opened
from inspector.photos.geometry import Geometry
from inspector.surgery.embedded import Embedding, Held, Part
from inspector.surgery.embedded_target import BestClass, FixedScore, Seed
from inspector.surgery.gradient.reverse import Overlay
from inspector.target import Target, TargetSpec, names_elements
from inspector.tasks import Sample
from inspector.verify.subject import noise
from inspector.versions import versions

__all__ = ["METHODS", "SIZES", "Plan", "probe_images"]

Array = np.ndarray[Any, Any]

METHODS = (
    *("cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "gradient"),
    *("guided-backprop", "deconvnet", "guided-grad-cam"),
)
"""Methods that can be written into a file."""

SIZES = ("input", "layer")
"""Whose size a heatmap through a layer has."""

_LISTED = 16
"""Numbers of a constant that stand in the metadata; of others their shape does."""


def probe_images(opened: Opened) -> Array:
    """Random images (N, C, H, W), preprocessed: two where the network takes several at once."""
    one = noise(opened.model, opened.preprocessing.preprocess).image
    two = np.concatenate([one, one[..., ::-1]])
    if opened.batches:  # what a file declares may not hold: it shows when it runs
        opened.forward(two, [next(iter(opened.graph.outputs))])
    return two if opened.batches else one


class Plan:
    """What is differentiated by what, for one method and one target."""

    def __init__(self, opened: Opened, request: Request, target: str | int) -> None:
        self.opened, self.request, self.words = opened, request, str(target)
        self.model, self.graph = opened.model, opened.graph
        self.images = probe_images(opened)
        probe = self.images[:1]
        self.side: tuple[int, int] = (probe.shape[2], probe.shape[3])
        self.target: Target | None = None
        self.choice: Choice | None = None
        if self.words == "top1":
            self.choice = choice_of(opened)
            self.tensor = self.choice.output
        else:
            self.target = self._fixed(target)
            self.tensor = self.target.tensor
        image = opened.input.name
        laid = opened.input.arrange(probe)
        laid = laid if opened.input.integer else laid.astype(np.float32)
        one = self.model.as_in_graph(image, laid)
        self._nodes = tail_of(self.graph, [image], self.tensor).nodes
        self.measured = Measured(opened.file, self._nodes, {image: one})

    @property
    def layered(self) -> bool:
        """Whether the method reads a layer."""
        return self.request.method.through_layer or "head" in self.request.method.needs

    def _fixed(self, target: str | int) -> Target:
        """The one element of all images that the user names."""
        opened = self.opened
        if opened.sure_reading is not None and not names_elements(self.words, opened.scores):
            raise MethodRefused(
                f"{self.words!r} is an item of each photo: a file chooses top1 alone",
                hint=f"leave --target out, or {element_hint(opened)}",
            )
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
        return found[0]

    def _seed(self, *, class_input: bool) -> Seed:
        if self.choice is not None:
            if class_input and not isinstance(self.choice.seed, BestClass):
                raise UsageError(
                    "a class is picked of a classifier alone", hint="leave --class-input out"
                )
            known = self.measured(self.tensor)
            if class_input and known is not None and known[:1].size == 1:
                raise UsageError(
                    "the network has one score, for two classes: there is none to pick",
                    hint="leave --class-input out",
                )
            return BestClass(by_input=True) if class_input else self.choice.seed
        if class_input:
            raise UsageError("--class-input and --target exclude each other", hint="leave one out")
        known = self.measured(self.tensor)
        if self.target is None or known is None:
            raise MethodRefused(
                f"the target {self.tensor!r} is not computed from the image",
                hint=element_hint(self.opened),
            )
        blank = np.zeros((1, *known.shape[1:]), np.float32)
        return FixedScore(self.target.slope({self.tensor: blank}, self.tensor))

    def _overlay(self, rule: Rule) -> Overlay:
        """What a rule does, and what stands between the explained number and the output."""
        passed = frozenset() if self.choice is None else self.choice.passed
        return replace(overlay_of(self.opened.file, rule), passed=passed)

    def embedding(self, layer: str | int | None, size: str, *, class_input: bool) -> Embedding:
        """All that the file needs."""
        request, opened = self.request, self.opened
        method, options = request.method, dict(request.options)
        through = self._layer(layer) if self.layered else None
        image = None
        if method.space == "input":
            rule = Rule(method.rule or "gradient", str(options.get("extension", "refuse")))
            coverage(self.graph, self._nodes, rule)
            held = Held(last=opened.input.layout == "NHWC")
            image = Part((opened.input.name,), self._nodes, held, self._overlay(rule))
        return Embedding(
            method=method.name,
            target=self.tensor,
            seed=self._seed(class_input=class_input),
            layer=through,
            image=image,
            reduction=method.reduction,
            factor=self._factor(through) if method.name == "cam" else 1.0,
            laid=None
            if through is None or (size == "layer" and image is None)
            else self._laid(through),
            facts={
                "method": request.label,
                "target": self.words,
                "tensor": self.tensor,
                "layer": None if through is None else through.start[0],
                "size": size,
                "model": opened.file.sha256,
                "constants": {
                    one: str(value.tolist() if value.size <= _LISTED else value.shape)
                    for one, value in opened.model.constants.items()
                },
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
            name = opened.layer_for(layer, tokens=True)[0].tensor
        else:
            name = self._usual()
        start = copies_of(self.graph, name)
        tail = tail_of(self.graph, start, self.tensor)
        reading = None if self.choice is None else self.choice.reading
        for tensor in (self.tensor,) if reading is None else reading.tensors:
            if not tail_of(self.graph, start, tensor).connected:
                raise MethodRefused(
                    f"the target {tensor!r} does not depend on the layer",
                    where=repr(name),
                    hint="name one before it with --layer",
                )
        return Part(start, tail.nodes, self._held(name), self._overlay(Rule("gradient")))

    def _usual(self) -> str:
        """The layer that `inspector explain` takes; of boxes on several levels one before all."""
        opened, choice = self.opened, self.choice
        reading = None if choice is None else choice.reading
        asked = None if reading is None else opened.layer_of_task(reading)
        if asked is not None:
            return asked[0]
        found, _ = opened.layers_before(*((self.tensor,) if reading is None else reading.tensors))
        if len(found) != 1:
            listed = ", ".join(repr(one.tensor) for one in found[:3])
            raise MethodRefused(
                "the target lies behind several layers, or behind none",
                where=listed,
                hint="name one with --layer",
            )
        return found[0].tensor

    def _held(self, name: str) -> Held:
        """How the layer holds its map.

        Raises:
            MethodRefused: Parts of one image are rows of its batch, or its tokens stand first.
        """
        form = self.model.form(name, self.side)
        if self.model.folds(name) or (form.tokens is not None and form.tokens.axis == 0):
            raise MethodRefused(
                "parts of each image are rows of the layer's batch, which a file does not undo",
                where=repr(name),
                hint="name another with --layer",
            )
        fixed, value = self.model.fixed, self.measured(name)
        if fixed is not None and value is not None and len(value) != fixed.batch:
            raise MethodRefused(
                f"the {fixed.batch} images of the file's batch are not the layer's rows "
                f"({len(value)}): no map of one image can be read from it",
                where=repr(name),
                hint="name another with --layer, or export the network for one image",
            )
        found = Held(last=form.axis == 3)
        if form.tokens is not None:
            found = replace(found, tokens=form.tokens.index, along=form.tokens.axis)
        if form.levels is not None:
            known = self.measured(name)
            rank = 4 if known is None else known.ndim
            zero = np.asarray(form.levels.zero_point, np.float32)
            step = np.asarray(form.levels.steps(rank), np.float32)
            found = replace(found, step=step, zero=zero.reshape(step.shape))
        return found

    def _laid(self, part: Part) -> tuple[Array, Array]:
        """Two matrices that lay the layer's map on the input.

        Raises:
            MethodRefused: Its cells are mirrored at a diagonal, or are several grids.
        """
        name = part.start[0]
        value = self.measured(name)
        shape: tuple[int, ...] = () if value is None else value.shape
        cells = part.held.cells(shape)
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
        cells = int(np.prod(sides[:2] if part.held.last else sides[1:]))
        return (1.0 if head.summed else float(cells)) / head.scale

    def by_twin(self, layer: Any, *, exact: bool = False) -> Array:
        """The method's own map of the probe images, from the twin's gradients.

        The forward pass is one without optimisations, as that of the heatmap is: fused operators
        round float16 and quantised levels at other places, and gates flip.

        Args:
            layer: The layer; None for a method at the input.
            exact: Gradients in float64, in which no gate flips by rounding.
        """
        from inspector.engines.twin import TwinEngine

        model = self.model
        kept = model.runtime, model.engine, model.twin_engine
        model.runtime = Runtime(self.opened.file, device="cpu", optimise=False)
        model.runtime.batches, model.engine = kept[0].batches, "twin"
        if exact:
            model.twin_engine = TwinEngine(self.graph, dtype=_float64())
        try:
            return self._by_twin(layer)
        finally:
            model.runtime, model.engine, model.twin_engine = kept

    def _by_twin(self, layer: Any) -> Array:
        from inspector.evidence import Evidence, tensors_for

        opened, request = self.opened, self.request
        name = str(layer) if layer is not None else None
        needs = request.method.needs
        targets = self._targets()
        named = list(dict.fromkeys(target.tensor for target in targets))
        values = opened.forward(self.images, tensors_for(self.model, needs, name, named))
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

    def _targets(self) -> list[Target]:
        """What is explained of each probe image, as `inspector explain` chooses it.

        Raises:
            ImageRefused: The network finds nothing in one of them.
        """
        opened, choice = self.opened, self.choice
        reading = None if choice is None else choice.reading
        if reading is None:
            tensor = self.tensor
            scores = opened.forward(self.images, [tensor])[tensor]
            spec = TargetSpec.parse(
                self.words, scores=opened.scores, labels=opened.class_labels.names
            )
            return [spec.resolve(np.asarray(row).reshape(-1))[0] for row in scores]
        values = opened.forward(self.images, reading.outputs)
        found = []
        for row in range(len(self.images)):
            own = {name: np.asarray(values[name][row]) for name in reading.outputs}
            items = reading.items(Sample(own, Geometry.identity(self.side)))
            if not items:
                raise ImageRefused("the network finds nothing in a random image")
            found.append(items[0].target)
        return found

    def fix_size(self, model: onnx.ModelProto) -> None:
        """Declare height and width where the model leaves them free: shapes were measured."""
        for value in model.graph.input:
            if value.name == self.opened.input.name:
                dims = value.type.tensor_type.shape.dim
                axes = (1, 2) if self.opened.input.layout == "NHWC" else (2, 3)
                for axis, length in zip(axes, self.side, strict=True):
                    if len(dims) == 4:
                        dims[axis].dim_value = length


def _float64() -> Any:
    import torch

    return torch.float64


_MADE_BY = ("onnx-inspector", "onnx", "onnxruntime")

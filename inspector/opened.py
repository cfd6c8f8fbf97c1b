"""An opened model: the model with its preprocessing, class names, layer and certificate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from converters import onnx_file
from converters.graph import Graph
from converters.plain_values import whole_number
from inspector.engines.execution import USUAL, Execution
from inspector.errors import MethodRefused, ModelRefused, UnknownLayer, UsageError
from inspector.model import Model
from inspector.network.classifier.head import LinearHead, NoHead
from inspector.network.form import Form
from inspector.network.inputs.choice import Feeds, feed_facts
from inspector.network.inputs.image import ImageInput
from inspector.network.inputs.own_normalisation import expected_range
from inspector.network.layer_choice import (
    default_layer,
    describe,
    layers_before,
    maps_before,
    select_layer,
)
from inspector.network.layers import Layer
from inspector.network.outputs.labels import Labels, labels_of_file, names_beside
from inspector.network.residual import block_output
from inspector.network.space import KINDS
from inspector.network.tokens.layers import TokenLayers
from inspector.photos.band_tiff import require_reader
from inspector.photos.bands import Bands, open_photo
from inspector.photos.photo import ImageSource, Photo
from inspector.photos.preprocess_choice import PreprocessChoice, Resolved, resolve
from inspector.photos.preprocess_files import parse_override
from inspector.target import Scores
from inspector.tasks import Outputs, Reading, find_reading
from inspector.verify import Verdict, kept_at, kept_verdict, verdict_for, worst_of
from inspector.verify.graph_gradient import ENGINE, graph_judged
from inspector.versions import versions

__all__ = ["Opened"]

Array = np.ndarray[Any, Any]


class Opened:
    """One opened model, and how photos and classes are to be read for it.

    Args:
        file: From ``converters.onnx_file.read``.
        device: ``auto``, ``cpu`` or ``cuda``.
        preprocess: A preset, a file, a ``Preprocess`` or a mapping of its settings; found out
            when None.
        overrides: Single preprocessing options as ``key=value``.
        labels: A file of class names, or the names; those in the model's metadata when None.
        unverified: Draw gradient methods, labelled, even where the certificate fails.
        feed: Constants for the inputs that are not the image, as ``load`` takes them.
        engine: ``twin``, ``onnx`` or ``auto``; see ``Model.gradient_engine``.
        source: What the file was converted from, where class names may lie beside; the file
            itself when None.
        execution: How ONNX Runtime runs the file, where that is not the usual way.
    """

    def __init__(
        self,
        file: onnx_file.OnnxFile,
        *,
        device: str = "auto",
        preprocess: PreprocessChoice | None = None,
        overrides: Sequence[str] = (),
        labels: str | Path | Sequence[str] | None = None,
        unverified: bool = False,
        feed: Feeds = (),
        engine: str = "auto",
        source: Path | None = None,
        execution: Execution = USUAL,
    ) -> None:
        self.source = source or file.path
        self.model = Model(file, device=device, feed=feed, execution=execution, engine=engine)
        self.settings: dict[str, Any] = {
            "preprocess": preprocess,
            "overrides": tuple(overrides),
            "labels": labels,
            "unverified": unverified,
            "feed": self.model.constants,
            "engine": engine,
        }
        self.unverified = unverified
        self.limits: onnx_file.Limits | None = None  # set by who opens it, for who opens it again
        self.preprocessing = self._resolve(preprocess, overrides)
        self.model.free_size = self.preprocessing.preprocess.size
        self.class_labels = self._read_labels(labels)
        if labels is None and self.source != file.path and not self.model.labels.names:
            # Another process opens the converted file, beside which there are none.
            self.settings["labels"] = self.class_labels.names or None
        self._layers: dict[Any, tuple[Layer, str]] = {}
        self._last_layers: dict[tuple[str, ...], tuple[tuple[Layer, ...], str]] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._readings: dict[str | None, Reading | None] = {}

    def _resolve(self, preprocess: PreprocessChoice | None, overrides: Sequence[str]) -> Resolved:
        overrides = [self._as_plane(text) for text in overrides]
        image = self.input
        return resolve(
            preprocess,
            overrides,
            model_path=self.path if self.file.on_disk else None,
            metadata=self.file.metadata,
            input_size=(image.height, image.width),
            input_channels=image.channels,
            layout=image.layout,
            integer=image.integer,
            bounds=image.bounds,
            first_operators=[node.op_type for node in self.graph.consumers(image.name)],
            normalises=expected_range(self.graph, image.name),
            producer=self.file.exporter,
            names=[node.name for node in self.graph.nodes],
            classifier=image.space != 2 or self.scores.classifier,
            space=image.space,
            workable=self.model.workable_size,
        )

    def _as_plane(self, override: str) -> str:
        """The size of a volume, ``size=D,H,W``, as that of its slices below each other.

        Raises:
            UsageError: The file fixes another number of slices.
        """
        image = self.input
        key, value = parse_override(override)
        if image.space != 3 or key != "size":
            return override
        sizes = [whole_number(str(one)) for one in value] if isinstance(value, list) else []
        if len(sizes) != 3 or any(one is None or one < 1 for one in sizes):
            raise UsageError(f"{override!r}: three sizes are meant", hint="--set size=D,H,W")
        depth, height, width = (one or 1 for one in sizes)
        if not image.free_depth and depth != image.depth:
            raise UsageError(f"size = {depth} slices, but the model takes {image.depth}")
        self.model.input = replace(image, depth=depth)
        return f"size={depth * height},{width}"

    def photo(self, source: ImageSource, drawn: Sequence[int] = ()) -> Photo:
        """A photo, or an array of bands, a signal or a volume that fits the model.

        Args:
            source: A path, a ``Photo``, a PIL image or an array.
            drawn: Bands that are drawn, counted from 1.

        Raises:
            ImageRefused: It cannot be read, or does not fit the model.
        """
        to = Bands(
            self.preprocessing.preprocess,
            self.input.space,
            self.input.depth,
            chosen=self.preprocessing.chosen,
            drawn=tuple(drawn),
            free=self.input.space == 1
            and self.input.width is None
            and self.preprocessing.evidence["size"].startswith("guess"),
            fixed=None not in (self.input.height, self.input.width)
            or self.preprocessing.evidence["size"].startswith("the network"),
        )
        return open_photo(source, to)

    def require_readers(self, sources: Iterable[object]) -> None:
        """Refuse photos for which an optional package is missing, before the first is read.

        Raises:
            MissingExtra: A HEIC or DICOM file, or a TIFF file of several bands per pixel, and what
                reads it is not installed.
        """
        bands = self.input.space != 2 or self.preprocessing.preprocess.bands
        require_reader(sources, bands=bool(bands))

    def require_pictures(self, what: str) -> None:
        """Refuse what is defined for pictures alone.

        Raises:
            ModelRefused: The model takes signals or volumes.
        """
        if self.input.space != 2:
            raise ModelRefused(
                f"{what} is defined for pictures, and this model takes {KINDS[self.input.space]}",
                where=self.path.name,
                hint="`inspector explain` draws maps of them",
            )

    def _read_labels(self, labels: str | Path | Sequence[str] | None) -> Labels:
        if labels is None:
            found = self.model.labels
            nowhere = self.source == self.path and not self.file.on_disk
            if found.names or not self.scores.classifier or nowhere:
                return found
            beside = names_beside(self.source, self.scores.classes)
            return replace(beside, warnings=found.warnings + beside.warnings)
        if isinstance(labels, str | Path):
            return labels_of_file(labels)
        return Labels(tuple(labels), "given")

    def sibling(self, path: str | Path, limits: onnx_file.Limits | None = None) -> Self:
        """Open another file with the settings of this one.

        Args:
            path: The other ``.onnx`` file.
            limits: As ``load``.

        Raises:
            ConverterError: it is not a model, or not safe to open.
            ModelRefused: it takes no image.
            UsageError: preprocessing or labels that do not fit it.
        """
        return self.with_file(onnx_file.read(Path(path), limits=limits, weights_apart=True))

    def with_file(self, file: onnx_file.OnnxFile) -> Self:
        """Open a file that was read already, or made of this one, with the settings of this one."""
        return type(self)(file, device=self.device, **self.settings)

    def run_by(self, execution: Execution, file: onnx_file.OnnxFile | None = None) -> Self:
        """The same model, run in another way, with the settings of this one.

        Args:
            execution: How ONNX Runtime runs it.
            file: What was made of this model's file, whose inputs are bound already; that file
                itself when None.
        """
        kept = {name: value for name, value in self.settings.items() if name != "feed"}
        found = type(self)(
            file or self.file,
            device=self.device,
            source=self.source,
            execution=execution,
            **kept,
        )
        found.model.constants = found.settings["feed"] = self.model.constants
        return found

    # -- facts of the model that everybody asks for ---------------------------------------------

    @property
    def file(self) -> onnx_file.OnnxFile:
        """The file, as it was read."""
        return self.model.file

    @property
    def path(self) -> Path:
        """Where the model was read from."""
        return self.model.path

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``, as asked for."""
        return self.model.device

    @property
    def graph(self) -> Graph:
        """The read-only view of the graph."""
        return self.model.graph

    @property
    def input(self) -> ImageInput:
        """The graph input that takes the picture."""
        return self.model.input

    @property
    def scores(self) -> Scores:
        """The classifier's scores before softmax or sigmoid."""
        return self.model.scores

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The convolutional layers, in graph order."""
        return self.model.layers

    @property
    def head(self) -> LinearHead | NoHead:
        """The linear head behind the last pooling, or the node that rules CAM out."""
        return self.model.head

    @property
    def batches(self) -> bool:
        """Whether several images can go through at once."""
        return self.model.batches

    def size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Input size in pixels: the model's own, else the one given, else 224."""
        return self.model.size(height, width)

    def shapes(self, size: tuple[int, int] | None = None) -> Mapping[str, tuple[int, ...]]:
        """Concrete shape of every layer; see ``Model.shapes``."""
        return self.model.shapes(size)

    def forward(self, images: Array, fetch: Sequence[str]) -> dict[str, Array]:
        """Tensors of a batch (N, C, H, W) by ONNX Runtime; see ``Model.forward``."""
        return self.model.forward(images, fetch)

    # -- the certificate -------------------------------------------------------------------

    def certificate_of(self, tensor: str = "", *, twin: bool = False) -> Verdict:
        """Whether gradients may be trusted: computed once per file, then cached.

        Args:
            tensor: Whose elements are explained; by default the classifier's scores, else an
                output's.
            twin: Ask of the twin, whichever engine was chosen.
        """
        key = tensor or (self.scores.tensor if self.scores.classifier else "")
        kept = f"{key}, twin" if twin and self.model.engine != "twin" else key
        found = self._verdicts.get(kept)
        if found is None:
            found = self._verdicts[kept] = self._judged(key, twin=twin)
        return found

    def _judged(self, tensor: str, *, twin: bool) -> Verdict:
        """The verdict on the engine that draws; where ``auto`` has doubts, that is the twin."""
        model, preprocess = self.model, self.preprocessing.preprocess
        if model.engine != "twin" and not twin:
            found = graph_judged(model, preprocess, tensor)
            if found is not None:
                return found
            model.engine = "twin"
            self._verdicts.clear()  # those on the gradient graph, which draws no more
        return verdict_for(model, preprocess, tensor)

    @property
    def certificate(self) -> Verdict:
        """The certificate of the default target; see ``certificate_of``."""
        return self.certificate_of()

    def require_certificate(
        self, methods: Sequence[str], tensors: Sequence[str] = ("",), *, twin: bool = False
    ) -> None:
        """Refuse methods that need gradients on a model whose gradients are not shown to be right.

        Args:
            methods: Their names; none asks for nothing.
            tensors: Tensors whose elements they explain; see ``certificate_of``.
            twin: As ``certificate_of``.

        Raises:
            MethodRefused: The certificate fails or is undecided, and ``unverified`` is off.
        """
        asked = tensors if methods else ()
        for tensor in asked:  # a doubt about one changes the engine of all, so all are judged first
            self.certificate_of(tensor, twin=twin)
        for tensor in () if self.unverified else asked:
            if (found := self.certificate_of(tensor, twin=twin)).passed is not True:
                by_graph = self.model.engine == "onnx" and not twin
                other, engine = ("--engine twin asks PyTorch; ", ENGINE) if by_graph else ("", "")
                raise MethodRefused(
                    f"{', '.join(methods)}: {found.text}",
                    where=self.path.name,
                    hint=f"{other}cam and occlusion need no gradient; `inspector verify` tells "
                    f"more; --unverified draws all the same{self._kept(tensor, engine)}",
                )

    def require_occlusion(self, methods: Sequence[str], tensors: Sequence[str] = ("",)) -> None:
        """Refuse methods of further forward passes that `inspector verify` has found wrong.

        Args:
            methods: Their names; none asks for nothing.
            tensors: As ``require_certificate``.

        Raises:
            MethodRefused: A kept certificate says so, and ``unverified`` is off.
        """
        for tensor in tensors if methods and not self.unverified else ():
            found = kept_verdict(self.model, self.preprocessing.preprocess, tensor)
            if found is not None and found.occlusion:
                raise MethodRefused(
                    f"{', '.join(methods)}: occlusion fails its checks: {found.occlusion}",
                    where=self.path.name,
                    hint=f"--unverified draws all the same{self._kept(tensor)}",
                )

    def _kept(self, tensor: str, engine: str = "") -> str:
        """Where a verdict is kept, and how it is lifted."""
        place = kept_at(self.model, self.preprocessing.preprocess, tensor, engine=engine)
        if place is None:
            return ""
        return (
            f"; the verdict is kept in {place}: `inspector verify` judges anew, and deleting the "
            "file lifts it"
        )

    # -- the layer -------------------------------------------------------------------------

    def layer_for(self, layer: str | int | None, *, tokens: bool = False) -> tuple[Layer, str]:
        """The layer that a user names, and why it was chosen.

        Args:
            layer: A tensor name, an index, ``last``, or None for the default.
            tokens: Take layers of `tokens` too, which studies of maps do not.

        Raises:
            UnknownLayer: there is no such layer.
            ModelRefused: the model has no convolution.
        """
        if tokens and layer in (None, "last"):
            before, why = self.layers_before(self.scores.tensor)
            if before and before[-1].attended and before[-1] not in self.layers:
                return before[-1], why
        elif tokens and layer is not None:
            named = self.tokens.named(layer)
            if named is not None and not self._turned(named):
                return named, "chosen by the user"
        if layer not in self._layers:
            shapes = self.shapes(self.preprocessing.preprocess.size)
            if layer is not None:
                extended = self._shape_of(layer, shapes)
                found = select_layer(self.layers, layer, extended, self.graph)
                self._layers[layer] = found, "chosen by the user"
            elif not self.layers:
                raise ModelRefused(
                    "the model has no convolution to explain through",
                    where=self.path.name,
                    hint="gradient and occlusion need none",
                )
            else:
                before = layers_before(self.graph, self.layers, shapes, self.scores.tensor)
                self._layers[layer] = (
                    (before[-1], describe(before, shapes, self.scores.tensor))
                    if before
                    else default_layer(self.layers, shapes, self.input.space)
                )
        return self._layers[layer]

    def layers_before(self, *targets: str) -> tuple[tuple[Layer, ...], str]:
        """Layers that a walk back from a target meets first, and why; several, or none.

        Args:
            targets: Tensor that the target is an element of, or those that a sum is read from.
        """
        if targets not in self._last_layers:
            shapes = self.shapes(self.preprocessing.preprocess.size)
            found = layers_before(self.graph, self.layers, shapes, *targets)
            why = describe(found, shapes, *targets) if found else ""
            tokens = self.tokens.last_before(targets, found)
            if tokens is not None:
                found, why = (tokens,), self.tokens.reason(tokens, self.shape_of(tokens.tensor))
            self._last_layers[targets] = found, why
        return self._last_layers[targets]

    def _turned(self, layer: Layer) -> bool:
        """Whether the same map lies in the graph with its channels first."""
        try:
            return bool(
                select_layer(
                    self.layers, layer.tensor, self._shape_of(layer.tensor, {}), self.graph
                )
            )
        except UnknownLayer:
            return False

    @cached_property
    def tokens(self) -> TokenLayers:
        """Layers of tokens, at the size that photos come in."""
        size = self.size(*self.preprocessing.preprocess.size)
        forms = self.model.forms

        def form(name: str) -> Form | None:
            if forms.is_map(name) and forms.of(name).axis == 1:
                return None  # a layer of maps
            return self.model.form(name, size)

        return TokenLayers(self.graph, self.layers, form)

    def reading(
        self, task: str | None = None, references: Mapping[str, Array] | None = None
    ) -> Reading | None:
        """What the outputs mean; None for a classifier, and where no task fits.

        Args:
            task: The task that the user names; None to find it out.
            references: Outputs for a reference photo, by name.

        Raises:
            UsageError: No task of that name, the outputs do not fit it, or they can be read in
                several ways.
            ModelRefused: The network does not run, so that nothing is known of its outputs.
        """
        if self.input.space != 2:
            if task not in {None, "classifier"}:
                self.require_pictures(f"the task {task!r}")
            return None
        if task not in self._readings or references:
            size = self.size(*self.preprocessing.preprocess.size)
            known = Outputs(
                self.scores, self.class_labels.names, self.file.metadata, size, references or {},
                places=lambda tensor: self.model.tracer(size).state(tensor),
            )  # fmt: skip
            try:
                found = find_reading(known, task)
            except UsageError:
                self.require_outputs()
                raise
            if references:
                return found
            self._readings[task] = found
        return self._readings[task]

    def require_outputs(self) -> None:
        """Refuse a network that does not run: its outputs say nothing then, whatever is asked.

        Raises:
            ModelRefused: ONNX Runtime does not load it, or not run it on a probe image.
            LimitExceeded: It takes more memory than there is.
        """
        if self.scores.measure is not None:
            self.scores.measure([value.name for value in self.scores.outputs])

    @property
    def sure_reading(self) -> Reading | None:
        """What the outputs mean; None also where they can be read in several ways."""
        try:
            return self.reading()
        except UsageError:
            return None

    @property
    def meaning(self) -> str:
        """What the model is, in one line, and by what evidence."""
        try:
            found = self.reading()
        except UsageError as error:
            return f"not known: {error}"
        if found is not None:
            return found.why
        if not self.scores.classifier:
            return f"not recognised: {self.scores.why}"
        count = 2 if self.scores.unit is not None else self.scores.classes
        names = f", names from {self.class_labels.source}" if self.class_labels.names else ""
        sure = "" if self.scores.classifies else ", though nothing says that these are classes"
        return f"classifier ({count or 'an unknown number of'} classes{names}{sure})"

    def layer_of_task(self, reading: Reading) -> tuple[str, str] | None:
        """The layer that a task names, and why; None where it is the last one before a target."""
        shapes = self.shapes(self.preprocessing.preprocess.size)
        found = reading.layer(maps_before(self.graph, self.layers, shapes, reading.tensors))
        if found is None:
            return None

        def places(name: str) -> tuple[int, ...]:
            form = self.model.form(name, self.size(*self.preprocessing.preprocess.size))
            return form.cells(np.empty(self.shape_of(name), np.bool_))

        name = block_output(self.graph, found[0], reading.tensors, places)
        said = "" if name == found[0] else f", at the output of the block of {found[0]!r}"
        return name, found[1] + said

    def shape_of(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor, batch axis included (N = 1), at the size that photos come in."""
        shapes = self.shapes(self.preprocessing.preprocess.size)
        return self._shape_of(tensor, shapes)[tensor]

    def _shape_of(
        self, layer: str | int, shapes: Mapping[str, tuple[int, ...]]
    ) -> Mapping[str, tuple[int, ...]]:
        """Shapes, with that of a tensor which is not a listed layer measured on demand."""
        if layer in shapes or layer not in self.graph.tensors:
            return shapes
        size = self.size(*self.preprocessing.preprocess.size)
        blank = np.zeros((1, self.input.channels, *size), dtype=np.float32)
        value = self.forward(blank, [str(layer)])[str(layer)]
        return {**shapes, str(layer): tuple(np.shape(value))}

    # -- what a figure depends on ----------------------------------------------------------

    def context(self, layer: tuple[str | None, str] | None) -> dict[str, Any]:
        """Everything about model and machine that a figure depends on.

        Args:
            layer: Tensor of the layer and why it was chosen; without a tensor where each target
                has its own.
        """
        return {
            "model": {
                "name": self.path.name,
                "sha256": self.file.sha256,
                "producer": self.file.producer,
                "opsets": {domain or "ai.onnx": v for domain, v in self.graph.opsets.items()},
                "scores": self.scores.tensor,
                "activation": self.scores.activation,
                "labels": self.class_labels.source,
                **({"fed": fed} if (fed := feed_facts(self.model.constants)) else {}),
            },
            "layer": {"tensor": layer[0], "reason": layer[1]} if layer else None,
            "preprocess": self.preprocessing.to_dict(),
            "certificate": worst_of(self._verdicts.values()),
            "provider": self.model.runtime.provider,
            **({} if self.model.engine == "twin" else {"engine": self.model.engine}),
            **({"execution": self.model.execution.text} if self.model.execution.text else {}),
            "versions": versions(),
        }

"""Photos and methods in, maps out: the orchestration that command line and library share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from converters import onnx_file
from converters.source import Options
from inspector.errors import (
    ConverterError,
    ImageRefused,
    InspectorError,
    InspectorWarning,
    MethodRefused,
    ModelRefused,
    NotFinite,
    UsageError,
)
from inspector.heatmap import Heatmap
from inspector.methods import Request, parse_requests
from inspector.network.inputs import Feeds
from inspector.network.labels import count_warning
from inspector.network.lost_activations import lost_note
from inspector.opened import Opened
from inspector.opening import Opening
from inspector.passes.maps import Map, MapRefused, forward_for, layer_of, maps_of
from inspector.photos.geometry import Geometry
from inspector.photos.photo import ImageSource, Photo, image_sources, input_batch
from inspector.photos.photo_warnings import photo_warnings
from inspector.photos.preprocess_choice import PreprocessChoice
from inspector.probability import predictions, score_warnings
from inspector.report import Explanation, ImageReport, Refusal, Report
from inspector.target import Target, TargetSpec, names_elements, target_text
from inspector.tasks import Item, Reading, Sample
from inspector.tasks.items import ItemSpec

__all__ = ["Explainer", "attribute", "explain", "explain_each", "load"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]

BATCH = 8
"""Photos that go through the network at a time, where the model allows it."""

FAR = 10.0
"""Values as many ranges of the recipe outside of it are taken for images without its steps."""

PREDICTIONS = 5
"""Best classes that a report lists."""


def load(
    path: Any,
    example: Any = None,
    *,
    device: str = "auto",
    preprocess: PreprocessChoice | None = None,
    overrides: Sequence[str] = (),
    labels: str | Path | Sequence[str] | None = None,
    unverified: bool = False,
    trust: bool = False,
    options: Options | None = None,
    python: str = "",
    limits: onnx_file.Limits | None = None,
    feed: Feeds = (),
) -> "Explainer":
    """Open an ONNX file, or a model of another framework, which is converted first.

    Args:
        path: The ``.onnx`` file; a source that ``inspector convert`` knows; or a
            ``torch.nn.Module``.
        example: Input of the module, (N, C, H, W); for a module alone.
        device: ``auto``, ``cpu`` or ``cuda``.
        preprocess: A preset, a file, a ``Preprocess`` or a mapping of its settings; found out
            when None.
        overrides: Single preprocessing options as ``key=value``.
        labels: A file of class names, or the names; those in the model's metadata when None.
        unverified: Draw gradient methods, labelled, even where the model's certificate fails.
        trust: Whether a source that is a program of its author's may run.
        options: What a source of another framework does not say of itself.
        python: The Python of an environment that holds its framework; this one when empty.
        limits: What a stranger's file may demand; defaults in ``converters.onnx_file``.
        feed: Constants for the inputs that are not the image: arrays, numbers or ``.npy`` files by
            name. A number fills the declared shape, in which free axes are 1.

    Returns:
        The opened model, ready to explain.

    Raises:
        ConverterError: The file is not a model, or not safe to open.
        ModelRefused: It takes no image.
        UsageError: Preprocessing or labels that cannot be read.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> model.scores.tensor, model.scores.classes
        ('logits', 10)
    """
    opening = Opening(
        path,
        example,
        device=device,
        preprocess=preprocess,
        overrides=tuple(overrides),
        labels=labels,
        unverified=unverified,
        trust=trust,
        options=options,
        python=python,
        limits=limits,
        feed=feed,
    )
    return opening.open(Explainer)


class Explainer(Opened):
    """An opened model that explains its decisions; see ``load`` for the arguments.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> model.explain("sample_models/images/horse_1.png").images[0].predictions[0]["label"]
        'horse'
    """

    def explain(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] | None = None,
        *,
        target: str | int | None = None,
        layer: str | int | None = None,
        task: str | None = None,
        similar_to: ImageSource | None = None,
    ) -> Report:
        """Maps of one or several photos; see ``inspector.explain.explain``."""
        return explain(
            self, images, methods, target=target, layer=layer, task=task, similar_to=similar_to
        )

    def explain_each(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] | None = None,
        *,
        target: str | int | None = None,
        layer: str | int | None = None,
        task: str | None = None,
        similar_to: ImageSource | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ImageReport | ImageRefused]:
        """Maps photo by photo, in bounded memory; see ``inspector.explain.explain_each``."""
        return explain_each(
            self,
            images,
            methods,
            target=target,
            layer=layer,
            task=task,
            similar_to=similar_to,
            progress=progress,
        )

    def attribute(
        self,
        images: Array,
        method: str = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
    ) -> Array:
        """Attributions of preprocessed images; see ``inspector.explain.attribute``."""
        return attribute(self, images, method, target=target, layer=layer)


def explain(
    opened: Opened,
    images: ImageSource | Iterable[ImageSource],
    methods: str | Sequence[str] | None = None,
    *,
    target: str | int | None = None,
    layer: str | int | None = None,
    task: str | None = None,
    similar_to: ImageSource | None = None,
) -> Report:
    """Show where the model looks.

    Args:
        opened: The opened model.
        images: One or several: a path, a ``Photo``, a PIL image, or an array (H, W, 3).
        methods: Names as the command line takes them, options included:
            ``"occlusion:window=16,stride=8"``; None for the one that is right for the task:
            grad-cam for a classifier, hires-cam for a detector.
        target: ``top1``, ``top3``, an index, a label, ``OUTPUT[i,j,...]``, or an item of the
            model's task (``person#2``, ``box:LEFT,TOP,RIGHT,BOTTOM``, ``tumour@X,Y``,
            ``mask:FILE``); with a leading ``-`` the opposite direction; None for the default.
        layer: A tensor name, an index, ``last``, or None for the default.
        task: What the outputs mean, where it cannot be found out: ``classifier``, ``detector``,
            ``segmenter`` or ``embedding``.
        similar_to: The reference photo of an embedding.

    Returns:
        One map per image, method and target.

    Raises:
        InspectorError: A request that cannot be served, or no map that could be drawn.
        ImageRefused: None of the images can be read.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> photo = "sample_models/images/horse_1.png"
        >>> report = model.explain(photo, ["grad-cam", "cam"], target="horse")
        >>> [found.attribution.values.shape for found in report.explanations]
        [(8, 8), (8, 8)]
        >>> [found.heatmap.values.shape for found in report.explanations]
        [(32, 32), (32, 32)]
    """
    found = list(
        explain_each(
            opened, images, methods, target=target, layer=layer, task=task, similar_to=similar_to
        )
    )
    refused = tuple(item for item in found if isinstance(item, ImageRefused))
    reports = tuple(item for item in found if isinstance(item, ImageReport))
    if not any(report.explanations for report in reports):
        errors = [refusal.error for report in reports for refusal in report.refused]
        if errors or refused:
            raise [*errors, *refused][0]
    return Report(reports, refused)


def explain_each(
    opened: Opened,
    images: ImageSource | Iterable[ImageSource],
    methods: str | Sequence[str] | None = None,
    *,
    target: str | int | None = None,
    layer: str | int | None = None,
    task: str | None = None,
    similar_to: ImageSource | None = None,
    progress: Progress | None = None,
) -> Iterator[ImageReport | ImageRefused]:
    """Explain photo by photo, in bounded memory.

    Args:
        opened: The opened model.
        images: As for ``explain``; may be a generator.
        methods: As for ``explain``.
        target: As for ``explain``.
        layer: As for ``explain``.
        task: As for ``explain``.
        similar_to: As for ``explain``.
        progress: Called with (what, done, total) during long work.

    Yields:
        For each image its report, or why it was refused, in order.

    Example:
        >>> import inspector
        >>> from pathlib import Path
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> photos = sorted(Path("sample_models/images").glob("dog_*.png"))
        >>> [found.photo.name for found in model.explain_each(photos, "cam")]
        ['dog_1.png', 'dog_2.png']
    """
    run = _Run(opened, methods, target, layer, progress, task=task, similar_to=similar_to)
    batch: list[_Item] = []
    for source in image_sources(images):
        try:
            photo = Photo.open(source)
        except ImageRefused as error:
            yield from run.reports(batch)
            batch = []
            yield error
            continue
        batch.append((photo, *opened.preprocessing.preprocess.apply(photo)))
        if len(batch) == (BATCH if opened.batches else 1):
            yield from run.reports(batch)
            batch = []
    yield from run.reports(batch)


def attribute(
    opened: Opened,
    images: Array,
    method: str = "grad-cam",
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
) -> Array:
    """Attributions of images that are preprocessed already.

    Args:
        opened: The opened model.
        images: (N, C, H, W), as the network takes them; channels first even when the model
            wants them last.
        method: A name, options included.
        target: One target per image, as for ``explain``.
        layer: As for ``explain``.

    Returns:
        float32 (N, h, w) for layer methods, (N, C, H, W) for input methods.

    Raises:
        InspectorError: As ``explain``; UsageError for several targets.

    Example:
        >>> import inspector
        >>> import numpy as np
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> images = np.zeros((2, 3, 32, 32), np.float32)
        >>> model.attribute(images, "grad-cam", target="horse").shape
        (2, 8, 8)
        >>> model.attribute(images, "gradient", target="horse").shape
        (2, 3, 32, 32)
    """
    images = input_batch(images)
    _warn_of_values(opened, images)
    run = _Run(opened, method, target, layer, None)
    step = BATCH if opened.batches else 1
    parts = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        values = run.forward(batch)
        for row in run.maps(batch, values, run.targets(values, len(batch))):
            if len(row) != 1:
                raise UsageError(f"{target!r} names several targets", hint="ask for one")
            if isinstance(row[0], MapRefused):
                raise row[0].error
            parts.append(row[0].attribution)
    if len({part.values.shape for part in parts}) > 1:
        layers = dict.fromkeys(repr(part.layer) for part in parts)
        raise UsageError(
            f"the images' targets lie behind different layers: {', '.join(layers)}",
            hint="name the layer, or pass the images one by one",
        )
    return np.stack([part.values for part in parts])


def _warn_of_values(opened: Opened, images: Array) -> None:
    """Warn of images that the preprocessing cannot have made."""
    black, white = opened.preprocessing.preprocess.span()
    low, high = min(*black, *white), max(*black, *white)
    least, most, width = float(images.min()), float(images.max()), high - low
    outside = least < low - FAR * width or most > high + FAR * width
    if outside or 0 < most - least < width / 100:
        warn(
            f"the images hold {least:.4g} .. {most:.4g}, but the preprocessing gives "
            f"{low:.4g} .. {high:.4g}: preprocess them first, or pass photos to `explain`",
            InspectorWarning,
            stacklevel=3,
        )


_Item = tuple[Photo, Array, Geometry]
"""A photo, its tensor (C, H, W), and how the two lie on each other."""


@dataclass(frozen=True, eq=False)
class _Found:
    """Items of one photo: those that are explained, and all that there are."""

    chosen: Sequence[Item]
    every: Sequence[Item]

    def described(self, geometry: Geometry) -> list[dict[str, Any]]:
        """Plain data, boxes in pixels of the photo; those that are explained first."""
        labels = {item.label for item in self.chosen}
        others = [item for item in self.every if item.label not in labels]
        return [
            {
                "label": item.label,
                "index": item.index,
                "score": item.score,
                "box": None if item.box is None else _on_photo(item.box, geometry),
                "pixels": None if item.mask is None else int(item.mask.sum()),
                "explained": item.label in labels,
            }
            for item in (*self.chosen, *others)
        ]


def _on_photo(box: Sequence[float], geometry: Geometry) -> list[float]:
    """Left, top, right, bottom on the photo of a box (top, left, bottom, right) of the input."""
    (sy, sx), (ty, tx) = geometry.scale, geometry.shift
    top, left, bottom, right = box
    found = ((left - tx) / sx, (top - ty) / sy, (right - tx) / sx, (bottom - ty) / sy)
    return [round(float(v), 2) for v in found]


class _Run:
    """One request to explain, checked before the first photo is opened."""

    def __init__(
        self,
        opened: Opened,
        methods: str | Sequence[str] | None,
        target: str | int | None,
        layer: str | int | None,
        progress: Progress | None,
        *,
        task: str | None = None,
        similar_to: ImageSource | None = None,
    ) -> None:
        self.opened, self.progress = opened, progress
        self.reading = self._read(task, similar_to)
        self.spec: TargetSpec | ItemSpec
        text = None if target is None else target_text(target)
        if self.reading is None or (text is not None and names_elements(text, opened.scores)):
            self.items, names = None, opened.class_labels.names
            self.spec = TargetSpec.parse(text or "top1", scores=opened.scores, labels=names)
        else:
            self.items = self.spec = ItemSpec.parse(text, self.reading)
        usual = "grad-cam" if self.items is None else self.items.reading.method
        requests = parse_requests(usual if methods is None else methods)
        self.layer, self.why = None, ""
        self.denied: dict[str, ConverterError | InspectorError] = {}
        tensors = self.spec.tensors()
        try:
            self.layer, self.why = self._layer(requests, layer, tensors)
        except ModelRefused as error:
            self._deny(error, [r for r in requests if r.method.through_layer])
        opened.model.refuse_chance(tensors)
        for request in requests:
            if request.label not in self.denied:
                try:
                    if request.method.differentiates:
                        opened.require_certificate([request.method.name], tensors)
                    if "forward" in request.method.needs:
                        opened.require_occlusion([request.method.name], tensors)
                except (ConverterError, MethodRefused, ModelRefused) as error:
                    self._deny(error, [request])
        self.requests = [request for request in requests if request.label not in self.denied]
        if not self.requests:
            raise next(iter(self.denied.values()))

    def _read(self, task: str | None, similar_to: ImageSource | None) -> Reading | None:
        """What the outputs mean, with the outputs for the reference photo where there is one."""
        if similar_to is None:
            return self.opened.reading(task)
        photo = Photo.open(similar_to)
        tensor, _ = self.opened.preprocessing.preprocess.apply(photo)
        outputs = list(self.opened.graph.outputs)
        found = self.opened.forward(tensor[None], outputs)
        references = {name: np.asarray(value)[0] for name, value in found.items()}
        return self.opened.reading(task or "embedding", references)

    def _layer(
        self, requests: Sequence[Request], layer: str | int | None, tensors: Sequence[str]
    ) -> tuple[str | None, str]:
        """The layer that the user names, or the task, or the last one before the targets."""
        if layer is None and self.items and any(r.method.through_layer for r in requests):
            found = self.items.reading.layer(self.opened.maps_before(tensors))
            if found is not None:
                return found
        return layer_of(self.opened, requests, layer, tensors)

    def _deny(self, error: ConverterError | InspectorError, requests: Sequence[Request]) -> None:
        """Leave methods out that cannot be right for the model, whatever the photo."""
        self.denied |= {request.label: error for request in requests}

    def forward(self, tensors: Array) -> Mapping[str, Array]:
        """Everything that the methods and the report read of a batch (N, C, H, W)."""
        also = () if self.items is None else self.items.reading.outputs
        if self._classifies:  # for the predictions of the report
            also = (*also, self.opened.scores.tensor)
        return forward_for(
            self.opened, tensors, self.spec.tensors(), self.requests, self.layer, also=also
        )

    @property
    def _classifies(self) -> bool:
        """Whether there are classes to be predicted."""
        return self.opened.scores.classifier and self.reading is None

    def maps(
        self,
        tensors: Array,
        values: Mapping[str, Array],
        targets: Sequence[Sequence[Target]],
    ) -> list[list[Map | MapRefused]]:
        """Maps of a batch (N, C, H, W) from what the forward pass gave."""
        return maps_of(
            self.opened,
            tensors,
            targets,
            self.requests,
            self.layer,
            values=values,
            progress=self.progress,
        )

    def targets(self, values: Mapping[str, Array], count: int) -> list[tuple[Target, ...]]:
        """The targets of inputs that are preprocessed already.

        Raises:
            ImageRefused: What is asked for is not in one of them.
        """
        size = self.opened.size(*self.opened.preprocessing.preprocess.size)
        geometry = Geometry.identity(size)
        found = [self._wanted(values, row, geometry, f"image {row}") for row in range(count)]
        return [targets for targets, _ in found]

    def _wanted(
        self, values: Mapping[str, Array], row: int, geometry: Geometry, name: str
    ) -> tuple[tuple[Target, ...], _Found | None]:
        """The targets of one photo; and its items, where the model's task has any."""
        if isinstance(self.spec, TargetSpec):
            scores = self.opened.scores
            if not scores.classifier or scores.tensor not in values:
                return self.spec.resolve(), None
            return self.spec.resolve(np.asarray(values[scores.tensor][row]).reshape(-1)), None
        outputs = self.spec.reading.outputs
        sample = Sample({n: np.asarray(values[n][row]) for n in outputs}, geometry, name)
        chosen, every = self.spec.resolve(sample)
        return tuple(item.target for item in chosen), _Found(chosen, every)

    def reports(self, batch: Sequence[_Item]) -> Iterator[ImageReport | ImageRefused]:
        """The reports of some photos, which go through the network together."""
        if not batch:
            return
        tensors = np.stack([tensor for _, tensor, _ in batch])
        values = self.forward(tensors)
        refused: dict[int, ImageRefused] = {}
        wanted: dict[int, tuple[tuple[Target, ...], _Found | None]] = {}
        for row, (photo, _, geometry) in enumerate(batch):
            if not self._finite(values, row):
                continue
            try:
                wanted[row] = self._wanted(values, row, geometry, photo.name)
            except ImageRefused as error:
                refused[row] = error
        found: dict[int, list[Map | MapRefused]] = {}
        if rows := list(wanted):
            kept = values
            if len(rows) < len(batch):
                kept = {name: value[rows] for name, value in values.items()}
            targets = [wanted[row][0] for row in rows]
            found = dict(zip(rows, self.maps(tensors[rows], kept, targets), strict=True))
        for row in range(len(batch)):
            items = wanted[row][1] if row in wanted else None
            yield refused.get(row) or self._report(
                batch[row], found.get(row, []), values, row, items
            )

    def _finite(self, values: Mapping[str, Array], row: int) -> bool:
        """Whether the scores of a photo are numbers that can be ranked."""
        scores = self.opened.scores
        return not self._classifies or bool(np.isfinite(values[scores.tensor][row]).all())

    def _report(
        self,
        item: _Item,
        found: Sequence[Map | MapRefused],
        values: Mapping[str, Array],
        row: int,
        items: _Found | None,
    ) -> ImageReport | ImageRefused:
        opened = self.opened
        photo, _, geometry = item
        drawn = [one for one in found if isinstance(one, Map)]
        refused = [one for one in found if isinstance(one, MapRefused)]
        if not drawn and all(isinstance(one.error, NotFinite) for one in refused):
            return ImageRefused(
                "the network's numbers for this photo are not finite",
                where=photo.name,
                hint="it overflows; check the preprocessing",
            )
        explanations = [
            Explanation(
                heatmap=Heatmap.of(one.attribution, geometry),
                label=one.request.label,
                options=one.request.settings,
                facts=one.facts,
            )
            for one in drawn
        ]
        warnings = [*opened.preprocessing.warnings, *opened.class_labels.warnings]
        warnings += photo_warnings(photo, geometry, opened.preprocessing.preprocess.resize)
        best: list[dict[str, Any]] = []
        if self._classifies:
            scores = np.asarray(values[opened.scores.tensor][row]).reshape(-1)
            names = opened.class_labels.names
            best = predictions(opened.scores, names, scores, PREDICTIONS)
            warnings += score_warnings(opened.scores, names, scores)
            warnings.append(
                count_warning(names, 2 if opened.scores.unit is not None else scores.size)
            )
        if self.items is not None:
            cautions = self.items.reading.cautions
            warnings += [cautions.get(request.method.name, "") for request in self.requests]
        lost = lost_note(opened.graph, opened.model.suspicions)
        if lost and not any(lost in e.warnings for e in explanations):
            warnings.append(lost)
        context = opened.context((self.layer, self.why) if self.why else None)
        if self.reading is not None:
            context["task"] = {"name": self.reading.task, "reason": self.reading.why}
        return ImageReport(
            photo=photo,
            explanations=tuple(explanations),
            context=context,
            predictions=best,
            items=[] if items is None else items.described(geometry),
            seen_share=geometry.seen_share,
            warnings=tuple(dict.fromkeys(filter(None, warnings))),
            refused=(
                *(Refusal(label, "", error) for label, error in self.denied.items()),
                *(Refusal(one.request.label, one.target.label, one.error) for one in refused),
            ),
        )

"""Photos and methods in, maps out: the orchestration that command line and library share."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from inspector.target import Target, TargetSpec

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
        methods: str | Sequence[str] = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
    ) -> Report:
        """Maps of one or several photos; see ``inspector.explain.explain``."""
        return explain(self, images, methods, target=target, layer=layer)

    def explain_each(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[ImageReport | ImageRefused]:
        """Maps photo by photo, in bounded memory; see ``inspector.explain.explain_each``."""
        return explain_each(self, images, methods, target=target, layer=layer, progress=progress)

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
    methods: str | Sequence[str] = "grad-cam",
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
) -> Report:
    """Show where the model looks.

    Args:
        opened: The opened model.
        images: One or several: a path, a ``Photo``, a PIL image, or an array (H, W, 3).
        methods: Names as the command line takes them, options included:
            ``"occlusion:window=16,stride=8"``.
        target: ``top1``, ``top3``, an index, a label, or ``OUTPUT[i,j,...]``; with a leading
            ``-`` the opposite direction.
        layer: A tensor name, an index, ``last``, or None for the default.

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
    found = list(explain_each(opened, images, methods, target=target, layer=layer))
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
    methods: str | Sequence[str] = "grad-cam",
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
    progress: Progress | None = None,
) -> Iterator[ImageReport | ImageRefused]:
    """Explain photo by photo, in bounded memory.

    Args:
        opened: The opened model.
        images: As for ``explain``; may be a generator.
        methods: As for ``explain``.
        target: As for ``explain``.
        layer: As for ``explain``.
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
    run = _Run(opened, methods, target, layer, progress)
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
        for row in run.maps(batch, run.forward(batch)):
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


class _Run:
    """One request to explain, checked before the first photo is opened."""

    def __init__(
        self,
        opened: Opened,
        methods: str | Sequence[str],
        target: str | int,
        layer: str | int | None,
        progress: Progress | None,
    ) -> None:
        self.opened, self.progress = opened, progress
        requests = parse_requests(methods)
        self.spec = TargetSpec.parse(target, scores=opened.scores, labels=opened.class_labels.names)
        self.layer, self.why = None, ""
        self.denied: dict[str, ConverterError | InspectorError] = {}
        try:
            self.layer, self.why = layer_of(opened, requests, layer, self.spec.tensors())
        except ModelRefused as error:
            self._deny(error, [r for r in requests if r.method.through_layer])
        tensors = self.spec.tensors()
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

    def _deny(self, error: ConverterError | InspectorError, requests: Sequence[Request]) -> None:
        """Leave methods out that cannot be right for the model, whatever the photo."""
        self.denied |= {request.label: error for request in requests}

    def forward(self, tensors: Array) -> Mapping[str, Array]:
        """Everything that the methods and the report read of a batch (N, C, H, W)."""
        scores, names = self.opened.scores, list(self.spec.tensors())
        if scores.classifier:  # for the predictions of the report
            names = list(dict.fromkeys([*names, scores.tensor]))
        return forward_for(self.opened, tensors, names, self.requests, self.layer)

    def maps(self, tensors: Array, values: Mapping[str, Array]) -> list[list[Map | MapRefused]]:
        """Maps of a batch (N, C, H, W) from what the forward pass gave."""
        targets = self._targets(values, len(tensors))
        return maps_of(
            self.opened,
            tensors,
            targets,
            self.requests,
            self.layer,
            values=values,
            progress=self.progress,
        )

    def _targets(self, values: Mapping[str, Array], count: int) -> list[tuple[Target, ...]]:
        """The targets of each photo."""
        scores = self.opened.scores
        if not scores.classifier:
            return [self.spec.resolve()] * count
        rows = np.asarray(values[scores.tensor]).reshape(count, -1)
        return [self.spec.resolve(row) for row in rows]

    def reports(self, batch: Sequence[_Item]) -> Iterator[ImageReport | ImageRefused]:
        """The reports of some photos, which go through the network together."""
        if not batch:
            return
        tensors = np.stack([tensor for _, tensor, _ in batch])
        values = self.forward(tensors)
        rows = [row for row in range(len(batch)) if self._finite(values, row)]
        found: dict[int, list[Map | MapRefused]] = {}
        if rows:
            kept = values
            if len(rows) < len(batch):
                kept = {name: value[rows] for name, value in values.items()}
            found = dict(zip(rows, self.maps(tensors[rows], kept), strict=True))
        for row, (photo, _, geometry) in enumerate(batch):
            own = found.get(row, [])
            drawn = [one for one in own if isinstance(one, Map)]
            refused = [one for one in own if isinstance(one, MapRefused)]
            if not drawn and all(isinstance(one.error, NotFinite) for one in refused):
                yield ImageRefused(
                    "the network's numbers for this photo are not finite",
                    where=photo.name,
                    hint="it overflows; check the preprocessing",
                )
                continue
            explanations = [
                Explanation(
                    heatmap=Heatmap.of(one.attribution, geometry),
                    label=one.request.label,
                    options=one.request.settings,
                    facts=one.facts,
                )
                for one in drawn
            ]
            yield self._report(batch[row], explanations, refused, values, row)

    def _finite(self, values: Mapping[str, Array], row: int) -> bool:
        """Whether the scores of a photo are numbers that can be ranked."""
        scores = self.opened.scores
        return not scores.classifier or bool(np.isfinite(values[scores.tensor][row]).all())

    def _report(
        self,
        item: _Item,
        explanations: Sequence[Explanation],
        refused: Sequence[MapRefused],
        values: Mapping[str, Array],
        row: int,
    ) -> ImageReport:
        opened = self.opened
        photo, _, geometry = item
        warnings = [*opened.preprocessing.warnings, *opened.class_labels.warnings]
        warnings += photo_warnings(photo, geometry, opened.preprocessing.preprocess.resize)
        best: list[dict[str, Any]] = []
        if opened.scores.classifier:
            scores = np.asarray(values[opened.scores.tensor][row]).reshape(-1)
            names = opened.class_labels.names
            best = predictions(opened.scores, names, scores, PREDICTIONS)
            warnings += score_warnings(opened.scores, names, scores)
            warnings.append(
                count_warning(names, 2 if opened.scores.unit is not None else scores.size)
            )
        lost = lost_note(opened.graph, opened.model.suspicions)
        if lost and not any(lost in e.warnings for e in explanations):
            warnings.append(lost)
        return ImageReport(
            photo=photo,
            explanations=tuple(explanations),
            context=opened.context((self.layer, self.why) if self.why else None),
            predictions=best,
            seen_share=geometry.seen_share,
            warnings=tuple(dict.fromkeys(filter(None, warnings))),
            refused=(
                *(Refusal(label, "", error) for label, error in self.denied.items()),
                *(Refusal(one.request.label, one.target.label, one.error) for one in refused),
            ),
        )

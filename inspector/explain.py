"""The one orchestration: photos and methods in, maps out; shared by command line and library."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters import onnx_file
from converters.source import Options
from inspector.errors import ImageRefused, UsageError
from inspector.evidence import Evidence, tensors_for
from inspector.heatmap import Attribution, Heatmap
from inspector.methods import Request, parse_request, parse_requests
from inspector.network.labels import count_warning
from inspector.network.layers import Layer
from inspector.network.lost_activations import lost_note
from inspector.opened import Opened
from inspector.opening import is_module, open_module, open_source
from inspector.photos.photo import ImageSource, Photo, image_sources, input_batch
from inspector.photos.preprocess_choice import PreprocessChoice
from inspector.report import Explanation, ImageReport, Report
from inspector.target import (
    Target,
    looks_like_probabilities,
    parse_target,
    probabilities,
    target_text,
)

__all__ = ["Explainer", "load"]

Array = np.ndarray[Any, Any]
BATCH = 8
"""Photos that go through the network at a time, where the model allows it."""

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

    Returns:
        The opened model, ready to explain.

    Raises:
        ConverterError: the file is no model, or not safe to open.
        ModelRefused: it takes no image.
        UsageError: preprocessing or labels that cannot be read.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> model.scores.tensor, model.scores.classes
        ('logits', 10)
    """
    if is_module(path):
        file = open_module(path, example, limits=limits)
    else:
        file = open_source(path, trust=trust, options=options, limits=limits, python=python)
    return Explainer(
        file,
        device=device,
        preprocess=preprocess,
        overrides=overrides,
        labels=labels,
        unverified=unverified,
    )


class Explainer(Opened):
    """An opened model that explains its decisions; see ``load`` for the arguments.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> model.explain("sample_models/images/horse_1.png").images[0].predictions[0]["label"]
        'horse'
    """

    # -- explaining ------------------------------------------------------------------------

    def explain(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
    ) -> Report:
        """Show where the model looks.

        Args:
            images: One or several: a path, a ``Photo``, a PIL image, or an array (H, W, 3).
            methods: Names as the command line takes them, options included:
                ``"occlusion:window=16,stride=8"``.
            target: ``top1``, ``top3``, an index, a label, or ``OUTPUT[i,j,...]``.
            layer: A tensor name, an index, ``last``, or None for the default.

        Returns:
            One map per image, method and target.

        Raises:
            InspectorError: a request that cannot be served; nothing is drawn in its place.
            ImageRefused: none of the images can be read.

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
        found = list(self.explain_each(images, methods, target=target, layer=layer))
        refused = tuple(item for item in found if isinstance(item, ImageRefused))
        if refused and len(refused) == len(found):
            raise refused[0]
        return Report(tuple(item for item in found if isinstance(item, ImageReport)), refused)

    def explain_each(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Iterator[ImageReport | ImageRefused]:
        """Explain photo by photo, in bounded memory.

        Args:
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
        requests = parse_requests(methods)
        images, target = image_sources(images), target_text(target)
        chosen = self._choose_layer(layer, requests)
        self._require_certificate(requests)
        batch: list[tuple[Photo, Array, Any]] = []
        for source in images:
            try:
                photo = Photo.open(source)
            except ImageRefused as error:
                yield from self._explain_batch(batch, requests, target, chosen, progress)
                batch = []
                yield error
                continue
            batch.append((photo, *self.preprocessing.preprocess.apply(photo)))
            if len(batch) == (BATCH if self.batches else 1):
                yield from self._explain_batch(batch, requests, target, chosen, progress)
                batch = []
        yield from self._explain_batch(batch, requests, target, chosen, progress)

    def _require_certificate(self, requests: Sequence[Request]) -> None:
        """Refuse gradient methods on a model whose twin is not the model."""
        self.require_certificate([r.method.name for r in requests if r.method.gradient])

    def _choose_layer(
        self, layer: str | int | None, requests: Sequence[Request]
    ) -> tuple[Layer, str] | None:
        """The layer to explain through, and why; None when no method needs one."""
        if not any(r.method.layer and r.method.gradient for r in requests) and layer is None:
            return None
        return self.layer_for(layer)

    def _explain_batch(
        self,
        batch: list[tuple[Photo, Array, Any]],
        requests: Sequence[Request],
        target: str,
        layer: tuple[Layer, str] | None,
        progress: Callable[[str, int, int], None] | None,
    ) -> Iterator[ImageReport]:
        """One forward pass for all photos of a batch, then every method on what it returned."""
        if not batch:
            return
        images = np.stack([tensor for _, tensor, _ in batch])
        name = layer[0].tensor if layer else None
        values = self._forward_for(images, requests, target, name)
        if len(batch) > 1 and not self.batches:  # found out just now: one by one from here on
            for item in batch:
                yield from self._explain_batch([item], requests, target, layer, progress)
            return
        slots: list[list[Explanation]] = [[] for _ in batch]
        for request, evidence, maps in self._apply(
            images,
            requests,
            self._targets(target, values, len(batch)),
            values,
            layer=name,
            progress=progress,
        ):
            for row, found in enumerate(slots):
                found.append(self._explanation(request, evidence, maps[row], row, batch[row]))
        for row, (photo, _, _) in enumerate(batch):
            yield self._image_report(photo, slots[row], values, row, layer)

    def attribute(
        self,
        images: Array,
        method: str = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
    ) -> Array:
        """Attributions of images that are preprocessed already.

        Args:
            images: (N, C, H, W), as the network takes them; channels first even when the model
                wants them last.
            method: A name, options included.
            target: One target an image, as for ``explain``.
            layer: As for ``explain``.

        Returns:
            float32 (N, h, w) for layer methods, (N, C, H, W) for input methods.

        Raises:
            InspectorError: as ``explain``; UsageError for several targets.

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
        images, target = input_batch(images), target_text(target)
        request = parse_request(method)
        chosen = self._choose_layer(layer, [request])
        self._require_certificate([request])
        name = chosen[0].tensor if chosen else None
        step = len(images) if self.batches else 1
        parts = []
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            values = self._forward_for(batch, [request], target, name)
            if len(batch) > 1 and not self.batches:
                return self.attribute(images, method, target=target, layer=layer)
            targets = self._targets(target, values, len(batch))
            if len(targets[0]) != 1:
                raise UsageError(f"{target!r} names several targets", hint="ask for one")
            parts += [m for _, _, m in self._apply(batch, [request], targets, values, layer=name)]
        return np.concatenate(parts)

    def _forward_for(
        self, images: Array, requests: Sequence[Request], target: str, layer: str | None
    ) -> Mapping[str, Array]:
        """The one ONNX Runtime pass that all methods share."""
        return self.forward(images, tensors_for(self, requests, layer, self._known_targets(target)))

    def _apply(
        self,
        images: Array,
        requests: Sequence[Request],
        targets: Sequence[Sequence[Target]],
        values: Mapping[str, Array],
        *,
        layer: str | None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Iterator[tuple[Request, Evidence, Array]]:
        """Every method for every target rank, on one batch."""
        for request in requests:
            for rank in range(len(targets[0])):
                evidence = Evidence(
                    self,
                    images,
                    [found[rank] for found in targets],
                    values,
                    layer=layer,
                    preprocess=self.preprocessing.preprocess,
                    progress=_labelled(progress, request.label),
                )
                yield request, evidence, request.method(evidence, **request.options)

    def _known_targets(self, target: str) -> list[str]:
        """Tensors that the target will be read from, before any image is known."""
        fetch = [self.scores.tensor] if self.scores.classifier else []
        values = np.zeros(self.scores.classes or 1000)  # only the tensor's name is wanted here
        if self.scores.classifier and target.lower().startswith("top"):
            return fetch
        found = parse_target(
            target, scores=self.scores, labels=self.class_labels.names, values=values
        )
        return list(dict.fromkeys([*(t.tensor for t in found), *fetch]))

    def _targets(
        self, target: str, values: Mapping[str, Array], count: int
    ) -> list[tuple[Target, ...]]:
        """The targets of each photo; every photo has equally many."""
        labels = self.class_labels.names
        if not self.scores.classifier:
            return [parse_target(target, scores=self.scores, labels=labels)] * count
        rows = np.asarray(values[self.scores.tensor]).reshape(count, -1)
        return [parse_target(target, scores=self.scores, labels=labels, values=row) for row in rows]

    def _explanation(
        self,
        request: Request,
        evidence: Evidence,
        values: Array,
        row: int,
        item: tuple[Photo, Array, Any],
    ) -> Explanation:
        target = evidence.targets[row]
        method = request.method
        layer = evidence.layer if method.layer else None
        if method.name == "cam":
            layer = evidence.head.features
        attribution = Attribution(
            values=np.asarray(values, dtype=np.float32),
            space=method.space,
            method=method.name,
            label=target.label,
            index=target.class_index,
            tensor=target.tensor,
            score=float(evidence.scores[row]),
            probability=self._probability(evidence, row),
            layer=layer,
            options=request.settings,
            notes=tuple(self._notes(evidence, values, gradient=method.gradient)),
            channels=self.preprocessing.preprocess.channels,
            signed=method.signed,
        )
        return Explanation(
            heatmap=Heatmap.of(attribution, item[2]),
            label=request.label,
            options=request.settings,
            facts=dict(evidence.facts),
        )

    def _notes(self, evidence: Evidence, values: Array, *, gradient: bool) -> Iterator[str]:
        yield from evidence.notes
        certificate = self.certificate if gradient else None
        if certificate is not None and certificate.passed is False:
            yield f"unverified: {certificate.text}"
        if not np.any(values > 0):
            yield "no positive evidence" + (" at this layer" if values.ndim == 2 else "")

    def _probability(self, evidence: Evidence, row: int) -> float | None:
        index = evidence.targets[row].class_index
        if index is None:
            return None
        scores = np.asarray(evidence.values[self.scores.tensor][row]).reshape(-1)
        known = probabilities(scores, self.scores.activation)
        return None if known is None else float(known.values[index])

    # -- reporting -------------------------------------------------------------------------

    def _image_report(
        self,
        photo: Photo,
        explanations: Sequence[Explanation],
        values: Mapping[str, Array],
        row: int,
        layer: tuple[Layer, str] | None,
    ) -> ImageReport:
        warnings = [*self.preprocessing.warnings, *self.class_labels.warnings]
        predictions: list[dict[str, Any]] = []
        if self.scores.classifier:
            scores = np.asarray(values[self.scores.tensor][row]).reshape(-1)
            predictions = self._predictions(scores)
            warnings += filter(
                None,
                [
                    looks_like_probabilities(scores) if self.scores.activation is None else "",
                    count_warning(self.class_labels.names, scores.size),
                ],
            )
        lost = lost_note(self.graph, self.suspicions)
        if lost and not any(lost in e.warnings for e in explanations):
            warnings.append(lost)
        return ImageReport(
            photo=photo,
            explanations=tuple(explanations),
            context=self.context(layer),
            predictions=predictions,
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _predictions(self, scores: Array) -> list[dict[str, Any]]:
        known = probabilities(scores, self.scores.activation, assume_softmax=True)
        count = min(PREDICTIONS, scores.size)
        best = parse_target(
            f"top{count}", scores=self.scores, labels=self.class_labels.names, values=scores
        )
        return [
            {
                "index": index,
                "label": target.label,
                "score": float(scores[index]),
                "probability": None if known is None else float(known.values[index]),
                "assumed_softmax": bool(known is not None and known.assumed),
            }
            for target in best
            if (index := target.class_index) is not None
        ]


def _labelled(
    progress: Callable[[str, int, int], None] | None, label: str
) -> Callable[[int, int], None]:
    return lambda done, total: progress(label, done, total) if progress else None

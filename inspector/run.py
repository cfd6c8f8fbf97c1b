"""One request to explain: checked before the first photo, then photo by photo to reports."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from inspector.errors import (
    ConverterError,
    ImageRefused,
    InspectorError,
    MethodRefused,
    ModelRefused,
    NotFinite,
    UnknownTarget,
    UsageError,
)
from inspector.heatmap import Attribution, Heatmap
from inspector.methods import Request, parse_requests
from inspector.network.outputs.elements import has_no_batch
from inspector.network.outputs.labels import count_warning
from inspector.network.quantisation.lost_activations import lost_note
from inspector.opened import Opened
from inspector.passes.maps import Map, MapRefused, forward_for, layer_of, maps_of
from inspector.photos.contentless import contentless, of_one_colour
from inspector.photos.geometry import Geometry
from inspector.photos.photo import ImageSource, Photo
from inspector.photos.photo_warnings import photo_warnings
from inspector.printable import clean_text
from inspector.probability import predictions, score_warnings
from inspector.report import Explanation, ImageReport, Refusal
from inspector.target import FunctionSpec, Target, TargetSpec, names_elements, target_texts
from inspector.tasks import Item, Reading, Sample
from inspector.tasks.detector import Detector
from inspector.tasks.embedding import Embedding, require_seen
from inspector.tasks.items import ItemSpec

__all__ = ["ExplainRun", "PhotoInput", "PhotoMaps", "Targets"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]


class Indices(Protocol):
    """An array or tensor of class indices, one per image."""

    @property
    def ndim(self) -> int:
        """How many axes it has."""

    def tolist(self) -> Any:
        """Its values as Python numbers."""


Targets = str | int | Callable[[Any], Any] | Sequence[str | int] | Indices
"""One target, a function of the outputs, or several targets: each gets a map."""

Spec = TargetSpec | ItemSpec | FunctionSpec

PREDICTIONS = 5
"""Best classes that a report lists."""

PhotoInput = tuple[Photo, Array, Geometry]
"""A photo, its tensor (C, H, W), and how the two lie on each other."""


@dataclass(frozen=True, eq=False)
class Found:
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


def _outlined(attribution: Attribution, items: Found | None) -> Attribution:
    """An attribution with the outline of the item that it explains."""
    chosen = () if items is None else items.chosen
    item = next((item for item in chosen if item.label == attribution.label), None)
    if item is None:
        return attribution
    return replace(attribution, box=item.box, region=item.mask)


def _on_photo(box: Sequence[float], geometry: Geometry) -> list[float]:
    """Left, top, right, bottom on the photo of a box (top, left, bottom, right) of the input."""
    (sy, sx), (ty, tx) = geometry.scale, geometry.shift
    top, left, bottom, right = box
    found = ((left - tx) / sx, (top - ty) / sy, (right - tx) / sx, (bottom - ty) / sy)
    return [round(float(v), 2) for v in found]


@dataclass(frozen=True, eq=False)
class PhotoMaps:
    """What was drawn of one photo.

    Attributes:
        maps: A map, or why there is none, per method and target.
        items: What the outputs say, of a model that is not a classifier.
    """

    maps: Sequence[Map | MapRefused]
    items: Found | None


class ExplainRun:
    """One request to explain, checked before the first photo is opened.

    Args:
        opened: The opened model.
        methods: Names, options included; None for the task's own.
        target: What is explained of every photo.
        layer: A tensor name, an index, ``last``, or None for the default.
        progress: Called with (what, done, total) during long work.
        task: What the outputs mean, as the user names it.
        similar_to: The reference photo of an embedding.
        each: The targets of the photos one by one, in the place of ``target``; which photo is
            which is said to ``reports`` by its place.
    """

    def __init__(
        self,
        opened: Opened,
        methods: str | Request | Sequence[str | Request] | None,
        target: Targets | None,
        layer: str | int | None,
        progress: Progress | None,
        *,
        task: str | None = None,
        similar_to: ImageSource | None = None,
        each: Sequence[Targets] | None = None,
    ) -> None:
        self.opened, self.progress = opened, progress
        self.reference: Photo | None = None
        self._of_reference: tuple[str, ...] = ()
        wanted = [target] if each is None else list(each)
        texts = [_texts(one) for one in wanted]
        by_name = all(self._by_name(one) for one in texts)
        self.reading = self._read(task, similar_to, doubtful=by_name)
        if similar_to is not None and (by_name or not self._compares):
            raise self._no_reference(texts[0])
        self.specs = self._specs(wanted, texts)
        self._distinct = tuple({id(spec): spec for spec in self.specs}.values())
        self._by_place = each is not None
        self.items = next((spec for spec in self._distinct if isinstance(spec, ItemSpec)), None)
        usual = "grad-cam" if self.items is None else self.items.reading.method
        requests = parse_requests(usual if methods is None else methods)
        self.layer, self.why = None, ""
        self.denied: dict[str, ConverterError | InspectorError] = {}
        tensors = self._tensors()
        try:
            self.layer, self.why = self._layer(requests, layer)
        except ModelRefused as error:
            self._deny(error, [r for r in requests if r.method.through_layer])
        opened.model.refuse_chance(tensors)
        for request in requests:
            if request.label not in self.denied:
                try:
                    if request.method.differentiates:
                        name, twin = request.method.name, request.method.by_twin
                        opened.require_certificate([name], tensors, twin=twin)
                    if "forward" in request.method.needs:
                        opened.require_occlusion([request.method.name], tensors)
                except (ConverterError, MethodRefused, ModelRefused) as error:
                    self._deny(error, [request])
        self.requests = [request for request in requests if request.label not in self.denied]
        if not self.requests:
            raise next(iter(self.denied.values()))

    @property
    def spec(self) -> Spec:
        """What is explained, of the first photo where each has its own."""
        return self.specs[0]

    def _by_name(self, texts: Sequence[str] | None) -> bool:
        """Whether a target names numbers, whatever the outputs mean; a function does."""
        if texts is None:
            return False
        return all(names_elements(text, self.opened.scores) for text in texts)

    def _specs(
        self, wanted: Sequence[Targets | None], texts: Sequence[tuple[str, ...] | None]
    ) -> list[Spec]:
        """What targets mean; alike ones are read once."""
        known: dict[object, Spec] = {}
        for one, words in zip(wanted, texts, strict=True):
            key: object = id(one) if words == () else words
            if key not in known:
                known[key] = self._spec(one, words)
        keys = [id(one) if words == () else words for one, words in zip(wanted, texts, strict=True)]
        return [known[key] for key in keys]

    def _spec(self, target: Targets | None, texts: Sequence[str] | None) -> Spec:
        """What one target means.

        Args:
            target: As the user gave it.
            texts: Its words, none of a function.
        """
        if callable(target):
            return FunctionSpec.of(target, self.opened.scores)
        if self.reading is None or self._by_name(texts):
            return self._classes(texts or ("top1",))
        return ItemSpec.parse(texts, self.reading)

    def _tensors(self) -> tuple[str, ...]:
        """Tensors that the targets of all photos are read from."""
        return tuple(dict.fromkeys(name for spec in self._distinct for name in spec.tensors()))

    def _read(
        self, task: str | None, similar_to: ImageSource | None, *, doubtful: bool
    ) -> Reading | None:
        """What the outputs mean, with the outputs for the reference photo where there is one.

        Args:
            task: As the user names it.
            similar_to: The reference photo.
            doubtful: Whether outputs that can be read in several ways are nothing to refuse.
        """
        if similar_to is None:
            try:
                return self.opened.reading(task)
            except UsageError:
                if task is not None or not doubtful:
                    raise
                return None
        photo = self.reference = self.opened.photo(similar_to)
        preprocess = self.opened.preprocessing.preprocess
        tensor, geometry = preprocess.apply(photo)
        self._of_reference = tuple(photo_warnings(photo, geometry, preprocess.resize))
        blank = of_one_colour(tensor, geometry)
        outputs = list(self.opened.graph.outputs)
        pair = [self.opened.forward(one[None], outputs) for one in (tensor, blank)]
        found = {name: [np.asarray(one[name])[0] for one in pair] for name in outputs}
        references = {name: value[0] for name, value in found.items()}
        reading = self.opened.reading(task or "embedding", references)
        if isinstance(reading, Embedding):
            vector, of_blank = found[reading.output]
            require_seen(vector, of_blank, photo.name)
            chance = [
                np.asarray(self.opened.forward(one[None], [reading.output])[reading.output])[0]
                for one in contentless(tensor, geometry)
            ]
            return replace(reading, chance=np.stack([vector.reshape(-1) for vector in chance]))
        return reading

    def _classes(self, texts: Sequence[str]) -> TargetSpec:
        """Classes and elements of tensors that the user names.

        Raises:
            UnknownTarget: There are none of that name.
            ModelRefused: The network does not run, which is why nothing is known of its outputs.
        """
        scores, names = self.opened.scores, self.opened.class_labels.names
        try:
            return TargetSpec.parse(texts, scores=scores, labels=names)
        except UnknownTarget:
            if not scores.classifier:
                self.opened.require_outputs()
            raise

    @property
    def _compares(self) -> bool:
        """Whether a photo is compared with a reference."""
        return self.reading is not None and self.reading.task == "embedding"

    def _no_reference(self, texts: Sequence[str] | None) -> UsageError:
        """The refusal of a reference photo that nothing is compared with."""
        shown = ", ".join(clean_text(text) for text in texts or ())
        task = "classifier" if self.reading is None else self.reading.task
        what = f"the target {shown!r} is a number" if self._compares else f"this is a {task}"
        return UsageError(
            f"--similar-to has nothing to do: {what}, and no similarity to another photo",
            hint="leave out --target for the similarity, or --similar-to for the number"
            if self._compares
            else "leave out --similar-to; --task embedding compares vectors",
        )

    def _layer(
        self, requests: Sequence[Request], layer: str | int | None
    ) -> tuple[str | None, str]:
        """The layer that the user names, or the task, or the last one before the targets."""
        if layer is None and self.items and any(r.method.through_layer for r in requests):
            found = self.opened.layer_of_task(self.items.reading)
            if found is not None:
                return found
        together = dict.fromkeys(own for spec in self._distinct for own in spec.together())
        return layer_of(self.opened, requests, layer, list(together))

    @property
    def alone(self) -> bool:
        """Whether photos go through one by one: lists of boxes have a length each."""
        return any(has_no_batch(name, self.opened.scores) for name in self._outputs_read)

    @property
    def _outputs_read(self) -> tuple[str, ...]:
        """Outputs by which items, or rows that a user names, are read off a photo."""
        reading = self._follower if self.items is None else self.items.reading
        return () if reading is None else reading.outputs

    @cached_property
    def _follower(self) -> Detector | None:
        """The reading of boxes whose rows a target names by their place."""
        named = {own for s in self._distinct if isinstance(s, TargetSpec) for own in s.tensors()}
        found = self.reading if isinstance(self.reading, Detector) else None
        return found if found is not None and named & set(found.outputs) else None

    def _deny(self, error: ConverterError | InspectorError, requests: Sequence[Request]) -> None:
        """Leave methods out that cannot be right for the model, whatever the photo."""
        self.denied |= {request.label: error for request in requests}

    def forward(self, tensors: Array) -> Mapping[str, Array]:
        """Everything that the methods and the report read of a batch (N, C, H, W)."""
        also = self._outputs_read
        if self._classifies:  # for the predictions of the report
            also = (*also, self.opened.scores.tensor)
        return forward_for(
            self.opened, tensors, self._tensors(), self.requests, self.layer, also=also
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

    def targets(
        self, values: Mapping[str, Array], count: int, places: Sequence[int] = ()
    ) -> list[tuple[Target, ...]]:
        """The targets of inputs that are preprocessed already.

        Args:
            values: From ``forward`` for these.
            count: How many there are.
            places: As for ``reports``.

        Raises:
            ImageRefused: What is asked for is not in one of them.
        """
        size = self.opened.size(*self.opened.preprocessing.preprocess.size)
        geometry = Geometry.identity(size)
        found = [self._wanted(values, row, geometry, None, places) for row in range(count)]
        return [targets for targets, _ in found]

    def _wanted(
        self,
        values: Mapping[str, Array],
        row: int,
        geometry: Geometry,
        photo: Photo | None,
        places: Sequence[int],
    ) -> tuple[tuple[Target, ...], Found | None]:
        """The targets of one photo; and its items, where the model's task has any."""
        spec = self.specs[places[row] if self._by_place else 0]
        if isinstance(spec, TargetSpec | FunctionSpec):
            scores = self.opened.scores
            if self._follower is not None:
                sample = _sample(self._follower, values, row, geometry, photo)
                followed = self._follower.followed
                return tuple(followed(target, sample) for target in spec.resolve()), None
            if not scores.classifier or scores.tensor not in values:
                return spec.resolve(), None
            return spec.resolve(np.asarray(values[scores.tensor][row]).reshape(-1)), None
        sample = _sample(spec.reading, values, row, geometry, photo)
        chosen, every = spec.resolve(sample)
        return tuple(item.target for item in chosen), Found(chosen, every)

    def found(
        self,
        batch: Sequence[PhotoInput],
        tensors: Array,
        values: Mapping[str, Array],
        places: Sequence[int] = (),
    ) -> "list[PhotoMaps | ImageRefused]":
        """The maps of some photos that went through the network together.

        Args:
            batch: The photos.
            tensors: Their tensors, (N, C, H, W).
            values: From ``forward`` for these.
            places: As for ``reports``.
        """
        refused: dict[int, ImageRefused] = {}
        wanted: dict[int, tuple[tuple[Target, ...], Found | None]] = {}
        finite = self._finite(values, len(batch))
        for row, (photo, _, geometry) in enumerate(batch):
            if not finite[row]:
                continue
            try:
                wanted[row] = self._wanted(values, row, geometry, photo, places)
            except ImageRefused as error:
                refused[row] = error
        found: dict[int, list[Map | MapRefused]] = {}
        if rows := list(wanted):
            kept = values
            if len(rows) < len(batch):
                kept = {name: value[rows] for name, value in values.items()}
            targets = [wanted[row][0] for row in rows]
            some = tensors if len(rows) == len(batch) else tensors[rows]
            found = dict(zip(rows, self.maps(some, kept, targets), strict=True))
        return [
            refused.get(row)
            or PhotoMaps(found.get(row, []), wanted[row][1] if row in wanted else None)
            for row in range(len(batch))
        ]

    def reports(
        self, batch: Sequence[PhotoInput], places: Sequence[int] = ()
    ) -> Iterator[ImageReport | ImageRefused]:
        """The reports of some photos, which go through the network together.

        Args:
            batch: The photos.
            places: Of each the place of its target in ``each``; empty where all have one.
        """
        if not batch:
            return
        tensors = np.stack([tensor for _, tensor, _ in batch])
        values = self.forward(tensors)
        for row, one in enumerate(self.found(batch, tensors, values, places)):
            if isinstance(one, ImageRefused):
                yield one
            else:
                yield self._report(batch[row], one.maps, values, row, one.items)

    def _finite(self, values: Mapping[str, Array], count: int) -> list[bool]:
        """Whether the scores of each photo are numbers that can be ranked."""
        if not self._classifies:
            return [True] * count
        finite = np.isfinite(values[self.opened.scores.tensor]).reshape(count, -1)
        return [bool(own) for own in np.asarray(finite.all(1))]

    def _report(
        self,
        item: PhotoInput,
        found: Sequence[Map | MapRefused],
        values: Mapping[str, Array],
        row: int,
        items: Found | None,
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
                heatmap=Heatmap.of(_outlined(one.attribution, items), geometry),
                label=one.request.label,
                options=one.request.settings,
                facts=one.facts,
            )
            for one in drawn
        ]
        warnings = [*opened.preprocessing.warnings, *opened.class_labels.warnings]
        warnings += self._of_reference
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
            reference=self.reference,
            warnings=tuple(dict.fromkeys(filter(None, warnings))),
            refused=(
                *(Refusal(label, "", error) for label, error in self.denied.items()),
                *(Refusal(one.request.label, one.target.label, one.error) for one in refused),
            ),
        )


def _sample(
    reading: Reading,
    values: Mapping[str, Array],
    row: int,
    geometry: Geometry,
    photo: Photo | None,
) -> Sample:
    """What one photo of a batch gave of the outputs that a reading reads."""
    own = {output: np.asarray(values[output][row]) for output in reading.outputs}
    if photo is None:
        return Sample(own, geometry, f"image {row}")
    return Sample(own, geometry, photo.name, photo.path)


def _texts(target: Targets | None) -> tuple[str, ...] | None:
    """The words of a target; None where it is left out, none of a function."""
    if target is None or callable(target):
        return None if target is None else ()
    return target_texts(target)

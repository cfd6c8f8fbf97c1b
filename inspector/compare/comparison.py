"""Two networks of one task on the same photos: do they decide alike, and look at the same place?

Float against int8, one version against the next, original against converted.  Both explain the
*same* target, and the two maps are compared on the photo's own pixels, so layout, input size and
preprocessing may differ.  Where the graphs can be aligned, the layer at which they part is named.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.plain_values import whole_number
from inspector.compare.alignment import Alignment, Probe, align
from inspector.compare.figure import Case, case_of
from inspector.compare.items import Matched, chosen, common_task, items_of, matched
from inspector.compare.networks import Classes, blank_of, opened_pair
from inspector.compare.noise import Noise, NoiseMeter
from inspector.compare.outputs import OutputMeter, OutputPair, pair_outputs, require_outputs
from inspector.compare.parting import Meter, Parting
from inspector.compare.result import Comparison, Gates, ImageComparison, MapPair
from inspector.errors import (
    ExplainedError,
    ImageRefused,
    MethodRefused,
    ModelRefused,
    UsageError,
)
from inspector.explain import Explainer
from inspector.measures.similarity import Similarity, similarity
from inspector.measures.statistics import has_scipy
from inspector.methods import parse_requests
from inspector.photos.photo import ImageSource, Photo, image_sources
from inspector.probability import predictions
from inspector.report import Explanation, ImageReport
from inspector.target import names_elements, target_text
from inspector.tasks import Reading

__all__ = ["compare", "require_comparable"]

Progress = Callable[[str, int, int], None]

LAYER_IMAGES = 16
"""Photos over which layers are compared; more change the figures little and cost a pass each."""

NOISE_IMAGES = 4
"""Photos over which A's own noise is measured; each costs its maps twice more."""


def compare(
    a: str | Path | Explainer,
    b: str | Path | Explainer,
    images: ImageSource | Iterable[ImageSource],
    methods: str | Sequence[str] | None = None,
    *,
    target: str | int = "top1",
    target_b: str | int | None = None,
    layer_a: str | int | None = None,
    layer_b: str | int | None = None,
    gates: Gates | None = None,
    worst: int = 6,
    layer_images: int = LAYER_IMAGES,
    noise_images: int = NOISE_IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compare where two networks look.

    Args:
        a: The reference: a file, or a network that ``inspector.load`` opened.
        b: The network under test.
        images: One photo or several, as for ``explain``; a generator is read once.
        methods: As for ``explain``.  Where the default is refused for one of the networks, all but
            the maps is compared.
        target: As for ``explain``, read by A; ``top1`` is A's prediction, or what the task explains
            by default.  B explains the same class, or the item that is the same: the box or region
            of the class that overlaps it, the character at its place.
        target_b: B's target, where ``OUTPUT[...]`` is called otherwise in B.
        layer_a: Layer of A for layer methods; its default layer when None.
        layer_b: That of B; the counterpart of ``layer_a`` when only that is given.
        gates: Bounds that ``Comparison.failures`` checks.
        worst: Cases to draw; 0 for none.
        layer_images: Photos over which layers are compared; 0 to leave that out.
        noise_images: Photos over which it is measured how far two float32 runs of A differ; 0 to
            leave that out, and with it whether B moved beyond that noise.
        seed: Of the bootstrap and of the noise.
        progress: Called with (what, done, total) after each photo; the total is 0 if unknown.

    Returns:
        Predictions, similarities and the layer at which the networks part.

    Raises:
        InspectorError: a request that cannot be served, or networks of different tasks.
        ImageRefused: none of the images can be read.

    Example:
        >>> from inspector.compare import Gates, compare
        >>> found = compare(
        ...     "sample_models/resnet20.onnx",
        ...     "sample_models/zfnet.onnx",
        ...     "sample_models/images/horse_1.png",
        ...     gates=Gates(max_flips=0),
        ... )
        >>> found.flips, found.failures, found.moved
        ((), (), True)
    """
    images = image_sources(images)
    left, right, notes = opened_pair(a, b)
    words = target_text(target)
    readings = None if names_elements(words, left.scores) else common_task(left, right)
    usual = "grad-cam" if readings is None else readings[0].method
    chosen_methods = usual if methods is None else methods
    several = [chosen_methods] if isinstance(chosen_methods, str) else chosen_methods
    names = list(dict.fromkeys(several))
    run = _Run(
        left,
        right,
        names,
        target=words,
        readings=readings,
        target_b=None if target_b is None else target_text(target_b),
        layer_a=layer_a,
        layer_b=layer_b,
        worst=worst,
        notes=notes,
        counts=(layer_images, noise_images),
        seed=seed,
        maps_optional=methods is None,
    )
    run.prepare()
    total = len(images) if isinstance(images, Sequence) else 0
    for done, source in enumerate(images, 1):
        run.add(source)
        if progress:
            progress("comparing", done, total)
    return run.result(gates or Gates())


def require_comparable(a: Explainer, b: Explainer, target: str) -> tuple[OutputPair, ...]:
    """The outputs of two networks that answer the same question of the same kind of image.

    Args:
        a: The reference.
        b: The network under test.
        target: What both explain.

    Raises:
        UsageError: They are of different tasks, or have other inputs or outputs.
    """
    left, right, _ = opened_pair(a, b)
    takes = [(m.input.channels, m.input.space) for m in (left, right)]
    if takes[0] != takes[1]:
        raise UsageError(
            f"take different inputs: {takes[0][0]} channels against {takes[1][0]}",
            where=f"{a.path.name} and {b.path.name}",
            hint="compare models that take the same photos",
        )
    if not names_elements(target, left.scores):
        common_task(left, right)
    pairs = pair_outputs(left, right, (blank_of(left), blank_of(right)))
    require_outputs(left, right, pairs)
    return pairs


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The worst case of a photo, drawn, and its place among those of others."""

    key: tuple[bool, float, int]
    photo: int
    case: Case


class _Run:
    """One comparison while photos come in; keeps figures, and pictures of the worst alone."""

    def __init__(
        self,
        a: Explainer,
        b: Explainer,
        methods: Sequence[str],
        *,
        target: str,
        target_b: str | None,
        readings: tuple[Reading, Reading] | None,
        layer_a: str | int | None,
        layer_b: str | int | None,
        worst: int,
        notes: Sequence[str],
        counts: tuple[int, int],
        seed: int,
        maps_optional: bool,
    ) -> None:
        self.a, self.b, self.methods = a, b, methods
        self.target, self.target_b, self.readings = target, target_b, readings
        self.layer_a, self.layer_b, self.worst = layer_a, layer_b, worst
        self.classes = Classes.of(a.class_labels, b.class_labels)
        self.warnings = [*notes, *filter(None, [self.classes.note])]
        self.images: list[ImageComparison] = []
        self.refused: list[ImageRefused] = []
        self.contexts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        self._cases: list[_Ranked] = []
        self._seen = 0
        self._parting: Meter | Parting
        self.layer_images, self.noise_images = counts
        self.maps_optional = maps_optional
        self.seed = seed
        self._outputs: OutputMeter
        self._noise: NoiseMeter

    # -- layers ----------------------------------------------------------------------------

    def prepare(self) -> None:
        """Pair the outputs, align the graphs, choose B's layer by A's if only that was named.

        Raises:
            UsageError: The networks have no output in common, or a layer has no counterpart.
        """
        pairs = self._paired()
        self._outputs = OutputMeter(self.a, self.b, pairs)
        if self.layer_images < 1:
            self._parting = Parting(Alignment((), "", "layers were not compared"))
        else:
            self._parting = self._aligned()
        if self.layer_a is not None and self.layer_b is None:
            self.layer_b = self._counterpart(self.layer_a)
        elif self.layer_b is not None and self.layer_a is None:
            raise UsageError("a layer of B alone was named", hint="name that of A too")
        self._noise = NoiseMeter(self.a, pairs, self.methods, layer=self.layer_a, seed=self.seed)

    def _paired(self) -> tuple[OutputPair, ...]:
        """The outputs that both have; they may have none only where items are matched."""
        blanks = blank_of(self.a), blank_of(self.b)
        pairs = pair_outputs(self.a, self.b, blanks, self.classes.to_b)
        if self.readings is None and self.target_b is None:
            require_outputs(self.a, self.b, pairs)
        known = {pair.a for pair in pairs}
        if alone := [name for name in self.a.graph.outputs if name not in known]:
            shown = ", ".join(alone[:5])
            self.warnings.append(f"outputs of A that B does not have are not compared: {shown}")
        return pairs

    def _aligned(self) -> Meter | Parting:
        same = self._same_input
        try:
            probes = Probe(self.a.model), Probe(self.b.model)
            alignment = align(*probes, (blank_of(self.a), blank_of(self.b)), same_input=same)
        except ExplainedError as error:
            alignment = Alignment((), "", f"the graphs could not be compared: {error}")
        if alignment.points:
            return Meter(*probes, alignment)
        return Parting(alignment, sentence=alignment.why)

    @property
    def _same_input(self) -> bool:
        """Whether both networks are fed the same numbers."""
        settings = [replace(m.preprocessing.preprocess, layout="NCHW") for m in (self.a, self.b)]
        return settings[0] == settings[1] and self.a.input.bounds == self.b.input.bounds

    def _counterpart(self, layer: str | int) -> str:
        alignment = self._parting.alignment
        name = str(layer)
        index = whole_number(name)
        if index is not None and name not in self.a.graph.tensors:
            known = range(-len(self.a.layers), len(self.a.layers))
            name = self.a.layers[index].tensor if index in known else name
        found = alignment.counterpart(name)
        if found is None:
            raise UsageError(
                f"layer {layer!r} of A has no counterpart in B that is known", hint="name B's too"
            )
        return found

    def _measure(self, photo: Photo, target: str | None) -> None:
        """Take a photo's outputs, and of the first ones layers and noise.

        Args:
            photo: The photo, which is among the images already.
            target: What A's maps explain of it.
        """
        item = (photo, *self.a.preprocessing.preprocess.apply(photo))
        inputs = item[1][None], self.b.preprocessing.preprocess.apply(photo)[0][None]
        self._outputs.add(*inputs)
        if len(self.images) <= self.noise_images:
            self._noise.add(item, target)
        if len(self.images) > self.layer_images or not isinstance(self._parting, Meter):
            return
        try:
            self._parting.add(*inputs)
        except ExplainedError as error:
            alignment = replace(self._parting.alignment, points=(), why=str(error))
            self._parting = Parting(
                alignment, sentence=f"the graphs could not be compared: {error}"
            )

    # -- photos ----------------------------------------------------------------------------

    def add(self, source: ImageSource) -> None:
        """Compare one photo, or take down why it cannot be read."""
        try:
            photo = self.a.photo(source)
        except ImageRefused as error:
            self.refused.append(error)
            return
        if self.readings is not None:
            try:
                self.images.append(self._by_items(photo, self.readings))
            except ImageRefused as error:
                self.refused.append(error)
                return
            self._measure(photo, None if self.target == "top1" else self.target)
            return
        try:
            report_a = self._explain(self.a, photo, self.target, self.layer_a)
            wanted = self._for_b(report_a)
            report_b = self._explain(self.b, photo, wanted, self.layer_b)
        except (MethodRefused, ModelRefused) as error:
            if not self.maps_optional:
                raise
            self._add_without_maps(photo, error)
            return
        best = tuple(next(iter(r.predictions), None) for r in (report_a, report_b))
        flip = None
        if best[0] is not None and best[1] is not None:
            flip = self._in_b(*_side(best[0])) != _side(best[1])
        both = (report_a, report_b)
        pairs = list(self._pairs(photo, both, "a", flip=bool(flip)))
        if flip and best[1] is not None and self.target == "top1":
            index, opposed = _side(best[1])
            own = (
                self._explain(
                    self.a, photo, _words(self.classes.in_a(index), opposed), self.layer_a
                ),
                self._explain(self.b, photo, _words(index, opposed), self.layer_b),
            )
            pairs += self._pairs(photo, own, "b", flip=True)
        self._take_context(both)
        self.images.append(
            ImageComparison(
                name=photo.name,
                sha256=photo.sha256,
                size=photo.size,
                predictions=(best[0], best[1]),
                flip=flip,
                maps=tuple(pairs),
            )
        )
        self._measure(photo, self._explained(report_a))

    def _add_without_maps(self, photo: Photo, error: ExplainedError) -> None:
        """Compare what can be compared where the usual method is refused.

        A quantiser's slip may make a network whose maps nobody should believe; the layer at which
        it parts is asked for all the more.
        """
        self.warnings.append(f"maps are not compared: {error}")
        if not self.contexts[0]:
            self.contexts = self.a.context(None), self.b.context(None)
        best = self._best(self.a, photo), self._best(self.b, photo)
        flip = None
        if best[0] is not None and best[1] is not None:
            flip = self._in_b(*_side(best[0])) != _side(best[1])
        self.images.append(
            ImageComparison(photo.name, photo.sha256, photo.size, best, flip=flip, maps=())
        )
        self._measure(photo, self.target)

    @staticmethod
    def _best(model: Explainer, photo: Photo) -> Mapping[str, Any] | None:
        """What a classifier says of a photo; None where its scores are not finite."""
        scores = model.scores
        if not scores.classifier:
            return None
        tensor = model.preprocessing.preprocess.apply(photo)[0]
        own = np.asarray(model.forward(tensor[None], [scores.tensor])[scores.tensor][0])
        if not np.isfinite(own).all():
            return None
        return predictions(scores, model.class_labels.names, own.reshape(-1), 1)[0]

    def _by_items(self, photo: Photo, readings: tuple[Reading, Reading]) -> ImageComparison:
        """Compare one photo item by item, each with the one of B that is the same.

        Raises:
            ImageRefused: There is none in A that is asked for.
        """
        if not self.contexts[0]:
            self.contexts = self.a.context(None), self.b.context(None)
        text = None if self.target == "top1" else self.target
        own = chosen(self.a, readings[0], photo, text)
        every = [
            items_of(model, one, photo)
            for model, one in zip((self.a, self.b), readings, strict=True)
        ]
        if readings[0].task == "dense":
            found = [Matched(one, one, None) for one in own]
        else:
            found = matched(own, every[1])
        best = matched(every[1][: len(own)], every[0])
        extra = [one.a for one in best if one.b is None] if text is None else []
        flip = any(one.b is None for one in found) or bool(extra)
        pairs: list[MapPair] = []
        for one in found:
            if one.b is None:
                continue
            reports = (
                self._explain(self.a, photo, one.a.words, self.layer_a),
                self._explain(self.b, photo, self.target_b or one.b.words, self.layer_b),
            )
            self._take_context(reports)
            pairs += self._pairs(photo, reports, "a", flip=False)
        alone = [
            {"a": None, "b": one.item.label, "scores": [None, one.item.score]} for one in extra
        ]
        return ImageComparison(
            name=photo.name,
            sha256=photo.sha256,
            size=photo.size,
            predictions=(None, None),
            flip=None if readings[0].task == "dense" else flip,
            maps=tuple(pairs),
            items=(*(one.to_dict() for one in found), *alone),
        )

    def _explain(
        self, model: Explainer, photo: Photo, target: str, layer: str | int | None
    ) -> ImageReport:
        requests = parse_requests(self.methods)
        return model.explain(photo, requests, target=target, layer=layer).images[0]

    def _for_b(self, report: ImageReport) -> str:
        """B's words for the targets that A explained."""
        sides = dict.fromkeys(
            (e.attribution.index, e.attribution.opposed) for e in report.explanations
        )
        known = [self._in_b(index, opposed) for index, opposed in sides if index is not None]
        if self.target_b is not None or len(known) < len(sides):
            return self.target_b or self.target
        return ",".join(_words(*side) for side in known)

    def _explained(self, report: ImageReport) -> str:
        """Words for the targets that A explained, which do not depend on what is best."""
        sides = dict.fromkeys(
            (e.attribution.index, e.attribution.opposed) for e in report.explanations
        )
        known = [_words(index, opposed) for index, opposed in sides if index is not None]
        return ",".join(known) if len(known) == len(sides) else self.target

    def _in_b(self, index: int, opposed: bool) -> tuple[int, bool]:
        return self.classes.in_b(index), opposed

    def _take_context(self, reports: tuple[ImageReport, ImageReport]) -> None:
        if not self.contexts[0]:
            self.contexts = dict(reports[0].context), dict(reports[1].context)
        for letter, report in zip("AB", reports, strict=True):
            self.warnings += [f"{letter}: {text}" for text in report.warnings]

    def _pairs(
        self, photo: Photo, reports: tuple[ImageReport, ImageReport], role: str, *, flip: bool
    ) -> Iterator[MapPair]:
        """Every method and target of one photo; the worst are drawn."""
        both = zip(reports[0].explanations, reports[1].explanations, strict=True)
        for a, b in both:
            found = similarity(a.heatmap.values, b.heatmap.values)
            pair = MapPair(
                method=a.label,
                role=role,
                label=a.attribution.label,
                scores=(float(a.attribution.score or 0), float(b.attribution.score or 0)),
                probabilities=(_probability(reports[0], a), _probability(reports[1], b)),
                layers=(a.attribution.layer, b.attribution.layer),
                similarity=found,
                notes=tuple(
                    dict.fromkeys(
                        [
                            *(f"A: {note}" for note in a.warnings),
                            *(f"B: {note}" for note in b.warnings),
                        ]
                    )
                ),
            )
            self._seen += 1
            key = (not flip, _likeness(found), self._seen)
            if self._is_bad(key):
                self._keep(key, case_of(photo, (a.heatmap, b.heatmap), pair, reports, flip=flip))
            yield pair

    def _is_bad(self, key: tuple[bool, float, int]) -> bool:
        """Whether a case belongs on the sheet, as far as is known."""
        own = [ranked for ranked in self._cases if ranked.photo == len(self.images)]
        if own or len(self._cases) >= self.worst:
            return self.worst > 0 and key < (own or self._cases)[-1].key
        return True

    def _keep(self, key: tuple[bool, float, int], case: Case) -> None:
        """Put a case in its place; one a photo."""
        photo = len(self.images)
        others = [ranked for ranked in self._cases if ranked.photo != photo]
        self._cases = sorted([*others, _Ranked(key, photo, case)], key=lambda r: r.key)
        del self._cases[self.worst :]

    # -- the end ---------------------------------------------------------------------------

    def result(self, gates: Gates) -> Comparison:
        """Everything that was found.

        Raises:
            ImageRefused: no image could be read.
            UsageError: there was none.
        """
        if not self.images:
            raise self.refused[0] if self.refused else UsageError("no image to compare on")
        parting = self._parting.result() if isinstance(self._parting, Meter) else self._parting
        options = {
            "methods": self.methods,
            "target": self.target,
            "target_b": self.target_b,
            "layer_a": self.layer_a,
            "layer_b": self.layer_b,
            "layer_images": self.layer_images,
            "noise_images": self.noise_images,
            "seed": self.seed,
        }
        intervals = has_scipy()
        if not intervals:
            self.warnings.append(
                "SciPy is not installed: numbers have no intervals "
                "(pip install 'onnx-inspector[studies]')"
            )
        noise = self._noise.result() if self.noise_images else Noise()
        return Comparison(
            contexts=self.contexts,
            options=options,
            images=tuple(self.images),
            refused=tuple(self.refused),
            parting=parting,
            outputs=self._outputs.result(noise.bands, seed=self.seed, intervals=intervals),
            noise=noise,
            intervals=intervals,
            cases=tuple(ranked.case for ranked in self._cases),
            gates=gates,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )


def _side(prediction: Mapping[str, Any]) -> tuple[int, bool]:
    """A predicted class, and whether it is the opposite of it that is predicted."""
    return int(prediction["index"]), bool(prediction.get("opposed", False))


def _words(index: int, opposed: bool) -> str:
    """A class, or the opposite of it, as a target is named."""
    return f"-{index}" if opposed else str(index)


def _likeness(found: Similarity) -> float:
    """Order of cases: the lower, the worse; maps of which one is empty come first."""
    if found.rank is not None:
        return found.rank
    return -2.0 if found.one_sided else 2.0


def _probability(report: ImageReport, explanation: Explanation) -> float | None:
    """The target's probability; of logits without an activation, that of a softmax."""
    source = explanation.attribution
    best = next(iter(report.predictions), None)
    if source.probability is not None or source.index is None or best is None:
        return source.probability
    if best["probability"] is None or source.score is None:
        return None
    score = -source.score if source.opposed else source.score
    # Softmax: probabilities are in the ratio of the exponentials of the scores.
    found = float(best["probability"] * np.exp(min(0.0, score - best["score"])))
    return 1 - found if source.opposed else found

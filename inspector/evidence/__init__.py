"""What a method may ask of a network about N samples: activations, gradients, scores.

The whole network runs once, in ONNX Runtime.  A gradient with respect to a layer then needs only
the nodes behind that layer, which the model's gradient engine runs on the activations that ONNX
Runtime computed; a gradient with respect to the input needs the whole network.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph.activations import data_tensors
from inspector.engines import GradientEngine, tensors_of
from inspector.engines.rules import Rule
from inspector.errors import ConverterError, MethodRefused
from inspector.evidence.conservation import conservation
from inspector.evidence.fetch import tensors_for, tensors_read
from inspector.evidence.score_parity import (
    DIFFERENCES,
    QUANTISED_TOLERANCE,
    TOLERANCE,
    score_difference,
)
from inspector.heatmap import UNCHANGED, lay_on_input
from inspector.model import Model
from inspector.network.classifier.head import LinearHead, require_linear
from inspector.network.coordinates.lattice import Lattice
from inspector.network.coordinates.placement import Placement
from inspector.network.form import Form
from inspector.network.quantisation.levels import copies_of, is_quantised, saturation_note
from inspector.network.quantisation.lost_activations import lost_note
from inspector.probability import of_target, probabilities
from inspector.target import Sampled, Target, scores_of

if TYPE_CHECKING:
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["Evidence", "tensors_for", "tensors_read"]

Array = np.ndarray[Any, Any]

ROUNDING = 1e-6
"""Change of a score, relative to the score, that float32 may make of nothing."""

WEAK = 1e-3
"""Peak of the evidence for a target, relative to that against it, below which it is said."""


class Evidence:
    """N samples, one target each.

    Args:
        model: The network.
        images: (N, C, H, W), preprocessed.
        targets: One per sample.
        values: What ONNX Runtime returned for ``tensors_for``, N rows each.
        layer: Layer that layer methods explain through.
        preprocess: How pixels became inputs; occlusion paints in pixel space.
        progress: Called with (done, total) during long work.
    """

    def __init__(
        self,
        model: Model,
        images: Array,
        targets: Sequence[Target],
        values: Mapping[str, Array],
        *,
        layer: str | None,
        preprocess: "Preprocess",
        progress: Any = None,
    ) -> None:
        self.model, self.images, self.targets = model, images, tuple(targets)
        self.values, self.layer, self.preprocess = values, layer, preprocess
        self.progress = progress or (lambda *_: None)
        self.notes: list[str] = []
        self.notes_of: dict[int, list[str]] = {}
        self.facts: dict[str, Any] = {}
        self._gradients: dict[str, Array] = {}
        self._tail_batches = model.batches  # whether the tail takes several samples at once

    def note(self, text: str, row: int | None = None) -> None:
        """Keep a sentence that must be printed with the maps, or with that of one sample."""
        kept = self.notes if row is None else self.notes_of.setdefault(row, [])
        if text not in kept:
            kept.append(text)

    def compare_evidence(self, positive: Array, negative: Array) -> None:
        """Note samples of whose evidence next to nothing is positive: a map shows that part alone.

        Args:
            positive: Maps (N, h, w) of what speaks for the targets, not below 0.
            negative: The same of what speaks against them.
        """
        sides = [
            self.by_sample(side).reshape(len(self.targets), -1) for side in (positive, negative)
        ]
        for row, (own, other) in enumerate(zip(*(side.max(1) for side in sides), strict=True)):
            if 0 < own <= WEAK * other:
                self.note(
                    f"hardly any positive evidence: its peak is {own / other:.0e} times that of "
                    "what speaks against the target at this layer",
                    row,
                )

    def note_rounding(self, scores: Array, row: int) -> None:
        """Note a sample whose score is the same, up to rounding, whatever is hidden.

        Args:
            scores: Of the image with places hidden.
            row: The sample.
        """
        moved = float(np.ptp([float(self.scores[row]), *map(float, scores)]))
        if 0 < moved <= ROUNDING * float(np.abs(scores).max(initial=0.0)):
            self.note(f"{UNCHANGED}: what this map shows is rounding", row)

    # -- forward ---------------------------------------------------------------------------

    @property
    def head(self) -> LinearHead:
        """The linear head behind the pooling.

        Raises:
            MethodRefused: the head rules an exact CAM out.
        """
        return require_linear(self.model.head)

    @cached_property
    def activation(self) -> Array:
        """Activation A of the layer, (N, C, h, w); what its levels stand for if quantised.

        Of a layer that holds parts of each image as T rows of the batch, (N T, C, h, w).
        """
        activation = self._form.read(self._unfolded(self.values[self.layer or ""]))
        if activation.ndim != 4:
            raise MethodRefused(
                f"the layer is of shape {list(activation.shape)}, not (N, C, h, w)",
                where=repr(self.layer),
                hint="choose one that `inspector layers` lists",
            )
        return activation

    @property
    def grids(self) -> int | None:
        """Number T of grids that the layer holds of each sample; None where it holds one map."""
        layer = self.layer or ""
        value = self.values.get(layer)
        folded = value is not None and value.ndim == 5 and self.model.folds(layer)
        return int(value.shape[1]) if folded and value is not None else None

    def _unfolded(self, value: Array) -> Array:
        """The layer's (N, T, ...) as (N T, ...), where it holds T grids of each sample."""
        return value if self.grids is None else value.reshape(-1, *value.shape[2:])

    def by_sample(self, maps: Array) -> Array:
        """Maps of the layer as one entry per sample: (N, h, w), or (N, T, h, w) of T grids."""
        grids = self.grids
        return maps if grids is None else maps.reshape(-1, grids, *maps.shape[1:])

    def placement(self, layer: str) -> Placement | None:
        """Where the cells of a layer lie on the input; None for the usual stretch over it.

        Raises:
            MethodRefused: They lie nowhere that is known.
        """
        height, width = self.images.shape[2:]
        return self.model.placement(layer, (height, width))

    def lattice(self, layer: str | None) -> Lattice | None:
        """How a map lies on a signal or a volume; None on a picture.

        Args:
            layer: Of whose cells; None of a map of the input.

        Raises:
            MethodRefused: Its cells lie nowhere that is known.
        """
        if self.model.input.space == 2:
            return None
        size = (self.images.shape[2], self.images.shape[3])
        if layer is None:
            sizes = self.model.input.sizes(size)
            return Lattice(sizes, sizes)
        cells = self.model.forms.of(layer).cells(self.values[layer])
        return self.model.lattice(layer, size, cells)

    def on_input(self, maps: Array) -> Array:
        """Maps of the layer (P, h, w) on the input, (P, H, W); 0 where no cell lies."""
        layer, size = self.layer or "", (self.images.shape[2], self.images.shape[3])
        lattice = self.lattice(layer)
        if lattice is not None:
            return np.stack([np.nan_to_num(lattice.laid(one)[0]) for one in maps])
        placement = self.placement(layer)
        return np.stack([lay_on_input(one, placement, size) for one in maps])

    @cached_property
    def _form(self) -> Form:
        """How the network holds the layer.

        Raises:
            MethodRefused: integers of which the file does not say what they stand for.
        """
        layer = self.layer or ""
        found = self.model.form(layer, (self.images.shape[2], self.images.shape[3]))
        found.require_known(self.values[layer], layer)
        return found

    def score(self, images: Any, targets: Sequence[Target], forward: Any = None) -> Array:
        """Scores of other images: a forward pass in ONNX Runtime, (N,).

        A target that changes its place (a row of a sorted list of boxes) is followed by its own
        measure, image by image: lists may have a length each.

        ``forward`` runs in the place of the model's, on what it takes in the place of images.
        """
        run = forward or self.model.forward
        if any(target.moves for target in targets):
            parts = [
                target.measured(run(images[i : i + 1], target.read_from))
                for i, target in enumerate(targets)
            ]
            return np.asarray(parts, dtype=np.float64)
        return scores_of(run(images, tensors_of(targets)), targets)

    @cached_property
    def scores(self) -> Array:
        """Score S of each sample's target, before softmax, (N,)."""
        return scores_of(self.values, self.targets)

    def require_one_grid(self, method: str) -> None:
        """Refuse a layer that holds parts of an image as rows of the batch.

        Raises:
            MethodRefused: It does, and the method changes the layer or the image place by place.
        """
        if self.grids is not None:
            raise MethodRefused(
                f"{method} is not defined on a layer that holds {self.grids} parts of the image",
                where=repr(self.layer),
                hint="grad-cam is, and occlusion needs no layer",
            )

    def class_probabilities(self, images: Any, target: Target, forward: Any = None) -> Array | None:
        """Probability of one class for other images, (N,); None for anything but a class.

        That of the opposite direction is 1 - p.  Arguments as for ``score``.
        """
        scores = self.model.scores
        if target.class_index is None or scores.activation is None:
            return None
        found = (forward or self.model.forward)(images, [scores.tensor])[scores.tensor]
        rows = np.asarray(found).reshape(len(images), -1)
        known = probabilities(rows, scores.activation)
        return None if known is None else of_target(known.values, target)

    # -- attention -------------------------------------------------------------------------

    @cached_property
    def attentions(self) -> tuple[str, ...]:
        """Names of the attention weights before the targets, in graph order.

        Raises:
            MethodRefused: The targets depend on none, or on one whose weights no tensor holds.
        """
        known, fused = self.model.attention
        if fused:
            raise MethodRefused(
                "the weights of this attention are not a tensor of the file: one operator keeps "
                "them to itself",
                where=f"node {fused[0]!r}",
                hint="grad-cam and hires-cam need none; an export at opset 17 spells them out",
            )
        found = tuple(name for name in known if name in self.values)
        if not found:
            raise MethodRefused(
                "the target depends on no self-attention",
                where=self.targets[0].tensor,
                hint="grad-cam is defined for convolutional networks",
            )
        return found

    def attention(self, name: str) -> Array:
        """Weights of one self-attention, (N, heads, T, T): queries down, keys across."""
        return self._by_head(name, self.values[name])

    def attention_gradient(self, name: str) -> Array:
        """Gradient of the score by the weights of one self-attention, (N, heads, T, T)."""
        if name not in self._gradients:
            start = {name: self.model.as_in_graph(name, self.values[name])}
            found = self._signals(start, self._passed_by(name), Rule())[name]
            self._gradients[name] = self.model.with_samples(name, found)
        return self._by_head(name, self._gradients[name])

    def on_tokens(self, relevance: Array) -> Array:
        """Relevance of tokens (N, T) as the map of the layer's grid, (N, h, w).

        Raises:
            MethodRefused: The layer is not one of tokens, or of another number of them.
        """
        tokens = self._form.tokens
        if tokens is None:
            raise MethodRefused(
                "the layer holds no tokens",
                where=repr(self.layer),
                hint="name one that `inspector layers` lists as tokens, with --layer",
            )
        return tokens.read(relevance[:, None] if tokens.axis == 2 else relevance[..., None])[:, 0]

    def _by_head(self, name: str, value: Array) -> Array:
        """(N, heads, T, T), where the graph may hold heads as rows of the batch."""
        tokens = self._form.tokens
        sides = value.shape[-2:]
        if tokens is None or sides != (tokens.count, tokens.count):
            have = "none" if tokens is None else str(tokens.count)
            raise MethodRefused(
                f"attention among {sides[0]} x {sides[1]} tokens, where the layer has {have}: "
                "windows and merged tokens have no common sequence",
                where=repr(name),
                hint="grad-cam and hires-cam are defined there",
            )
        return value.reshape(len(self.images), -1, *sides).astype(np.float64)

    # -- backward --------------------------------------------------------------------------

    @property
    def gradient(self) -> Array:
        """Gradient dS/dA at the layer, of the activation's shape, by the network's tail alone."""
        layer = self.layer or ""
        if layer not in self._gradients:
            self._remark(self.activation)
            value = self.model.as_in_graph(layer, self.values[layer])
            copies = copies_of(self.model.graph, layer)
            around = {name: self._fed(name) for name in self._frontier}
            # Real numbers that pass the layer by are differentiated too: do they carry the score?
            of_image = data_tensors(self.model.graph)  # not a mask made of the image's size alone
            passing = {n: v for n, v in around.items() if v.dtype.kind == "f" and n in of_image}
            start = dict.fromkeys(copies, value) | passing
            signals = self._signals(start, [n for n in around if n not in passing], Rule())
            own = [signals[n] for n in copies]
            found = self.model.gathered(layer, own[0] if len(own) == 1 else np.sum(own, axis=0))
            if bypassing := [name for name in passing if np.any(signals[name])]:
                names = ", ".join(map(repr, bypassing[:3])) + (", ..." if bypassing[3:] else "")
                self.note(f"part of the score does not pass through this layer: it takes {names}")
            found = self._form.read_gradient(self._unfolded(found))
            self._gradients[layer] = found.astype(np.float32, copy=False)
        return self._gradients[layer]

    @cached_property
    def sloped(self) -> Array:
        """Which samples (N,) have a gradient at the layer that is not zero everywhere."""
        return np.asarray(self.by_sample(self.gradient).reshape(len(self.targets), -1).any(1))

    def _remark(self, activation: Array | None = None) -> None:
        """Note what quantisation has done to the network."""
        if not self._quantised:
            return
        lost = lost_note(self.model.graph, self.model.suspicions, self.layer, activation)
        for row, target in enumerate(self.targets):
            for part in target.elements:
                values = np.asarray(part.of(self._row(row, part))) * part.sign
                note = saturation_note(self.model.graph, part.tensor, values)
                for text in filter(None, (lost, note)):
                    self.note(text)

    def _row(self, row: int, target: Target) -> dict[str, Array]:
        """Values of one sample (1, ...) of the tensors that a target is read from."""
        return {name: np.asarray(self.values[name][row : row + 1]) for name in target.tensors}

    @cached_property
    def _quantised(self) -> bool:
        return is_quantised(self.model.graph)

    def input_gradient(self, rule: str = "gradient", extension: str = "refuse") -> Array:
        """Signal at the input under a backward rule, (N, C, H, W).

        Args:
            rule: ``gradient``, ``deconvnet`` or ``guided``.
            extension: Reading for smooth activations; see ``rules.EXTENSIONS``.

        Raises:
            MethodRefused: activations that the rule is not defined for.
        """
        name = self.model.input.name
        covered = self._engine.coverage(name, tensors_of(self.targets), Rule(rule, extension))
        self.facts["coverage"] = str(covered)
        if covered.extended and rule != "gradient":
            self.note(f"extension of the {rule} rule beyond the paper: {extension}")
        if covered.unknown and rule != "gradient":
            self.note(f"no {rule} rule for: " + ", ".join(covered.unknown[:5]))
        self._remark()
        key = f"{rule}/{extension}"
        if key not in self._gradients:
            start = {name: self._input(self.images)}
            found = self._signals(start, (), Rule(rule, extension), known=self._known)[name]
            self._gradients[key] = self.model.input.restore(self.model.gathered(name, found))
        return self._gradients[key]

    @property
    def _known(self) -> tuple[str, ...]:
        """Tensors of the forward pass that spare the engine its own."""
        read = tensors_read(self.model, self.images[:1], tensors_of(self.targets))
        return tuple(name for name in read if name in self.values)

    def relevance(self, rule: Rule) -> Array:
        """Relevance of each input value under a rule of LRP, (N, C, H, W), and what it adds up to.

        Raises:
            MethodRefused: nodes that have no rule.
        """
        name = self.model.input.name
        covered = self._engine.coverage(name, tensors_of(self.targets), rule)
        self.facts["coverage"] = str(covered)
        self._remark()
        objectives = [Sampled(target, self.model.with_samples) for target in self.targets]
        found = self._engine.signals({name: self._input(self.images)}, {}, objectives, rule)
        self._check_scores(found.scores, self.scores, range(len(self.targets)))
        signal = self.model.input.restore(self.model.gathered(name, found[name]))
        relevance: Array = self.images * signal.astype(np.float64)
        peaks = map(self._peak, range(len(self.targets)))
        measured, said = conservation(found.scores, relevance, found.kept, max(peaks))
        self.facts |= measured
        if said:
            self.note(said)
        return relevance

    def gradients_at(self, images: Array, row: int) -> Array:
        """Gradient of one sample's score at other images, (P, C, H, W) to the same shape.

        The scores of the first of them are compared with those of ONNX Runtime.
        """
        name, target = self.model.input.name, self.targets[row]
        reference = self.score(images[:2], [target] * len(images[:2]))  # settles batching, too
        step = len(images) if self.model.batches else 1
        parts = []
        for at in range(0, len(images), step):
            some = images[at : at + step]
            start = {name: self._input(some)}
            objectives = [Sampled(target, self.model.with_samples)] * len(some)
            found = self._engine.signals(start, {}, objectives, Rule())
            if at < len(reference):
                known = reference[at : at + step]
                self._check_scores(found.scores[: len(known)], known, [row] * len(known))
            parts.append(self.model.input.restore(self.model.gathered(name, found[name])))
        self._remark()
        return np.concatenate(parts).astype(np.float32)

    def _input(self, images: Array) -> Array:
        """Images (N, C, H, W) as the graph takes them, in float32."""
        arranged = self.model.input.arrange(images).astype(np.float32)
        return self.model.as_in_graph(self.model.input.name, arranged)

    def drops_at_layer(self, activations: Array, row: int) -> Array:
        """How far a sample's score drops when the layer holds something else: (P, C, h, w) to (P,).

        Only the nodes behind the layer run, in the twin: once on the layer's own activation too,
        whose score must be that of ONNX Runtime.
        """
        own = self.activation[row : row + 1]
        copies = np.concatenate([own, activations]).astype(np.float32)
        scores = self._together(copies, row)
        if scores is None:
            scores = np.concatenate([self._tail_scores(one[None], row) for one in copies])
        self._check_scores(scores[:1], self.scores[row : row + 1], [row])
        return np.asarray(scores[0] - scores[1:], dtype=np.float64)

    def _together(self, copies: Array, row: int) -> Array | None:
        """Scores by one run of the tail; None where it does not take several samples at once."""
        read = (*self._frontier, *self.targets[row].tensors, self.layer or "")
        self._tail_batches &= not any(map(self.model.folds, read))
        if not self._tail_batches:
            return None
        try:
            found = self._tail_scores(copies, row)
        except ConverterError:  # a number of samples that the file fixes or hands on
            self._tail_batches = False
            return None
        self._tail_batches = self._agrees(found[0], row)
        return found if self._tail_batches else None

    def _tail_scores(self, activations: Array, row: int) -> Array:
        """Scores of one sample's target, from other activations of the layer."""
        layer, count = self.layer or "", len(activations)
        like = np.repeat(self.values[layer][row : row + 1], count, axis=0)
        values = self._form.write(activations, like)
        start = dict.fromkeys(
            copies_of(self.model.graph, layer), self.model.as_in_graph(layer, values)
        )
        frontier = {}
        for name in self._frontier:
            value = self._fed(name, row)
            frontier[name] = np.repeat(value, count, axis=0) if count > 1 else value
        objectives = [Sampled(self.targets[row], self.model.with_samples)] * count
        return self._engine.scores(start, frontier, objectives)

    @property
    def _engine(self) -> GradientEngine:
        return self.model.gradient_engine

    @cached_property
    def _frontier(self) -> tuple[str, ...]:
        layer = self.layer or ""
        for target in self.targets:
            tails = {name: self.model.tail(layer, name) for name in target.tensors}
            if not any(tail.connected or name == layer for name, tail in tails.items()):
                raise MethodRefused(
                    f"the target {target.tensor!r} does not depend on the layer",
                    where=repr(self.layer),
                    hint="choose another layer or target",
                )
        return self._passed_by(layer)

    def _passed_by(self, start: str) -> tuple[str, ...]:
        """Tensors that the way from one to the targets reads, and those of a sum beside it."""
        found: dict[str, None] = {}
        for name in tensors_of(self.targets):
            tail = self.model.tail(start, name)
            beside = not tail.connected and name != start
            found |= dict.fromkeys((name,) if beside else tail.frontier)
        return tuple(found)

    def _signals(
        self,
        start: Mapping[str, Array],
        frontier: Sequence[str],
        rule: Rule,
        *,
        known: Sequence[str] = (),
    ) -> Mapping[str, Array]:
        """What a rule makes of the targets' scores at the start tensors."""
        fed = {name: self._fed(name) for name in frontier}
        spared = {name: self._fed(name) for name in known}
        # One of each: samples of one class have one target.
        each = {id(one): Sampled(one, self.model.with_samples) for one in self.targets}
        objectives = [each[id(one)] for one in self.targets]
        found = self._engine.signals(start, fed, objectives, rule, known=spared)
        self._check_scores(found.scores, self.scores, range(len(self.targets)))
        return {name: value.astype(np.float32, copy=False) for name, value in found.items()}

    def _fed(self, name: str, row: int | None = None) -> Array:
        """A tensor that the engine reads and does not compute, as the graph holds it.

        Args:
            name: The tensor.
            row: The sample; None for all of them.
        """
        some = slice(None) if row is None else slice(row, row + 1)
        if name == self.model.input.name:
            return self.model.as_in_graph(name, self.model.input.arrange(self.images[some]))
        return self.model.as_in_graph(name, self.values[name][some])

    def _peak(self, row: int) -> float:
        """Largest magnitude of the tensors that a sample's target is read from."""
        read = [self.values[name] for name in self.targets[row].tensors]
        return max(*(float(np.abs(value).max()) for value in read), 1e-12)

    def _agrees(self, score: float, row: int) -> bool:
        """Whether the twin's score of a sample is that of ONNX Runtime."""
        return abs(score - float(self.scores[row])) <= self._tolerance * self._peak(row)

    @cached_property
    def _tolerance(self) -> float:
        return QUANTISED_TOLERANCE if self._quantised else TOLERANCE

    def _check_scores(self, scores: Array, known: Array, rows: Sequence[int]) -> None:
        """Compare the engine's scores with those of ONNX Runtime: a free parity check.

        Args:
            scores: (P,) scores of the engine: the twin, or the gradient graph.
            known: (P,) scores of ONNX Runtime.
            rows: The samples whose targets they belong to.
        """
        read = {self.targets[row].tensors: row for row in rows}
        peaks = {names: self._peak(row) for names, row in read.items()}
        worst = score_difference(scores, known, [peaks[self.targets[row].tensors] for row in rows])
        fact, who = DIFFERENCES[self.model.engine == "twin"]
        self.facts[fact] = max(worst, self.facts.get(fact, 0.0))
        if not worst <= self._tolerance:
            self.note(
                f"the {who}'s score differs from ONNX Runtime's by {worst:.1e} of the largest "
                "score: the gradient may belong to another network"
            )

"""What each unit adds to a class's score, over many photos, in one pass and bounded memory."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import MethodRefused, UsageError
from inspector.passes.activations import activations
from inspector.passes.batches import Progress, batches
from inspector.passes.journal import Journal
from inspector.studies.units.unit_weights import ClassUnits, places_of

if TYPE_CHECKING:
    from inspector.opened import Opened

__all__ = ["CHECKPOINT", "TOLERANCE", "Contributions", "contributions_of", "half_of_positive"]

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-4
"""A larger difference of score and contributions is warned of, as for CAM."""

CHECKPOINT = 8
"""Batches after which the sums are kept."""

_KEY = "account"


@dataclass(frozen=True, eq=False)
class Contributions:
    """Contributions of K units to the score of a class, over photos.

    Attributes:
        photos: How many.
        own: How many of them the network calls the class.
        everywhere: (K,) mean contribution over all photos.
        on_own: (K,) mean over the class's own; NaN without any.
        bias: Mean of what the bias adds, over all photos.
        score: Mean score of the class, over all photos.
        score_on_own: Mean over the class's own photos; NaN without any.
        residual: Largest difference, on any photo, between the score and the sum of all
            contributions and the bias, as a share of the photo's largest score.
        tops: For each unit asked for, the activation that ``quantile`` of all places exceeds.
    """

    photos: int
    own: int
    everywhere: Array
    on_own: Array
    bias: float
    score: float
    score_on_own: float
    residual: float
    tops: dict[int, float]

    @property
    def over(self) -> str:
        """Which photos contributions are ranked over."""
        return "photos that the network calls the class" if self.own else "all photos"

    @property
    def mean(self) -> Array:
        """(K,) mean contribution over those."""
        return self.on_own if self.own else self.everywhere

    @property
    def ranks(self) -> Array:
        """(K,) rank of each unit by that mean, 1 for the largest; of equal ones the lower first."""
        return _ranks(self.mean)

    def notes(self) -> list[str]:
        """What must be known when the numbers are read."""
        found = []
        if not self.own:
            found.append(
                "the network calls none of the photos the class: contributions are those "
                "on photos of other classes"
            )
        if self.residual > TOLERANCE:
            found.append(
                f"contributions account for the score only up to {self.residual:.1e} of the "
                "largest score: quantised or float16 arithmetic lies between"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data; None where nothing is defined."""
        return {
            "photos": self.photos,
            "photos_called_the_class": self.own,
            "ranked_over": self.over,
            "mean_score": self.score,
            "mean_score_on_own": self.score_on_own if self.own else None,
            "mean_bias": self.bias,
            "mean_of_positive_contributions": float(np.maximum(self.mean, 0).sum()),
            "mean_of_negative_contributions": float(np.minimum(self.mean, 0).sum()),
            "units_of_half_the_positive": half_of_positive(self.mean),
            "identity": "score = sum over all units of contribution + bias, on every photo",
            "largest_residual": self.residual,
            "residual_is": "difference of both sides as a share of the photo's largest score",
        }


def half_of_positive(values: Array) -> int:
    """How many of the largest values make up half of the sum of the positive ones."""
    kept = np.sort(values[values > 0])[::-1]
    return int(np.searchsorted(kept.cumsum(), kept.sum() / 2) + 1) if kept.size else 0


def _ranks(values: Array) -> Array:
    found = np.empty(len(values), int)
    found[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return found


def contributions_of(
    model: "Opened",
    head: "ClassUnits",
    index: int,
    images: Sequence[Any],
    *,
    quantile: float | None,
    units: Sequence[int],
    progress: Progress | None,
    journal: Journal,
) -> Contributions:
    """Add up what each unit adds to the score.

    Args:
        model: The opened model.
        head: How units make the score.
        index: The class.
        images: The photos.
        quantile: Share of places whose least activation is wanted; None for none.
        units: Units whose quantile is wanted.
        progress: Called with (what, done, total).
        journal: Gets the sums every few batches.

    Raises:
        UsageError: too few places for the quantile.
        MethodRefused: the network overflows.
    """
    places = places_of(model, head.maps, head.channel_axis)
    sums = _Sums(len(head.weights), units, quantile, len(images) * places)
    known = sums.resume(journal)
    scores = model.scores.tensor
    step = 0
    for step, batch in enumerate(batches(model, images, [], progress, skip=known), 1):
        values = activations(model, batch.tensors, [*head.tensors, scores])
        rows = values[scores].reshape(len(batch.places), -1).astype(np.float64)
        parts, bias = head.parts(values)
        if not (np.isfinite(parts).all() and np.isfinite(rows).all()):
            raise MethodRefused(
                "activations or scores are not finite",
                where=batch.photos[0].name,
                hint="the network overflows on this photo or one of the next; check the "
                "preprocessing",
            )
        sums.add(parts, bias, rows, index)
        sums.add_places(head.features(values))
        sums.state["done"] = batch.places[-1]
        if step % CHECKPOINT == 0:
            sums.keep(journal)
    if step % CHECKPOINT:
        sums.keep(journal)
    return sums.finish(places)


class _Sums:
    """Running sums over photos.

    Batches are the same after an interruption, since sums are kept behind whole batches only.
    """

    def __init__(
        self, count: int, units: Sequence[int], quantile: float | None, total: int
    ) -> None:
        self.state: dict[str, Any] = {
            "done": -1,
            "photos": 0,
            "own": 0,
            "bias": 0.0,
            "score": 0.0,
            "score_on_own": 0.0,
            "residual": 0.0,
        }
        self.everywhere, self.on_own = np.zeros(count), np.zeros(count)
        self.units, self.quantile = tuple(units), quantile
        if quantile is not None:
            _enough(quantile, total)
        # As many as can lie above the quantile in the end, and the one at it.
        self.most = int((quantile or 0) * total) + 1
        self.tops: dict[int, Array] = {unit: np.zeros(0, np.float32) for unit in self.units}

    def resume(self, journal: Journal) -> range:
        """Take over what the journal knows; the places that it has passed, readable or not."""
        if _KEY not in journal:
            return range(0)
        kept = journal[_KEY]
        self.state = kept["state"]
        self.everywhere, self.on_own = (_decoded(kept[k], "<f8") for k in ("everywhere", "on_own"))
        self.tops = {u: _decoded(t, "<f4") for u, t in zip(self.units, kept["tops"], strict=True)}
        return range(self.state["done"] + 1)

    def add(self, parts: Array, bias: Array, scores: Array, index: int) -> None:
        """Add photos: contributions (N, K), bias (N,), scores (N, classes)."""
        state, own = self.state, scores.argmax(1) == index
        target = scores[:, index]
        difference = np.abs(parts.sum(1) + bias - target)
        worst = (difference / np.maximum(np.abs(scores).max(1), 1e-12)).max()
        self.everywhere = self.everywhere + parts.sum(0)
        self.on_own = self.on_own + parts[own].sum(0)
        state["photos"] += len(parts)
        state["own"] += int(own.sum())
        state["bias"] += float(bias.sum())
        state["score"] += float(target.sum())
        state["score_on_own"] += float(target[own].sum())
        state["residual"] = max(state["residual"], float(worst))

    def add_places(self, maps: Array) -> None:
        """Keep the largest activations of maps (N, K, h, w)."""
        for unit in self.units:
            every = np.concatenate([self.tops[unit], maps[:, unit].ravel().astype(np.float32)])
            self.tops[unit] = np.sort(every)[-self.most :]

    def keep(self, journal: Journal) -> None:
        """Write the sums down."""
        journal.keep(
            _KEY,
            {
                "state": self.state,
                "everywhere": _encoded(self.everywhere, "<f8"),
                "on_own": _encoded(self.on_own, "<f8"),
                "tops": [_encoded(self.tops[unit], "<f4") for unit in self.units],
            },
        )

    def finish(self, places: int) -> Contributions:
        """Means over the photos that were read, of ``places`` places each."""
        state = self.state
        photos, own = state["photos"], state["own"]
        tops = {}
        if self.quantile is not None and photos:
            _enough(self.quantile, photos * places)
            above = int(self.quantile * photos * places)
            tops = {unit: float(kept[-above - 1]) for unit, kept in self.tops.items()}
        return Contributions(
            photos,
            own,
            self.everywhere / max(photos, 1),
            self.on_own / own if own else np.full_like(self.on_own, np.nan),
            state["bias"] / max(photos, 1),
            state["score"] / max(photos, 1),
            state["score_on_own"] / own if own else np.nan,
            state["residual"],
            tops,
        )


def _enough(quantile: float, places: int) -> None:
    if quantile * places < 1:
        raise UsageError(
            f"{quantile:g} of {places} places on all photos is less than one",
            where="quantile",
            hint="give more photos, or --threshold maximum:0.5",
        )


def _encoded(values: Array, kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _decoded(text: str, kind: str) -> Array:
    return np.frombuffer(base64.b64decode(text), kind).astype(kind[1:])

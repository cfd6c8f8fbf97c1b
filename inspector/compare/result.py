"""What a comparison found, as plain data: per image, over all images, and against gates."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from inspector.compare import figure as sheet
from inspector.compare import verdict
from inspector.compare.noise import Noise
from inspector.compare.outputs import OutputDifference
from inspector.compare.parting import Parting
from inspector.errors import ImageRefused, UsageError
from inspector.heatmap import Heatmap
from inspector.measures.similarity import TOP_SHARE, Similarity
from inspector.render import FORMATS, save

__all__ = ["Comparison", "Gates", "ImageComparison", "MapPair"]

SCHEMA = 1
"""Version of the JSON document; a field that changes its meaning raises it."""


@dataclass(frozen=True)
class MapPair:
    """One method's maps of one photo by both networks, for the same target.

    Attributes:
        method: Method with the options that differ from their defaults.
        role: Whose choice the target is: ``a`` (A's prediction, or what the user asked for) or
            ``b`` (B's own prediction, where it is another).
        label: The target as people call it.
        scores: The target's score before softmax in A and in B.
        probabilities: Its probability likewise; None where a network has none.
        layers: Layer that was explained through in A and in B; None for input methods.
        similarity: How alike the maps are on the photo's pixels.
        notes: What must be known when the maps are read, each once, after the network's letter.
    """

    method: str
    role: str
    label: str
    scores: tuple[float, float]
    probabilities: tuple[float | None, float | None]
    layers: tuple[str | None, str | None]
    similarity: Similarity
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        found = self.similarity
        return {
            "method": self.method,
            "target": {"label": self.label, "chosen_by": self.role},
            "a": {
                "score": self.scores[0],
                "probability": self.probabilities[0],
                "layer": self.layers[0],
                "peak": _place(found.peaks[0]),
                "top_share": found.top_shares[0],
            },
            "b": {
                "score": self.scores[1],
                "probability": self.probabilities[1],
                "layer": self.layers[1],
                "peak": _place(found.peaks[1]),
                "top_share": found.top_shares[1],
            },
            "score_shift": self.scores[1] - self.scores[0],
            "probability_shift": shift(self.probabilities),
            "rank_correlation": found.rank,
            "pearson": found.pearson,
            "iou_of_top": found.iou,
            "peak_shift_pixels": found.peak_shift,
            "peak_shift_of_diagonal": found.peak_share,
            "pixels": found.pixels,
            "pixel_step": found.step,
            "undefined": found.undefined,
            "warnings": self.notes,
        }


@dataclass(frozen=True)
class ImageComparison:
    """What both networks say about one photo.

    Attributes:
        name: The photo's name.
        sha256: Of its file, or of its pixels.
        size: Height and width in pixels.
        predictions: A's and B's best class: index, label, score, probability; None where the
            network is not a classifier.
        flip: Whether these are different classes, or an item of one has no counterpart in the
            other; None where there are none.
        maps: Methods and targets; those for A's target first.
        items: Of networks that are not classifiers: each item of A that is explained, and its
            counterpart in B; and those of B that A has not.
    """

    name: str
    sha256: str
    size: tuple[int, int]
    predictions: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]
    flip: bool | None
    maps: tuple[MapPair, ...]
    items: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "size": self.size,
            "a": self.predictions[0],
            "b": self.predictions[1],
            "flip": self.flip,
            "maps": [pair.to_dict() for pair in self.maps],
            **({"items": list(self.items)} if self.items else {}),
        }


@dataclass(frozen=True)
class Gates:
    """What a comparison must not fall short of; None asks for nothing.

    They look at the maps for A's target. A pair of which one map shows evidence and the other
    none falls short of every bound; where neither does, there is nothing to compare.

    Attributes:
        min_iou: Least IoU of the top 20 % of any image.
        min_rank: Least rank correlation of any image.
        max_flips: Most predictions that may flip.
    """

    min_iou: float | None = None
    min_rank: float | None = None
    max_flips: int | None = None

    def failures(self, images: Sequence[ImageComparison]) -> tuple[str, ...]:
        """A sentence for each gate that fails."""
        found = []
        flips = sum(bool(image.flip) for image in images)
        if self.max_flips is not None and flips > self.max_flips:
            found.append(f"{flips} of {len(images)} predictions flip, more than {self.max_flips}")
        for what, bound, key in (
            ("IoU of the top 20 %", self.min_iou, "iou"),
            ("rank correlation", self.min_rank, "rank"),
        ):
            if bound is not None:
                found += _below(images, what, bound, key)
        return tuple(found)


def _below(images: Sequence[ImageComparison], what: str, bound: float, key: str) -> Iterator[str]:
    """A sentence for a bound that some images fall short of."""
    short = []
    for image in images:
        for pair in image.maps:
            value = getattr(pair.similarity, key)
            fails = pair.similarity.one_sided if value is None else value < bound
            if pair.role == "a" and fails:
                worth = -np.inf if value is None else value
                shown = "undefined, one map is empty" if value is None else f"{value:.3f}"
                short.append((worth, f"{image.name}, {pair.method}: {shown}"))
    if short:
        worst = min(short, key=lambda item: item[0])[1]
        yield f"{what} below {bound:g} in {len(short)} map(s), worst {worst}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two networks on the same photos.

    Attributes:
        contexts: For A and B: hashes, preprocessing, layer, versions, as plain data.
        options: Everything that was asked for.
        images: One entry per readable photo, in order.
        refused: The photos that could not be read.
        parting: Where the two graphs part.
        outputs: How far B is from A at each output that both have.
        noise: How far two float32 runs of A differ.
        intervals: Whether numbers have intervals, which need SciPy.
        cases: The worst cases, drawn, worst first.
        gates: What the user demanded.
        warnings: What must be known when the figures are read.
        way: How B was run, where one file is compared with itself in several ways.
    """

    contexts: tuple[Mapping[str, Any], Mapping[str, Any]]
    options: Mapping[str, Any]
    images: tuple[ImageComparison, ...]
    refused: tuple[ImageRefused, ...]
    parting: Parting
    outputs: tuple[OutputDifference, ...] = ()
    noise: Noise = field(default_factory=Noise)
    intervals: bool = False
    cases: tuple[sheet.Case, ...] = ()
    gates: Gates = field(default_factory=Gates)
    warnings: tuple[str, ...] = ()
    way: str = ""

    @property
    def flips(self) -> tuple[ImageComparison, ...]:
        """The photos whose prediction differs."""
        return tuple(image for image in self.images if image.flip)

    @property
    def moved(self) -> bool | None:
        """Whether B differs from A beyond float32 noise; None where noise was not measured."""
        return verdict.moved(self)

    @property
    def sentence(self) -> str:
        """The verdict: whether B is A, and if not by how much, and where they part."""
        return verdict.sentence(self)

    def numbers(self) -> dict[str, Any]:
        """The numbers that gates speak of, with 95 % intervals over photos."""
        return verdict.numbers(self, int(self.options.get("seed", 0)))

    @property
    def failures(self) -> tuple[str, ...]:
        """The gates that fail, a sentence each."""
        return self.gates.failures(self.images)

    @property
    def pairs(self) -> tuple[MapPair, ...]:
        """All pairs of maps for A's target."""
        return tuple(pair for image in self.images for pair in image.maps if pair.role == "a")

    def summary(self) -> dict[str, Any]:
        """Figures over all images; similarities of the maps for A's target."""
        shifts = [abs(s) for p in self._first_pairs() if (s := shift(p.probabilities)) is not None]
        methods = dict.fromkeys(pair.method for pair in self.pairs)
        return {
            "images": len(self.images),
            "refused": len(self.refused),
            "flips": None if self._no_classes else len(self.flips),
            "probability_shift": _statistics(shifts, worst=max),
            "methods": {name: self._method_summary(name) for name in methods},
        }

    @property
    def _no_classes(self) -> bool:
        return all(image.flip is None for image in self.images)

    def _first_pairs(self) -> list[MapPair]:
        return [image.maps[0] for image in self.images if image.maps]

    def _method_summary(self, method: str) -> dict[str, Any]:
        found = [pair.similarity for pair in self.pairs if pair.method == method]
        return {
            "maps": len(found),
            "rank_correlation": _statistics([s.rank for s in found], worst=min),
            "pearson": _statistics([s.pearson for s in found], worst=min),
            "iou_of_top": _statistics([s.iou for s in found], worst=min),
            "peak_shift_of_diagonal": _statistics([s.peak_share for s in found], worst=max),
            "evidence_in_one_only": sum(s.one_sided for s in found),
        }

    @property
    def name(self) -> str:
        """Name of the files, without a suffix."""
        if not self.way:
            return "comparison"
        return "comparison." + re.sub(r"[^A-Za-z0-9]+", "-", self.way)

    @property
    def titles(self) -> tuple[str, str]:
        """What A and B are called: the file, and how it was run where that was asked for."""
        a, b = (
            ", on ".join(filter(None, [str(c["model"]["name"]), str(c.get("execution", ""))]))
            for c in self.contexts
        )
        return a, b

    def figures(self) -> dict[str, Callable[[], Image]]:
        """The function that draws the contact sheet, by file name; none if no case was kept."""
        return {self.name: self.sheet} if self.cases else {}

    def tables(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """No tables."""
        return {}

    def maps(self) -> dict[str, Heatmap]:
        """No maps: a comparison keeps how alike they are."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Plain data of everything but the pictures; the same as ``document``."""
        return self.document()

    def document(self) -> dict[str, Any]:
        """Plain data of everything but the pictures."""
        versions = self.contexts[0].get("versions", {})
        a, b = ({k: v for k, v in c.items() if k != "versions"} for c in self.contexts)
        return {
            "schema": SCHEMA,
            "a": a,
            "b": b,
            "versions": versions,
            "options": {**self.options, "top_share": TOP_SHARE},
            "verdict": {"moved": self.moved, "sentence": self.sentence},
            "numbers": self.numbers(),
            "outputs": [one.to_dict() for one in self.outputs],
            "noise": self.noise.to_dict(),
            "summary": self.summary(),
            "parting": self.parting.to_dict(),
            "images": [image.to_dict() for image in self.images],
            "refused": [str(error) for error in self.refused],
            "gates": {
                "min_iou": self.gates.min_iou,
                "min_rank": self.gates.min_rank,
                "max_flips": self.gates.max_flips,
                "failures": self.failures,
            },
            "warnings": self.warnings,
        }

    def sheet(self) -> Image:
        """Contact sheet of the worst cases.

        Raises:
            UsageError: none were kept.
        """
        if not self.cases:
            raise UsageError("no case was kept for the sheet", hint="ask for worst=1 or more")
        return sheet.contact_sheet(self.cases, self.titles, self._headline(), self.warnings)

    def _headline(self) -> tuple[str, ...]:
        flips = "" if self._no_classes else f", {len(self.flips)} predictions flip"
        lines = [f"{len(self.images)} photos{flips}; the {len(self.cases)} least alike below"]
        return (self.sentence, *lines, self.parting.sentence)

    def save(self, folder: str | Path, *, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Write ``comparison.png`` (if any case was kept) and ``comparison.json``.

        Args:
            folder: Made when it does not exist.
            formats: Names of output formats; see ``inspector.render``.

        Returns:
            The files, the report last.

        Raises:
            UsageError: There is no such format, or the place cannot be written to.
        """
        return save(self, folder, formats)


def shift(values: tuple[float | None, float | None]) -> float | None:
    """B's value minus A's; None where either is unknown."""
    a, b = values
    return None if a is None or b is None else b - a


def _statistics(values: Sequence[float | None], worst: Any) -> dict[str, Any]:
    """Median, mean and worst of the defined values, and how many are not."""
    known = [value for value in values if value is not None]
    if not known:
        return {"defined": 0, "median": None, "mean": None, "worst": None}
    return {
        "defined": len(known),
        "median": float(np.median(known)),
        "mean": float(np.mean(known)),
        "worst": float(worst(known)),
    }


def _place(peak: tuple[int, int] | None) -> dict[str, int] | None:
    return None if peak is None else {"x": peak[1], "y": peak[0]}

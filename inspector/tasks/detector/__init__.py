"""Detectors: boxes, each with a class and a score.

Boxes are decoded and suppressed here, whatever the file leaves to its caller.  What is explained of
a box is the element that holds its class's score, before its sigmoid or softmax.

Grad-CAM averages the gradient over the places of a layer.  Behind a head of 1x1 convolutions the
gradient of every box of a class is the same vector, at the box's own cell: averaged, every box gets
the same map.  HiResCAM keeps the place (with smoothing it is ODAM, Zhao & Chan 2023).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.measures.boxes import overlaps
from inspector.printable import clean_text
from inspector.target import Target, element_target
from inspector.tasks import Box, Item, Outputs, Reading, Sample, laid_out, place_lost, task, unknown
from inspector.tasks.detector.layouts import find_layout
from inspector.tasks.detector.rows import Layout, Rows
from inspector.tasks.numbers import Detected
from inspector.tasks.planes import cell_of, point_not_seen
from inspector.tasks.words import Words, class_of, read_words

__all__ = ["Detector"]

CERTAIN = 0.25
"""Score from which a box is listed; Ultralytics' default."""

SAME = 0.45
"""Intersection over union from which two boxes of one class are one object."""

MEANT = 0.3
"""Intersection over union from which a box that the user draws is an item."""

MOST = 100
"""Boxes that are listed of one photo."""

_SMALL = 1e-12
"""Length of class scores that have no direction."""

EXAMINED = 30_000
"""Certain candidates that are looked at, the most certain first; Ultralytics' ``max_nms``."""

_MOVES = (
    "the graph sorts these rows, which change places when the photo changes: methods that hide "
    "parts of it compare with whatever comes to stand there; --target box:L,T,R,B follows one box"
)
"""What is said of a number of a sorted list that is not the score of a box."""

_SAMPLED = 9
"""Candidates that are asked for the tensor of their score; levels may hold them apart."""


@dataclass(frozen=True, eq=False)
class Detector:
    """The reading of a detector's outputs; see ``Reading``."""

    known: Outputs
    layout: Layout
    task: str = "detector"
    method: str = "hires-cam"
    wanted: str = "top3"
    cautions: Mapping[str, str] = field(
        default_factory=lambda: place_lost(
            "behind a head of 1x1 convolutions every box of a class gets the same map"
        )
    )

    @property
    def why(self) -> str:
        """What the model is, in one line."""
        count, names = self.layout.classes, len(self.known.labels)
        said = [self.layout.name]
        said += [f"{count} class" + ("es" if count > 1 else "")] if count else []
        said += [f"{names} names"] if names else ["no class names"]
        if not self.layout.final:
            before = [name for name in self.tensors if name not in self.outputs]
            said += ["scores before the sigmoid or softmax"] if before else []
            said += ["boxes suppressed here"]
        said += [self.layout.caution] if self.layout.caution else []
        return f"detector ({', '.join(said)})"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs that hold boxes, scores and classes."""
        return self.layout.outputs

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Tensors of scores: one, or one per level."""
        count = self.layout.candidates or 1
        rows = sorted({round(i * (count - 1) / (_SAMPLED - 1)) for i in range(_SAMPLED)})
        found = {row: self._element(row, 0, "").tensor for row in rows}
        waiting = list(pairwise(rows))
        while waiting:  # a level between two rows of others
            first, last = waiting.pop()
            middle = (first + last) // 2
            if found[first] != found[last] and first < middle:
                found[middle] = self._element(middle, 0, "").tensor
                waiting += [(first, middle), (middle, last)]
        return tuple(dict.fromkeys(found[row] for row in sorted(found)))

    def items(self, sample: Sample) -> Sequence[Item]:
        """Boxes, the most certain first: those that are certain, else the one best."""
        return self._listed(self.layout.read(sample.values), sample)

    def select(self, text: str, items: Sequence[Item], sample: Sample) -> Sequence[Item]:
        """``top3``, ``person``, ``person#2``, ``box:LEFT,TOP,RIGHT,BOTTOM``, ``person@X,Y``.

        Raises:
            UnknownTarget: There is no such class.
            ImageRefused: There is no such box in this photo.
        """
        words = read_words(text)
        if words.mask or text.startswith("char:"):
            raise unknown(clean_text(text), self, "write top3, CLASS, CLASS#2 or box:L,T,R,B")
        if words.top is not None:
            if not items:
                raise self._none(sample, "there is no box")
            return items[: words.top]
        among = items
        if words.name:
            number = class_of(words.name, self.known.labels, self.layout.classes)
            among = self._of_class(number, sample)
            if not among or (among[0].score or 0) < CERTAIN:
                raise self._none(sample, f"there is no {self._name(number)}", items)
        return [self._one(words, among, sample)]

    def layer(self, maps: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
        """None: of several levels the gradient takes the target's own."""
        del maps
        return None

    def _of_class(self, number: int, sample: Sample) -> Sequence[Item]:
        """Boxes of one class by its own score, also where another class wins."""
        rows = self.layout.read(sample.values)
        if rows.table is None:
            return [item for item in self.items(sample) if item.index == number]
        own = np.full(len(rows.boxes), number)
        mine = replace(rows, scores=rows.table[:, number], classes=own)
        return self._listed(mine, sample)

    def _listed(self, rows: Rows, sample: Sample) -> list[Item]:
        """Rows as items, numbered within their class."""
        found, seen = [], dict[int, int]()
        for row in self._kept(rows):
            number = int(rows.classes[row])
            seen[number] = seen.get(number, 0) + 1
            top, left, bottom, right = (float(v) for v in rows.boxes[row])
            label = f"{self._name(number)}#{seen[number]}"
            target = self._found_again(self._element(row, number, label), rows, row)
            score, box = float(rows.scores[row]), (top, left, bottom, right)
            mask = None
            if self.layout.mask is not None:
                mask = self.layout.mask(sample.values, row, sample.geometry.input)
            if score < CERTAIN:
                target = replace(
                    target, note="; ".join(filter(None, (_unsure(score), target.note)))
                )
            shown = None if self.layout.placeless else box
            found.append(Item(label, target, score, number, shown, mask))
        return found

    def _one(self, words: Words, items: Sequence[Item], sample: Sample) -> Item:
        if words.box is not None:
            return self._at_box(words.box, items, sample)
        if words.point is not None:
            return self._at_point(words.point, items, sample)
        rank = words.rank or 1
        if rank > len(items):
            raise self._none(sample, f"there are {len(items)} such boxes, not {rank}", items)
        return items[rank - 1]

    def _at_box(
        self, box: tuple[float, float, float, float], items: Sequence[Item], sample: Sample
    ) -> Item:
        left, top, right, bottom = box
        (sy, sx), (ty, tx) = sample.geometry.scale, sample.geometry.shift
        own = [[sy * top + ty, sx * left + tx, sy * bottom + ty, sx * right + tx]]
        boxes = [item.box for item in items if item.box is not None]
        shares = overlaps(own, boxes)[0] if boxes else np.zeros(0)
        height, width = sample.geometry.photo
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            what = f"this box lies outside of the photo, which has {width}x{height} pixels"
            raise self._none(sample, what, items)
        if not len(shares) or shares.max() < MEANT:
            best = f" (the nearest by {shares.max():.2f})" if len(shares) else ""
            raise self._none(sample, f"no box overlaps this one by {MEANT}{best}", items)
        return items[int(shares.argmax())]

    def _at_point(self, point: tuple[float, float], items: Sequence[Item], sample: Sample) -> Item:
        geometry = sample.geometry
        if cell_of(point, geometry, geometry.input) is None:
            raise point_not_seen(point, geometry, sample.photo)
        y, x = (float(v) + 0.5 for v in geometry.to_input(point[1], point[0]))
        inside = [
            item
            for item in items
            if item.box and item.box[0] <= y <= item.box[2] and item.box[1] <= x <= item.box[3]
        ]
        if not inside:
            raise self._none(sample, "no box covers this point", items)
        return min(inside, key=lambda item: _area(item.box))

    def _kept(self, rows: Rows) -> list[int]:
        """Candidates that are certain, suppressed within each class, the most certain first."""
        scores = np.where(np.isfinite(rows.scores), rows.scores, 0)
        order = np.argsort(-scores, kind="stable")
        certain = order[scores[order] >= CERTAIN][:EXAMINED]
        left = certain if certain.size else order[:1]
        if self.layout.final:
            return [int(row) for row in left[:MOST]]
        kept: list[int] = []
        while left.size and len(kept) < MOST:
            best, left = int(left[0]), left[1:]
            kept.append(best)
            same = np.flatnonzero(rows.classes[left] == rows.classes[best])
            if same.size:
                shares = overlaps(rows.boxes[[best]], rows.boxes[left[same]])[0]
                left = np.delete(left, same[shares > SAME])
        return kept

    def _element(self, row: int, number: int, label: str) -> Target:
        output, index = self.layout.element(row, number)
        found = element_target(output, index, label, self.known.scores)
        if found.tensor == output and not found.note and self.layout.final:
            note = (
                f"{label} is a row of a list that the graph sorts: explained is its score as it "
                "comes out, not the score before a sigmoid"
            )
            return replace(found, note=note)
        if self.layout.caution:
            return found.noted(self.layout.caution)
        return found

    def _found_again(self, target: Target, rows: Rows, row: int) -> Target:
        """A box that is found again on a changed photo by its place, classes and objectness."""
        box, number = rows.boxes[row], int(rows.classes[row])
        own = None if rows.table is None else rows.table[row]

        def similar(values: Mapping[str, Any]) -> float:
            other = self.layout.read(values)
            if not len(other.boxes):
                return 0.0
            alike = (other.classes == number).astype(np.float64)
            if own is not None and other.table is not None:
                lengths = np.linalg.norm(other.table, axis=1) * np.linalg.norm(own)
                alike = other.table @ own / np.maximum(lengths, _SMALL)
            sure = other.scores if other.objectness is None else other.objectness
            found = overlaps([box], other.boxes)[0] * alike * sure
            return float(np.nan_to_num(found).max(initial=0.0))

        moves = self.layout.final
        return Detected.by(target, self.outputs, similar, sorted_rows=moves)

    def followed(self, target: Target, sample: Sample) -> Target:
        """A number that a user names by its place, found again by its box where rows change places.

        Args:
            target: Any number.
            sample: What the photo gave.

        Returns:
            The target itself where it is not read from rows that the graph sorts. Of a box's score
            one that follows the box; of other numbers of such rows one that says what it is not.
        """
        if not self.layout.final or not set(target.tensors) & set(self.outputs):
            return target
        with suppress(ImageRefused), laid_out(sample.photo):
            found = self._box_named(target, self.layout.read(sample.values), sample)
            if found is not None:
                return found
        return target.noted(_MOVES)

    def _box_named(self, target: Target, rows: Rows, sample: Sample) -> Target | None:
        """The box whose score a target is; None where it is not the score of one."""
        if type(target) is not Target or not all(isinstance(i, int) for i in target.index):
            return None
        shape = np.shape(sample.values[target.tensor])
        index = tuple(i % n for i, n in zip(target.index, shape, strict=False))
        for row in {i for i in index if i < len(rows.boxes)}:
            own = [int(rows.classes[row])] if rows.table is None else range(rows.table.shape[1])
            for number in own:
                if self.layout.element(row, number) == (target.tensor, index):
                    named = replace(rows, classes=np.full(len(rows.boxes), number))
                    said = f"{target.label} is followed by its box: rows change places"
                    return self._found_again(target.noted(said), named, row)
        return None

    def _name(self, number: int) -> str:
        names = self.known.labels
        return clean_text(names[number]) if 0 <= number < len(names) else f"class {number}"

    def _none(self, sample: Sample, what: str, items: Sequence[Item] = ()) -> ImageRefused:
        """The refusal of a photo in which the user's words name nothing."""
        shown = ", ".join(f"{item.label} ({item.score:.2f})" for item in items[:8])
        return ImageRefused(what, where=sample.photo, hint=f"its boxes: {shown}" if shown else "")


def _unsure(score: float) -> str:
    """What must be known of a box that is drawn because no other is surer."""
    return (
        f"no box is certain: the best one has a score of {score:.2g}, and a detector's boxes count "
        f"from {CERTAIN}"
    )


def _area(box: Box | None) -> float:
    return 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1])


@task("detector", rank=1, words=("detect", "object-detection", "segment", "pose", "obb"))
def detector(outputs: Outputs, asked: bool) -> Reading | None:
    """Boxes with scores, in a layout that is known.

    Raises:
        UsageError: They can be something else as well, and the user does not say.
    """
    layout = find_layout(outputs)
    if layout is not None and layout.doubt and not asked:
        raise UsageError(
            f"the output {clean_text(layout.outputs[0])!r} can be read as a detector's "
            f"({layout.name}) and as {layout.doubt}",
            hint=f"--task detector:{layout.key} or --task segmenter; where it is neither, name an "
            f"element, {clean_text(layout.outputs[0])}[i,j,k], as the target",
        )
    return None if layout is None else Detector(outputs, layout)

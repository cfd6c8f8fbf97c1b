"""The square at every position of a photo, and what each pass through the network gives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.plain_values import quoted, whole_number
from inspector.errors import MethodRefused, UsageError
from inspector.evidence.local_forward import LocalForward
from inspector.methods.occlusion import BATCH
from inspector.network.layers import channel_axes
from inspector.passes.activations import activations
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.photos.occluder import Box, fill_colour, window_and_stride, windows
from inspector.probability import class_of, label_of, of_target, probabilities_of, source_of

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.target import Target

__all__ = ["Plan", "Sweep", "plan_of", "sweep_over"]

Array = np.ndarray[Any, Any]

MEMORY = 128 << 20
"""Bytes of the layer's maps that are held at a time."""

_RULES = ("total", "peak")
_NO_PROBABILITY = "`inspector explain -m occlusion:measure=score` draws the score's drop"


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the square goes, and what is read.

    Attributes:
        tensor: The layer.
        shape: (C, h, w) of it.
        feature: How the map is chosen, or its number.
        window: Side of the square.
        stride: Its step.
        colour: (C,) network values of the square.
        boxes: (y0, x0, y1, x1) of each position, in reading order.
        grid: Positions down and across.
        step: Positions that go through the network at a time.
    """

    tensor: str
    shape: tuple[int, ...]
    feature: str | int
    window: int
    stride: int
    colour: Array
    boxes: tuple[Box, ...]
    grid: tuple[int, int]
    step: int

    def to_dict(self, model: "Opened") -> dict[str, Any]:
        """Plain data."""
        across = self.grid[1]
        return {
            "layer": self.tensor,
            "layer_shape": self.shape,
            "feature_map": self.feature,
            "input_size": model.size(*model.preprocessing.preprocess.size),
            "window": self.window,
            "stride": self.stride,
            "fill_as_network_values": [float(v) for v in self.colour],
            "positions": {
                "rows": [[y0, y1] for y0, _, y1, _ in self.boxes[::across]],
                "columns": [[x0, x1] for _, x0, _, x1 in self.boxes[:across]],
            },
        }


def plan_of(
    model: "Opened",
    window: int,
    stride: int,
    fill: str,
    *,
    layer: str | int | None,
    feature: str,
) -> Plan:
    """Lay out the square's positions; arguments as for the study.

    Raises:
        MethodRefused: The model gives no class probabilities.
        ModelRefused: It has no convolution.
        UsageError: Options out of range.
    """
    if not model.scores.classifier:
        raise MethodRefused(
            f"the model gives no class probabilities: {model.scores.why}",
            where=model.path.name,
            hint="`inspector explain -m occlusion --target OUTPUT[i,...]` takes any score",
        )
    tensor = model.layer_for(layer)[0].tensor
    shape = model.shape_of(tensor)
    if channel_axes(model.graph).get(tensor, 1) != 1:
        raise UsageError(
            "the layer has its channels last",
            where=tensor,
            hint="`inspector layers` lists its transposed form",
        )
    height, width = model.size(*model.preprocessing.preprocess.size)
    window, stride = window_and_stride(window, stride, height, width, where="occlusion")
    boxes = tuple(windows(height, width, window, stride))
    across = sum(box[0] == boxes[0][0] and box[2] == boxes[0][2] for box in boxes)
    return Plan(
        tensor=tensor,
        shape=shape[1:],
        feature=_feature(feature, shape[1]),
        window=window,
        stride=stride,
        colour=fill_colour(model.preprocessing.preprocess, fill, where="occlusion"),
        boxes=boxes,
        grid=(len(boxes) // across, across),
        step=max(1, min(BATCH, MEMORY // (4 * int(np.prod(shape[1:]))))),
    )


def _feature(text: str, channels: int) -> str | int:
    text = str(text).strip()
    if text in _RULES:
        return text
    number = whole_number(text)
    if number is None or not 0 <= number < channels:
        raise UsageError(
            f"no feature map {quoted(text)}",
            hint=f"total, peak, or a number from 0 to {channels - 1}",
        )
    return number


@dataclass(eq=False)
class Sweep:
    """What one photo gave under the square, P positions.

    Attributes:
        place: Position of the photo in the list.
        name: Its name.
        sha256: Its hash.
        target: The class.
        unit: The feature map.
        peaks: (C,) largest activation of each map without the square.
        sums: (C,) total activation of each map likewise.
        at: Row and column of the chosen map's largest activation.
        how: Where the probabilities come from.
        before: Values without the square, by the names of ``values``.
        values: ``total``, ``probability``, ``score``, ``label`` and ``label_probability``, (P,).
        names: Names of the labels by index.
        agreement: Whether the projection lies where hiding matters; None without a projection.
    """

    place: int
    name: str
    sha256: str
    target: "Target"
    unit: int
    peaks: Array
    sums: Array
    at: tuple[int, int]
    how: str
    before: dict[str, Any]
    values: dict[str, list[Any]]
    names: Mapping[int, str]
    agreement: float | None = None

    @property
    def counts(self) -> dict[int, int]:
        """Positions at which each label is the most probable, most frequent first."""
        found, numbers = np.unique(self.values["label"], return_counts=True)
        order = sorted(
            zip(numbers.tolist(), found.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1])
        )
        return {label: count for count, label in order}

    def lowest(self, what: str) -> int:
        """The position at which a value is lowest; the first of equals."""
        return int(np.argmin(self.values[what]))

    def grid(self, what: str, plan: Plan) -> list[list[Any]]:
        """Values by row and column of the positions."""
        flat, across = self.values[what], plan.grid[1]
        return [flat[i : i + across] for i in range(0, len(flat), across)]

    def to_dict(self, plan: Plan) -> dict[str, Any]:
        """Plain data."""
        return {
            "image": {"name": self.name, "place": self.place, "sha256": self.sha256},
            "class": {"index": self.target.shown_index, "label": self.target.label},
            "probability_from": self.how,
            "feature_map": {
                "unit": self.unit,
                "largest_activation": float(self.peaks[self.unit]),
                "at": {"y": self.at[0], "x": self.at[1]},
                "largest_by_total": int(self.sums.argmax()),
                "largest_by_peak": int(self.peaks.argmax()),
            },
            "unoccluded": self.before,
            **{key: self.grid(what, plan) for key, what in GRIDS.items()},
            "labels": [
                {"index": index, "label": self.names[index], "positions": count}
                for index, count in self.counts.items()
            ],
            "correlation_of_projection_and_drop": self.agreement,
        }

    def table(self, plan: Plan) -> Iterator[dict[str, Any]]:
        """One row a position."""
        for index, (y0, x0, y1, x1) in enumerate(plan.boxes):
            row, column = divmod(index, plan.grid[1])
            label = self.values["label"][index]
            yield {
                "image": self.name,
                "place": self.place,
                "row": row,
                "column": column,
                "top": y0,
                "left": x0,
                "bottom": y1,
                "right": x1,
                **{key: self.values[what][index] for key, what in GRIDS.items()},
                "label": self.names[label],
            }


GRIDS = {
    "total_activation": "total",
    "probability": "probability",
    "score": "score",
    "label_index": "label",
    "label_probability": "label_probability",
}
"""Keys of the report, and the values behind them."""


def sweep_over(
    model: "Opened",
    plan: Plan,
    image: Array,
    photo: tuple[int, str, str],
    *,
    text: str,
    journal: Journal,
    progress: Progress | None,
    total: int,
    note: Callable[[str], None],
) -> Sweep:
    """Move the square over one photo.

    Args:
        model: The opened model.
        plan: The positions.
        image: (C, H, W), preprocessed.
        photo: Its place, name and hash.
        text: The class.
        journal: Takes what each batch of positions gives.
        progress: Called with (what, done, total).
        total: Positions of all photos; 0 if unknown.
        note: Called with a sentence that is to be printed.
    """
    maps, scores = _forward(model, plan, image[None])
    labels = model.class_labels.names
    target = class_of(model.scores, labels, text, scores[0])
    how = source_of(model.scores, scores[0], hint=_NO_PROBABILITY)
    sums = maps[0].sum((1, 2), dtype=np.float64)
    peaks = maps[0].max((1, 2)).astype(np.float64)
    chosen = {"total": sums, "peak": peaks}.get(str(plan.feature))
    unit = int(plan.feature) if chosen is None else int(chosen.argmax())
    at = np.unravel_index(int(maps[0, unit].argmax()), maps.shape[2:])
    before = {k: v[0] for k, v in _values(maps[:, unit], scores, target, how).items()}
    values: dict[str, list[Any]] = {key: [] for key in before}
    place, local = photo[0], None
    for start in range(0, len(plan.boxes), plan.step):
        boxes, key = plan.boxes[start : start + plan.step], f"{place}:{start}"
        if key not in journal:
            local = local or _local(model, plan, image, note)
            maps, scores = _forward(model, plan, boxes, local)
            journal.keep(key, _values(maps[:, unit], scores, target, how))
        for name, found in journal[key].items():
            values[name] += found
        if progress:
            done = place * len(plan.boxes) + start + len(boxes)
            progress("positions of the square", done, total)
    seen = {int(label) for label in (*values["label"], before["label"])}
    return Sweep(
        *photo,
        target=target,
        unit=unit,
        peaks=peaks,
        sums=sums,
        at=(int(at[0]), int(at[1])),
        how=how,
        before=before,
        values=values,
        names={
            label: label_of(model.scores, labels, label, scores.shape[1]) for label in sorted(seen)
        },
    )


def _local(model: "Opened", plan: Plan, image: Array, note: Callable[[str], None]) -> LocalForward:
    """Passes of one photo under the square."""
    fetch = [plan.tensor, model.scores.tensor]
    return LocalForward(model.model, image, plan.boxes, plan.colour, fetch, note=note)


def _forward(
    model: "Opened", plan: Plan, images: Any, forward: LocalForward | None = None
) -> tuple[Array, Array]:
    """The layer's maps (P, C, h, w) and the scores (P, K) of one pass over images, or boxes."""
    found = activations(model, images, [plan.tensor, model.scores.tensor], forward)
    scores = found[model.scores.tensor].reshape(len(images), -1).astype(np.float64)
    maps = found[plan.tensor]
    if not (np.isfinite(scores).all() and np.isfinite(maps).all()):
        raise MethodRefused(
            "activations or scores are not finite numbers",
            where=plan.tensor,
            hint="the network overflows on this image; check its preprocessing",
        )
    return maps, scores


def _values(maps: Array, scores: Array, target: "Target", how: str) -> dict[str, list[Any]]:
    """What is recorded for P positions: maps (P, h, w) of the one unit, scores (P, K)."""
    known = probabilities_of(scores, how)
    score = target.sign * scores[:, int(target.class_index or 0)]
    if scores.shape[1] == 1:  # one sigmoid unit: its class or not
        labels = (known[:, 0] >= 0.5).astype(int)
        best = np.maximum(known[:, 0], 1 - known[:, 0])
    else:
        labels = scores.argmax(1)
        best = np.take_along_axis(known, labels[:, None], 1)[:, 0]
    return {
        "total": maps.sum((1, 2), dtype=np.float64).tolist(),
        "probability": of_target(known, target).tolist(),
        "score": score.tolist(),
        "label": labels.tolist(),
        "label_probability": best.tolist(),
    }

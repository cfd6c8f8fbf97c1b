"""Maps of any classes by several methods, which share each photo's forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ConverterError, MethodRefused, ModelRefused
from inspector.methods import Request, parse_request
from inspector.passes.batches import BATCH
from inspector.passes.maps import MapRefused, forward_for, layer_of, maps_of
from inspector.target import Target

if TYPE_CHECKING:
    from inspector.heatmap import Attribution
    from inspector.opened import Opened
    from inspector.photos.geometry import Geometry

__all__ = ["DEFAULTS", "Mapper", "MapsOfPhoto", "raster", "seen_shares"]

DEFAULTS = ("cam", "grad-cam", "grad-cam++")
"""Methods that are compared when none is asked for; occlusion costs too much to come unasked."""

LONGEST = 640
"""Pixels of the longer side of the grid that maps are laid on; smaller photos keep their own."""

Array = np.ndarray[Any, Any]
Maps = dict[int, "dict[str, Attribution]"]
Choose = Callable[[int, Array], Sequence[int]]


@dataclass(frozen=True, eq=False)
class MapsOfPhoto:
    """What came of one photo.

    Attributes:
        scores: (K,) before softmax.
        maps: By class, then by the method's label; one whose values are not finite is missing.
    """

    scores: Array
    maps: Maps


class Mapper:
    """Methods on a model; those that cannot be right for it are left out, with the reason.

    Args:
        model: The opened model.
        methods: As the command line takes them; ``DEFAULTS`` when empty.
        layer: As for ``explain``.

    Attributes:
        requests: The methods that work, by label.
        refused: Why the others do not, by label.
        layers: The tensor that each method explains through; None for input methods.
        classes: How many classes the model has.
        notes: What the methods say, each sentence once, numbers aside.

    Raises:
        MethodRefused: The model has no classes, or no method works.
        UsageError: Methods or options that do not exist.
    """

    def __init__(self, model: "Opened", methods: Sequence[str], layer: str | int | None) -> None:
        if not model.scores.classifier:
            raise MethodRefused(
                f"localisation asks for classes, and the model has none: {model.scores.why}",
                where=model.path.name,
            )
        self.model, self._asked = model, layer
        self.requests: dict[str, Request] = {}
        self.refused: dict[str, str] = {}
        self.layers: dict[str, str | None] = {}
        self._layer: str | None = None
        self.notes: dict[str, str] = {}
        self._blank = np.zeros(
            (1, model.input.channels, *model.size(*model.preprocessing.preprocess.size)), np.float32
        )
        found = model.forward(self._blank, [model.scores.tensor])[model.scores.tensor]
        self.classes = int(np.asarray(found).size)
        for request in map(parse_request, methods or DEFAULTS):
            self._try(request)
        if not self.requests:
            reasons = "; ".join(f"{label}: {why}" for label, why in self.refused.items())
            raise MethodRefused(f"no method works for this model: {reasons}", where=model.path.name)

    def _try(self, request: Request) -> None:
        """Take a method up, or keep why it is refused: by a blank image, whatever the photos."""
        method = request.method
        try:
            if method.differentiates:
                self.model.require_certificate([method.name], twin=method.by_twin)
            if method.through_layer:
                together = [(self.model.scores.tensor,)]
                self._layer, _ = layer_of(self.model, [request], self._asked, together)
        except (MethodRefused, ConverterError, ModelRefused) as error:
            self.refused[request.label] = str(error)
            return
        through = self._layer if method.through_layer else None
        if method.needs - {"forward"}:
            (tried,) = maps_of(
                self.model,
                self._blank,
                [[self._target(0)]],
                [request],
                self._layer,
                keep_zero=True,
            )
            one = tried[0]
            if isinstance(one, MapRefused):
                self.refused[request.label] = str(one.error)
                return
            through = one.attribution.layer
        self.requests[request.label], self.layers[request.label] = request, through

    def __call__(self, tensors: Array, choose: Choose) -> list[MapsOfPhoto]:
        """Maps of a batch of photos.

        Args:
            tensors: (N, C, H, W), preprocessed.
            choose: Takes a photo's row and its scores (K,) and says which classes' maps are
                wanted, at least one; called once for each photo.

        Returns:
            One a photo.
        """
        requests = list(self.requests.values())
        names = [self.model.scores.tensor]
        values = forward_for(self.model, tensors, names, requests, self._layer)
        scores = np.asarray(values[names[0]], np.float64).reshape(len(tensors), -1)
        wanted = [list(choose(row, one)) for row, one in enumerate(scores)]
        found = [MapsOfPhoto(one, {}) for one in scores]
        first = self._maps(tensors, [classes[0] for classes in wanted], values)
        for photo, classes, maps in zip(found, wanted, first, strict=True):
            photo.maps[classes[0]] = maps
        # Most photos need one map per method; the others go through the network once more.
        more = [(row, one) for row, classes in enumerate(wanted) for one in classes[1:]]
        step = BATCH if self.model.batches else 1
        for start in range(0, len(more), step):
            pairs = more[start : start + step]
            rows, classes = [row for row, _ in pairs], [one for _, one in pairs]
            for (row, one), maps in zip(pairs, self._maps(tensors[rows], classes), strict=True):
                found[row].maps[one] = maps
        return found

    def _maps(
        self, tensors: Array, classes: Sequence[int], values: Mapping[str, Array] | None = None
    ) -> "list[dict[str, Attribution]]":
        """One map per photo and method: that of the photo's class."""
        targets = [[self._target(index)] for index in classes]
        rows = maps_of(
            self.model,
            tensors,
            targets,
            list(self.requests.values()),
            self._layer,
            values=values,
            keep_zero=True,
        )
        found: list[dict[str, Attribution]] = []
        for row in rows:
            maps = {}
            for one in row:
                label = one.request.label
                if isinstance(one, MapRefused):  # the others of this photo are done
                    self._note(label, one.error.what)
                    continue
                maps[label] = one.attribution
                for note in one.notes:
                    self._note(label, note)
            found.append(maps)
        return found

    def _note(self, label: str, note: str) -> None:
        """Keep a sentence once, whatever numbers it has on this photo."""
        key = "".join(character for character in note if not character.isdigit())
        self.notes.setdefault(f"{label}: {key}", f"{label}: {note}")

    def _target(self, index: int) -> Target:

        scores, names = self.model.scores, self.model.class_labels.names
        where: tuple[int | slice, ...] = (*(slice(None) for _ in range(scores.axis - 1)), index)
        label = names[index] if index < len(names) else f"class {index}"
        return Target(scores.tensor, where, label, index)


def raster(geometry: "Geometry") -> "tuple[Geometry, tuple[float, float]]":
    """A grid on the photo that maps are laid on.

    A box from a map of 20 megapixels says no more than one from 640x480, and costs fifty times as
    much at a hundred thresholds.

    Args:
        geometry: How the photo and the network's input lie on each other.

    Returns:
        The same for a grid whose longer side is at most ``LONGEST``, and the height and width of
        its cells in pixels of the photo: (1, 1) for a photo that is not larger.
    """
    longest = max(geometry.photo)
    if longest <= LONGEST:
        return geometry, (1.0, 1.0)
    height, width = (max(1, round(side * LONGEST / longest)) for side in geometry.photo)
    cell = geometry.photo[0] / height, geometry.photo[1] / width
    scale = geometry.scale[0] * cell[0], geometry.scale[1] * cell[1]
    return replace(geometry, photo=(height, width), scale=scale), cell


def seen_shares(geometry: "Geometry", boxes: Sequence[Sequence[float]]) -> Iterator[float]:
    """How much of each box (y0, x0, y1, x1) the network saw, as a share of its area."""
    ends = [
        ((0 - shift) / scale, (size - shift) / scale)
        for size, scale, shift in zip(geometry.input, geometry.scale, geometry.shift, strict=True)
    ]
    (top, bottom), (left, right) = ends
    for y0, x0, y1, x1 in boxes:
        height = max(0.0, min(y1, bottom) - max(y0, top))
        width = max(0.0, min(x1, right) - max(x0, left))
        yield height * width / ((y1 - y0) * (x1 - x0))

"""How features come about: units' strongest activations, projected, along the training."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MissingExtra, ModelRefused, UsageError
from inspector.journal import Journal
from inspector.study import BATCH, MOST_UNITS, Findings, Progress, batches, parse_units, study

if TYPE_CHECKING:
    from inspector.explain import Explainer
    from inspector.layers import Layer
    from inspector.opened import Opened
    from inspector.projection import Projector
    from inspector.receptive_field import Box, ReceptiveField
    from inspector.snapshots import Snapshot, Training

__all__ = ["cosine", "evolution", "settled_at"]

Array = np.ndarray[Any, Any]

FEW_LAYERS = 5
"""Layers that are shown when none are named; the paper shows its five convolutions."""


@study("evolution", images=True)
def evolution(
    model: "Explainer",
    images: Iterable[Any],
    *,
    snapshots: tuple[str, ...] = (),
    layers: str = "",
    units: str = "",
    count: int = 4,
    seed: int = 0,
    stable: float = 0.9,
    projection: str = "deconvnet",
    extension: str = "refuse",
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Units' strongest projections along training: jumps, and when layers converge.

    At every checkpoint of a training, for units of several layers, the strongest activation over
    all photos, projected down to the pixels (Zeiler & Fergus 2014, section 4.1 and figure 4).
    Marks where another photo takes over ("sudden jumps"), and says from which epoch on the
    projections stay what they are at the end.

    Args:
        model: The opened model, which is the training's last state.
        images: The photos; read once for each checkpoint.
        snapshots: An ONNX file of an earlier epoch, or a folder of them. Needed.
        layers: Layers as tensor names or indices, set apart by commas; five, spread over the
            network, when not given.
        units: Channels as numbers and ranges, such as 0,3,8-11, for every layer; a list for each
            layer when set apart by slashes. Drawn at random when not given.
        count: Units a layer that are drawn at random.
        seed: Of the random choice.
        stable: Cosine with the last projection from which on one counts as settled.
        projection: deconvnet, guided-backprop or gradient.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or, with
            guided-backprop, gradient-first.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found in each photo at each checkpoint.

    Returns:
        The figure; for each unit and checkpoint the winner, its activation and place, and how
        alike projections are; for each layer by when it has converged.

    Raises:
        UsageError: no checkpoints, or of another network; options that cannot be meant.
        MethodRefused: a projection that cannot be right for a checkpoint.
        ImageRefused: none of the photos can be read, or one has changed meanwhile.
    """
    from inspector.snapshots import training  # noqa: PLC0415 - late: imports onnx

    if not 0 < stable <= 1:
        raise UsageError(f"stable = {stable:g} is no cosine to reach", hint="above 0, at most 1")
    chosen = _layers(model, layers)
    rows = _rows(model, chosen, units, count, seed)
    course = training(model, snapshots, chosen)
    run = _Run(model, list(images), chosen, rows, projection, extension, journal or Journal())
    grid = run.over(course, progress)
    found = [_evolved(row, cells, stable) for row, cells in zip(rows, grid, strict=True)]
    summary = [
        _summary(run, slot, [one for one in found if one.row.slot == slot], course)
        for slot in range(len(chosen))
    ]
    warnings = [*model.preprocessing.warnings, *course.notes, *run.notes]
    sentences = _sentences(found, summary, course, used=run.used, stable=stable)
    figure = _figure(model, course, found, summary, run, sentences=sentences, warnings=warnings)
    return Findings(
        study="evolution",
        context=model.context(None),
        options={
            "snapshots": snapshots, "layers": layers, "units": units, "count": count,
            "seed": seed, "stable": stable, "projection": projection, "extension": extension,
        },
        numbers={
            "counted_by": course.word,
            "snapshots": [
                {"label": one.label, "epoch": one.epoch, "file": one.path.name,
                 "sha256": one.sha256, "final": one.final} for one in course.snapshots
            ],
            "projection": projection,
            "coverage": run.coverage,
            "stable_cosine": stable,
            "layers": summary,
            "units": [one.to_dict(run, course) for one in found],
        },
        table=[entry for one in found for entry in one.table(run, course)],
        sentences=sentences,
        figure=figure,
        images=run.used,
        refused=tuple(run.refused),
        warnings=tuple(warnings),
    )  # fmt: skip


# -- layers and units -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A unit: a channel of the layer in a slot of the chosen ones."""

    slot: int
    unit: int


def _layers(model: "Explainer", text: str) -> "list[Layer]":
    """The layers that are named, or a few spread over the network."""
    if text.strip():
        found = [model.layer_for(part.strip())[0] for part in text.split(",") if part.strip()]
        return list({layer.tensor: layer for layer in found}.values())
    shapes = model.shapes(model.preprocessing.preprocess.size)
    maps = [
        layer for layer in model.layers
        if not layer.gate and layer.on_path and min((1, *shapes.get(layer.tensor, ())[2:])) > 0
        and np.prod(shapes.get(layer.tensor, (0, 0, 1))[2:]) > 1
    ]  # fmt: skip
    if not maps:
        raise ModelRefused(
            "no layer has a map larger than 1x1", where=model.path.name,
            hint="name tensors (N, C, h, w) with --layers",
        )  # fmt: skip
    places = np.linspace(0, len(maps) - 1, min(FEW_LAYERS, len(maps)))
    return [maps[place] for place in np.unique(np.rint(places).astype(int))]


def _rows(
    model: "Explainer", layers: "Sequence[Layer]", text: str, count: int, seed: int
) -> list[_Row]:
    """The units of each layer, as named or drawn at random."""
    channels = [model.shape_of(layer.tensor)[_axis(model, layer.tensor)] for layer in layers]
    lists = text.split("/") if "/" in text else [text] * len(layers)
    if len(lists) != len(layers):
        raise UsageError(
            f"{len(lists)} lists of units for {len(layers)} layers",
            hint="one list for all, or as many as layers, set apart by slashes",
        )
    if not 1 <= count <= MOST_UNITS:
        raise UsageError(f"{count} units a layer", hint=f"1 to {MOST_UNITS}")
    random = np.random.default_rng(seed)
    rows = []
    for slot, (total, named) in enumerate(zip(channels, lists, strict=True)):
        drawn = sorted(random.choice(total, min(count, total), replace=False).tolist())
        rows += [_Row(slot, u) for u in (parse_units(named, total) if named.strip() else drawn)]
    if len(rows) > MOST_UNITS:
        raise UsageError(f"{len(rows)} units in all", hint=f"at most {MOST_UNITS} at a time")
    return rows


def _axis(model: "Opened", tensor: str) -> int:
    """Axis of a tensor's channels."""
    from inspector.layers import channel_axes  # noqa: PLC0415 - late: imports onnx

    return channel_axes(model.graph).get(tensor, 1)


# -- the passes -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Peak:
    """A unit's strongest activation at one snapshot; a value that is no number is None."""

    value: float | None
    y: int
    x: int
    place: int
    name: str
    sha256: str


@dataclass(eq=False)
class _Cell:
    """A unit at one snapshot.

    Attributes:
        peak: None when it is never active.
        box: Patch in the image: (y0, x0, y1, x1).
        origin: Where the field begins, borders not counted: what patches are aligned by.
        signal: (C, h, w) projection, cut to the patch; let go of once it has been compared.
        picture: It, ready to be shown.
        patch: The pixels behind it, likewise.
        largest: Largest magnitude in the projection.
        previous: Cosine with the projection before, where the photo is the same.
        last: Cosine with the last projection.
    """

    peak: _Peak | None = None
    box: "Box" = (0, 0, 0, 0)
    origin: tuple[int, int] = (0, 0)
    signal: Array | None = None
    picture: Any = None
    patch: Any = None
    largest: float = 0.0
    previous: float | None = None
    last: float | None = None

    @property
    def active(self) -> bool:
        """Whether there is an activation to project."""
        return self.peak is not None and self.peak.value is not None


@dataclass(eq=False)
class _Run:
    """All photos through all snapshots, one network in memory beside the final one."""

    model: "Explainer"
    images: list[Any]
    layers: "list[Layer]"
    rows: list[_Row]
    projection: str
    extension: str
    journal: Journal
    refused: list[ImageRefused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    coverage: str = ""
    used: int = 0
    fields: "list[ReceptiveField]" = field(default_factory=list)
    _hashes: dict[int, str] = field(default_factory=dict)

    def over(self, course: "Training", progress: Progress | None) -> list[list[_Cell]]:
        """Cells by row and snapshot.

        The last snapshot comes first: every other one is compared with it, so that of the
        projections only those of the last and of the snapshot before are held.
        """
        self.fields = [self._field(layer.tensor) for layer in self.layers]
        total = len(course.snapshots)
        grid = [[_Cell() for _ in range(total)] for _ in self.rows]
        for step, place in enumerate([total - 1, *range(total - 1)]):
            snapshot = course.snapshots[place]
            told = _told(progress, f"{course.word} {snapshot.label}", step, total)
            cells = self._snapshot(snapshot, told)
            for row, cell in enumerate(cells):
                grid[row][place] = cell
                self._compare(grid[row], place)
        for cells in grid:
            self._compare(cells, total - 1)
        return grid

    def _compare(self, cells: list[_Cell], place: int) -> None:
        cell, last = cells[place], cells[-1]
        cell.last = _likeness(cell, last)
        if place == 0:
            return
        before = cells[place - 1]
        if before.active and cell.active and _same_photo(before, cell):
            cell.previous = _likeness(before, cell)
        if place < len(cells) - 1:
            before.signal = None

    def _field(self, tensor: str) -> "ReceptiveField":
        from inspector.receptive_field import receptive_field  # noqa: PLC0415 - late: imports onnx

        shapes = self.model.shapes(self.model.preprocessing.preprocess.size)
        found = receptive_field(self.model.graph, tensor, self.model.input.name, shapes)
        if found.global_:
            shown = "patches show where they mostly look" if found.local else "patches are whole"
            self.notes.append(f"units of {tensor} depend on the whole image ({found.why}); {shown}")
        return found.local or found

    def _snapshot(self, snapshot: "Snapshot", progress: Progress | None) -> list[_Cell]:
        """One network: its strongest activations, projected."""
        from inspector.projection import Projector  # noqa: PLC0415 - late: imports onnx

        model = snapshot.open(self.model)
        if snapshot.final:
            self._try(snapshot)
        cells = [_Cell(peak) for peak in self._peaks(model, snapshot, progress)]
        for slot, tensor in enumerate(snapshot.tensors):
            mine = [i for i, row in enumerate(self.rows) if row.slot == slot and cells[i].active]
            if not mine:  # a network that has diverged cannot be certified, nor need it be
                continue
            projector = Projector(model, tensor, self.projection, self.extension)
            step = BATCH if model.batches else 1
            for start in range(0, len(mine), step):
                self._project(projector, slot, mine[start : start + step], cells)
            self.notes += [note for note in projector.notes if note not in self.notes]
            self.coverage = projector.coverage or self.coverage
        return cells

    def _try(self, snapshot: "Snapshot") -> None:
        """Let a projection that will be refused be so before all photos are read."""
        from inspector.projection import Projector  # noqa: PLC0415 - late: imports onnx

        size = self.model.size(*self.model.preprocessing.preprocess.size)
        blank = np.zeros((1, self.model.input.channels, *size), np.float32)
        for tensor in snapshot.tensors:
            Projector(self.model, tensor, self.projection, self.extension)(blank, [(0, 0, 0)])

    def _peaks(
        self, model: "Opened", snapshot: "Snapshot", progress: Progress | None
    ) -> list[_Peak | None]:
        """The strongest activation of every row over the photos, in one pass."""
        from inspector.features import activations  # noqa: PLC0415 - late: imports onnx

        found = _Strongest(len(self.rows), self.journal, snapshot.sha256)
        known = found.resumed(len(self.images))
        first = not self._hashes
        skip = known if first else known | (set(range(len(self.images))) - set(self._hashes))
        gone: list[ImageRefused] = []
        for batch in batches(model, self.images, gone, progress, skip=skip):
            maps = activations(model, batch.tensors, snapshot.tensors)
            values, places = self._largest(model, snapshot, maps)
            for row, (place, photo) in enumerate(zip(batch.places, batch.photos, strict=True)):
                found.add(place, photo.name, photo.sha256, values[row], places[row])
        if first:
            self.refused, self._hashes = gone, found.hashes
            self.used = len(found.hashes)
            if not self.used:
                raise gone[0] if gone else UsageError("no photos were given")
        changed = [place for place, sha in found.hashes.items() if self._hashes[place] != sha]
        if not first and (gone or changed):
            raise gone[0] if gone else _changed(self.images[changed[0]])
        return found.peaks

    def _largest(
        self, model: "Opened", snapshot: "Snapshot", maps: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """Of each photo and row the largest activation (N, R), and where it is (N, R, 2)."""
        values, places = [], []
        for slot, tensor in enumerate(snapshot.tensors):
            units = [row.unit for row in self.rows if row.slot == slot]
            kept = np.moveaxis(maps[tensor], _axis(model, tensor), 1)[:, units]
            flat = kept.reshape(*kept.shape[:2], -1)
            at = flat.argmax(2)  # the first of equals; a NaN wins
            values.append(np.take_along_axis(flat, at[:, :, None], 2)[:, :, 0])
            places.append(np.stack(np.divmod(at, kept.shape[3]), 2))
        return np.concatenate(values, 1), np.concatenate(places, 1)

    def _project(
        self, projector: "Projector", slot: int, mine: Sequence[int], cells: list[_Cell]
    ) -> None:
        """Project the winners of some rows of one layer, a photo each."""
        from inspector.projection import pixels_of  # noqa: PLC0415 - late: imports onnx
        from inspector.render.evolution import patch_cell, signal_cell  # noqa: PLC0415 - Pillow

        peaks = [peak for peak in (cells[i].peak for i in mine) if peak is not None]
        gone: list[ImageRefused] = []
        opened = list(batches(projector.model, [self.images[p.place] for p in peaks], gone))
        hashes = [photo.sha256 for batch in opened for photo in batch.photos]
        if gone or hashes != [peak.sha256 for peak in peaks]:
            raise gone[0] if gone else _changed(self.images[peaks[0].place])
        images = np.concatenate([batch.tensors for batch in opened])
        last = _axis(projector.model, projector.tensor) == 3
        units = [self.rows[i].unit for i in mine]
        signals = projector(images, [
            (p.y, p.x, unit) if last else (unit, p.y, p.x)
            for unit, p in zip(units, peaks, strict=True)
        ])  # fmt: skip
        preprocess = self.model.preprocessing.preprocess
        for index, peak, image, signal in zip(mine, peaks, images, signals, strict=True):
            y0, x0, y1, x1 = box = self.fields[slot].pixels(peak.y, peak.x)
            cell = cells[index]
            cell.box, cell.origin = box, self.fields[slot].box(peak.y, peak.x)[:2]
            # The rules are linear in a positive signal: what goes down is the activation itself.
            cell.signal = (peak.value or 0.0) * signal[:, y0:y1, x0:x1]
            cell.largest = float(np.abs(cell.signal).max(initial=0))
            cell.picture = signal_cell(cell.signal, preprocess.channels)
            cell.patch = patch_cell(pixels_of(image[:, y0:y1, x0:x1], preprocess))


def _told(progress: Progress | None, name: str, step: int, total: int) -> Progress | None:
    """Progress over all snapshots, out of that over the photos of one."""
    if progress is None:
        return None
    tell: Callable[[str, int, int], None] = progress

    def over(what: str, done: int, photos: int) -> None:
        tell(f"{what}, {name}", step * photos + done, total * photos)

    return over


def _changed(source: Any) -> ImageRefused:  # noqa: ANN401 - as the user gave it
    return ImageRefused("the photo has changed meanwhile", where=str(source)[:200])


class _Strongest:
    """The strongest activation of each row so far.

    The journal keeps of each photo only what was stronger than all before it: replayed in the
    same order, that gives the same result.
    """

    def __init__(self, rows: int, journal: Journal, key: str) -> None:
        self.peaks: list[_Peak | None] = [None] * rows
        self.hashes: dict[int, str] = {}
        self.journal, self.key = journal, key

    def resumed(self, photos: int) -> set[int]:
        """Take over what the journal knows of this network; the places of its photos."""
        if not self.journal.found:
            return set()
        known = [place for place in range(photos) if f"{self.key}/{place}" in self.journal]
        for place in known:
            name, sha256, entries = self.journal[f"{self.key}/{place}"]
            self.hashes[place] = sha256
            for row, value, y, x in entries:
                self._take(row, _Peak(value, y, x, place, name, sha256))
        return set(known)

    def add(self, place: int, name: str, sha256: str, values: Array, places: Array) -> None:
        """Look at one photo's largest activations (R,), at places (R, 2)."""
        entered = []
        self.hashes[place] = sha256
        for row, (value, (y, x)) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            shown = value if np.isfinite(value) else None
            if self._take(row, _Peak(shown, y, x, place, name, sha256)):
                entered.append((row, shown, y, x))
        self.journal.keep(f"{self.key}/{place}", (name, sha256, entered))

    def _take(self, row: int, found: _Peak) -> bool:
        """Whether an activation is the strongest so far; one that is no number stays."""
        best = self.peaks[row]
        if best is not None and best.value is None:
            return False
        if found.value is not None and found.value <= (best.value or 0.0 if best else 0.0):
            return False
        self.peaks[row] = found
        return True


# -- likeness of projections ----------------------------------------------------------------------


def _same_photo(one: _Cell, two: _Cell) -> bool:
    return one.peak is not None and two.peak is not None and one.peak.place == two.peak.place


def _likeness(one: _Cell, two: _Cell) -> float | None:
    if one.signal is None or two.signal is None:
        return None
    return cosine(one.signal, two.signal, _corner(one), _corner(two))


def _corner(cell: _Cell) -> tuple[int, int]:
    """Where a patch begins within its unit's receptive field."""
    return cell.box[0] - cell.origin[0], cell.box[1] - cell.origin[1]


def cosine(one: Array, two: Array, at: tuple[int, int], other: tuple[int, int]) -> float | None:
    """Cosine of two projections over the part of the receptive field that both have.

    Args:
        one: (C, h, w), cut off where the field reaches over the image's border.
        two: (C, h', w'), likewise.
        at: Row and column of the receptive field at which ``one`` begins.
        other: The same of ``two``.

    Returns:
        -1 to 1; None where they have nothing in common or one of them is zero.
    """
    top, left = max(at[0], other[0]), max(at[1], other[1])
    bottom = min(at[0] + one.shape[1], other[0] + two.shape[1])
    right = min(at[1] + one.shape[2], other[1] + two.shape[2])
    if bottom <= top or right <= left:
        return None
    a, b = (
        signal[:, top - y : bottom - y, left - x : right - x].astype(np.float64).ravel()
        for signal, (y, x) in ((one, at), (two, other))
    )
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / norms, -1, 1)) if norms > 0 else None


def settled_at(cosines: Sequence[float | None], stable: float) -> int | None:
    """First snapshot from which on all projections are like the last one.

    Args:
        cosines: (S,) with the last projection; None where there is none.
        stable: What they must reach.

    Returns:
        Its place; S - 1 when none before the last is like it, None when there is no last one.
    """
    if not cosines or cosines[-1] is None:
        return None
    place = len(cosines) - 1
    while place > 0 and (cosines[place - 1] or 0.0) >= stable:
        place -= 1
    return place


# -- the result -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Evolved:
    """One unit along the training.

    Attributes:
        row: Which unit.
        cells: (S,) what it is at each snapshot.
        jumps: (S,) whether another photo won than at the snapshot before; None where there is no
            winner at either, and at the first.
        settled: Place of the snapshot from which on it is as at the end; None if it is not
            active at the end.
    """

    row: _Row
    cells: list[_Cell]
    jumps: list[bool | None]
    settled: int | None

    def to_dict(self, run: _Run, course: "Training") -> dict[str, Any]:
        """Plain data."""
        last = len(self.cells) - 1
        return {
            "layer": run.layers[self.row.slot].tensor,
            "unit": self.row.unit,
            "jumps": sum(bool(jump) for jump in self.jumps),
            "stable_from": _label(course, self.settled),
            "stable_before_the_last": self.settled is not None and self.settled < last,
            "snapshots": [
                {"snapshot": one.label, "epoch": one.epoch, **self._at(place)}
                for place, one in enumerate(course.snapshots)
            ],
        }

    def _at(self, place: int) -> dict[str, Any]:
        cell, peak = self.cells[place], self.cells[place].peak
        if peak is None or peak.value is None:
            return {"state": "never active" if peak is None else "not finite"}
        y0, x0, y1, x1 = cell.box
        before = self.cells[place - 1].peak if place else None
        stays = self.jumps[place] is False and before is not None
        return {
            "state": "active",
            "activation": peak.value,
            "image": {"name": peak.name, "place": peak.place, "sha256": peak.sha256},
            "at": {"y": peak.y, "x": peak.x},
            "patch": {"top": y0, "left": x0, "bottom": y1, "right": x1},
            "largest_in_projection": cell.largest,
            "jump": self.jumps[place],
            "moved": (before.y, before.x) != (peak.y, peak.x) if stays and before else None,
            "cosine_with_previous": cell.previous,
            "cosine_with_last": cell.last,
        }

    def table(self, run: _Run, course: "Training") -> list[dict[str, Any]]:
        """A row for each snapshot."""
        rows = []
        for place, one in enumerate(course.snapshots):
            found = self._at(place)
            rows.append({
                "layer": run.layers[self.row.slot].tensor, "unit": self.row.unit,
                course.word: one.label, "state": found["state"],
                "activation": found.get("activation"),
                "image": found.get("image", {}).get("name"),
                **found.get("at", {"y": None, "x": None}),
                **{key: found.get(key) for key in
                   ("jump", "cosine_with_previous", "cosine_with_last")},
            })  # fmt: skip
        return rows


def _evolved(row: _Row, cells: list[_Cell], stable: float) -> _Evolved:
    jumps: list[bool | None] = [None]
    for before, cell in pairwise(cells):
        both = before.active and cell.active
        jumps.append(not _same_photo(before, cell) if both else None)
    return _Evolved(row, cells, jumps, settled_at([cell.last for cell in cells], stable))


def _label(course: "Training", place: int | None) -> str | None:
    return None if place is None else course.snapshots[place].label


def _summary(run: _Run, slot: int, units: Sequence[_Evolved], course: "Training") -> dict[str, Any]:
    """A layer: its middle unit, and how often winners jump."""
    layer, size = run.layers[slot], len(course.snapshots)
    settled = sorted(one.settled for one in units if one.settled is not None)
    # The upper one of two middle units: more than half of the units have settled by then.
    middle = settled[len(settled) // 2] if settled else None
    early = middle is not None and middle < size - 1
    steps = [jump for one in units for jump in one.jumps if jump is not None]
    likeness: list[float | None] = []
    for place in range(size):
        found = [one.cells[place].last for one in units]
        known = [value for value in found if value is not None]
        likeness.append(statistics.median(known) if known else None)
    return {
        "layer": layer.tensor,
        "index": layer.index,
        "shape": run.model.shape_of(layer.tensor)[1:],
        "receptive_field": {"size": run.fields[slot].size, "stride": run.fields[slot].stride},
        "units": [one.row.unit for one in units],
        "active_at_the_end": len(settled),
        "converged_by": _label(course, middle) if early else None,
        "converged_at": middle if early else None,
        "jumps": sum(steps),
        "steps": len(steps),
        "jump_share": sum(steps) / len(steps) if steps else None,
        "median_cosine_with_last": likeness,
    }


def _sentences(
    found: Sequence[_Evolved], summary: Sequence[Mapping[str, Any]], course: "Training",
    *, used: int, stable: float,
) -> tuple[str, ...]:  # fmt: skip
    ends = f"{course.snapshots[0].label} to {course.snapshots[-1].label}"
    what = f"{len(found)} unit(s) of {len(summary)} layer(s) at {len(course.snapshots)} snapshots"
    lines = [f"{what} ({course.word} {ends}), strongest over {used} photo(s)"]
    for layer in summary:
        if layer["active_at_the_end"]:
            many = f"{len(layer['units'])} unit(s)"
            by = layer["converged_by"]
            when = (
                f"converges by {course.word} {by}" if by is not None
                else "has not converged before the last snapshot"
            )  # fmt: skip
            steps = f"{layer['jumps']} jump(s) in {layer['steps']} step(s)"
            lines.append(
                f"{layer['layer']} {when} (median of {many}, cosine >= {stable:g}); {steps}"
            )
    at = [
        len(course.snapshots) if one["converged_at"] is None else one["converged_at"]
        for one in summary if one["active_at_the_end"]
    ]  # fmt: skip
    if len(at) > 1:
        rises = at == sorted(at) and at[0] < at[-1]
        lines.append(
            "lower layers converge before upper ones, as the paper found" if rises
            else "lower layers do not converge before upper ones here"
        )  # fmt: skip
    for state, text in (("never active", "never active"), ("not finite", "no finite activation")):
        blank = [
            one for one in found for cell in one.cells
            if not cell.active and (cell.peak is None) == (state == "never active")
        ]  # fmt: skip
        if blank:
            lines.append(f"{text}: {len(blank)} cell(s), of {len(set(map(id, blank)))} unit(s)")
    return tuple(lines)


def _figure(
    model: "Explainer",
    course: "Training",
    found: Sequence[_Evolved],
    summary: Sequence[Mapping[str, Any]],
    run: _Run,
    *,
    sentences: Sequence[str],
    warnings: list[str],
) -> Any:  # noqa: ANN401 - a PIL.Image.Image
    from inspector.render.evolution import (  # noqa: PLC0415 - late: Pillow
        Cell,
        Group,
        Strip,
        convergence_chart,
        evolution_sheet,
    )  # fmt: skip

    def strip(one: _Evolved) -> Strip:
        cells = [
            Cell(cell.picture, cell.patch, cell.peak.value if cell.peak else None, bool(jump),
                 "" if cell.active else "not active" if cell.peak is None else "not finite")
            for cell, jump in zip(one.cells, one.jumps, strict=True)
        ]  # fmt: skip
        return Strip(one.row.unit, _label(course, one.settled), cells)

    labels = [one.label for one in course.snapshots]
    groups = [
        Group(layer, [strip(one) for one in found if one.row.slot == slot])
        for slot, layer in enumerate(summary)
    ]
    chart = None
    try:
        chart = convergence_chart(summary, labels, course.word)
    except MissingExtra as error:
        warnings.append(f"the chart of convergence is left out: {error}")
    return evolution_sheet(
        groups, labels=labels, word=course.word, chart=chart,
        title=f"strongest activations along the training of {model.path.name}",
        subtitle=f"projected by {run.projection}", sentences=sentences, notes=warnings,
    )  # fmt: skip

"""All photos through all snapshots, one network in memory beside the final one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.network.layers import channel_axes
from inspector.passes.activations import activations
from inspector.passes.batches import BATCH, Progress, batches
from inspector.passes.journal import Journal
from inspector.projection.field import patch_field
from inspector.projection.projector import Projector
from inspector.studies.evolution.grid import Cell, Peak, Row, likeness, same_photo

if TYPE_CHECKING:
    from inspector.network.layers import Layer
    from inspector.network.receptive_fields.receptive_field import ReceptiveField
    from inspector.opened import Opened
    from inspector.studies.evolution.snapshots import Snapshot, Training

__all__ = ["Run", "channel_axis"]

Array = np.ndarray[Any, Any]


def channel_axis(model: "Opened", tensor: str) -> int:
    """Axis of a tensor's channels."""
    return channel_axes(model.graph).get(tensor, 1)


@dataclass(eq=False)
class Run:
    """All photos through all snapshots, one network in memory beside the final one."""

    model: "Opened"
    images: list[Any]
    layers: "list[Layer]"
    rows: list[Row]
    projection: str
    extension: str
    journal: Journal
    refused: list[ImageRefused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    coverage: str = ""
    used: int = 0
    fields: "list[ReceptiveField]" = field(default_factory=list)
    side: int = 0
    _hashes: dict[int, str] = field(default_factory=dict)

    def over(self, course: "Training", progress: Progress | None) -> list[list[Cell]]:
        """Cells by row and snapshot.

        The last snapshot comes first: every other one is compared with it, so that of the
        projections only those of the last and of the snapshot before are held.
        """
        from inspector.studies.evolution.figure import cell_side

        self.fields = [self._field(layer.tensor) for layer in self.layers]
        total = len(course.snapshots)
        self.side = cell_side(total)
        grid = [[Cell() for _ in range(total)] for _ in self.rows]
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

    def _compare(self, cells: list[Cell], place: int) -> None:
        cell, last = cells[place], cells[-1]
        cell.last = likeness(cell, last)
        if place == 0:
            return
        before = cells[place - 1]
        if before.active and cell.active and same_photo(before, cell):
            cell.previous = likeness(before, cell)
        if place < len(cells) - 1:
            before.signal = None

    def _field(self, tensor: str) -> "ReceptiveField":
        found, notes = patch_field(self.model, tensor, f"units of {tensor}")
        self.notes += notes
        return found

    def _snapshot(self, snapshot: "Snapshot", progress: Progress | None) -> list[Cell]:
        """One network: its strongest activations, projected."""
        model = snapshot.open(self.model)
        if snapshot.final:
            self._try(snapshot)
        cells = [Cell(peak) for peak in self._peaks(model, snapshot, progress)]
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
        size = self.model.size(*self.model.preprocessing.preprocess.size)
        blank = np.zeros((1, self.model.input.channels, *size), np.float32)
        for tensor in snapshot.tensors:
            Projector(self.model, tensor, self.projection, self.extension)(blank, [(0, 0, 0)])

    def _peaks(
        self, model: "Opened", snapshot: "Snapshot", progress: Progress | None
    ) -> list[Peak | None]:
        """The strongest activation of every row over the photos, in one pass."""
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
            kept = np.moveaxis(maps[tensor], channel_axis(model, tensor), 1)[:, units]
            flat = kept.reshape(*kept.shape[:2], -1)
            at = flat.argmax(2)  # the first of equals; a NaN wins
            values.append(np.take_along_axis(flat, at[:, :, None], 2)[:, :, 0])
            places.append(np.stack(np.divmod(at, kept.shape[3]), 2))
        return np.concatenate(values, 1), np.concatenate(places, 1)

    def _project(
        self, projector: "Projector", slot: int, mine: Sequence[int], cells: list[Cell]
    ) -> None:
        """Project the winners of some rows of one layer, a photo each."""
        from inspector.studies.evolution.figure import patch_cell, signal_cell

        peaks = [peak for peak in (cells[i].peak for i in mine) if peak is not None]
        gone: list[ImageRefused] = []
        opened = list(batches(projector.model, [self.images[p.place] for p in peaks], gone))
        hashes = [photo.sha256 for batch in opened for photo in batch.photos]
        if gone or hashes != [peak.sha256 for peak in peaks]:
            raise gone[0] if gone else _changed(self.images[peaks[0].place])
        images = np.concatenate([batch.tensors for batch in opened])
        last = channel_axis(projector.model, projector.tensor) == 3
        units = [self.rows[i].unit for i in mine]
        signals = projector(
            images,
            [
                (p.y, p.x, unit) if last else (unit, p.y, p.x)
                for unit, p in zip(units, peaks, strict=True)
            ],
        )
        preprocess = self.model.preprocessing.preprocess
        for index, peak, image, signal in zip(mine, peaks, images, signals, strict=True):
            y0, x0, y1, x1 = box = self.fields[slot].pixels(peak.y, peak.x)
            cell = cells[index]
            cell.box, cell.origin = box, self.fields[slot].box(peak.y, peak.x)[:2]
            # The rules are linear in a positive signal: what goes down is the activation itself.
            cell.signal = (peak.value or 0.0) * signal[:, y0:y1, x0:x1]
            cell.largest = float(np.abs(cell.signal).max(initial=0))
            cell.picture = signal_cell(cell.signal, preprocess.channels, self.side)
            cell.patch = patch_cell(preprocess.decode(image[:, y0:y1, x0:x1]))


def _told(progress: Progress | None, name: str, step: int, total: int) -> Progress | None:
    """Progress over all snapshots, out of that over the photos of one."""
    if progress is None:
        return None
    tell: Callable[[str, int, int], None] = progress

    def over(what: str, done: int, photos: int) -> None:
        tell(f"{what}, {name}", step * photos + done, total * photos)

    return over


def _changed(source: Any) -> ImageRefused:
    return ImageRefused("the photo has changed meanwhile", where=str(source)[:200])


class _Strongest:
    """The strongest activation of each row so far.

    The journal keeps of each photo only what was stronger than all before it: replayed in the
    same order, that gives the same result.
    """

    def __init__(self, rows: int, journal: Journal, key: str) -> None:
        self.peaks: list[Peak | None] = [None] * rows
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
                self._take(row, Peak(value, y, x, place, name, sha256))
        return set(known)

    def add(self, place: int, name: str, sha256: str, values: Array, places: Array) -> None:
        """Look at one photo's largest activations (R,), at places (R, 2)."""
        entered = []
        self.hashes[place] = sha256
        for row, (value, (y, x)) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            shown = value if np.isfinite(value) else None
            if self._take(row, Peak(shown, y, x, place, name, sha256)):
                entered.append((row, shown, y, x))
        self.journal.keep(f"{self.key}/{place}", (name, sha256, entered))

    def _take(self, row: int, found: Peak) -> bool:
        """Whether an activation is the strongest so far; one that is not a number stays."""
        best = self.peaks[row]
        if best is not None and best.value is None:
            return False
        if found.value is not None and found.value <= (best.value or 0.0 if best else 0.0):
            return False
        self.peaks[row] = found
        return True

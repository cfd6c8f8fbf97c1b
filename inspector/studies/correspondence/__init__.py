"""Does hiding the same part change features alike in all photos? Table 1 of Zeiler & Fergus."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.evidence.local_forward import LocalForward
from inspector.passes.batches import Progress
from inspector.passes.feature_vectors import (
    FeatureVector,
    feature_vector,
    last_hidden,
    last_map,
    vectors,
)
from inspector.passes.journal import Journal
from inspector.photos.occluder import covered, fill_colour
from inspector.studies import Findings, check_seed, study
from inspector.studies.correspondence.annotations import read_parts, sources_of
from inspector.studies.correspondence.photos import (
    Marked,
    open_marked,
    overlap,
    random_boxes,
)
from inspector.studies.correspondence.signs import ROUNDING, Agreement, agreement, signs_of
from inspector.studies.correspondence.summary import LEVEL, Row, adjusted

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.studies.correspondence.annotations import Annotated
    from inspector.studies.correspondence.signs import Signs

__all__ = ["correspondence"]

Array = np.ndarray[Any, Any]

NOWHERE = (0, 0, 0, 0)
"""A cover that hides nothing."""

BATCH = 15
"""Occlusions of one photo that go through the network beside the photo itself."""

MEMORY = 128 << 20
"""Bytes of features that are held at a time."""

OVERLAP = 0.5
"""Mean share of a part that random places may hide as well before a warning says so."""

MOST_DRAWS = 10_000
SHOWN = 7
"""Photos in the figure."""


@study("correspondence", images=False, draws=True)
def correspondence(
    model: "Opened",
    images: Iterable[Any] = (),
    *,
    parts: str = "",
    layers: tuple[str, ...] = (),
    draws: int = 199,
    fill: str = "mean",
    seed: int = 0,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Whether hiding the same part of an object changes features alike in all photos.

    The same part (an eye, a wheel) is covered with grey on several photos. How much the signs of
    the feature changes differ from photo to photo is compared with covering random places of the
    same size (Zeiler & Fergus 2014, section 4.4, table 1). Lower than random: the network holds
    the parts of different photos for the same.

    Args:
        model: The opened model.
        images: Photos that the boxes belong to; those beside the file of boxes when not given.
        parts: JSON file of boxes: {"photos": [{"image": "a.png", "object": [x0, y0, x1, y1],
            "parts": {"nose": [x0, y0, x1, y1]}}]}, in pixels of the upright photo. Object may be
            left out; random places lie inside of it.
        layers: Layers, as tensor names or indices, also several set apart by commas; the last
            convolutional layer and what the classifier's last linear node reads when not given.
        draws: How often random places are drawn for each part, at most 10000.
        fill: Colour of the cover in pixel space: mean (the data set's, where the preprocessing
            knows it, else mid-grey), grey (127.5), or a number from 0 to 255.
        seed: Of the random places.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found for each few draws.

    Returns:
        The figure, and for each part and layer Delta beside that of random places.

    Raises:
        UsageError: a file of boxes that cannot be used; boxes beyond their photo; options
            likewise.
        MethodRefused: no part is whole on two photos; features that are not finite.
        ImageRefused: none of the photos can be read.
    """
    check_seed(seed)
    if not 1 <= draws <= MOST_DRAWS:
        raise UsageError(f"{draws} draws", hint=f"1 to {MOST_DRAWS}")
    if not str(parts):
        raise UsageError("no parts", hint="--parts FILE.json names boxes on photos")
    table = Path(parts)
    found = read_parts(table)
    sources, unnamed = sources_of(found, list(images), table)
    chosen, notes = _layers(model, layers)
    colour = fill_colour(model.preprocessing.preprocess, fill)
    refused: list[ImageRefused] = []
    photos = open_marked(model, found, sources, refused=refused, table=table)
    if not photos:
        raise refused[0]
    groups = _groups(photos, found, notes)
    work = _Work(model, chosen, colour, draws, seed, journal or Journal(), progress, notes.append)
    rows = [row for part, group in groups.items() for row in work.compare(part, group)]
    rows = [replace(row, corrected=p) for row, p in zip(rows, adjusted(rows), strict=True)]
    rows.sort(key=lambda row: [layer.tensor for layer in chosen].index(row.layer))
    warnings = _warnings(model, photos, rows, draws=draws, notes=notes, unnamed=unnamed)
    sentences = tuple(line for row in rows for line in row.sentences())
    return Findings(
        study="correspondence",
        context=model.context(None),
        options={"parts": str(parts), "layers": layers, "draws": draws, "fill": fill, "seed": seed},
        numbers={
            "layers": [layer.to_dict() for layer in chosen],
            **_CHOICES,
            "input_size": model.size(*model.preprocessing.preprocess.size),
            "fill_as_network_values": [float(v) for v in colour],
            "comparisons": len(rows),
            "rows": [row.to_dict() for row in rows],
            "photos": [_photo(one) for one in photos],
        },
        table=[row.table() for row in rows],
        sentences=sentences,
        draw=partial(
            _figure,
            model,
            photos,
            list(groups),
            rows,
            colour=colour,
            seed=seed,
            sentences=sentences,
            warnings=warnings,
        ),
        images=len(photos),
        refused=tuple(refused),
        warnings=warnings,
    )


_CHOICES = {
    "delta": "sum of Hamming distances over ordered pairs of photos, divided by n (n - 1) F for "
    "n photos and F features: the mean share of features whose signs differ",
    "sign": f"-1, 0 or 1; a change up to {ROUNDING:g} of the photo's largest feature is 0; two "
    "signs differ unless they are equal",
    "random_places": "boxes of each photo's own part's size, every whole-pixel place inside of "
    "the object's box alike (of the photo where none is given), parts not spared",
    "p": "(1 + draws with a Delta as low or lower) / (1 + draws); p_holm is corrected for all "
    "comparisons of this run",
}
"""What the paper leaves open."""


# -- what is asked for ----------------------------------------------------------------------------


def _layers(model: "Opened", named: Sequence[str]) -> tuple[list[FeatureVector], list[str]]:
    """The layers, and what must be said of them."""
    texts = [named] if isinstance(named, str) else [str(text) for text in named]
    if texts:
        pieces = [piece for text in texts for piece in _pieces(model, text)]
        found = [feature_vector(model, piece) for piece in pieces]
        return list({layer.tensor: layer for layer in found}.values()), []
    top, hidden = last_map(model), last_hidden(model)
    if hidden is None or hidden.dimensions == top.dimensions:
        note = "the classifier reads the last convolutional layer itself: no hidden layer follows"
        return [top], [note]
    return [top, hidden], []


def _pieces(model: "Opened", text: str) -> list[str]:
    """Names in a text; a tensor's own name may hold commas."""
    if text.strip() in model.graph.tensors:
        return [text.strip()]
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(pieces):
        raise UsageError("a layer without a name", hint="`inspector layers` lists them")
    return pieces


def _groups(
    photos: Sequence[Marked], found: "Sequence[Annotated]", notes: list[str]
) -> dict[str, list[Marked]]:
    """Photos by part, in the file's order; what falls out is noted.

    Raises:
        MethodRefused: No part is left.
    """
    for photo in photos:
        notes += [
            f"{photo.name}: the network does not see all of {part!r}; left out for it"
            for part in photo.cut
        ]
    groups: dict[str, list[Marked]] = {}
    for part in dict.fromkeys(part for one in found for part in one.parts):
        having = [photo for photo in photos if part in photo.parts]
        if len(having) >= 2:
            groups[part] = having
        else:
            notes.append(f"{part!r} is left out: {len(having)} photo(s) show it whole")
    if not groups:
        raise MethodRefused(
            "no part is seen whole on two photos",
            where="; ".join(notes[:4]),
            hint="--set resize=squash shows the network the whole photo",
        )
    return groups


# -- the work -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Work:
    """Covers parts and random places, and compares signs.

    Attributes:
        model: The opened model.
        layers: What is read.
        colour: (C,) of the cover.
        draws: Of random places.
        seed: Of these.
        journal: Keeps a few draws at a time.
        progress: Called with (what, done, total).
        note: Called with what must be said of the passes.
    """

    model: "Opened"
    layers: Sequence[FeatureVector]
    colour: Array
    draws: int
    seed: int
    journal: Journal
    progress: Progress | None
    note: Callable[[str], None]

    @property
    def step(self) -> int:
        """Covers that go through the network at a time."""
        size = 8 * sum(layer.dimensions for layer in self.layers)
        return max(1, min(BATCH, MEMORY // size))

    def compare(self, part: str, group: Sequence[Marked]) -> Iterator[Row]:
        """One row a layer."""
        boxes = {
            photo.place: [photo.parts[part], *random_boxes(photo, part, self.draws, self.seed)]
            for photo in group
        }
        shared = float(np.mean([overlap(own, random) for own, *random in boxes.values()]))
        found: dict[str, list[Agreement]] = {layer.tensor: [] for layer in self.layers}
        who = "+".join(photo.sha256[:8] for photo in group)
        passes: dict[int, LocalForward] = {}
        # Whole steps are kept: how many images go together must not depend on an interruption.
        for start in range(0, 1 + self.draws, self.step):
            key = f"{part}/{who}/{start}"
            if key not in self.journal:
                chunk = slice(start, start + self.step)
                self.journal.keep(key, self._step(group, boxes, chunk, passes))
            for layer, entries in zip(self.layers, self.journal[key], strict=True):
                found[layer.tensor] += [_agreement(entry) for entry in entries]
            if self.progress:
                self.progress(
                    f"covers of {part}", len(found[self.layers[0].tensor]), 1 + self.draws
                )
        names = tuple(photo.name for photo in group)
        for layer in self.layers:
            own, *random = found[layer.tensor]
            yield Row(layer.tensor, part, names, own, random, overlap=shared)

    def _step(
        self,
        group: Sequence[Marked],
        boxes: dict[int, list[Any]],
        chunk: slice,
        passes: dict[int, LocalForward],
    ) -> list[list[Any]]:
        """For each layer and each of a few covers how the photos agree, as plain data."""
        signs: list[list[list[Signs]]] = [[] for _ in self.layers]
        for photo in group:
            # The original goes with its covers: the same sizes round alike.
            some = [NOWHERE, *boxes[photo.place][chunk]]
            rows = self._vectors(photo, boxes[photo.place], some, passes)
            for kept, layer in zip(signs, self.layers, strict=True):
                values = rows[layer.tensor]
                kept.append(signs_of(values[0], values[1:]))
        return [
            [_plain(agreement([photo[cover] for photo in kept])) for cover in range(len(kept[0]))]
            for kept in signs
        ]

    def _vectors(
        self,
        photo: Marked,
        every: Sequence[Any],
        some: Sequence[Any],
        passes: dict[int, LocalForward],
    ) -> Mapping[str, Array]:
        """Features of a photo under some of its covers."""
        names = [layer.tensor for layer in self.layers]
        if self.model.input.name in names:
            return vectors(self.model, covered(photo.tensor, some, self.colour), self.layers)
        if photo.place not in passes:
            passes[photo.place] = LocalForward(
                self.model.model, photo.tensor, every, self.colour, names, note=self.note
            )
        return vectors(self.model, some, self.layers, forward=passes[photo.place])


def _plain(one: Agreement) -> list[Any]:
    return [one.pairs, one.opposite, one.both, one.changed, one.count]


def _agreement(entry: Sequence[Any]) -> Agreement:
    pairs, *rest = entry
    return Agreement(tuple(pairs), *rest)


# -- the result -----------------------------------------------------------------------------------


def _photo(one: Marked) -> dict[str, Any]:
    return {
        "image": {"name": one.name, "place": one.place, "sha256": one.sha256},
        "parts": {part: _edges(box) for part, box in one.parts.items()},
        "cut_off": list(one.cut),
        "random_places_in": _edges(one.region),
        "object_given": one.has_object,
    }


def _edges(box: Sequence[int]) -> dict[str, int]:
    return dict(zip(("top", "left", "bottom", "right"), box, strict=True))


def _warnings(
    model: "Opened",
    photos: Sequence[Marked],
    rows: Sequence[Row],
    *,
    draws: int,
    notes: Sequence[str],
    unnamed: int,
) -> tuple[str, ...]:
    found = [*model.preprocessing.warnings, *notes]
    without = sum(not photo.has_object for photo in photos)
    if without:
        found.append(
            f"{without} photo(s) have no object box: random places lie anywhere on them, "
            "also where hiding changes little"
        )
    few = dict.fromkeys(row.part for row in rows if len(row.photos) < 4)
    if few:
        found.append(f"{', '.join(few)}: fewer than 4 photos; the paper had 5")
    near = dict.fromkeys(row.part for row in rows if row.overlap > OVERLAP)
    found += [
        f"{part}: random places cover more than {OVERLAP:.0%} of the part itself, so that "
        "they differ less from it than they might"
        for part in near
    ]
    least = len(rows) / (1 + draws)
    if least > LEVEL:
        found.append(
            f"{draws} draws cannot show anything in {len(rows)} comparisons: the least "
            f"corrected p is {min(1, least):.3f}"
        )
    if unnamed:
        found.append(f"{unnamed} photo(s) were given that the parts do not name")
    found += [
        f"hiding {row.part} changes no feature of {row.layer}"
        for row in rows
        if not row.found.changed > 0
    ]
    return tuple(dict.fromkeys(found))


def _figure(
    model: "Opened",
    photos: Sequence[Marked],
    parts: Sequence[str],
    rows: Sequence[Row],
    *,
    colour: Array,
    seed: int,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.correspondence.figure import Line, correspondence_sheet

    decode = model.preprocessing.preprocess.decode
    lines = []
    for photo in photos[:SHOWN]:
        own = {
            part: decode(covered(photo.tensor, [box], colour)[0])
            for part, box in photo.parts.items()
        }
        part = next((part for part in parts if part in photo.parts), None)
        boxes = random_boxes(photo, part, 2, seed) if part else []
        random = [decode(image) for image in covered(photo.tensor, boxes, colour)]
        lines.append(Line(photo.name, decode(photo.tensor), own, random, photo.cut))
    return correspondence_sheet(
        lines,
        parts,
        [row.table() for row in rows],
        hidden=len(photos) - len(lines),
        title=f"does hiding the same part change features alike: {model.path.name}",
        sentences=sentences,
        notes=warnings,
    )

"""Processing that photos of a class share, and whether it makes the class: blur, JPEG, a frame.

A mark that covers the whole photo has no region that a map could show.  Its traces are measured on
every photo (``inspector.measures.photo_traces``); a predicted class that has more photos at the far
end than the other classes is suspected, and photos of the other classes are then processed alike.
The control changes them as much in another way: a photo that is worse is not proof.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from inspector.audit.interventions import Change, Interventions
from inspector.audit.rows import Row
from inspector.measures.photo_traces import frame_of, luma_of, sharpness
from inspector.measures.statistics import holm

__all__ = ["Processing", "find_processing", "tried"]

Array = np.ndarray[Any, Any]

_LEAST = 12
"""Photos of a class, and of all others, below which they are not compared."""

_SIGNIFICANT = 0.05
"""Corrected p-value from which a class is suspected; only the intervention proves."""

_TAILS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.25)
"""Shares of the other classes' photos that lie beyond the thresholds."""

_FEWEST = 3
"""Photos that a group of its own has at least."""

_APART = 0.25
"""Share of the suspected photos that a group of its own has at least."""

_SIGMAS = tuple(float(value) for value in np.geomspace(0.3, 24, 45))
"""Gaussians that are tried, in pixels: 10 % apart."""

_TRIED = 256
"""Side of the middle part that says how strong a Gaussian has to be, in pixels."""

_ALIKE = 30.0
"""Distance in RGB up to which two frames have the same colour."""

_OTHER = 100.0
"""Distance in RGB from which a frame has another colour."""


@dataclass(frozen=True)
class Processing:
    """A processing that a class's photos carry more often than those of the other classes.

    Attributes:
        kind: ``blur``, ``jpeg`` or ``frame``.
        name: The predicted class.
        members: Places of its photos among the rows.
        share: Of the class's photos that carry it.
        others: Share of the other classes' photos that do.
        p: Of Fisher's exact test, corrected for the number of tests (Holm).
        amount: Median of the trace in the members: sharpness, quality, or share of the shorter
            side.
        colour: Of the frame, RGB.
    """

    kind: str
    name: str
    members: tuple[int, ...]
    share: float
    others: float
    p: float
    amount: float
    colour: tuple[int, int, int] | None = None

    @property
    def what(self) -> str:
        """What the photos share, in words."""
        if self.kind == "blur":
            return f"blur (sharpness {self.amount:.2f})"
        if self.kind == "jpeg":
            return f"traces of JPEG at quality {self.amount:.0f}"
        return f"a frame of the colour {_hex(self.colour)}, {self.amount:.1%} of the shorter side"


_TRACES: Mapping[str, Callable[[Row], float | None]] = {
    "blur": lambda row: row.get("sharpness"),
    "jpeg": lambda row: row.get("jpeg_quality"),
    "frame": lambda row: None if row.get("frame") is None else -float(row["frame"]),
}
"""A number per photo, the smaller the more it was processed."""


def find_processing(rows: Sequence[Row]) -> list[Processing]:
    """Classes of which more photos are blurred, compressed or framed than of the others.

    Fisher's exact test per class, trace and threshold, corrected for their number; one entry per
    class and trace, by the threshold with the smallest p-value.

    Args:
        rows: Rows of the audit.

    Raises:
        MissingExtra: SciPy is not installed.
    """
    tests = [test for kind in _TRACES for test in _tests(kind, rows)]
    found = []
    corrected = holm([test.p for test in tests])
    order = sorted(range(len(tests)), key=lambda at: (corrected[at], tests[at].p))
    seen: set[tuple[str, str]] = set()
    for at in order:
        test, p = tests[at], corrected[at]
        if p < _SIGNIFICANT and (test.kind, test.name) not in seen:
            seen.add((test.kind, test.name))
            found.append(_described(test, p, rows))
    return found


@dataclass(frozen=True)
class _Test:
    """One threshold of a trace: the shares of a class's and of the others' photos up to it."""

    kind: str
    name: str
    limit: float
    share: float
    others: float
    p: float


def _tests(kind: str, rows: Sequence[Row]) -> Iterator[_Test]:
    """Fisher's exact test of each class at each threshold."""
    from scipy import stats  # type: ignore[import-untyped]

    number = _TRACES[kind]
    known = [(str(r["predicted"]), number(r)) for r in rows if _of_class(r)]
    names = np.array([name for name, value in known if value is not None])
    values = np.array([value for _, value in known if value is not None], np.float64)
    for name in sorted(set(names.tolist())):
        own, rest = values[names == name], values[names != name]
        if min(own.size, rest.size) < _LEAST:
            continue
        for limit in _limits(own, rest):
            inside, outside = int((own <= limit).sum()), int((rest <= limit).sum())
            table = [[inside, own.size - inside], [outside, rest.size - outside]]
            p = float(stats.fisher_exact(table, alternative="greater").pvalue)
            yield _Test(kind, name, limit, inside / own.size, outside / rest.size, p)


def _of_class(row: Row) -> bool:
    """Whether a photo counts for the class that is predicted: not where its label is another.

    A photo that is taken for a cat because it is blurred does not say that cats are blurred.
    """
    return row.get("predicted") is not None and row.get("correct") is not False


def _limits(own: Array, rest: Array) -> list[float]:
    """Thresholds that cut off the tails of the other classes' values, the largest first left out.

    The last value that carries no trace (no compression, no frame) is never a threshold.
    """
    ordered = np.sort(rest)
    none = max(float(ordered[-1]), float(own.max()))
    limits = set()
    for tail in _TAILS:
        place = int(tail * ordered.size)
        below = own[own < ordered[place]] if place < ordered.size else own
        if below.size:
            limits.add(float(below.max()))
    return sorted(limit for limit in limits if limit < none)


def _described(test: _Test, p: float, rows: Sequence[Row]) -> Processing:
    """The class's photos beyond a threshold; of frames, those of the most common colour."""
    number = _TRACES[test.kind]
    members = np.array(
        [
            place
            for place, row in enumerate(rows)
            if _of_class(row)
            and str(row["predicted"]) == test.name
            and (value := number(row)) is not None
            and value <= test.limit
        ]
    )
    colour = None
    if test.kind != "frame":
        members = members[_apart([number(rows[place]) or 0.0 for place in members])]
    else:
        colours = np.array([_rgb(str(rows[place]["frame_colour"])) for place in members])
        near = np.linalg.norm(colours[:, None] - colours[None], axis=2) <= _ALIKE
        chosen = near[int(near.sum(1).argmax())]
        red, green, blue = (int(v) for v in np.rint(np.median(colours[chosen], axis=0)))
        colour, members = (red, green, blue), members[chosen]
    amount = float(np.median([abs(number(rows[place]) or 0.0) for place in members]))
    places = tuple(int(place) for place in members)
    return Processing(test.kind, test.name, places, test.share, test.others, p, amount, colour)


def _apart(values: Sequence[float]) -> Array:
    """Which values (N,) lie below the widest gap, where it sets them apart from the rest; else all.

    Photos at the end of what is usual must not be counted among those that were processed.
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, np.float64)[order]
    gaps = np.diff(ordered)
    chosen = np.ones(ordered.size, bool)
    if gaps.size and gaps.max() > 0:
        last = int(gaps.argmax())
        wide = gaps[last] > ordered[last] - ordered[0]
        if wide and last + 1 >= max(_FEWEST, _APART * ordered.size):
            chosen[order[last + 1 :]] = False
    return chosen


def tried(
    processing: Processing, rows: Sequence[Row], interventions: Interventions
) -> list[dict[str, Any]]:
    """Photos of the other classes processed alike, and changed as much in other ways.

    Args:
        processing: From ``find_processing``.
        rows: Rows of the audit.
        interventions: Changes photos and asks the model.

    Returns:
        One measurement of the kind ``process``: change, control, excess, whether it is confirmed;
        none where there are no photos to change.
    """
    members = set(processing.members)
    index = next((rows[p]["index"] for p in sorted(members) if rows[p]["index"] is not None), None)
    photos = interventions.of_others(processing.name)
    if index is None or not photos:
        return []
    change, controls = _changes(processing, photos)
    found = interventions.measured("process", index, photos, change, controls)
    return [found] if found["photos"] else []


def _changes(processing: Processing, photos: Sequence[Array]) -> tuple[Change, list[Change]]:
    """What processes a photo alike, and the controls."""
    amount = processing.amount
    if processing.kind == "frame":
        colour = processing.colour or (0, 0, 0)
        change: Change = partial(_framed, amount, colour)
        return change, [
            partial(_framed_otherwise, amount, colour),
            partial(_framed_by_photo, amount, photos),
        ]
    if processing.kind == "blur":
        change = partial(_blurred, amount)
        return change, [partial(_as_much, change, other) for other in (_noisy, _faded)]
    change = partial(_compressed, round(amount))
    return change, [partial(_as_much, change, other) for other in (_noisy, _faded, _softened)]


def _blurred(target: float, pixels: Array, number: int) -> Array:
    """A photo blurred until it is as little sharp as another."""
    del number
    luma = _as_bytes(luma_of(pixels, frame_of(pixels)[0]))
    if (sharpness(np.asarray(luma, float)) or 0.0) <= target:
        return pixels
    for sigma in _SIGMAS:
        if (sharpness(np.asarray(_gaussian(luma, sigma), float)) or 0.0) <= target:
            break
    return _gaussian(pixels, sigma)


def _gaussian(pixels: Array, sigma: float) -> Array:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def _compressed(quality: int, pixels: Array, number: int) -> Array:
    """A photo saved as JPEG and opened again."""
    del number
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    with Image.open(stream, formats=["JPEG"]) as picture:
        return np.asarray(picture)


def _framed(share: float, colour: tuple[int, int, int], pixels: Array, number: int) -> Array:
    """A photo with a frame of one colour."""
    del number
    found = np.empty_like(pixels)
    found[:] = colour
    width = _width(share, pixels)
    found[width:-width, width:-width] = pixels[width:-width, width:-width]
    return found


def _framed_otherwise(
    share: float, colour: tuple[int, int, int], pixels: Array, number: int
) -> Array:
    """A photo with a frame of another colour: tints swapped, black, white, inverted, grey."""
    red, green, blue = colour
    every = [(green, blue, red), (blue, red, green), (0, 0, 0), (255, 255, 255)]
    every += [(255 - red, 255 - green, 255 - blue), (128, 128, 128)]
    far = [c for c in every if np.linalg.norm(np.subtract(c, colour)) >= _OTHER]
    return _framed(share, far[number % len(far)], pixels, number)


def _framed_by_photo(share: float, photos: Sequence[Array], pixels: Array, number: int) -> Array:
    """A photo with what another photo shows along its sides."""
    other = Image.fromarray(photos[(number + 1) % len(photos)])
    found = np.array(other.resize((pixels.shape[1], pixels.shape[0])))
    width = _width(share, pixels)
    found[width:-width, width:-width] = pixels[width:-width, width:-width]
    return found


def _width(share: float, pixels: Array) -> int:
    shorter = min(pixels.shape[:2])
    return int(min(max(round(share * shorter), 1), (shorter - 1) // 2 or 1))


def _as_much(
    change: Change, other: Callable[[Array, float, int], Array], pixels: Array, number: int
) -> Array:
    """A photo that another change moves as far as this one: by the same root mean square."""
    return other(pixels, _distance(change(pixels, number), pixels), number)


def _noisy(pixels: Array, size: float, number: int) -> Array:
    noise = np.random.default_rng(number).normal(0, size, pixels.shape)
    return _as_bytes(pixels + noise)


def _faded(pixels: Array, size: float, number: int) -> Array:
    """Less contrast."""
    del number
    mean = pixels.mean((0, 1))
    spread = float(np.sqrt(np.square(pixels - mean).mean()))
    return _as_bytes(pixels + min(size / max(spread, 1e-9), 1.0) * (mean - pixels))


def _softened(pixels: Array, size: float, number: int) -> Array:
    """A blurred photo: details go, and no blocks come."""
    del number
    top, left = (max(length - _TRIED, 0) // 2 for length in pixels.shape[:2])
    part = pixels[top : top + _TRIED, left : left + _TRIED]
    for sigma in _SIGMAS:
        if _distance(_gaussian(part, sigma), part) >= size:
            break
    return _gaussian(pixels, sigma)


def _distance(one: Array, other: Array) -> float:
    """Root mean square of the differences."""
    return float(np.sqrt(np.square(np.subtract(one, other, dtype=float)).mean()))


def _as_bytes(values: Array) -> Array:
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _hex(colour: tuple[int, int, int] | None) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour or ())


def _rgb(text: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(text.removeprefix("#")))

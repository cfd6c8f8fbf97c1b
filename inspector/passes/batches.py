"""Many photos through the network in bounded memory: opened ahead, or batches side by side."""

import copy
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from inspector.engines.runtime import Runtime
from inspector.errors import ImageRefused
from inspector.passes.activations import activations
from inspector.passes.prefetch import cores, prefetched
from inspector.photos.photo import ImageSource, Photo
from inspector.photos.photo_warnings import PhotoWarnings

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.photos.geometry import Geometry

__all__ = ["BATCH", "Batch", "Progress", "batches", "passes"]

BATCH = 8
"""Photos that go through the network at a time, where the model allows it."""

WORKERS = 4
"""Batches that are under way at the same time, at most."""

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]
Result = TypeVar("Result")

_Job = tuple[int, ImageSource]


@dataclass(frozen=True, eq=False)
class Batch:
    """Photos that go through the network together.

    Attributes:
        places: Position of each in the whole list.
        sources: What the user gave for each.
        photos: The photos, upright.
        tensors: (N, C, H, W), preprocessed.
        geometries: How each photo and its tensor lie on each other.
    """

    places: tuple[int, ...]
    sources: tuple[ImageSource, ...]
    photos: tuple[Photo, ...]
    tensors: Array
    geometries: "tuple[Geometry, ...]"


def batches(
    model: "Opened",
    images: Iterable[ImageSource],
    refused: list[ImageRefused],
    progress: Progress | None = None,
    *,
    skip: Container[int] = (),
) -> Iterator[Batch]:
    """Open photos a few at a time, the next ones while the caller is busy with a batch.

    Warns of photos whose pixels had to be guessed, or of which the network sees little.

    Args:
        model: Whose preprocessing they get.
        images: Paths, ``Photo`` objects, PIL images, or arrays (H, W, 3).
        refused: Gets the photos that cannot be read.
        progress: Called with (what, done, total); the total is 0 if unknown.
        skip: Places in the list that are known already; their photos are not opened.
    """
    total, size = _length(images), BATCH if model.batches else 1
    opening = prefetched(
        _jobs(images, skip),
        lambda job: _opened(model, job),
        ahead=BATCH,
        workers=max(1, cores() // 2),
        size=_bytes,
    )
    waiting: list[_Opened] = []
    warned = PhotoWarnings(model.preprocessing.preprocess.resize)
    for place, found in opening:
        if isinstance(found, ImageRefused):
            refused.append(found)
        else:
            warned.add(found.photo, found.geometry)
            waiting.append(found)
        if len(waiting) == size:
            yield _batch(waiting)
            waiting = []
        if progress:
            progress("photos", place + 1, total)
    warned.close()
    if waiting:
        yield _batch(waiting)


def passes(
    model: "Opened",
    images: Iterable[ImageSource],
    tensors: Sequence[str],
    look: Callable[[Batch, Mapping[str, Array]], Result],
    *,
    refused: list[ImageRefused],
    progress: Progress | None = None,
    skip: Container[int] = (),
) -> Iterator[Result]:
    """Take photos through the network and look at tensors, several batches side by side.

    A batch a core, read, computed and looked at in one thread, wastes less than one batch over
    all cores with the reading in between.

    Args:
        model: The opened model.
        images: As for :func:`batches`.
        tensors: Names of any tensors.
        look: Takes a batch and the tensors, as floats (N, ...); called in other threads, so it
            changes nothing and returns little.
        refused: Gets the photos that cannot be read.
        progress: As for :func:`batches`.
        skip: As for :func:`batches`.

    Yields:
        What ``look`` returned for each batch, in order.

    Raises:
        MethodRefused: A tensor holds integers of which the file does not say what they stand for.
    """
    total, workers = _length(images), min(WORKERS, cores())
    reader, size = _reader(model, tensors, workers), BATCH if model.batches else 1

    warned = PhotoWarnings(model.preprocessing.preprocess.resize)

    def work(
        jobs: tuple[_Job, ...],
    ) -> tuple[int, list[ImageRefused], Batch | None, list[Result]]:
        found = [_opened(model, job)[1] for job in jobs]
        gone = [item for item in found if isinstance(item, ImageRefused)]
        there = [item for item in found if isinstance(item, _Opened)]
        if not there:
            return jobs[-1][0], gone, None, []
        batch = _batch(there)
        seen = look(batch, activations(reader, batch.tensors, tensors))
        return jobs[-1][0], gone, batch, [seen]

    jobs = _chunks(_jobs(images, skip), size)
    for last, gone, batch, results in prefetched(jobs, work, ahead=workers, workers=workers):
        refused += gone
        for photo, geometry in (
            () if batch is None else zip(batch.photos, batch.geometries, strict=True)
        ):
            warned.add(photo, geometry)
        if progress:
            progress("photos", last + 1, total)
        yield from results
    warned.close()


def _reader(model: "Opened", tensors: Sequence[str], workers: int) -> "Opened":
    """The model with a session of its own, whose runs share the cores among them."""
    reader = copy.copy(model)
    reader.model = copy.copy(model.model)
    runtime = Runtime(model.file, device=model.device, threads=cores() // workers)
    runtime.batches = model.model.runtime.batches
    runtime.prepare(tensors)
    reader.model.runtime = runtime
    return reader


# -- one photo ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Opened:
    """One photo, opened and preprocessed; fields as those of ``Batch``."""

    place: int
    source: ImageSource
    photo: Photo
    tensor: Array
    geometry: "Geometry"


def _opened(model: "Opened", job: _Job) -> tuple[int, _Opened | ImageRefused]:
    place, source = job
    try:
        photo = model.photo(source)
    except ImageRefused as error:
        return place, error
    return place, _Opened(place, source, photo, *model.preprocessing.preprocess.apply(photo))


def _bytes(opened: tuple[int, _Opened | ImageRefused]) -> int:
    found = opened[1]
    return 0 if isinstance(found, ImageRefused) else found.photo.pixels.nbytes + found.tensor.nbytes


def _batch(opened: Sequence[_Opened]) -> Batch:
    return Batch(
        tuple(item.place for item in opened),
        tuple(item.source for item in opened),
        tuple(item.photo for item in opened),
        np.stack([item.tensor for item in opened]),
        tuple(item.geometry for item in opened),
    )


# -- many -----------------------------------------------------------------------------------------


def _jobs(images: Iterable[ImageSource], skip: Container[int]) -> Iterator[_Job]:
    return ((place, source) for place, source in enumerate(images) if place not in skip)


def _chunks(jobs: Iterator[_Job], size: int) -> Iterator[tuple[_Job, ...]]:
    while chunk := tuple(itertools.islice(jobs, size)):
        yield chunk


def _length(images: Iterable[ImageSource]) -> int:
    return len(images) if isinstance(images, Sized) else 0

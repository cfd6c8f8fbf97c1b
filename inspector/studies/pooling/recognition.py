"""How many labelled photos a network gets right, photo by photo."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.errors import first_few
from inspector.errors import ImageRefused, UsageError
from inspector.passes.activations import activations
from inspector.passes.batches import Progress, batches
from inspector.passes.journal import Journal
from inspector.photos.dataset import class_indices
from inspector.studies.pooling.networks import Network

__all__ = ["predictions", "wanted_classes"]

_LISTED = 20


def wanted_classes(
    networks: Sequence[Network], labels: Sequence[str]
) -> list[Mapping[str, tuple[int, ...]]]:
    """Classes of each network that each label means.

    Args:
        networks: The networks.
        labels: What somebody says that the photos show.

    Returns:
        For each network the classes by label.

    Raises:
        UsageError: Labels that name no class; all of them, network by network.
    """
    found: list[Mapping[str, tuple[int, ...]]] = []
    wrong = []
    for network in networks:
        own = network.model.class_labels
        meant = {
            label: class_indices(label, own.names, network.classes, own.ids) for label in labels
        }
        unknown = sorted(label for label, classes in meant.items() if not classes)
        if unknown:
            wrong.append(f"{network.name}: {first_few(unknown, _LISTED)}")
        found.append(meant)
    if wrong:
        raise UsageError(
            "labels that name no class of " + "; of ".join(wrong),
            hint="name folders as the classes are called, or by their index; --labels gives a "
            "model without class names some",
        )
    return found


def predictions(
    number: int,
    network: Network,
    photos: Sequence[Any],
    *,
    refused: list[ImageRefused],
    progress: Progress | None,
    journal: Journal,
) -> dict[int, int | None]:
    """The class of the highest score of each photo that can be read.

    Args:
        number: The network's place, for the journal.
        network: The network.
        photos: The photos.
        refused: Gets those that cannot be read.
        progress: Called with (what, done, total).
        journal: Keeps the class of each photo.

    Returns:
        Classes by the photo's place; None where the scores are not numbers.
    """

    def said(what: str, done: int, total: int) -> None:
        if progress:
            progress(f"{network.name}: {what}", done, total)

    keys = {place: f"{number} scores {place}" for place in range(len(photos))}
    known = {place for place, key in keys.items() if key in journal}
    tensor = network.model.scores.tensor
    for batch in batches(network.model, photos, refused, said, skip=known):
        scores = activations(network.model, batch.tensors, [tensor])[tensor]
        for place, row in zip(batch.places, scores.reshape(len(scores), -1), strict=True):
            sound = bool(np.isfinite(row).all())
            journal.keep(keys[place], int(row.argmax()) if sound else None)
    return {place: journal[key] for place, key in keys.items() if key in journal}

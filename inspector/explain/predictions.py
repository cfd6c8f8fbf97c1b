"""What a model says of photos, without a map: its best classes, or the items of its task."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from inspector.errors import ImageRefused, ModelRefused, UsageError
from inspector.explain.layers import BATCH
from inspector.network.outputs.elements import has_no_batch
from inspector.opened import Opened
from inspector.photos.photo import ImageSource, image_sources
from inspector.probability import predictions
from inspector.run import Found, PhotoInput
from inspector.tasks import Reading, Sample
from inspector.tasks.items import ItemSpec

__all__ = ["predict"]

Array = np.ndarray[Any, Any]


def predict(
    opened: Opened, images: ImageSource | Iterable[ImageSource], *, top: int = 5
) -> list[list[dict[str, Any]]]:
    """What the model says of one or several photos.

    Args:
        opened: The opened model.
        images: As for ``explain``.
        top: How many classes or items are listed at most.

    Returns:
        For each image its best, as plain data: label, index, score and probability of a class;
        label, index, score and box (left, top, right, bottom in the photo's pixels) of an item of
        another task.

    Raises:
        ImageRefused: An image cannot be read.
        ModelRefused: Nothing is known of what the outputs mean.
        UsageError: ``top`` is below 1.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> [[best, *_]] = model.predict("sample_models/images/horse_1.png")
        >>> best["label"], best["index"]
        ('horse', 7)
    """
    if top < 1:
        raise UsageError(f"top = {top}", hint="1 or more")
    reading = opened.reading()
    if reading is None and not opened.scores.classifier:
        raise ModelRefused(
            f"nothing can be predicted: {opened.meaning}",
            where=opened.path.name,
            hint="forward(images, [OUTPUT]) gives any tensor",
        )
    outputs = [opened.scores.tensor] if reading is None else list(reading.outputs)
    alone = not opened.batches or any(has_no_batch(name, opened.scores) for name in outputs)
    found: list[list[dict[str, Any]]] = []
    batch: list[PhotoInput] = []
    for source in image_sources(images):
        photo = opened.photo(source)
        tensor, geometry = opened.preprocessing.preprocess.apply(photo)
        if batch and (alone or len(batch) == BATCH or batch[0][1].shape != tensor.shape):
            found += _said(opened, batch, outputs, reading, top)
            batch = []
        batch.append((photo, tensor, geometry))
    return found + (_said(opened, batch, outputs, reading, top) if batch else [])


def _said(
    opened: Opened,
    batch: Sequence[PhotoInput],
    outputs: Sequence[str],
    reading: Reading | None,
    top: int,
) -> list[list[dict[str, Any]]]:
    """The predictions of some photos, which go through the network together."""
    values = opened.forward(np.stack([tensor for _, tensor, _ in batch]), outputs)
    found: list[list[dict[str, Any]]] = []
    for row, (photo, _, geometry) in enumerate(batch):
        if reading is None:
            scores = np.asarray(values[outputs[0]][row]).reshape(-1)
            if not np.isfinite(scores).all():
                raise ImageRefused(
                    "the network's numbers for this photo are not finite",
                    where=photo.name,
                    hint="it overflows; check the preprocessing",
                )
            found.append(predictions(opened.scores, opened.class_labels.names, scores, top))
        else:
            own = {name: np.asarray(values[name][row]) for name in outputs}
            sample = Sample(own, geometry, photo.name, photo.path)
            items = ItemSpec.parse(None, reading).every(sample)
            listed = Found((), items[:top]).described(geometry)
            found.append([{k: v for k, v in one.items() if k != "explained"} for one in listed])
    return found

"""Photos and methods in, maps out: the orchestration that command line and library share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np

from converters import onnx_file
from converters.source import Options
from inspector.errors import (
    ExplainedError,
    ImageRefused,
    InspectorWarning,
    UsageError,
)
from inspector.methods import parse_requests
from inspector.network.inputs import Feeds
from inspector.network.space import plane
from inspector.opened import Opened
from inspector.opening import Opening
from inspector.passes.maps import MapRefused
from inspector.photos.bands import input_batch
from inspector.photos.photo import ImageSource, image_sources
from inspector.photos.preprocess_choice import PreprocessChoice
from inspector.report import ImageReport, Report
from inspector.run import ExplainRun, PhotoInput, Targets

__all__ = ["Explainer", "attribute", "explain", "explain_each", "load"]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]

BATCH = 8
"""Photos that go through the network at a time, where the model allows it."""

FAR = 10.0
"""Values as many ranges of the recipe outside of it are taken for images without its steps."""


def load(
    path: Any,
    example: Any = None,
    *,
    device: str = "auto",
    preprocess: PreprocessChoice | None = None,
    overrides: Sequence[str] = (),
    labels: str | Path | Sequence[str] | None = None,
    unverified: bool = False,
    engine: str = "twin",
    trust: bool = False,
    options: Options | None = None,
    python: str = "",
    limits: onnx_file.Limits | None = None,
    feed: Feeds = (),
) -> "Explainer":
    """Open an ONNX file, or a model of another framework, which is converted first.

    Args:
        path: The ``.onnx`` file; a source that ``inspector convert`` knows; or a
            ``torch.nn.Module``.
        example: Input of the module, (N, C, H, W); for a module alone.
        device: ``auto``, ``cpu`` or ``cuda``.
        preprocess: A preset, a file, a ``Preprocess`` or a mapping of its settings; found out
            when None.
        overrides: Single preprocessing options as ``key=value``.
        labels: A file of class names, or the names; those in the model's metadata when None.
        unverified: Draw gradient methods, labelled, even where the model's certificate fails.
        engine: What runs the network backwards: ``twin``, its copy in PyTorch; ``onnx``, its
            gradient written as ONNX operators, in ONNX Runtime, without torch; ``auto``, the
            second where it covers the model and passes its check, else the first.
        trust: Whether a source that is a program of its author's may run.
        options: What a source of another framework does not say of itself.
        python: The Python of an environment that holds its framework; this one when empty.
        limits: What a stranger's file may demand; defaults in ``converters.onnx_file``.
        feed: Constants for the inputs that are not the image: arrays, numbers or ``.npy`` files by
            name. A number fills the declared shape, in which free axes are 1.

    Returns:
        The opened model, ready to explain.

    Raises:
        ConverterError: The file is not a model, or not safe to open.
        ModelRefused: It takes no image.
        UsageError: Preprocessing or labels that cannot be read.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> model.scores.tensor, model.scores.classes
        ('logits', 10)
    """
    opening = Opening(
        path,
        example,
        device=device,
        preprocess=preprocess,
        overrides=tuple(overrides),
        labels=labels,
        unverified=unverified,
        engine=engine,
        trust=trust,
        options=options,
        python=python,
        limits=limits,
        feed=feed,
    )
    return opening.open(Explainer)


class Explainer(Opened):
    """An opened model that explains its decisions; see ``load`` for the arguments.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> model.explain("sample_models/images/horse_1.png").images[0].predictions[0]["label"]
        'horse'
    """

    def explain(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] | None = None,
        *,
        target: Targets | None = None,
        layer: str | int | None = None,
        task: str | None = None,
        similar_to: ImageSource | None = None,
        bands: Sequence[int] = (),
    ) -> Report:
        """Maps of one or several photos; see ``inspector.explain.explain``."""
        return explain(
            self,
            images,
            methods,
            target=target,
            layer=layer,
            task=task,
            similar_to=similar_to,
            bands=bands,
        )

    def explain_each(
        self,
        images: ImageSource | Iterable[ImageSource],
        methods: str | Sequence[str] | None = None,
        *,
        target: Targets | None = None,
        layer: str | int | None = None,
        task: str | None = None,
        similar_to: ImageSource | None = None,
        bands: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Iterator[ImageReport | ImageRefused]:
        """Maps photo by photo, in bounded memory; see ``inspector.explain.explain_each``."""
        return explain_each(
            self,
            images,
            methods,
            target=target,
            layer=layer,
            task=task,
            similar_to=similar_to,
            bands=bands,
            progress=progress,
        )

    def attribute(
        self,
        images: Array,
        method: str = "grad-cam",
        *,
        target: str | int = "top1",
        layer: str | int | None = None,
    ) -> Array:
        """Attributions of preprocessed images; see ``inspector.explain.attribute``."""
        return attribute(self, images, method, target=target, layer=layer)


def explain(
    opened: Opened,
    images: ImageSource | Iterable[ImageSource],
    methods: str | Sequence[str] | None = None,
    *,
    target: Targets | None = None,
    layer: str | int | None = None,
    task: str | None = None,
    similar_to: ImageSource | None = None,
    bands: Sequence[int] = (),
) -> Report:
    """Show where the model looks.

    Args:
        opened: The opened model.
        images: One or several: a path, a ``Photo``, a PIL image, or an array (H, W, 3); for a model
            of bands, signals or volumes an array (C, H, W), (C, L) or (C, D, H, W).
        methods: Names as the command line takes them, options included:
            ``"occlusion:window=16,stride=8"``; None for the one that is right for the task:
            grad-cam for a classifier, hires-cam for a detector.
        target: ``top1``, ``top3``, an index, a label, ``OUTPUT[i,j,...]``, or an item of the
            model's task (``person#2``, ``box:LEFT,TOP,RIGHT,BOTTOM``, ``tumour@X,Y``,
            ``mask:FILE``); with a leading ``-`` the opposite direction; a list for several, one map
            each; None for the default.
        layer: A tensor name, an index, ``last``, or None for the default.
        task: What the outputs mean, where it cannot be found out: ``classifier``, ``detector``,
            ``segmenter``, ``embedding``, ``sequence`` or ``dense``.
        similar_to: The reference photo of an embedding.
        bands: Bands that are drawn of a file that holds more than colours, counted from 1; the
            first three (or the first) when none are named.

    Returns:
        One map per image, method and target.

    Raises:
        InspectorError: A request that cannot be served, or no map that could be drawn.
        ImageRefused: None of the images can be read.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> photo = "sample_models/images/horse_1.png"
        >>> report = model.explain(photo, ["grad-cam", "cam"], target="horse")
        >>> [found.attribution.values.shape for found in report.explanations]
        [(8, 8), (8, 8)]
        >>> [found.heatmap.values.shape for found in report.explanations]
        [(32, 32), (32, 32)]
    """
    found = list(
        explain_each(
            opened,
            images,
            methods,
            target=target,
            layer=layer,
            task=task,
            similar_to=similar_to,
            bands=bands,
        )
    )
    refused = tuple(item for item in found if isinstance(item, ImageRefused))
    reports = tuple(item for item in found if isinstance(item, ImageReport))
    if not any(report.explanations for report in reports):
        errors = [refusal.error for report in reports for refusal in report.refused]
        if errors or refused:
            raise [*errors, *refused][0]
    return Report(reports, refused)


def explain_each(
    opened: Opened,
    images: ImageSource | Iterable[ImageSource],
    methods: str | Sequence[str] | None = None,
    *,
    target: Targets | None = None,
    layer: str | int | None = None,
    task: str | None = None,
    similar_to: ImageSource | None = None,
    bands: Sequence[int] = (),
    progress: Progress | None = None,
) -> Iterator[ImageReport | ImageRefused]:
    """Explain photo by photo, in bounded memory.

    Args:
        opened: The opened model.
        images: As for ``explain``; may be a generator.
        methods: As for ``explain``.
        target: As for ``explain``.
        layer: As for ``explain``.
        task: As for ``explain``.
        similar_to: As for ``explain``.
        bands: As for ``explain``.
        progress: Called with (what, done, total) during long work.

    Yields:
        For each image its report, or why it was refused, in order.

    Example:
        >>> import inspector
        >>> from pathlib import Path
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> photos = sorted(Path("sample_models/images").glob("dog_*.png"))
        >>> [found.photo.name for found in model.explain_each(photos, "cam")]
        ['dog_1.png', 'dog_2.png']
    """
    sources = image_sources(images)
    if isinstance(sources, Sequence):
        opened.require_readers(sources)
    run = ExplainRun(opened, methods, target, layer, progress, task=task, similar_to=similar_to)
    batch: list[PhotoInput] = []
    for source in sources:
        try:
            photo = opened.photo(source, bands)
        except ImageRefused as error:
            yield from run.reports(batch)
            batch = []
            yield error
            continue
        tensor, geometry = opened.preprocessing.preprocess.apply(photo)
        if batch and batch[0][1].shape != tensor.shape:  # signals of another length
            yield from run.reports(batch)
            batch = []
        batch.append((photo, tensor, geometry))
        if len(batch) == (BATCH if opened.batches and not run.alone else 1):
            yield from run.reports(batch)
            batch = []
    yield from run.reports(batch)


def attribute(
    opened: Opened,
    images: Array,
    method: str = "grad-cam",
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
) -> Array:
    """Attributions of images that are preprocessed already.

    Args:
        opened: The opened model.
        images: (N, C, H, W), as the network takes them; channels first even when the model
            wants them last. (N, C, L) of signals, (N, C, D, H, W) of volumes.
        method: A name, options included.
        target: One target per image, as for ``explain``.
        layer: As for ``explain``.

    Returns:
        float32 (N, h, w) for layer methods, (N, C, H, W) for input methods; of signals and
        volumes with their own axes of space.

    Raises:
        InspectorError: As ``explain``; UsageError for several targets.

    Example:
        >>> import inspector
        >>> import numpy as np
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> images = np.zeros((2, 3, 32, 32), np.float32)
        >>> model.attribute(images, "grad-cam", target="horse").shape
        (2, 8, 8)
        >>> model.attribute(images, "gradient", target="horse").shape
        (2, 3, 32, 32)
    """
    images = plane(input_batch(images, opened.input.space))
    _check_sizes(opened, images)
    if not opened.preprocessing.preprocess.bands:
        _warn_of_values(opened, images)
    run = ExplainRun(opened, method, target, layer, None)
    step = BATCH if opened.batches else 1
    parts = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        values = run.forward(batch)
        for row in run.maps(batch, values, run.targets(values, len(batch))):
            if len(row) != 1:
                raise UsageError(f"{target!r} names several targets", hint="ask for one")
            if isinstance(row[0], MapRefused):
                raise row[0].error
            parts.append(row[0].attribution)
    if len({part.values.shape for part in parts}) > 1:
        layers = dict.fromkeys(repr(part.layer) for part in parts)
        raise UsageError(
            f"the images' targets lie behind different layers: {', '.join(layers)}",
            hint="name the layer, or pass the images one by one",
        )
    return np.stack([part.own for part in parts])


def attempts(
    opened: Opened, image: Array, methods: Sequence[str], target: str
) -> dict[str, ExplainedError | None]:
    """Whether each method gives a map of one image, by one forward pass for all of them.

    Args:
        opened: The opened model.
        image: (1, C, H, W), as for ``attribute``.
        methods: Names, options included.
        target: As for ``attribute``.

    Returns:
        For each method None, or what ``attribute`` raises of it.
    """
    found: dict[str, ExplainedError | None] = {}
    try:
        run = ExplainRun(opened, methods, target, None, None)
        values = run.forward(image)
        rows = run.maps(image, values, run.targets(values, 1))[0]
    except ExplainedError as error:
        if len(methods) == 1:
            return {methods[0]: error}
        for method in methods:  # what one of them asks for may stop them all
            found |= attempts(opened, image, [method], target)
        return found
    labels = {
        request.label: text for request, text in zip(parse_requests(methods), methods, strict=True)
    }
    found = {labels[label]: error for label, error in run.denied.items()}
    for one in rows:
        found[labels[one.request.label]] = one.error if isinstance(one, MapRefused) else None
    return found


def _check_sizes(opened: Opened, images: Array) -> None:
    """Refuse images of another size than the one that the model fixes.

    Raises:
        UsageError: Height or width, or the length of a signal, differ.
    """
    wanted = opened.input.height, opened.input.width
    have = images.shape[2:]
    if any(fixed not in (None, size) for fixed, size in zip(wanted, have, strict=True)):
        shown = [
            " x ".join("?" if n is None else str(n) for n in sizes) for sizes in (have, wanted)
        ]
        if opened.input.space == 1:
            shown = [text.removeprefix("1 x ") for text in shown]
        raise UsageError(
            f"images of {shown[0]} places, and the model takes {shown[1]}",
            hint="`explain` takes photos of any size and fits them" * (opened.input.space == 2),
        )


def _warn_of_values(opened: Opened, images: Array) -> None:
    """Warn of images that the preprocessing cannot have made."""
    black, white = opened.preprocessing.preprocess.span()
    low, high = min(*black, *white), max(*black, *white)
    least, most, width = float(images.min()), float(images.max()), high - low
    outside = least < low - FAR * width or most > high + FAR * width
    if outside or 0 < most - least < width / 100:
        warn(
            f"the images hold {least:.4g} .. {most:.4g}, but the preprocessing gives "
            f"{low:.4g} .. {high:.4g}: preprocess them first, or pass photos to `explain`",
            InspectorWarning,
            stacklevel=3,
        )

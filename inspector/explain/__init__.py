"""Photos and methods in, maps out: the orchestration that command line and library share."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters import onnx_file
from converters.source import Options
from inspector.errors import ImageRefused, ModelRefused, UsageError
from inspector.explain.layers import BATCH, Layers, layer_runs, merged
from inspector.explain.predictions import predict
from inspector.explain.prepared import attempts, attribute, explain_tensor
from inspector.methods import MethodName, Methods, Request
from inspector.network.inputs.choice import Feeds
from inspector.opened import Opened
from inspector.opening import InMemory, Opening
from inspector.passes.prefetch import cores, prefetched
from inspector.photos.photo import ImageSource, image_sources, is_one_image
from inspector.photos.preprocess_choice import PreprocessChoice
from inspector.report import ImageReport, Report
from inspector.run import ExplainRun, PhotoInput, Targets
from inspector.target import plain_targets

__all__ = [
    "Explainer",
    "attempts",
    "attribute",
    "explain",
    "explain_each",
    "explain_tensor",
    "load",
    "predict",
]

Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]


def load(
    path: Any,
    example: Any = None,
    *,
    device: str = "auto",
    preprocess: PreprocessChoice | None = None,
    overrides: Sequence[str] = (),
    labels: str | Path | Sequence[str] | None = None,
    unverified: bool = False,
    engine: str = "auto",
    trust: bool = False,
    options: Options | None = None,
    python: str = "",
    limits: onnx_file.Limits | None = None,
    feed: Feeds = (),
) -> "Explainer":
    """Open an ONNX file, or a model of another framework, which is converted first.

    Args:
        path: The ``.onnx`` file; a source that ``inspector convert`` knows; the bytes of an
            ``.onnx`` file; an ``onnx.ModelProto``; or a ``torch.nn.Module``.
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
        methods: Methods | None = None,
        *,
        target: Targets | None = None,
        layer: Layers = None,
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
        methods: Methods | None = None,
        *,
        target: Targets | None = None,
        layer: Layers = None,
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
        images: Any,
        method: MethodName | Request = "grad-cam",
        *,
        target: Targets = "top1",
        layer: str | int | None = None,
    ) -> Array:
        """Attributions of preprocessed images; see ``inspector.explain.attribute``."""
        return attribute(self, images, method, target=target, layer=layer)

    def explain_tensor(
        self,
        images: Any,
        methods: Methods | None = None,
        *,
        target: Targets | None = None,
        layer: Layers = None,
        task: str | None = None,
    ) -> Report:
        """Maps of preprocessed images; see ``inspector.explain.explain_tensor``."""
        return explain_tensor(self, images, methods, target=target, layer=layer, task=task)

    def predict(
        self, images: ImageSource | Iterable[ImageSource], *, top: int = 5
    ) -> list[list[dict[str, Any]]]:
        """What the model says of photos; see ``inspector.explain.predict``."""
        return predict(self, images, top=top)

    def __repr__(self) -> str:
        """The file, what its outputs are, and the input that it takes."""
        space = " x ".join(str(n or "?") for n in (self.input.height, self.input.width))
        kind = f"{self.scores.classes or '?'} classes" if self.scores.classifier else "no classes"
        return f"<Explainer {self.path.name}: {kind}, {self.input.channels} x {space}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what opens the same model again: its path and hash, or its content."""
        opening = replace(Opening.of(self), limits=self.limits)
        if self.file.on_disk:
            opening = replace(opening, path=self.path.absolute())
        else:
            opening = replace(opening, path=InMemory.of(self.file))
        return _reopened, (opening, self.file.sha256, self.unverified)


def _reopened(opening: Opening, sha256: str, unverified: bool) -> Explainer:
    """The model of a pickle.

    Raises:
        ConverterError: Its file is gone, or cannot be opened.
        ModelRefused: Its file is another by now.
    """
    explainer = opening.open(Explainer)
    if explainer.file.sha256 != sha256:
        raise ModelRefused(
            "is not the file that was pickled",
            where=str(explainer.path),
            hint=f"its SHA-256 was {sha256[:16]}...; open the file with inspector.load",
        )
    explainer.unverified = unverified
    return explainer


def explain(
    opened: Opened,
    images: ImageSource | Iterable[ImageSource],
    methods: Methods | None = None,
    *,
    target: Targets | None = None,
    layer: Layers = None,
    task: str | None = None,
    similar_to: ImageSource | None = None,
    bands: Sequence[int] = (),
) -> Report:
    """Show where the model looks.

    Args:
        opened: The opened model.
        images: One or several: a path, the bytes of a file, an open file, a ``Photo``, a PIL image,
            or an array or tensor (H, W, 3) or (3, H, W); for a model of bands, signals or volumes
            an array (C, H, W), (C, L) or (C, D, H, W).
        methods: Names, or ``inspector.configured("occlusion", window=16, stride=8)`` for one with
            options, which may also be a text as on the command line; None for the one that is
            right for the task: grad-cam for a classifier, hires-cam for a detector.
        target: ``top1``, ``top3``, an index, a label, ``OUTPUT[i,j,...]``, ``sum(cat; -dog)`` for a
            difference, or an item of the model's task (``person#2``,
            ``box:LEFT,TOP,RIGHT,BOTTOM``, ``tumour@X,Y``, ``mask:FILE``); with a leading ``-`` the
            opposite direction. A function gets the scores (N, K) before softmax (the only output,
            of a model without classes) as a torch tensor, and returns one number per image, (N,).
            A tuple asks for several, one map each. Of several images a list holds one target (or
            tuple) per image, and so does an array or tensor of class indices (N,); of one image a
            list is the same as a tuple. None for the default.
        layer: A tensor name, an index, ``last``, or None for the default; a list for one map per
            layer.
        task: What the outputs mean, where it cannot be found out: ``classifier``, ``detector``,
            ``segmenter``, ``embedding``, ``sequence`` or ``dense``.
        similar_to: The reference photo of an embedding.
        bands: Bands that are drawn of a file that holds more than colours, counted from 1; the
            first three (or the first) when none are named.

    Returns:
        One map per image, method and target.

    Raises:
        InspectorError: A request that cannot be served, or no map that could be drawn.
        UsageError: A list of targets that is shorter or longer than the images.
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
        >>> pair = [photo, "sample_models/images/dog_1.png"]
        >>> report = model.explain(pair, target=["horse", lambda scores: scores[:, 5]])
        >>> [image.explanations[0].attribution.label for image in report]
        ['horse', 'lambda']
    """
    return Report.of(
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


def explain_each(
    opened: Opened,
    images: ImageSource | Iterable[ImageSource],
    methods: Methods | None = None,
    *,
    target: Targets | None = None,
    layer: Layers = None,
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
    target = plain_targets(target)
    each = _one_per_image(images, target)
    runs = layer_runs(
        opened,
        methods,
        layer,
        lambda methods, layer: ExplainRun(
            opened,
            methods,
            None if each is not None else target,
            layer,
            progress,
            task=task,
            similar_to=similar_to,
            each=each,
        ),
    )
    alone = not opened.batches or any(run.alone for run in runs)
    batch: list[PhotoInput] = []
    places: list[int] = []
    place = -1

    def read(source: ImageSource) -> PhotoInput | ImageRefused:
        try:
            photo = opened.photo(source, bands)
        except ImageRefused as error:
            return error
        return (photo, *opened.preprocessing.preprocess.apply(photo))

    read_ahead = prefetched(
        sources, read, ahead=BATCH, workers=max(1, cores() // 2), size=_bytes_of
    )
    for place, found in enumerate(read_ahead):
        if each is not None and place >= len(each):
            raise _other_count(len(each), f"more than {place}")
        if isinstance(found, ImageRefused):
            yield from merged(runs, batch, places)
            batch, places = [], []
            yield found
            continue
        if batch and batch[0][1].shape != found[1].shape:  # signals of another length
            yield from merged(runs, batch, places)
            batch, places = [], []
        batch.append(found)
        places.append(place)
        if len(batch) == (1 if alone else BATCH):
            yield from merged(runs, batch, places)
            batch, places = [], []
    yield from merged(runs, batch, places)
    if each is not None and place + 1 < len(each):
        raise _other_count(len(each), place + 1)


def _bytes_of(found: PhotoInput | ImageRefused) -> int:
    return 0 if isinstance(found, ImageRefused) else found[0].pixels.nbytes + found[1].nbytes


def _one_per_image(
    images: ImageSource | Iterable[ImageSource], target: Targets | None
) -> list[Targets] | None:
    """The targets of several images one by one; None where all have the same.

    Raises:
        UsageError: They are more or fewer than the images, where those are counted already.
    """
    if not isinstance(target, list) or is_one_image(images) or not target:
        return None
    if isinstance(images, Sized) and len(images) != len(target):
        raise _other_count(len(target), len(images))
    return target


def _other_count(targets: int, images: int | str) -> UsageError:
    return UsageError(
        f"{targets} targets for {images} images",
        hint="a list holds one target per image; a tuple, ('cat', 'dog'), asks for several of each",
    )

"""One file run in several ways: execution providers, threads, optimisations, float16."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from converters import onnx_file
from converters.work_folder import work_folder
from inspector.compare.comparison import compare
from inspector.compare.result import Comparison
from inspector.engines.execution import Execution, parse_executions
from inspector.errors import ModelRefused
from inspector.explain import Explainer, load
from inspector.photos.photo import ImageSource, image_sources
from inspector.printable import clean_text
from inspector.surgery.half import half
from inspector.whole_file import write_whole

__all__ = ["compare_executions", "required_executions"]


def compare_executions(
    model: str | Path | Explainer,
    on: str | Sequence[Execution],
    images: ImageSource | Iterable[ImageSource],
    methods: str | Sequence[str] | None = None,
    **options: Any,
) -> tuple[Comparison, ...]:
    """Compare one file with itself, run in other ways.

    Args:
        model: The file, or a network that ``inspector.load`` opened.
        on: The ways, the reference first: ``cpu,cuda``; see ``inspector.engines.execution``.
        images: As for ``compare``.
        methods: As for ``compare``.
        **options: As for ``compare``.

    Returns:
        A comparison with the first for each of the others, in their order.

    Raises:
        UsageError: A way that cannot be read, or that this installation lacks; nothing was done.
        InspectorError: As ``compare``.

    Example:
        >>> from inspector.compare import compare_executions
        >>> (found,) = compare_executions(
        ...     "sample_models/zfnet.onnx",
        ...     "cpu,cpu+plain",
        ...     "sample_models/images/horse_1.png",
        ... )
        >>> found.moved, found.flips
        (False, ())
    """
    ways = required_executions(on) if isinstance(on, str) else tuple(on)
    opened = model if isinstance(model, Explainer) else load(model)
    sources = list(image_sources(images))
    found = []
    with _opened_by(opened, ways) as (reference, *others):
        for other, way in zip(others, ways[1:], strict=True):
            one = compare(reference, other, sources, methods, **options)
            found.append(replace(one, way=way.text) if len(others) > 1 else one)
    return tuple(found)


def required_executions(text: str) -> tuple[Execution, ...]:
    """Ways to run a file, of which this installation has all.

    Raises:
        UsageError: One cannot be read, or this installation lacks it.
    """
    ways = parse_executions(text)
    for way in ways:
        way.require()
    return ways


@contextmanager
def _opened_by(model: Explainer, ways: Sequence[Execution]) -> Iterator[list[Explainer]]:
    """The model once per way; float16 copies are gone at the end."""
    with ExitStack() as stack:
        copy: onnx_file.OnnxFile | None = None
        if any(way.half for way in ways):
            folder = stack.enter_context(work_folder(Path(tempfile.gettempdir())))
            copy = onnx_file.read(_float16(model, folder), weights_apart=True)
        yield [model.run_by(way, copy if way.half else None) for way in ways]


def _float16(model: Explainer, folder: Path) -> Path:
    """A copy of the model's file in float16.

    Raises:
        ModelRefused: It cannot be converted.
    """
    hint = "convert it yourself, and name both files: inspector compare A B IMAGE..."
    where = model.path.name
    if model.file.external:
        reason = "its weights lie in files of their own, which are not converted to float16 here"
        raise ModelRefused(reason, where=where, hint=hint)
    try:
        found = half(model.file.whole_model())
    except ValueError as error:
        reason = clean_text(str(error), limit=200)
        raise ModelRefused(
            f"cannot be converted to float16 ({reason})", where=where, hint=hint
        ) from None
    path = folder / f"{model.path.stem}.float16.onnx"
    write_whole(path, found.SerializeToString())
    return path

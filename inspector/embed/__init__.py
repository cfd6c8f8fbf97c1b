"""A model file whose extra output is the heatmap of its own answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.embed.checks import base_of, checks_of
from inspector.embed.plan import METHODS
from inspector.embed.runtimes import RUNTIMES
from inspector.embed.written import written
from inspector.opened import Opened
from inspector.whole_file import check_file, require_new, write_whole

__all__ = ["METHODS", "RUNTIMES", "Embedded", "base_of", "checks_of", "embed"]

_HINT = "name another file with -o"


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        path: The file.
        facts: What stands in its metadata.
        before: Bytes of the model.
        after: Bytes of the file.
        left_over: Operators of the file that the runtime in mind lacks.
    """

    path: Path
    facts: Mapping[str, Any]
    before: int
    after: int
    left_over: tuple[str, ...] = ()


def embed(
    opened: Opened,
    path: str | Path,
    method: str = "grad-cam",
    *,
    target: str | int = "top1",
    layer: str | int | None = None,
    size: str = "input",
    class_input: bool = False,
    runtime: str = "",
) -> Embedded:
    """Write a model whose last output ``heatmap`` (N, H, W) is the map of its own answer.

    Raw values, as the library saves them: of a method through a layer stretched to the input
    linearly, of one at the input reduced over the channels. The other outputs are not changed.
    Inputs that are not the image are constants in the file, with the values that they were fed.

    Args:
        opened: The opened model.
        path: The file to write; nothing may be there.
        method: One of ``METHODS``, with options as ``guided-backprop:extension=signal-first``.
        target: ``top1``, or one class, label or element for all images.
        layer: The layer, as ``inspector layers`` names it; the default one when None.
        size: ``input``, or ``layer`` for a map of the layer's own size.
        class_input: Add an input ``heatmap_class``, int32, which may be left out; a class index
            per image or one for all, -1 for the best class.
        runtime: A runtime of ``RUNTIMES``, whose missing operators are avoided.

    Returns:
        What was written.

    Raises:
        MethodRefused: The method cannot be written into this model.
        UnsupportedOperator: An operator on the gradient's path has no rule.
        UsageError: The file exists, or an argument cannot be read.

    Example:
        >>> import inspector
        >>> from inspector.embed import embed
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> embed(model, "resnet20_grad_cam.onnx").facts["method"]
        'grad-cam'
    """
    path = Path(path)
    check_file(path)
    require_new(path, _HINT)
    found = written(
        opened,
        method,
        target=target,
        layer=layer,
        size=size,
        class_input=class_input,
        runtime=runtime,
    )
    require_new(path, _HINT)  # another run may have been faster
    write_whole(path, found.data)
    before = opened.model.file.bytes_written
    return Embedded(path, found.facts, before, len(found.data), found.left_over)

"""A ``torch.nn.Module`` in memory to an ONNX file: what every source that ends as one shares.

module                   ->  the file, with a free batch axis where the module leaves it free
module                   ->  a function on arrays: the source's own answer, for the comparison
"""

import contextlib
import importlib.metadata
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from converters.errors import ConversionFailed, said_by
from converters.source import Export, InputSpec, Options, versions
from converters.to_onnx.pytorch.export import export_module

__all__ = [
    "declare_torchvision",
    "example_of",
    "export",
    "in_float32",
    "module_to_file",
    "names_of",
    "results_of",
    "runner",
    "specs_of",
    "tensors_of",
]

Array = NDArray[Any]

_NOT_FLOAT32 = frozenset((torch.float16, torch.bfloat16, torch.float64))
"""Types that ONNX Runtime has no convolutions of on a processor, or computes by casts."""


def module_to_file(
    module: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    folder: Path,
    *,
    opset: int | None = None,
) -> Path:
    """A module in this process as a checked ONNX file; its class names the file.

    The batch axis is free where the module leaves it free, else of the example's length.

    Args:
        module: Takes and returns tensors (or tuples, lists, mappings of them).
        example: Its arguments, as one would call it; (N, ...) each.
        folder: Where the file is written; it exists.
        opset: Version of the default operator set; the exporter's choice when None.

    Raises:
        ConversionFailed: The module cannot be exported, or the file computes something else.
    """
    path = folder / f"{type(module).__name__}.onnx"
    arguments = example if isinstance(example, tuple) else (example,)
    _write(module, arguments, path, names_of(len(arguments)), "logits", opset=opset, dynamic=True)
    return path


def export(
    module: torch.nn.Module,
    draft: Path,
    shapes: Sequence[tuple[int | None, ...]],
    options: Options,
    *,
    where: str,
    input_names: Sequence[str] = (),
    output_name: str | Sequence[str] = "logits",
    packages: Sequence[str] = (),
    labels: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Export:
    """Write a module of floating-point inputs as a file, and answer for it afterwards.

    Args:
        module: Takes and returns tensors (or tuples, lists, mappings of them).
        draft: The file to write.
        shapes: Of its inputs, (N, ...) each; only the batch may be free.
        options: The user's; of them operator set and ``dynamic_batch`` are used.
        where: The source, for messages.
        input_names: Of its inputs.
        output_name: Of its result, or of the first few results.
        packages: Distributions that took part beside torch, onnx and onnxscript.
        labels: K class names.
        preprocess: What to do with a photo, in the keys of ``PREPROCESS_KEYS``.
        notes: What is known about the result already.

    Raises:
        ConversionFailed: The module does not run on such inputs, or cannot be exported.
    """
    said = list(notes)
    module.requires_grad_(requires_grad=False).eval()
    said += in_float32(module)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    names = list(input_names) or names_of(len(shapes))
    specs = specs_of(shapes, names, str(dtype).removeprefix("torch."), where)
    arguments = example_of(specs)
    outputs = results_of(module, arguments, where)
    _check_labels(outputs, labels, where)
    free = options.dynamic_batch and all(spec.shape[0] is None for spec in specs)
    reason = _write(module, arguments, draft, names, output_name, opset=options.opset, dynamic=free)
    if reason:
        said.append(f"the batch is fixed at {len(arguments[0])}: {reason}")
    if reason or not free:
        specs = [
            InputSpec(spec.name, tuple(a.shape), spec.dtype)
            for spec, a in zip(specs, arguments, strict=True)
        ]
    return Export(
        inputs=tuple(specs),
        run=runner(module),
        versions=versions("torch", "onnx", "onnxscript", *packages),
        labels=tuple(labels),
        preprocess=dict(preprocess or {}),
        notes=tuple(said),
    )


def in_float32(module: torch.nn.Module) -> list[str]:
    """Turn a module's weights of 16 and of 64 bits into float32, in place; notes on that."""
    found = sorted({str(p.dtype) for p in module.parameters() if p.dtype in _NOT_FLOAT32})
    if not found:
        return []
    module.float()
    named = ", ".join(kind.removeprefix("torch.") for kind in found)
    return [f"its weights of {named} were turned into float32"]


def specs_of(
    shapes: Sequence[tuple[int | None, ...]], names: Sequence[str], dtype: str, where: str
) -> list[InputSpec]:
    """Inputs of so many axes, of which only the batch may be free.

    Raises:
        ConversionFailed: Another axis is free, or there are no axes or no inputs.
    """
    if not shapes or any(not shape or None in shape[1:] for shape in shapes):
        raise ConversionFailed(
            "only the batch may be free in an input's shape",
            where=where,
            hint="give the shape, batch first, as in Nx3x224x224",
        )
    return [InputSpec(n, tuple(s), dtype) for n, s in zip(names, shapes, strict=True)]


def names_of(count: int) -> list[str]:
    """Names for so many inputs."""
    return ["input"] if count == 1 else [f"input_{index}" for index in range(count)]


def _write(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    path: Path,
    names: Sequence[str],
    output_name: str | Sequence[str],
    *,
    opset: int | None,
    dynamic: bool,
) -> str:
    """Write the file; why the batch could not be left free, empty when it was or was not asked."""
    reason = ""
    with _plain_attention():
        for free in (True, False) if dynamic else (False,):
            try:
                export_module(
                    module,
                    arguments,
                    path,
                    opset=opset,
                    dynamic_batch=free,
                    input_name=names,
                    output_name=output_name,
                )
            except ConversionFailed as error:
                if not free:
                    raise
                reason = error.what
            else:
                return "" if free == dynamic else reason
    raise AssertionError  # the last try returns or raises


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Without PyTorch's fused encoder layer, which no exporter can look into."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(value=fused)


def example_of(specs: Sequence[InputSpec], batch: int = 1) -> tuple[torch.Tensor, ...]:
    """Normally distributed values for every input."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(
            [batch if n is None else n for n in spec.shape],
            generator=generator,
            dtype=getattr(torch, spec.dtype),
        )
        for spec in specs
    )


def results_of(
    module: Callable[..., object], arguments: Sequence[torch.Tensor], where: str
) -> list[torch.Tensor]:
    """The tensors that a module makes of its arguments.

    Raises:
        ConversionFailed: It does not run on them, or makes none.
    """
    try:
        with torch.no_grad():
            found = list(tensors_of(module(*arguments)))
    except Exception as error:  # noqa: BLE001 - modules raise anything
        shapes = ", ".join("x".join(map(str, a.shape)) for a in arguments)
        raise ConversionFailed(
            f"does not run on an input of {shapes} ({said_by(error)})",
            where=where,
            hint="give the shape that it takes, batch first (--input)",
        ) from None
    if not found:
        raise ConversionFailed("computes no tensor", where=where)
    return found


def _check_labels(outputs: Sequence[torch.Tensor], labels: Sequence[str], where: str) -> None:
    if labels and outputs[0].ndim > 1 and outputs[0].shape[1] != len(labels):
        raise ConversionFailed(
            f"names {len(labels)} classes and computes {outputs[0].shape[1]} scores", where=where
        )


def runner(module: Callable[..., object]) -> Callable[[Sequence[Array]], list[Array]]:
    """The module on arrays, as ``Export.run`` wants it."""

    def run(arrays: Sequence[Array]) -> list[Array]:
        with torch.no_grad():
            result = module(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))
        return [_array(tensor) for tensor in tensors_of(result)]

    return run


def _array(tensor: torch.Tensor) -> Array:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def tensors_of(result: object) -> Iterator[torch.Tensor]:
    """The tensors in a result, in the order in which the exporter lists them."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, Mapping):
        yield from (t for item in result.values() for t in tensors_of(item))
    elif isinstance(result, Iterable) and not isinstance(result, str):
        yield from (t for item in result for t in tensors_of(item))


_DECLARED: list[Any] = []


def declare_torchvision() -> str:
    """Make torchvision importable where its compiled operators do not fit the installed torch.

    Importing torchvision registers shape functions for its operators, which fails when they were
    never declared.  Networks that classify use none of them (they are detection's: nms,
    roi_align, deform_conv2d); so they are declared without being there, and whatever needs one
    fails when it runs.

    Returns:
        A note on that; empty when torchvision is whole, or not installed.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return ""
    folder = Path(found.origin).parent
    note = "torchvision's compiled operators do not fit this torch and were left out"
    if _DECLARED or "torchvision" in sys.modules:
        return note if _DECLARED else ""
    for compiled in (*folder.glob("_C*.so"), *folder.glob("_C*.pyd")):
        with contextlib.suppress(OSError, RuntimeError):
            torch.ops.load_library(str(compiled))  # type: ignore[no-untyped-call]
            return ""
    text = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
    library: Any = torch.library.Library(  # type: ignore[no-untyped-call]
        "torchvision", "DEF"
    )
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in sorted(set(re.findall(r"torchvision::(\w+)", text)) - {"nms"}):
        library.define(f"{name}() -> ()")
    _DECLARED.append(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the image codecs are compiled too, and not needed
        importlib.import_module("torchvision")
    return note

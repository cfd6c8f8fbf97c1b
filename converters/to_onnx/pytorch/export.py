"""PyTorch to ONNX: one ``torch.nn.Module`` becomes one file, which is then held against it.

The export itself is PyTorch's own (``torch.export`` and onnxscript).  What is added here is what
a file that travels needs: a free batch axis under the name ``batch``, labels and preprocessing in
the metadata, no traces of the machine it was made on, the same bytes for the same module, and a
comparison with the module before anything stands under the name that was asked for.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import torch
from numpy.typing import NDArray

from converters.errors import ConversionFailed, said_by
from converters.parity import Parity, compare
from converters.source import LABELS, PREPROCESS, PREPROCESS_KEYS

__all__ = ["Exported", "export_module", "export_program", "export_scripted", "quiet"]

# What the exporter writes on nodes and what of it is worth keeping: where in the module a node
# comes from.  The rest names source files of this machine or repeats the graph.
_KEPT_ON_NODES = frozenset({"namespace", "pkg.torch.onnx.name_scopes"})
_EMBED_LIMIT = 2**31 - 2**20  # protobuf's 2 GiB, less room for the graph around the weights
_FIXED_BATCH = "dynamic_batch=False helps where the batch size is written into the module"


@dataclass(frozen=True)
class Exported:
    """What was written, and how well it agrees with the module.

    Attributes:
        path: The ONNX file.
        sha256: Hash of that file (external data not included).
        opset: Version of the default operator set.
        worst: Largest difference between module and file, relative to the output's peak.
        tolerance: The difference that would have been refused.
        batches: The batch sizes that were compared.
    """

    path: Path
    sha256: str
    opset: int
    worst: float
    tolerance: float
    batches: tuple[int, ...]


def export_module(
    module: torch.nn.Module,
    example: torch.Tensor | tuple[torch.Tensor, ...],
    output: Path,
    *,
    opset: int | None = None,
    dynamic_batch: bool = True,
    input_name: str | Sequence[str] = "input",
    output_name: str | Sequence[str] = "logits",
    labels: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = 1e-4,
    embed_limit: int = _EMBED_LIMIT,
) -> Exported:
    """Write a module, in evaluation mode, as an ONNX file, and check that it computes the same.

    The same module gives the same bytes.  The file appears under its name whole and checked,
    or not at all.  The module is given back in the mode (training or evaluation) it came in.

    Args:
        module: Takes and returns tensors (or tuples, lists, mappings of them).
        example: Its arguments, as one would call it; (N, ...) each.
        output: The file to write; its folder exists.
        opset: Version of the default operator set; the exporter's choice when None.
        dynamic_batch: Leave the first axis of every argument free, under the name ``batch``.
        input_name: Name of the argument, or one name for each.
        output_name: Name of the result, or of the first few results.
        labels: K class names, in the order of the scores.
        preprocess: What to do with a photo, with the keys of ``PREPROCESS_KEYS``.
        metadata: Further entries for the file's metadata.
        tolerance: Largest difference that is accepted, relative to the output's peak.
        embed_limit: Bytes of weights up to which they stand in the file itself; above it they go
            to ``NAME.onnx.data`` beside it.

    Raises:
        ConversionFailed: The module cannot be exported, labels or preprocessing do not fit it,
            or the file computes something else than the module.
    """
    where = type(module).__name__
    arguments = example if isinstance(example, tuple) else (example,)
    entries = _metadata(labels, preprocess, metadata or {}, where)
    with _evaluating(module), quiet():
        names = {"input_names": _listed(input_name), "output_names": _listed(output_name)}
        model = _export(module, arguments, names, opset, dynamic_batch=dynamic_batch)
        _strip(model)
        model.metadata_props.update(entries)
        _check_labels(model, labels, where)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
            draft = Path(folder) / output.name
            data = _write(model, draft, embed_limit)
            batches = (len(arguments[0]), 1, 3) if dynamic_batch else (len(arguments[0]),)
            parities = [_compare(module, draft, arguments, n, tolerance) for n in batches]
            for n, parity in zip(batches, parities, strict=True):
                if not parity.holds:
                    raise ConversionFailed(
                        f"the ONNX file computes something else than the module: {parity} "
                        f"(batch of {n})",
                        where=where,
                        hint="a module must depend on its arguments alone, not on chance, on "
                        "time, or on values read while it was traced",
                    )
            sha256 = hashlib.sha256(draft.read_bytes()).hexdigest()
            if data is not None:
                data.replace(output.with_name(data.name))
            draft.replace(output)
    worst = max(parity.worst.worst for parity in parities if parity.worst)
    version = model.opset_imports[""]
    return Exported(output, sha256, version, worst, tolerance, tuple(dict.fromkeys(batches)))


def export_program(
    program: torch.export.ExportedProgram,
    output: Path,
    *,
    opset: int | None = None,
    input_names: Sequence[str] = (),
    output_name: str = "logits",
    batch: str = "",
    embed_limit: int = _EMBED_LIMIT,
) -> None:
    """Write a program that was traced already; it is not compared with anything here.

    Args:
        program: As ``torch.export`` made it, in evaluation mode.
        output: The file to write; its folder exists.
        opset: Version of the default operator set; the exporter's choice when None.
        input_names: Names of its inputs; those of the program when there are none.
        output_name: Name of its first result.
        batch: The program's symbol for a free batch, which is called ``batch`` in the file.
        embed_limit: As for ``export_module``.

    Raises:
        ConversionFailed: PyTorch cannot export it.
    """
    names = {"input_names": list(input_names), "output_names": [output_name]}
    with quiet():
        model = _onnx_of(program, (), names, opset, shapes=None, where="program")
        _strip(model)
        _rename_axis(model, batch)
        _write(model, output, embed_limit)


def export_scripted(
    module: torch.nn.Module,
    example: Sequence[torch.Tensor],
    output: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int | None = None,
    dynamic_batch: bool = True,
    embed_limit: int = _EMBED_LIMIT,
) -> None:
    """Write a TorchScript module; it is not compared with anything here.

    PyTorch's exporter of today takes no TorchScript; its predecessor does, and names nodes by
    their path in the module.

    Args:
        module: Scripted, traced or frozen, in evaluation mode.
        example: Its arguments, (N, ...) each.
        output: The file to write; its folder exists.
        input_names: A name for each argument.
        output_names: A name for each result.
        opset: Version of the default operator set; the exporter's choice when None.
        dynamic_batch: Leave the first axis of arguments and results free.
        embed_limit: As for ``export_module``.

    Raises:
        ConversionFailed: PyTorch cannot export it.
    """
    axes = {name: {0: "batch"} for name in (*input_names, *output_names)} if dynamic_batch else None
    with quiet():
        try:
            with torch.no_grad(), tempfile.TemporaryDirectory(dir=output.parent) as folder:
                path = Path(folder) / "scripted.onnx"
                torch.onnx.export(
                    module,
                    tuple(example),
                    str(path),
                    dynamo=False,
                    opset_version=opset,
                    input_names=list(input_names),
                    output_names=list(output_names),
                    dynamic_axes=axes,
                )
                model = onnx_ir.load(path)
                onnx_ir.external_data.load_to_model(model)
                _strip(model)
                _write(model, output, embed_limit)
        except Exception as error:
            raise ConversionFailed(
                f"PyTorch cannot export it: {said_by(error)}", where=type(module).__name__
            ) from error


def _rename_axis(model: onnx_ir.Model, symbol: str) -> None:
    """Call the batch by its name, wherever it is an axis of its own."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        values = [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]
        for value in values:
            if symbol and value.shape is not None:
                value.shape = onnx_ir.Shape(
                    "batch" if str(getattr(axis, "value", "")) == symbol else axis
                    for axis in value.shape
                )


def _metadata(
    labels: Sequence[str] | None,
    preprocess: Mapping[str, Any] | None,
    metadata: Mapping[str, str],
    where: str,
) -> dict[str, str]:
    """The file's metadata entries, in a fixed order."""
    entries = dict(metadata)
    if labels is not None:
        entries[LABELS] = json.dumps(list(labels), ensure_ascii=False)
    if preprocess is not None:
        unknown = sorted(set(preprocess) - set(PREPROCESS_KEYS))
        if unknown:
            raise ConversionFailed(
                f"unknown preprocessing keys: {', '.join(unknown)}",
                where=where,
                hint=f"known are {', '.join(PREPROCESS_KEYS)}",
            )
        ordered = {key: preprocess[key] for key in PREPROCESS_KEYS if key in preprocess}
        entries[PREPROCESS] = json.dumps(ordered)
    return dict(sorted(entries.items()))


def _check_labels(model: onnx_ir.Model, labels: Sequence[str] | None, where: str) -> None:
    """Refuse a list of labels that is longer or shorter than the first output's last axis."""
    shape = model.graph.outputs[0].shape
    classes = shape[-1] if shape else None
    if labels is not None and isinstance(classes, int) and classes != len(labels):
        raise ConversionFailed(f"{len(labels)} labels for {classes} classes", where=where)


def _export(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    names: Mapping[str, list[str]],
    opset: int | None,
    *,
    dynamic_batch: bool,
) -> onnx_ir.Model:
    """Run PyTorch's exporter; arguments (N, ...) each."""
    where, shapes = type(module).__name__, None
    if dynamic_batch:
        batch = torch.export.Dim("batch")
        shapes = tuple({0: batch} for _ in arguments)
        if len(arguments[0]) == 1:  # torch.export takes an axis of one for a constant
            arguments = tuple(torch.cat([argument, argument]) for argument in arguments)
    hint = _FIXED_BATCH if dynamic_batch else ""
    return _onnx_of(module, arguments, names, opset, shapes=shapes, where=where, hint=hint)


def _onnx_of(
    module: torch.nn.Module | torch.export.ExportedProgram,
    arguments: tuple[torch.Tensor, ...],
    names: Mapping[str, list[str]],
    opset: int | None,
    *,
    shapes: tuple[dict[int, Any], ...] | None,
    where: str,
    hint: str = "",
) -> onnx_ir.Model:
    """Run PyTorch's exporter on a module with its arguments, or on a program without."""
    try:
        with torch.no_grad():
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=names["input_names"],
                output_names=names["output_names"],
                dynamic_shapes=shapes,
            )
    except ImportError as error:
        raise ConversionFailed(
            f"PyTorch's exporter lacks a package: {error}",
            where=where,
            hint="pip install onnx-inspector[pytorch]",
        ) from error
    except Exception as error:
        raise ConversionFailed(
            f"PyTorch cannot export it: {said_by(error)}", where=where, hint=hint
        ) from error
    if program is None:
        raise ConversionFailed("PyTorch's exporter returned nothing", where=where)
    model: onnx_ir.Model = program.model
    if opset is not None and model.opset_imports[""] != opset:
        raise ConversionFailed(
            f"cannot be written in opset {opset}, only in {model.opset_imports['']}", where=where
        )
    return model


def _strip(model: onnx_ir.Model) -> None:
    """Remove what names this machine or this run: stack traces, paths, local build versions."""
    model.producer_version = (model.producer_version or "").partition("+")[0]
    model.metadata_props.clear()
    values: list[onnx_ir.Value] = []
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        values += [*graph.inputs, *graph.initializers.values()]
        for node in graph.all_nodes():
            node.doc_string = None
            for key in set(node.metadata_props) - _KEPT_ON_NODES:
                del node.metadata_props[key]
            values += node.outputs
    for value in values:
        value.metadata_props.clear()
        if value.const_value is not None:
            value.const_value.metadata_props.clear()


def _write(model: onnx_ir.Model, draft: Path, embed_limit: int) -> Path | None:
    """Write the model to disk for good; the file of its external data, where it needs one."""
    weights = (value.const_value for value in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in weights if tensor is not None)
    if size <= embed_limit:
        proto = onnx_ir.serde.serialize_model(model)
        draft.write_bytes(proto.SerializeToString(deterministic=True))
        data = None
    else:
        data = draft.with_name(draft.name + ".data")
        onnx_ir.save(model, draft, external_data=data.name)
    for path in (draft, data):
        if path is not None:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    return data


def _compare(
    module: torch.nn.Module,
    path: Path,
    arguments: tuple[torch.Tensor, ...],
    n: int,
    tolerance: float,
) -> Parity:
    """The module against the file on random arguments, a batch of ``n``."""
    generator = torch.Generator().manual_seed(n)
    inputs = [_random(argument, n, generator) for argument in arguments]
    pairs = zip(inputs, arguments, strict=True)
    try:
        with torch.inference_mode():
            result = module(*(x.to(argument.device) for x, argument in pairs))
    except Exception as error:
        raise ConversionFailed(
            f"the module does not run on a batch of {n}: {said_by(error)}",
            where=type(module).__name__,
            hint=_FIXED_BATCH,
        ) from error
    expected = [tensor.cpu().numpy() for tensor in _tensors(result)]
    got = _onnxruntime(path, [tensor.numpy() for tensor in inputs])
    # The exporter keeps the order of the results.
    reference = {f"output {i}": array for i, array in enumerate(expected)}
    other = {f"output {i}": array for i, array in enumerate(got)}
    return compare(reference, other, list(reference | other), tolerance=tolerance)


def _random(argument: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """Normally distributed values in place of floats; integers are taken from the example."""
    shape = (n, *argument.shape[1:])
    if argument.is_floating_point():
        return torch.randn(shape, generator=generator).to(argument.dtype)
    repeats = -(-n // len(argument))
    return torch.cat([argument.cpu()] * repeats)[:n]


def _onnxruntime(path: Path, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """All outputs of a file, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters comes as an exception
    try:
        session = onnxruntime.InferenceSession(
            path, sess_options=options, providers=["CPUExecutionProvider"]
        )
        names = [entry.name for entry in session.get_inputs()]
        outputs = session.run(None, dict(zip(names, inputs, strict=True)))
    except Exception as error:
        raise ConversionFailed(
            f"onnxruntime does not run the exported file: {said_by(error)}", where=path.name
        ) from error
    return [np.asarray(array) for array in outputs]


def _tensors(result: object) -> Iterator[torch.Tensor]:
    """The tensors in a module's result, in the order in which the exporter lists them."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, Mapping):
        yield from (t for item in result.values() for t in _tensors(item))
    elif isinstance(result, Iterable):
        yield from (t for item in result for t in _tensors(item))


def _listed(names: str | Sequence[str]) -> list[str]:
    """One name as a list of one."""
    return [names] if isinstance(names, str) else list(names)


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every part's own mode afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what an exporter prints, warns and logs away from the program's own output."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

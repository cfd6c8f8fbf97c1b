"""PaddlePaddle: a saved program and its weights, through paddle2onnx.

name.json     + name.pdiparams   what paddle.jit.save writes from PaddlePaddle 3 on
name.pdmodel  + name.pdiparams   what it wrote before
folder/                          with one such pair in it, as PaddleOCR and PaddleDetection export
.pdparams                        weights alone, in a pickle: refused unread

Programs of PaddlePaddle 2 are converted by versions of their time, or by today's where these do.
paddle2onnx pins an onnx with known holes and asks for a package that installs others while it runs;
it works without either.  ``--python`` names an environment put together so.
"""

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.errors import ConversionFailed, said_by
from converters.regular_file import first_bytes
from converters.source import Export, Options, apart, as_path, versions

__all__ = ["EXTRA", "TITLE", "convert", "parts", "recognises"]

TITLE, EXTRA = "PaddlePaddle", ""

Array = NDArray[Any]
Run = Callable[[Sequence[Array]], list[Array]]

OPSET = 17
"""The newest that paddle2onnx writes all of its operators in."""

_COMMANDS = (
    "pip install paddlepaddle",
    "pip install --no-deps paddle2onnx onnx ml_dtypes packaging",
)
_RUNS = "its graph can read and write files when it is run, and it is run to compare the result"
_OLD = (
    "programs of PaddlePaddle 2 need its own versions: python3.11 -m venv apart; apart/bin/pip "
    "install paddlepaddle==2.6.2 'numpy<2' setuptools; apart/bin/pip install --no-deps "
    "paddle2onnx==1.3.1 onnx ml_dtypes packaging typing_extensions; then --python apart/bin/python"
)
_LACKS = "an operator that it lacks, or a program of another version of PaddlePaddle"
_SHAPED = frozenset({"ConstantOfShape", "Expand", "Reshape"})
_ERROR = re.compile(r"\w+Error: |\(Unimplemented\)|\(NotFound\)|\(InvalidArgument\)")
_MARK = b'"magic":"pir"'
_HEAD = 4096
_MOST_PRINTED = 1 << 20
_WEIGHTS = ".pdiparams"


def recognises(source: str) -> str | None:
    """Whether a path is a saved program; comparing it runs its graph.

    Raises:
        ConversionFailed: Weights without their program, or a program without its weights.
    """
    path = as_path(source)
    if path is None:
        return None
    if path.suffix in (".pdparams", ".pdopt"):
        raise ConversionFailed(
            "holds weights, in a pickle, and not how to compute with them",
            where=source,
            hint="in the program that has the network: paddle.jit.save(layer, 'name', "
            "input_spec=[paddle.static.InputSpec([None, 3, 224, 224])])",
        )
    program = _program(path)
    if program is None:
        if path.suffix == _WEIGHTS:
            raise ConversionFailed(
                "the program of these weights, .json or .pdmodel, does not lie beside them",
                where=source,
            )
        return None
    if not program.with_suffix(_WEIGHTS).is_file():
        raise ConversionFailed(
            f"its weights, {ascii(program.with_suffix(_WEIGHTS).name)[1:-1]}, do not lie beside it",
            where=source,
        )
    return _RUNS


def parts(source: str) -> tuple[str, ...]:
    """The program and its weights, wherever they lie; see ``converters.source``."""
    program = _program(Path(source))
    if program is None:
        return (source,)
    return str(program), str(program.with_suffix(_WEIGHTS))


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write ``draft`` from a saved program and its weights.

    Args:
        source: The program, its weights, or their folder.
        draft: The ONNX file to write.
        options: ``inputs`` fixes sizes that the program leaves free; ``opset``; ``dynamic_batch``.

    Raises:
        ConversionFailed: Paddle or paddle2onnx is not installed, or they do not take the program.
    """
    program = _program(Path(source))
    if program is None:
        raise ConversionFailed("is not a program of PaddlePaddle", where=source)
    try:
        import onnx  # noqa: F401 - the child has it, or says so
        import paddle  # noqa: F401 - the framework, in the child alone
        import paddle2onnx  # noqa: F401 - as above

        from converters import exported
    except ImportError as error:
        raise apart(error, TITLE, _COMMANDS, program.name) from None
    proto = _proto(program, options)
    notes = _shaped(proto, options, program.name)
    exported.tidy(proto)
    exported.write(proto, draft)
    load = _executed if program.suffix == ".pdmodel" else _layer
    try:
        run = load(program)
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        raise ConversionFailed(
            f"PaddlePaddle does not load it ({said_by(error)})", where=program.name
        ) from None
    return Export(
        inputs=exported.specs(proto),
        run=run,
        notes=notes,
        versions=versions("paddlepaddle", "paddlepaddle-gpu", "paddle2onnx", "onnx"),
    )


def _program(path: Path) -> Path | None:
    """The file of the program that a path means; None when it means none."""
    if path.is_dir():
        pairs = [p for p in sorted(path.glob(f"*{_WEIGHTS}"))[:2] if _beside(p) is not None]
        return _beside(pairs[0]) if len(pairs) == 1 else None
    if path.suffix == _WEIGHTS:
        return _beside(path)
    return path if _holds(path) else None


def _beside(weights: Path) -> Path | None:
    """The program of these weights; the newer format where there are both."""
    candidates = (weights.with_suffix(suffix) for suffix in (".json", ".pdmodel"))
    return next((path for path in candidates if _holds(path)), None)


def _holds(path: Path) -> bool:
    """Whether a file is a program: JSON with Paddle's mark, or a ProgramDesc of protobuf."""
    if path.suffix not in (".json", ".pdmodel"):
        return False
    head = first_bytes(path, _HEAD)
    return head[:1] == b"\x0a" if path.suffix == ".pdmodel" else _MARK in b"".join(head.split())


def _proto(program: Path, options: Options) -> Any:
    """What paddle2onnx writes, read back.

    Raises:
        ConversionFailed: It cannot write this program.
    """
    import onnx
    import paddle2onnx

    given: dict[str, Any] = {
        "opset_version": options.opset or OPSET,
        "enable_onnx_checker": False,
        "verbose": False,
    }
    if "optimize_tool" in inspect.signature(paddle2onnx.export).parameters:  # from 2.0 on
        given["optimize_tool"] = "None"
    data = b""
    try:
        with _printed() as lines:
            data = paddle2onnx.export(
                str(program), str(program.with_suffix(_WEIGHTS)), None, **given
            )
        reason = ""
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it leaves by exit
        reason = "" if isinstance(error, SystemExit) else said_by(error)
    printed = _complaint(lines)
    if reason or not isinstance(data, bytes) or not data:
        raise ConversionFailed(
            f"paddle2onnx does not convert it ({printed or reason or 'it keeps to itself why'})",
            where=program.name,
            hint=_OLD if program.suffix == ".pdmodel" else _LACKS,
        )
    proto = onnx.load_from_string(data)
    _flat_shapes(proto)
    return proto


@contextlib.contextmanager
def _printed() -> Iterator[list[str]]:
    """What is printed inside, by native code too, as lines when it is over.

    Standard error of a conversion is a file: what is printed stays there for a crash.
    """
    lines: list[str] = []
    start = 0
    with contextlib.suppress(OSError):
        sys.stderr.flush()
        start = os.fstat(2).st_size
    try:
        yield lines
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):  # a terminal or a pipe
            lines += os.pread(2, _MOST_PRINTED, start).decode("utf-8", "replace").splitlines()


def _complaint(lines: Sequence[str]) -> str:
    """The last line that says what is wrong; empty when none does."""
    marked = [line for line in lines if "[ERROR]" in line or _ERROR.search(line)]
    text = marked[-1].rpartition("[ERROR]")[2] if marked else ""
    return " ".join(text.replace("\x1b[0m", "").split())[:240]


def _flat_shapes(proto: Any) -> None:
    """Make the numbers that a shape is put together of lists of one number each.

    PaddlePaddle 3 reads older programs with numbers of rank 0 where they had lists of one, and
    ONNX joins lists alone.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    shapes = [
        node.input[1] for node in graph.node if node.op_type in _SHAPED and len(node.input) > 1
    ]
    joined = {}
    for name in shapes:
        node = makers.get(name)
        while node is not None and node.op_type in ("Cast", "Identity"):
            node = makers.get(node.input[0])
        if node is not None and node.op_type == "Concat":
            joined[node.output[0]] = node
    flat = "inspector.flat"
    for node in joined.values():
        for place, name in enumerate(list(node.input)):
            given, node.input[place] = name, f"{node.output[0]}.flat.{place}"
            made = helper.make_node("Reshape", [given, flat], [node.input[place]])
            graph.node.insert(list(graph.node).index(node), made)
    if joined:
        graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), flat))


def _layer(program: Path) -> Run:
    """What a program of PaddlePaddle 3 computes."""
    import paddle

    layer = paddle.jit.load(str(program.with_suffix("")))
    layer.eval()

    def run(inputs: Sequence[Array]) -> list[Array]:
        found = layer(*map(paddle.to_tensor, inputs))
        return [np.asarray(t) for t in (found if isinstance(found, list | tuple) else [found])]

    return run


def _executed(program: Path) -> Run:
    """What a program from before PaddlePaddle 3 computes: an executor still reads that format."""
    import paddle

    paddle.enable_static()
    guard = getattr(paddle.pir_utils, "OldIrGuard", contextlib.nullcontext)  # from 3.0 on
    with guard():
        executor = paddle.static.Executor(paddle.CPUPlace())
        loaded, names, results = paddle.static.load_inference_model(
            str(program.with_suffix("")), executor
        )

    def run(inputs: Sequence[Array]) -> list[Array]:
        with guard():
            feed = dict(zip(names, inputs, strict=True))
            return list(executor.run(loaded, feed=feed, fetch_list=results))

    return run


def _shaped(proto: Any, options: Options, where: str) -> tuple[str, ...]:
    """Give the inputs the sizes that the user says; returns notes.

    Raises:
        ConversionFailed: They contradict the program's.
    """
    inputs = proto.graph.input
    del proto.graph.value_info[:]
    if options.inputs and len(options.inputs) != len(inputs):
        raise ConversionFailed(
            f"has {len(inputs)} inputs, and --input gives {len(options.inputs)} shapes", where=where
        )
    for value, wanted in zip(inputs, options.inputs, strict=False):
        dims = value.type.tensor_type.shape.dim
        own = [_size(dim) for dim in dims]
        clash = any(None not in pair and pair[0] != pair[1] for pair in zip(own, wanted))  # noqa: B905 - told below
        if len(wanted) != len(own) or clash:
            said = "x".join("?" if size is None else str(size) for size in own)
            raise ConversionFailed(
                f"input {value.name!a} is {said}, which --input contradicts", where=where
            )
        for dim, size in zip(dims, wanted, strict=True):
            if size is not None:
                dim.dim_value = size
    batches = [
        value.type.tensor_type.shape.dim[0] for value in inputs if value.type.tensor_type.shape.dim
    ]
    if not options.dynamic_batch:
        for dim in batches:
            dim.dim_value = _size(dim) or 1
    fixed = [size for size in map(_size, batches) if size is not None]
    if fixed and options.dynamic_batch and not options.inputs:
        return (f"the batch is fixed at {fixed[0]}: the program was saved so",)
    return ()


def _size(dim: Any) -> int | None:
    """The length of an axis; None where it is free."""
    return dim.dim_value if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0 else None

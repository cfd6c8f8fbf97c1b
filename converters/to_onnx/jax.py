"""JAX and Flax: a function of Python, through jax2onnx.

package.module:function   the function itself, with as many required arguments as ``--input``
                          gives shapes
package.module:make       without required arguments: makes a Flax module (nnx), a pair of a Linen
                          module and its variables, or a function

JAX keeps no model in a file: weights are whatever the program loads.  jax2onnx asks for the plain
onnxruntime, which overwrites the files of onnxruntime-gpu: ``--python`` names an environment of its
own.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters import factory
from converters.errors import ConversionFailed, said_by
from converters.source import Export, InputSpec, Options, apart, concrete, versions

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE, EXTRA = "JAX / Flax", "jax"

Array = NDArray[Any]
Function = Callable[..., Any]

OPSET = 21
"""The newest in which jax2onnx writes nothing that older runtimes lack."""

_KIN = frozenset(("jax", "flax", "equinox", "haiku"))
_COMMANDS = ("pip install flax jax jax2onnx",)
_RUNS = "a function of Python runs, and what its module imports"
_PATCHED = re.compile(r"get_monkey_patch|patched\(\) takes")


def recognises(source: str) -> str | None:
    """Whether a source is a function whose module imports JAX; see ``converters.source``."""
    found = factory.named(source)
    if found is None or found[0].startswith(factory.TORCH):
        return None
    imports = factory.imports_of(found[0])
    return _RUNS if imports is not None and imports & _KIN else None


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write ``draft`` from a function of JAX, or from what a function makes.

    Args:
        source: ``package.module:name``.
        draft: The ONNX file to write.
        options: ``inputs`` is needed, for JAX knows no shape before a call.

    Raises:
        ConversionFailed: What does not fit, with what to do about it.
    """
    try:
        import flax  # noqa: F401 - the framework, in the child alone
        import jax
        import jax2onnx  # noqa: F401 - as above

        from converters import exported
    except ImportError as error:
        raise apart(error, TITLE, _COMMANDS, source) from None
    if options.weights:
        raise ConversionFailed(
            "JAX keeps weights wherever its program puts them",
            where=source,
            hint="load them in the function, and leave --weights out",
        )
    if not options.inputs:
        raise ConversionFailed(
            "JAX knows no shape before a call",
            where=source,
            hint="give one with --input, such as --input '?,224,224,3' (Flax takes NHWC)",
        )
    function = _function(source, len(options.inputs))
    proto, shapes, notes = _export(function, options, source)
    exported.tidy(proto)
    exported.write(proto, draft)
    compiled = jax.jit(function)

    def run(inputs: Sequence[Array]) -> list[Array]:
        return [np.asarray(leaf) for leaf in jax.tree.leaves(compiled(*inputs))]

    names = [value.name for value in proto.graph.input]
    return Export(
        inputs=tuple(InputSpec(n, tuple(s)) for n, s in zip(names, shapes, strict=True)),
        run=run,
        versions=versions("jax", "flax", "jax2onnx", "onnx"),
        notes=notes,
    )


def _function(source: str, inputs: int) -> Function:
    """The function of arrays that a source names, or that what it names makes.

    Raises:
        ConversionFailed: It is neither.
    """
    named = factory.resolve(source)
    required = _required(named)
    if required == inputs and not inspect.isclass(named):
        return _evaluating(named) or named
    if required:
        raise ConversionFailed(
            f"takes {required} argument{'s' * (required > 1)}, and --input gives {inputs} "
            f"shape{'s' * (inputs > 1)}",
            where=source,
            hint="an --input for each array; or a function without arguments that makes the model",
        )
    try:
        made = named()
    except Exception as error:  # noqa: BLE001 - a stranger's program raises anything
        raise ConversionFailed(
            f"making the model fails ({said_by(error)})",
            where=source,
            hint="the function is called without arguments",
        ) from None
    found = _evaluating(made) or _with_variables(made)
    if found is not None:
        return found
    if callable(made) and not inspect.isclass(made):
        function: Function = made
        return function
    raise ConversionFailed(
        f"makes a {type(made).__name__}, not a model",
        where=source,
        hint="return a Flax module, a Linen module with its variables, or a function of arrays",
    )


def _required(function: Function) -> int:
    """How many arguments a function cannot be called without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # compiled, and silent about itself
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _evaluating(made: Any) -> Function | None:
    """An nnx module as it is in use: without dropout, with the averages of its norms."""
    from flax import nnx

    if not isinstance(made, nnx.Module) or not callable(made):
        return None
    made.eval()
    function: Function = made
    return function


def _with_variables(made: Any) -> Function | None:
    """A Linen module applied to its variables."""
    from flax import linen

    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], linen.Module)):
        return None
    module, variables = made
    if not (isinstance(variables, Mapping) and "params" in variables):
        variables = {"params": variables}
    return lambda *arrays: module.apply(variables, *arrays)


def _results(function: Function, shapes: Sequence[Sequence[int | None]], where: str) -> list[str]:
    """Names of the arrays that a function gives, from a call without numbers.

    Raises:
        ConversionFailed: It does not take these shapes, or gives something else than arrays.
    """
    import jax

    arrays = [jax.ShapeDtypeStruct(concrete(shape, 1), np.float32) for shape in shapes]
    try:
        found = jax.tree_util.tree_leaves_with_path(jax.eval_shape(function, *arrays))
    except Exception as error:  # noqa: BLE001 - a stranger's program raises anything
        said = " and ".join("x".join(map(str, array.shape)) for array in arrays)
        raise ConversionFailed(
            f"does not take {said} ({said_by(error)})",
            where=where,
            hint="Flax takes images as NHWC",
        ) from None
    names = [re.sub(r"\W+", "_", jax.tree_util.keystr(path)).strip("_") for path, _ in found]
    if len(found) == 1:
        return ["logits"]
    if not all(names) or len(set(names)) < len(names) or any(name.isdigit() for name in names):
        return [f"output_{index}" for index in range(len(names))]
    return names


def _export(
    function: Function, options: Options, where: str
) -> tuple[Any, Sequence[Sequence[int | None]], tuple[str, ...]]:
    """The model that jax2onnx writes, the shapes that it takes, and notes.

    A batch that cannot be left free (a shape is computed from it) is fixed at 1.
    """
    results = _results(function, options.inputs, where)
    notes: tuple[str, ...] = ()
    if options.dynamic_batch and any(shape[:1] == (None,) for shape in options.inputs):
        try:
            return _proto(function, options.inputs, results, options, where), options.inputs, ()
        except ConversionFailed as error:
            notes = (f"the batch is fixed at 1: with a free one, {error.what}",)
    shapes = [(1 if n is None else n, *rest) for n, *rest in options.inputs]
    return _proto(function, shapes, results, options, where), shapes, notes


def _proto(
    function: Function,
    shapes: Sequence[Sequence[int | None]],
    results: Sequence[str],
    options: Options,
    where: str,
) -> Any:
    """The model that jax2onnx writes for these shapes.

    Raises:
        ConversionFailed: It cannot.
    """
    from jax2onnx import to_onnx

    names = ["input"] if len(shapes) == 1 else [f"input_{i}" for i in range(len(shapes))]
    taken = [
        tuple(
            size if size is not None else "batch" if axis == 0 else f"size_{index}_{axis}"
            for axis, size in enumerate(shape)
        )
        for index, shape in enumerate(shapes)
    ]
    try:
        proto = to_onnx(
            function,
            inputs=taken,
            opset=options.opset or OPSET,
            input_names=names,
            output_names=list(results),
        )
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        hint = ""
        if _PATCHED.search(str(error)):  # jax2onnx takes the place of Flax's functions
            hint = "name the arguments of pooling: window_shape=..., strides=..., padding=..."
        raise ConversionFailed(
            f"jax2onnx does not convert it ({said_by(error)})", where=where, hint=hint
        ) from None
    del proto.graph.value_info[:]  # of other shapes than the graph's, here and there
    return proto

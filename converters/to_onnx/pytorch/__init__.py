"""PyTorch: exported programs, TorchScript, and modules that a function makes.

.pt2                      data: a copy without anything that runs is loaded
.pt, .pth (TorchScript)   a program: its instructions can read and write files
package.module:name       a program; ``--weights`` is data (.safetensors, state dicts)
.pt, .pth, .bin, .ckpt    a state dict alone says not how to compute, and a whole pickled
                          module is a program without a source: both are refused, with what to run
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from converters import factory
from converters.errors import ConversionFailed, said_by
from converters.nearest_path import as_typed
from converters.source import Export, InputSpec, Options, as_path, lacking, versions
from converters.to_onnx.pytorch import archive
from converters.to_onnx.pytorch.pickled import export_command, pickled
from converters.to_onnx.pytorch.weights import state_of

if TYPE_CHECKING:
    import torch

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE = "PyTorch"
EXTRA = "pytorch"

_ASSUMED = (None, 3, 224, 224)
_OTHERS = frozenset(("jax", "flax", "equinox", "haiku", "tensorflow", "keras", "tf_keras"))
_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_RUNS_FACTORY = "a function that makes a model runs, and what its module imports"
_RUNS_SCRIPT = "TorchScript is a program: its instructions can read and write files"


def recognises(source: str) -> str | None:
    """Whether a source is PyTorch's, and whether it is a program; see ``converters.source``.

    Raises:
        ConversionFailed: Weights without the program that they belong to.
    """
    path = as_path(source)
    if path is None:
        return _factory(source)
    kind = archive.kind_of(path)
    if kind == "program":
        return ""
    if kind == "torchscript":
        return _RUNS_SCRIPT
    if kind == "cut" and path.suffix in (*_SUFFIXES, ".pt2"):
        raise ConversionFailed(
            "is cut off: the directory at the end of its archive is missing",
            where=source,
            hint="ask for the file anew, or download it again",
        )
    if kind == "checkpoint" or (kind == "legacy" and path.suffix in _SUFFIXES):
        whole = pickled(path)
        if whole.name:
            raise ConversionFailed(
                f"is a whole module in a pickle ({whole.what}): a program, which is never "
                "unpickled",
                where=source,
                hint=f"{whole.needs}: {export_command(path, whole)}, and give the .onnx file",
            )
        raise ConversionFailed(
            "holds weights and not how to compute with them",
            where=source,
            hint="give the function that makes the model: package.module:name "
            f"--weights {as_typed(source)}",
        )
    if path.suffix == ".safetensors":
        raise ConversionFailed(
            "holds weights and not how to compute with them",
            where=source,
            hint="give the folder with its config.json, or the function that makes the model: "
            f"package.module:name --weights {as_typed(source)}",
        )
    return None


def _factory(source: str) -> str | None:
    found = factory.named(source)
    if found is None:
        return None
    imports = factory.imports_of(found[0])
    if imports is None:
        raise ConversionFailed(
            f"no module {found[0]!r} in this folder or on Python's path", where=source
        )
    kin = any(name.startswith(factory.TORCH) for name in imports) or found[0].startswith(
        factory.TORCH
    )
    return None if imports & _OTHERS and not kin else _RUNS_FACTORY


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write ``draft`` from an exported program, from TorchScript, or from what a function makes.

    Args:
        source: A path, or ``package.module:name``.
        draft: The ONNX file to write.
        options: What the user says of the source.

    Raises:
        ConversionFailed: What does not fit, with what to do about it.
    """
    try:
        import onnxscript  # noqa: F401 - late: the exporter needs it
        import torch  # noqa: F401 - late: two seconds
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, source) from None
    path = as_path(source)
    if path is None:
        return _from_factory(source, draft, options)
    if archive.kind_of(path) == "program":
        return _from_program(path, draft, options)
    return _from_script(path, draft, options)


def _from_factory(source: str, draft: Path, options: Options) -> Export:
    """A module that a function makes, with its own weights or with those of a file."""
    import torch

    from converters.to_onnx.pytorch import module as torch_module
    from converters.to_onnx.pytorch.fit import fill

    notes = [torch_module.declare_torchvision()]
    make = factory.resolve(source)
    torch.manual_seed(0)
    try:
        module = make if isinstance(make, torch.nn.Module) else make()
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        raise ConversionFailed(
            f"making the model fails ({said_by(error)})",
            where=source,
            hint="the function is called without arguments",
        ) from None
    if not isinstance(module, torch.nn.Module):
        raise ConversionFailed(
            f"makes a {type(module).__name__}, not a torch.nn.Module", where=source
        )
    module = _bare(module)
    _require_plain(module, source)
    if options.weights:
        notes += fill(module, state_of(Path(options.weights)), options.weights)
    else:
        notes.append("the weights are those that the function made; --weights gives others")
    shapes = options.inputs
    if not shapes:
        shapes = (_likely(module),)
        notes.append(
            f"an input of {'x'.join('N' if n is None else str(n) for n in shapes[0])} was assumed; "
            "--input gives another"
        )
    # What torchvision lacks concerns those alone who use it.
    used = type(module).__module__.partition(".")[0] == "torchvision"
    kept = [note for index, note in enumerate(notes) if note and (index or used)]
    return torch_module.export(
        module, draft, shapes, options, where=source, packages=("torchvision",) * used, notes=kept
    )


def _require_plain(module: "torch.nn.Module", where: str) -> None:
    """Refuse what PyTorch's exporter does not take, before it says so in its own words.

    Raises:
        ConversionFailed: TorchScript, or layers that PyTorch quantised.
    """
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        raise ConversionFailed(
            "makes TorchScript",
            where=where,
            hint="save it (torch.jit.save(module, 'net.pt')), and give that file",
        )
    packed = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
    found = sorted(
        name or "the module itself"
        for name, part in module.named_modules()
        if type(part).__module__.startswith(packed)
    )
    if found:
        raise ConversionFailed(
            f"has layers that PyTorch quantised, such as {found[0][:120]!a}: they have no form in "
            "ONNX",
            where=where,
            hint="give the network that it was quantised from, and quantise the ONNX file",
        )


def _bare(module: "torch.nn.Module") -> "torch.nn.Module":
    """The network in ``torch.compile``'s wrapper, or in one that spreads a batch over devices."""
    import torch

    spread = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        compiled = getattr(module, "_orig_mod", None)
        if isinstance(compiled, torch.nn.Module):
            module = compiled
        elif isinstance(module, spread):
            module = module.module
        else:
            return module


def _likely(module: "torch.nn.Module") -> tuple[int | None, ...]:
    """The input that a module probably takes: what it says, or its first layer's channels."""
    import torch

    for name in ("pretrained_cfg", "default_cfg"):
        said = getattr(module, name, None)
        size = said.get("input_size") if isinstance(said, Mapping) else None
        if isinstance(size, tuple | list) and len(size) == 3:
            return (None, *(int(n) for n in size))
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            return (None, part.in_channels, *_ASSUMED[2:])
        if isinstance(part, torch.nn.Linear):
            return (None, part.in_features)
    return _ASSUMED


def _from_script(path: Path, draft: Path, options: Options) -> Export:
    """TorchScript, through the exporter that still takes it."""
    import warnings

    import torch

    from converters.to_onnx.pytorch import module as torch_module
    from converters.to_onnx.pytorch.export import export_scripted

    archive.inspect(path)
    notes = []
    shapes = options.inputs
    if not shapes:
        shapes = (_ASSUMED,)
        notes.append("an input of Nx3x224x224 was assumed; --input gives another")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated is no news
        try:
            module = torch.jit.load(  # type: ignore[no-untyped-call]
                str(path), map_location="cpu"
            ).eval()
        except Exception as error:  # noqa: BLE001 - frameworks raise anything
            raise ConversionFailed(
                f"PyTorch does not load this TorchScript ({said_by(error)})",
                where=str(path),
                hint="save it again as torch.jit.trace or torch.jit.script made it, before "
                "torch.jit.optimize_for_inference, which is for the machine that it runs on",
            ) from None
        notes += torch_module.in_float32(module)
        names = torch_module.names_of(len(shapes))
        specs = torch_module.specs_of(shapes, names, "float32", str(path))
        example = torch_module.example_of(specs)
        outputs = torch_module.results_of(module, example, str(path))
        free = options.dynamic_batch and all(spec.shape[0] is None for spec in specs)
        if free:
            try:
                more = torch_module.example_of(specs, batch=3)
                torch_module.results_of(module, more, str(path))
            except ConversionFailed:
                free = False
                notes.append(
                    f"the batch is fixed at {len(example[0])}: it is written into the file"
                )
        results = [f"output_{index}" if index else "logits" for index in range(len(outputs))]
        export_scripted(
            module,
            example,
            draft,
            input_names=names,
            output_names=results,
            opset=options.opset,
            dynamic_batch=free,
        )
    if not free:
        specs = [InputSpec(s.name, tuple(e.shape)) for s, e in zip(specs, example, strict=True)]
    return Export(
        inputs=tuple(specs),
        run=torch_module.runner(module),
        versions=versions("torch", "onnx", "onnxscript"),
        notes=tuple(notes),
    )


def _from_program(path: Path, draft: Path, options: Options) -> Export:
    """An exported program, from a copy of the file that has nothing in it that runs."""
    import torch

    from converters.to_onnx.pytorch import module as torch_module
    from converters.to_onnx.pytorch import program as torch_program
    from converters.to_onnx.pytorch.export import export_program, quiet

    copy = draft.with_name("program.pt2")
    torch_program.cleaned(path, copy)
    try:
        with quiet():
            program = torch.export.load(copy)
            module = program.module(check_guards=False)
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        raise ConversionFailed(
            f"PyTorch does not load this program ({said_by(error)})",
            where=str(path),
            hint="programs are bound to the version of PyTorch that wrote them: export it anew",
        ) from None
    finally:
        copy.unlink(missing_ok=True)
    if _training(program):
        raise ConversionFailed(
            "was exported in training mode",
            where=str(path),
            hint="call model.eval() before torch.export.export",
        )
    specs, batch = _inputs(program, str(path))
    if any(spec.dtype == "bfloat16" for spec in specs):
        raise ConversionFailed(
            "was exported in bfloat16, which ONNX Runtime does not compute on a processor",
            where=str(path),
            hint="call model.float() before torch.export.export",
        )
    notes = []
    if not batch and options.dynamic_batch:
        size = specs[0].shape[0] if specs[0].shape else 1
        notes.append(f"the batch is fixed at {size}: the program was exported so")
    export_program(
        program, draft, opset=options.opset, input_names=[s.name for s in specs], batch=batch
    )
    return Export(
        inputs=tuple(specs),
        run=torch_module.runner(module),
        versions=versions("torch", "onnx", "onnxscript"),
        notes=tuple(notes),
    )


def _inputs(program: "torch.export.ExportedProgram", where: str) -> tuple[list[InputSpec], str]:
    """The inputs of a program, and its symbol for a free batch (empty when it has none)."""
    import torch

    wanted = program.graph_signature.user_inputs
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    found = [(str(name), values.get(str(name))) for name in wanted]
    tensors = [(name, value) for name, value in found if isinstance(value, torch.Tensor)]
    if not tensors or len(tensors) != len(found):
        raise ConversionFailed("takes something that is not a tensor", where=where)
    single = len(tensors) == 1
    specs = [
        InputSpec(
            "input" if single else name,
            tuple(n if isinstance(n, int) else None for n in value.shape),
            str(value.dtype).removeprefix("torch."),
        )
        for name, value in tensors
    ]
    first = tensors[0][1].shape[:1]
    return specs, "" if not first or isinstance(first[0], int) else str(first[0])


def _training(program: "torch.export.ExportedProgram") -> bool:
    """Whether normalisation or dropout were traced as they are while a network is trained."""
    place = {
        "aten.batch_norm.default": 5,
        "aten.dropout.default": 2,
        "aten.feature_dropout.default": 2,
    }
    return any(
        len(node.args) > place[str(node.target)] and node.args[place[str(node.target)]] is True
        for node in program.graph.nodes
        if str(node.target) in place
    )

"""Weights of a network by name: from one file, or from those of a folder of a model hub.

    model.safetensors, or several files with model.safetensors.index.json
    pytorch_model.bin, or several files with pytorch_model.bin.index.json

A pickle is read by PyTorch's unpickler of weights alone, which makes tensors and plain containers
and knows nothing else. The options of a command line (``argparse.Namespace``), which timm and many
training programs leave beside the weights, are such a container.
"""

import argparse
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.errors import ConversionFailed, first_few, said_by
from converters.nearest_path import as_typed, did_you_mean
from converters.plain_values import parse_json
from converters.regular_file import first_bytes, read_beside
from converters.source import lacking
from converters.to_onnx.pytorch import archive
from converters.to_onnx.pytorch.pickled import export_command, pickled

__all__ = ["NAMES", "files_of", "folder_state", "listed", "state_of"]

_NAMED = 8  # names of weights that an error lists

NAMES = ("model.safetensors", "pytorch_model.bin")
"""What a hub calls a folder's weights, the first before the second."""

_EXTRA = "pytorch"
_MOST_INDEX = 1 << 24
_POINTER = b"version https://git-lfs"
_OF_OTHERS = ("tf_model.h5", "flax_model.msgpack")


def files_of(folder: Path) -> tuple[Path, ...]:
    """The files of a folder's weights: all of one kind, safetensors before pickles.

    Raises:
        ConversionFailed: There are none, or pointers of git-lfs in their place; or an index names
            files elsewhere, or of another kind.
    """
    for name in NAMES:
        if (folder / name).is_file():
            _require_content(folder / name)
            return (folder / name,)
        if (folder / f"{name}.index.json").is_file():
            found = _indexed(folder / f"{name}.index.json", name.rpartition(".")[2])
            for path in found:
                _require_content(path)
            return found
    others = [name for name in _OF_OTHERS if (folder / name).is_file()]
    raise ConversionFailed(
        f"has no {NAMES[0]}"
        + (f", and {others[0]} is of another framework" if others else f" and no {NAMES[1]}"),
        where=str(folder),
        hint="save_pretrained of transformers and save_for_hf of timm write it",
    )


def _require_content(path: Path) -> None:
    """Refuse what stands for a file that git-lfs has not fetched.

    Raises:
        ConversionFailed: It does.
    """
    if first_bytes(path, len(_POINTER)) == _POINTER:
        raise ConversionFailed(
            "is a git-lfs pointer, and not the weights that it points to",
            where=str(path),
            hint="fetch them: git lfs pull",
        )


def _indexed(index: Path, suffix: str) -> tuple[Path, ...]:
    """The files that an index names, which lie beside it."""
    try:
        content = parse_json(read_beside(index.parent, index.name, _MOST_INDEX), finite=False)
        names = list(dict.fromkeys(content["weight_map"].values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ConversionFailed("names no files of weights", where=str(index)) from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise ConversionFailed(
                f"names a file of weights outside the folder: {str(name)[:80]!a}", where=str(index)
            )
        if not name.endswith(f".{suffix}"):
            raise ConversionFailed(
                f"names weights that are not {suffix}: {name[:80]!a}", where=str(index)
            )
    return tuple(index.parent / str(name) for name in sorted(map(str, names)))


def folder_state(folder: Path) -> dict[str, Any]:
    """All tensors of a folder's weights, by name.

    Raises:
        ConversionFailed: See ``files_of`` and ``state_of``.
    """
    state: dict[str, Any] = {}
    for path in files_of(folder):
        state.update(state_of(path))
    return state


def state_of(path: Path) -> Mapping[str, Any]:
    """Tensors by name from a file, without running anything in it.

    Raises:
        ConversionFailed: It holds something else than weights.
    """
    if not path.is_file():
        hint = did_you_mean(path)
        raise ConversionFailed("no such file of weights", where=str(path), hint=hint)
    _require_content(path)
    if path.suffix == ".safetensors":
        try:
            from safetensors.torch import load_file
        except ImportError as error:
            raise lacking(error, "safetensors", _EXTRA, str(path)) from None
        try:
            found: Mapping[str, Any] = load_file(path)
        except Exception as error:  # noqa: BLE001 - frameworks raise anything
            raise ConversionFailed(
                f"is not a safetensors file ({said_by(error)})",
                where=str(path),
                hint="the file is cut off or damaged: ask for it anew",
            ) from None
        return found
    if archive.kind_of(path) not in ("checkpoint", "legacy"):
        raise ConversionFailed(
            "is not a file of weights",
            where=str(path),
            hint="a state dict (.pt, .pth), .safetensors",
        )
    return _unpickled(path)


def _unpickled(path: Path) -> Mapping[str, Any]:
    """A state dict; the unpickler makes tensors and plain containers and knows nothing else."""
    import torch

    if archive.kind_of(path) == "checkpoint":
        archive.inspect(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(  # noqa: TID251 - the one place: weights_only makes tensors alone
                path, map_location="cpu", weights_only=True
            )
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        whole = pickled(path)
        if whole.name:
            raise ConversionFailed(
                f"holds a whole module ({whole.what}) and not its weights",
                where=str(path),
                hint=f"{whole.needs}: {export_command(path, whole)}",
            ) from None
        known = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ConversionFailed(
            f"holds more than weights ({known[1][:120] if known else said_by(error)})",
            where=str(path),
            hint=f"where you trust its author: {_weights_alone(path)}",
        ) from None
    if not isinstance(found, Mapping):
        raise ConversionFailed(
            f"holds a {type(found).__name__}, not weights by name", where=str(path)
        )
    return found


def _weights_alone(path: Path) -> str:
    """The command that takes the tensors out of a file by unpickling it, and what to give then."""
    output = path.with_name(f"{path.stem}-weights.pth")
    program = (
        f"import torch; found = torch.load({json.dumps(str(path))}, weights_only=False, "
        'map_location="cpu"); plain = lambda v: {k: plain(t) for k, t in v.items()} if '
        'isinstance(v, dict) else torch.as_tensor(v) if hasattr(v, "shape") else None; '
        f"torch.save(plain(found), {json.dumps(str(output))})"
    )
    return f"python -c {shlex.quote(program)}; then give {as_typed(output)}"


def listed(names: Sequence[str]) -> str:
    """The first names of some weights, for an error or a note."""
    return first_few([ascii(name[:120])[1:-1] for name in names], _NAMED)

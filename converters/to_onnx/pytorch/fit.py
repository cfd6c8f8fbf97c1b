"""Weights of a checkpoint put into a module: which of the file's entries, under which names.

Training programs wrap a state dict: other entries beside it, a second one of averaged weights,
names below a prefix (``module.``, ``model.``), and parts of names where a wrapper stood around
a layer (``_orig_mod.`` of ``torch.compile``).  What fits the module decides, not what it is called.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from converters.errors import ConversionFailed
from converters.to_onnx.pytorch.weights import listed

__all__ = ["fill"]

_DEEPEST = 4  # mappings within mappings that are looked into
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_AVERAGED = frozenset(("ema", "teacher", "swa", "average", "averaged"))
"""Entries that programs evaluate by where they hold two: moving averages, DINO's teacher."""

Wanted = Mapping[str, torch.Size]


@dataclass(frozen=True)
class _Entry:
    """One set of weights in a file.

    Attributes:
        place: Keys that lead to it.
        weights: Tensors by the module's names, without the prefix.
        prefix: What was taken off.
        rest: Names beside that prefix, which belong to something else.
        fitting: Number of the module's tensors that it has, in their shapes.
    """

    place: tuple[str, ...]
    weights: dict[str, torch.Tensor]
    prefix: str
    rest: tuple[str, ...]
    fitting: int

    @property
    def averaged(self) -> bool:
        return any(map(_says_averaged, self.place))


def fill(module: torch.nn.Module, state: Mapping[str, Any], where: str) -> list[str]:
    """Put weights into a module; everything that does not fit is said in one error.

    Of several entries that fit as well, averaged weights come first (``state_dict_ema``,
    ``params_ema``, ``teacher``), as timm and BasicSR read them, then the first of the file.

    Args:
        module: Where they go.
        state: Tensors by name, maybe in a wrapper.
        where: The file that they come from.

    Returns:
        Notes on what was taken off and left out.

    Raises:
        ConversionFailed: Weights are missing, not the module's, or of another shape.
    """
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    entries = [_entry(place, found, wanted) for place, found in _tensors(state, ())]
    if not entries:
        raise ConversionFailed("holds no weights (tensors by name)", where=where)
    best = max(entries, key=lambda entry: (entry.fitting, entry.averaged, -len(entry.place)))
    _require_fit(best, wanted, where)
    module.load_state_dict(best.weights, strict=False)
    return _notes(best, [e for e in entries if e.fitting == best.fitting and e is not best])


def _require_fit(entry: _Entry, wanted: Wanted, where: str) -> None:
    """Refuse weights of another model.

    Raises:
        ConversionFailed: All names that are missing, not the module's, or of another shape.
    """
    weights = entry.weights
    # BatchNorm's count of batches is not a weight: old files lack it.
    missing = [n for n in wanted if n not in weights and not n.endswith("num_batches_tracked")]
    extra = [n for n in weights if n not in wanted]
    other = [
        f"{name} is {_shape(weights[name].shape)} instead of {_shape(shape)}"
        for name, shape in wanted.items()
        if name in weights and weights[name].shape != shape
    ]
    wrong = [("lacks", missing), ("has, beyond the model's,", extra), ("of another shape:", other)]
    said = [f"{what} {listed(names)}" for what, names in wrong if names]
    if said:
        raise ConversionFailed(
            "the weights are not this model's: " + "; ".join(said),
            where=where,
            hint="make the model with the options that it was trained with",
        )
    packed = [name for name, tensor in weights.items() if tensor.is_quantized]
    if packed:
        raise ConversionFailed(
            f"its weights are quantised: {listed(packed)}",
            where=where,
            hint="give the weights that it was quantised from, and quantise the ONNX file",
        )


def _notes(entry: _Entry, others: Sequence[_Entry]) -> list[str]:
    notes = []
    if entry.place:
        fits = ", ".join(ascii(".".join(other.place))[:80] for other in others)
        notes.append(
            f"the weights were read from {'.'.join(entry.place)[:80]!a} of the file"
            + (f"; so could those of {fits} be, saved alone" if fits else "")
        )
    if entry.prefix:
        notes.append(f"the prefix {entry.prefix[:80]!a} was taken off the weights' names")
    if entry.rest:
        notes.append(f"weights that are not used: {listed(entry.rest)}")
    return notes


def _tensors(
    state: Mapping[Any, Any], place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Every mapping in a file that holds tensors by name, from the outermost on."""
    found = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    if found:
        yield place, found
    for name, value in state.items() if len(place) < _DEEPEST else ():
        if isinstance(value, Mapping):
            yield from _tensors(value, (*place, str(name)))


def _entry(place: tuple[str, ...], found: Mapping[str, torch.Tensor], wanted: Wanted) -> _Entry:
    """Weights under the names that fit the module best."""
    named = {name if name in wanted else _bare(name): value for name, value in found.items()}
    ends: Counter[str] = Counter()
    for name in named:
        parts = name.split(".")
        for index in range(len(parts)):
            if ".".join(parts[index:]) in wanted:
                ends[".".join((*parts[:index], ""))] += 1
    prefix = max(ends, key=lambda text: (ends[text], _says_averaged(text), -len(text)), default="")
    weights = {n.removeprefix(prefix): v for n, v in named.items() if n.startswith(prefix)}
    rest = tuple(name for name in named if not name.startswith(prefix))
    fitting = sum(weights[n].shape == shape for n, shape in wanted.items() if n in weights)
    return _Entry(place, weights, prefix, rest, fitting)


def _says_averaged(name: str) -> bool:
    return not _AVERAGED.isdisjoint(re.split("[^a-z]+", name.lower()))


def _bare(name: str) -> str:
    """A name without the parts that wrappers around layers put into it."""
    for part in _WRAPPERS:
        name = name.replace(part, "")
    return name


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"

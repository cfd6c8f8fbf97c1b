"""What the shell offers while a command is typed: methods, targets and layers.

A model is read as any other file (its preflight included), and nothing of it is run; where it
cannot be read, nothing is offered.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from inspector.declarations import Declaration, declarations
from inspector.errors import ConverterError, InspectorError

__all__ = ["described_methods", "layers", "methods", "targets"]

_MOST = 2000
"""Names of a model that are offered."""


def methods(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Methods whose names begin so, with their first lines."""
    del context, parameter
    return [
        CompletionItem(one.name, help=one.summary)
        for one in described_methods()
        if one.name.startswith(begun)
    ]


def described_methods() -> Iterable[Declaration]:
    """All methods in the order of the papers, with their summaries and options.

    Read from the files' text: importing them takes longer than a help page may.
    """
    found = declarations("inspector.methods", "method").values()
    if found:
        return sorted(found, key=lambda one: int(one.facts["order"]))
    from inspector.methods import methods as known

    return [
        Declaration(one.function.__module__, one.name, {}, one.documentation, one.options)
        for one in known().values()
    ]


def targets(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """``top1``, ``top3``, and the model's classes."""
    del parameter
    return _beginning(begun, ("top1", "top3", *_classes(context)))


def layers(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The model's layers, and ``last``."""
    del parameter
    return _beginning(begun, ("last", *_layers(context)))


def _beginning(begun: str, names: Iterable[str]) -> list[CompletionItem]:
    """Names that begin so, upper or lower case, and that can be typed in one line."""
    wanted = begun.casefold()
    found = (name for name in names if name.casefold().startswith(wanted) and name.isprintable())
    return [CompletionItem(name) for name in dict.fromkeys(found)][:_MOST]


def _model(context: click.Context) -> Path:
    """The model that is named; while the last option waits for its value, click leaves it aside."""
    return Path(context.params.get("model") or next(iter(context.args), ""))


def _classes(context: click.Context) -> Iterator[str]:
    from converters.onnx_file import read
    from inspector.network.outputs.labels import labels_from_metadata, names_beside, read_labels

    try:
        if named := context.params.get("labels"):
            yield from read_labels(Path(named))
            return
        file = read(_model(context))
        carried = labels_from_metadata(file.metadata, file.graph).names
        yield from carried or names_beside(_model(context), None).names
    except (ConverterError, InspectorError, OSError):
        return


def _layers(context: click.Context) -> Iterator[str]:
    from converters.onnx_file import read
    from inspector.network.layers import find_layers

    try:
        yield from (layer.tensor for layer in find_layers(read(_model(context)).graph))
    except (ConverterError, InspectorError, OSError):
        return

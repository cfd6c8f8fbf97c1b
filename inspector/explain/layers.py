"""One request through several layers: a run per layer, and their maps together in one report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from inspector.errors import ImageRefused, UsageError
from inspector.methods import Methods, Request, parse_requests
from inspector.opened import Opened
from inspector.report import ImageReport
from inspector.run import ExplainRun, PhotoInput

__all__ = ["BATCH", "Layers", "layer_runs", "merged"]

BATCH = 8
"""Photos that go through the network at a time, where the model allows it."""

Layers = str | int | Sequence[str | int] | None
"""A tensor name, an index, ``last``, None for the default; or several of these."""

MOST = 64
"""Layers of one request."""

Make = Callable[[Methods | None, str | int | None], ExplainRun]


def layer_runs(
    opened: Opened, methods: Methods | None, layer: Layers, make: Make
) -> tuple[ExplainRun, ...]:
    """A run for each layer; what goes through no layer is done by the first alone.

    Args:
        opened: The opened model.
        methods: As for ``explain``.
        layer: One layer, or several.
        make: Makes a run of methods and one layer.

    Raises:
        UsageError: No layer is named, or too many are.
    """
    if layer is None or isinstance(layer, str | int):
        return (make(methods, layer),)
    layers = list(dict.fromkeys(opened.layer_for(one, tokens=True)[0].tensor for one in layer))
    if not 1 <= len(layers) <= MOST:
        raise UsageError(f"a list of {len(layers)} layers", hint=f"name 1 to {MOST}")
    runs = [make(methods, layers[0])]
    through: list[Request] | None = None
    if methods is not None:
        through = [one for one in parse_requests(methods) if one.method.through_layer]
    if through is None or through:
        runs += [make(through, one) for one in layers[1:]]
    return tuple(runs)


def merged(
    runs: Sequence[ExplainRun], batch: Sequence[PhotoInput], places: Sequence[int]
) -> Iterator[ImageReport | ImageRefused]:
    """The reports of some photos, with the maps of all runs.

    Args:
        runs: From ``layer_runs``.
        batch: The photos.
        places: As for ``ExplainRun.reports``.
    """
    for parts in zip(*(run.reports(batch, places) for run in runs), strict=True):
        reports = [part for part in parts if isinstance(part, ImageReport)]
        if len(parts) == 1 or not reports:
            yield parts[0]
            continue
        first = reports[0]
        yield replace(
            first,
            explanations=tuple(one for report in reports for one in report.explanations),
            refused=tuple(one for report in reports for one in report.refused),
            warnings=tuple(dict.fromkeys(text for report in reports for text in report.warnings)),
            context={**first.context, "layer": {"tensor": None, "reason": "several are named"}},
        )

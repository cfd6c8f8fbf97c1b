"""``inspector layers``: what there is to explain through."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.options import Command, model_options, open_model, supervised
from inspector.cli.streams import show_json

if TYPE_CHECKING:
    from inspector.explain import Explainer


@click.command("layers", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
@model_options
def command(**options: Any) -> int:
    """List MODEL's layers with shape, stride and receptive field, and what follows from them.

    Says which layer is the default target and why, and whether CAM is exact for the head.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _layers(**options), device=options["device"], **limits)


def _layers(*, model: Path, as_json: bool, **opening: Any) -> int:
    from inspector.cli.terminal import show_layers
    from inspector.overview import overview

    explainer: Explainer = open_model(model, **opening)
    found = overview(explainer)
    if as_json:
        show_json(found.to_dict(), indent=2)
    else:
        show_layers(found)
    return 0

"""``inspector check``: is a file safe and sound to open, and what will work."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.options import check_options, open_model, supervised
from inspector.cli.streams import show, show_json
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.explain import Explainer


@click.command("check")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
@check_options
def command(**options: Any) -> int:
    """Tell whether MODEL is safe and sound to open, and which methods will work on it.

    Reads it under the limits for untrusted files, loads it in ONNX Runtime, and draws one map per
    method of a random picture: what `explain` refuses of it is refused here.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _check(**options), device=options["device"], **limits)


def _check(*, model: Path, as_json: bool, **opening: Any) -> int:
    from inspector.overview import overview
    from inspector.verdicts import method_verdicts

    explainer: Explainer = open_model(model, **opening)
    facts = explainer.file.facts
    found = {
        "file": str(explainer.path),
        "sha256": explainer.file.sha256,
        "producer": explainer.file.producer,
        "opsets": {domain or "ai.onnx": version for domain, version in facts.opsets.items()},
        "converted from": _origin(explainer),
        "nodes": facts.nodes,
        "data bytes": facts.data_bytes,
        "external files": [path.name for path in explainer.file.external],
        "task": explainer.meaning,
        **dict(overview(explainer).sentences),
        "preprocessing": explainer.preprocessing.to_dict(),
        "provider": explainer.model.runtime.provider,
        "methods": method_verdicts(explainer),
    }
    if as_json:
        show_json(found, indent=2, default=str)
        return 0
    for key, value in found.items():
        if isinstance(value, dict):
            show(f"{key}:")
            width = max(map(len, value), default=0)
            for name, text in value.items():
                show(f"  {name:{width}} {_shown(text)}")
        else:
            show(f"{key:16} {_shown(value)}")
    return 0


def _origin(explainer: "Explainer") -> str:
    """The file's own record of its conversion; not checked."""
    from converters.conversion import recorded

    found = recorded(explainer.file.metadata)
    if found is None:
        return "the file does not say"
    source = found["source"]
    words = [f"{source.get('framework', '?')} ({source.get('name', '?')})"]
    if source.get("sha256"):
        words.append(f"source sha256 {source['sha256'][:16]}...")
    if "worst" in found and "mean" in found:
        words.append(f"differs by at most {found['worst']:.1e}, mean {found['mean']:.1e}")
    if "top1_agreement" in found:
        words.append(f"same class on {found['top1_agreement']:.0%}")
    return ", ".join(words) + " (says the file)"


def _shown(value: object) -> str:
    """One line of text, whatever a model put into it."""
    if isinstance(value, dict):
        return ", ".join(f"{_shown(k)}={_shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return clean_text(str(value), limit=None)

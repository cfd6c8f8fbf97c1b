"""``inspector check``: is a file safe and sound to open, and what will work."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.options import Command, check_options, open_model, supervised
from inspector.cli.streams import show, show_json
from inspector.errors import LimitExceeded
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.explain import Explainer

_RESERVE = 5.0
"""Seconds before the clock ends the command, in which it says what it has found."""

_NOT_TRIED = "not tried: time was too short; `--timeout 1800` gives it more"


@click.command("check", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
@check_options
def command(**options: Any) -> int:
    """Tell whether MODEL is safe and sound to open, and which methods will work on it.

    Reads it under the limits for untrusted files, loads it in ONNX Runtime, and draws one map per
    method of a random picture: what `explain` refuses of it is refused here.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    until = time.monotonic() + (limits["timeout"] or math.inf)
    return supervised(lambda: _check(until, **options), device=options["device"], **limits)


def _check(until: float, *, model: Path, as_json: bool, **opening: Any) -> int:
    from inspector.overview import overview

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
    }
    verdicts = _methods(explainer, until - time.monotonic())
    found["methods"] = verdicts
    status = LimitExceeded.exit_status if _NOT_TRIED in verdicts.values() else 0
    if as_json:
        show_json(found, indent=2, default=str)
        return status
    for key, value in found.items():
        if isinstance(value, dict):
            show(f"{key}:")
            width = max(map(len, value), default=0)
            for name, text in value.items():
                show(f"  {name:{width}} {_shown(text)}")
        else:
            show(f"{key:16} {_shown(value)}")
    return status


class _TimeIsUp(BaseException):
    """Ends the trial of methods; no error, so that nobody takes it for a refusal."""


@contextlib.contextmanager
def _ends_after(seconds: float) -> Iterator[None]:
    """Raise ``_TimeIsUp`` after some seconds, where the system tells a process the time."""
    if (
        math.isinf(seconds)
        or not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def end(*_: object) -> None:
        raise _TimeIsUp

    handler = signal.signal(signal.SIGALRM, end)
    # Once more each second: what is raised in a finaliser is lost.
    timer = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _methods(explainer: "Explainer", left: float) -> dict[str, str]:
    """Verdicts on the methods; those that time is too short for are not tried."""
    from inspector.methods import methods
    from inspector.verdicts import verdicts

    found: dict[str, str] = {}
    try:
        with _ends_after(left - min(_RESERVE, left / 2)):
            found.update(verdicts(explainer))  # one after another: what is known is kept
    except _TimeIsUp:
        pass
    return {name: found.get(name, _NOT_TRIED) for name in methods()}


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

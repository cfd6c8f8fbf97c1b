"""``inspector doctor``: the state of the installation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.streams import show, show_json
from inspector.errors import BrokenInstallation

if TYPE_CHECKING:
    from inspector.doctor import Framework

_SATURATE = (
    "saturate on this processor as ONNX Runtime is set by default; exact in inspector. Sessions of "
    "your own: session.x64quantprecision = 1"
)


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def command(*, as_json: bool) -> int:
    """Show versions, what really runs, what child processes may do, and conflicts."""
    state = _state()
    if as_json:
        show_json({"schema": SCHEMA, **state}, indent=2)
    else:
        _show(state)
    return BrokenInstallation.exit_status if state["conflicts"] else 0


SCHEMA = 1
"""Version of the JSON document (docs/doctor.schema.json)."""


def _state() -> dict[str, Any]:
    """The state of the installation, as plain data."""
    from inspector import doctor
    from inspector.versions import versions

    found = doctor.runtimes()
    problems = doctor.problems(found)
    providers: dict[str, bool] = {}
    saturating: bool | None = None
    try:
        from inspector.engines.runtime import working_providers
        from inspector.surgery.integer_products import saturates

        providers = dict(working_providers())
        saturating = saturates()
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        said = " ".join(str(error).split())[:200]
        problems.append(f"ONNX Runtime does not start ({type(error).__name__}: {said})")
    return {
        "versions": dict(versions()),
        "frameworks": {one.title: _packages(one) for one in doctor.frameworks()},
        "features": {one.title: _packages(one) for one in doctor.features()},
        "statistics": doctor.statistics(),
        "sandbox": dict(doctor.sandbox()),
        "providers": providers,
        "eight_bit_products_saturate": saturating,
        "conflicts": problems,
        "fixes": list(doctor.fixes(found)) if problems else [],
    }


def _packages(one: "Framework") -> dict[str, Any]:
    """What an optional part has and lacks."""
    return {"installed": dict(one.found), "lacking": list(one.lacking), "says": str(one)}


def _show(state: Mapping[str, Any]) -> None:
    """Print the state of the installation."""
    for name, version in state["versions"].items():
        show(f"{name:18} {version}")
    for title, framework in state["frameworks"].items():
        show(f"from {title:13} {framework['says']}")
    for title, feature in state["features"].items():
        show(f"for {title:17} {feature['says']}")
    show(f"{'ONNX Runtime statistics':26} {state['statistics']}")
    for what, answer in state["sandbox"].items():
        show(f"{what:26} {answer}")
    for provider, works in state["providers"].items():
        show(f"{provider:26} {'runs' if works else 'is installed but does not run here'}")
    if state["eight_bit_products_saturate"] is not None:
        saturating = state["eight_bit_products_saturate"]
        show(f"8-bit products             {_SATURATE if saturating else 'exact'}")
    for line in state["conflicts"]:
        show(f"conflict: {line}")
    if not state["conflicts"]:
        show("no conflicts")
        return
    show("fix it:")
    for line in state["fixes"]:
        show(f"    {line}")

"""``inspector doctor``: the state of the installation."""

import click

from inspector.cli.streams import show
from inspector.errors import BrokenInstallation

_SATURATE = (
    "saturate on this processor as ONNX Runtime is set by default; exact in inspector. Sessions of "
    "your own: session.x64quantprecision = 1"
)


@click.command("doctor")
def command() -> int:
    """Show versions, what really runs, what child processes may do, and conflicts."""
    from inspector import doctor
    from inspector.versions import versions

    for name, version in versions().items():
        show(f"{name:18} {version}")
    for framework in doctor.frameworks():
        show(f"from {framework.title:13} {framework}")
    for feature in doctor.features():
        show(f"for {feature.title:17} {feature}")
    show(f"{'ONNX Runtime statistics':26} {doctor.statistics()}")
    for what, answer in doctor.sandbox():
        show(f"{what:26} {answer}")
    found = doctor.runtimes()
    problems = doctor.problems(found)
    try:
        from inspector.engines.runtime import working_providers
        from inspector.surgery.integer_products import saturates

        for provider, works in working_providers().items():
            show(f"{provider:26} {'runs' if works else 'is installed but does not run here'}")
        show(f"8-bit products             {_SATURATE if saturates() else 'exact'}")
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        said = " ".join(str(error).split())[:200]
        problems.append(f"ONNX Runtime does not start ({type(error).__name__}: {said})")
    for line in problems:
        show(f"conflict: {line}")
    if not problems:
        show("no conflicts")
        return 0
    show("fix it:")
    for line in doctor.fixes(found):
        show(f"    {line}")
    return BrokenInstallation.exit_status

"""``inspector doctor``: the state of the installation."""

import importlib.metadata

import click

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


@click.command("doctor")
def command() -> int:
    """Show versions, the providers that really run, and conflicts of this installation."""
    from inspector.runtime import working_providers  # noqa: PLC0415 - late: imports onnx
    from inspector.versions import versions  # noqa: PLC0415 - as above

    for name, version in versions().items():
        click.echo(f"{name:18} {version}")
    for provider, works in working_providers().items():
        click.echo(f"{provider:26} {'runs' if works else 'is installed but does not run here'}")
    installed = [name for name in _RUNTIMES if _is_installed(name)]
    if len(installed) > 1:
        click.echo(
            f"conflict: {' and '.join(installed)} overwrite each other's files; uninstall all "
            "of them, then install one"
        )
        return 1
    click.echo("no conflicts")
    return 0


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

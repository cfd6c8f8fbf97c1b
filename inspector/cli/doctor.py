"""``inspector doctor``: the state of the installation."""

import click


@click.command("doctor")
def command() -> int:
    """Show versions, the providers that really run, and conflicts of this installation."""
    from inspector import installation  # noqa: PLC0415 - keeps `--help` lean
    from inspector.versions import versions  # noqa: PLC0415 - as above

    for name, version in versions().items():
        click.echo(f"{name:18} {version}")
    for framework in installation.frameworks():
        click.echo(f"from {framework.title:13} {framework}")
    found = installation.runtimes()
    wrong = installation.ill(found)
    try:
        from inspector.runtime import working_providers  # noqa: PLC0415 - late: imports onnx

        for provider, works in working_providers().items():
            click.echo(f"{provider:26} {'runs' if works else 'is installed but does not run here'}")
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        said = " ".join(str(error).split())[:200]
        wrong.append(f"ONNX Runtime does not start ({type(error).__name__}: {said})")
    for line in wrong:
        click.echo(f"conflict: {line}")
    if not wrong:
        click.echo("no conflicts")
        return 0
    click.echo("mend it:")
    for line in installation.mend(found):
        click.echo(f"    {line}")
    return 1

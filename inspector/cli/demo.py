"""``inspector demo``: a small network and two photos that come with the package, explained."""

import shlex
from pathlib import Path

import click

from inspector.cli import program
from inspector.cli.options import Command, OutputFolder
from inspector.cli.streams import show
from inspector.errors import UsageError

_MODEL, _PHOTOS = "resnet20.onnx", ("horse.png", "cat.png")
_LARGEST = 1 << 23
_METHODS = ("grad-cam", "guided-backprop")


@click.command("demo", cls=Command)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    default="inspector-demo",
    show_default=True,
    type=OutputFolder(),
    help="Folder for the network, the photos and their figures.",
)
@click.option("--open", "opens", is_flag=True, help="Show the figures when they are done.")
def command(output: Path, *, opens: bool) -> int:
    """Explain two photos with a small network that comes with this program.

    Needs no network connection. ResNet-20, trained on CIFAR-10 (92 % of its test photos are
    classified right), sees photos of 32 x 32 pixels. The command that is run is printed.
    """
    for name in (_MODEL, *_PHOTOS):
        _copy(name, output / name)
    model, photos = output / _MODEL, [output / name for name in _PHOTOS]
    chosen = [word for method in _METHODS for word in ("-m", method)]
    words = ["explain", model, *photos, *chosen, "--engine", "onnx", "--sheet", "-o", output]
    arguments = [*map(str, words), *(["--open"] if opens else [])]
    show(("$ inspector " + " ".join(map(shlex.quote, arguments)), {"dim": True}))
    status: int = program.main(arguments, prog_name="inspector", standalone_mode=False) or 0
    if status == 0:
        layers = f"inspector layers {shlex.quote(str(model))}"
        show(f"Next: {layers}; then a model and a photo of your own.")
    return status


def _copy(name: str, path: Path) -> None:
    """Put a file of the package where it can be seen.

    Raises:
        UsageError: Another file has that name.
    """
    from importlib.resources import as_file, files

    from converters.regular_file import read_regular
    from inspector.whole_file import write_whole

    with as_file(files("inspector") / "sample" / name) as held:
        data = read_regular(held, _LARGEST)
    if path.exists() and (not path.is_file() or path.stat().st_size != len(data)):
        raise UsageError("is another file", where=str(path), hint="choose another folder with -o")
    write_whole(path, data)

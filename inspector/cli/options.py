"""Options that several commands share, each with one text."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from converters.plain_values import LARGEST, quoted, whole_number
from inspector.cli import supervise
from inspector.cli.streams import say
from inspector.errors import UsageError

if TYPE_CHECKING:
    from inspector.explain import Explainer
    from inspector.opening import Opening
    from inspector.render.drawing.display import Display

__all__ = [
    "OPENING",
    "Command",
    "Number",
    "OutputFile",
    "OutputFolder",
    "WholeNumber",
    "check_options",
    "count",
    "display_of",
    "display_options",
    "limit_options",
    "model_options",
    "named_paths",
    "open_model",
    "opening_of",
    "shapes",
    "source_options",
    "supervised",
]


_MOST_MEMORY = 2.0**20
"""GiB: a pebibyte, beyond which a number is a slip."""

_MOST_SECONDS = 1e8
"""Three years."""

_LONGEST_AXIS = 2**31 - 1


class Command(click.Command):
    """A command that refuses an option of one value given twice, and an empty name of a file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, as click does.

        Raises:
            UsageError: An option that takes one value is given more than once, of which the last
                would win; a file or folder has an empty name, which would be the working folder.
        """
        if not ctx.resilient_parsing:
            given, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for parameter, count in Counter(order).items():
                single = isinstance(parameter, click.Option) and not (
                    parameter.multiple or parameter.count or parameter.is_flag
                )
                if single and count > 1:
                    raise UsageError(
                        f"{max(parameter.opts, key=len)} is given {count} times",
                        hint="it takes one value: leave out the others",
                    )
                if isinstance(parameter.type, click.Path) and _empty(given[parameter.name]):
                    raise UsageError(
                        f"{_word(parameter)} is empty",
                        hint="is a variable of the shell unset? . is the working folder",
                    )
        return super().parse_args(ctx, args)


def _word(parameter: click.Parameter) -> str:
    """An argument or option as it stands in the help."""
    option = isinstance(parameter, click.Option)
    return max(parameter.opts, key=len) if option else parameter.human_readable_name


def _empty(given: Any) -> bool:
    """Whether one of the names of an argument or option is empty."""
    return "" in given if isinstance(given, list | tuple) else given == ""


class OutputFolder(click.Path):
    """A folder to write into, checked before any work is done; it need not exist."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            UsageError: It cannot be made or written into; it is a link that the user did not
                name (a folder of somebody else's may bring one, which leads to other files).
        """
        from inspector.whole_file import check_folder

        path = Path(str(super().convert(value, param, ctx)))
        check_folder(path)
        name = "" if param is None else param.name or ""
        source = None if ctx is None else ctx.get_parameter_source(name)
        if source is ParameterSource.DEFAULT and path.is_symlink():
            raise UsageError(
                "is a link to another folder, which nobody asked for",
                where=str(path),
                hint=f"name a folder: -o {path} for this one",
            )
        return path


class OutputFile(click.Path):
    """A file to write, whose folder is checked before any work is done."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path.

        Raises:
            UsageError: Its folder cannot be made or written into.
        """
        from inspector.whole_file import check_file

        path = Path(str(super().convert(value, param, ctx)))
        check_file(path)
        return path


class Number(click.FloatRange):
    """A finite number within bounds."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; refuses NaN, which is within any bounds, and infinities."""
        number = click.FLOAT.convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{number:g} is more than {self.max:g}.", param, ctx)
        return super().convert(number, param, ctx)

    def _describe_range(self) -> str:
        """The bounds for the help, without one that is only there against slips."""
        if self.max is not None and self.max >= min(_MOST_MEMORY, _MOST_SECONDS):
            return f"x>={self.min}"
        return super()._describe_range()


class WholeNumber(click.IntRange):
    """A whole number within bounds, at most one of 64 bits."""

    def __init__(self, min: int | None = None, max: int | None = None) -> None:  # noqa: A002
        super().__init__(-LARGEST if min is None else min, LARGEST if max is None else max)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; its digits are counted before they are read."""
        if isinstance(value, str) and whole_number(value) is None:
            self.fail(f"{quoted(value)} is not a whole number of at most 64 bits.", param, ctx)
        return super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        """The bounds for the help; 64 bits are not worth a word."""
        if self.max == LARGEST:
            return "" if self.min == -LARGEST else f"x>={self.min}"
        return super()._describe_range()


F = TypeVar("F", bound=Callable[..., Any])


def _stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


device = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run; what really runs stands in the report.",
)

preprocess = click.option(
    "--preprocess",
    metavar="P",
    help="imagenet, inception, caffe, unit, raw, or a file: TOML, Hugging Face "
    "preprocessor_config.json, timm config.json. Found out when not given.",
)

overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="One preprocessing option, over all else: size=224,224 resize=squash mean=0.5,0.5,0.5 "
    "...; may be repeated.",
)

labels = click.option(
    "--labels",
    metavar="F",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Class names: one per line, CSV or JSON. The model's own when not given.",
)

json_report = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the report as JSON on standard output, and nothing else.",
)


def count(flag: str, default: int, text: str) -> Callable[[F], F]:
    """An option that is a whole number and shows its default.

    Args:
        flag: Its name.
        default: Its value where it is not given.
        text: The help.
    """
    kind = WholeNumber(min=0)
    return click.option(flag, metavar="N", type=kind, default=default, show_default=True, help=text)


def output_folder(text: str, kind: OutputFolder | None = None) -> Callable[[F], F]:
    """The option for the folder of the results.

    Args:
        text: The help: which files are written.
        kind: Its type, where it takes more than folders.
    """
    return click.option(
        "-o",
        "--output",
        metavar="DIR",
        default="inspection",
        show_default=True,
        type=kind or OutputFolder(),
        help=text,
    )


def timeout(seconds: float) -> Callable[[F], F]:
    """The option for the wall clock.

    Args:
        seconds: Its default.
    """
    return click.option(
        "--timeout",
        type=Number(min=0, max=_MOST_SECONDS),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="Stop after this time; 0 for no limit.",
    )


memory = click.option(
    "--memory",
    type=Number(min=0, max=_MOST_MEMORY),
    default=None,
    metavar="GIB",
    help="Memory that the work may take; 0 for no limit.  [default: 80 % of the machine's]",
)

trust = click.option(
    "--trust",
    is_flag=True,
    help="Where MODEL is a program of another framework (TorchScript, SavedModel, a factory): "
    "run it, to convert it.",
)

weights = click.option(
    "--weights",
    metavar="F",
    default="",
    help="Weights for a function that makes the model: .pt, .pth or .safetensors.",
)

inputs = click.option(
    "--input",
    "inputs",
    metavar="SHAPE",
    multiple=True,
    help="Shape of an input that a source of another framework does not say, batch first: "
    "?,3,224,224 (? for a free axis); may be repeated.",
)

signature = click.option(
    "--signature",
    metavar="NAME",
    default="",
    help="Which function of a TFLite file or SavedModel that has several.  [default: the one that "
    "serves]",
)

python = click.option(
    "--python",
    metavar="INTERPRETER",
    default="",
    help="Python of an environment that holds the source's framework, where it cannot live beside "
    "this program: apart/bin/python.",
)

feed = click.option(
    "--feed",
    "feed",
    metavar="NAME=VALUE",
    multiple=True,
    help="Constant for an input that is not the image: numbers (NAME=640,640) or a file "
    "(NAME=ids.npy); may be repeated.",
)

_DISPLAY = ("alpha", "colormap", "raw", "contour", "grid", "columns")

display_options = _stack(
    click.option(
        "--alpha",
        type=Number(min=0, max=1),
        default=0.88,
        show_default=True,
        help="Opacity of the map where it is highest.",
    ),
    click.option(
        "--colormap",
        metavar="NAME",
        default="",
        help="A colour map of Matplotlib: viridis, gray, RdBu_r ...  [default: the project's own]",
    ),
    click.option("--raw", is_flag=True, help="Draw the map's colours alone, at the photo's size."),
    click.option("--contour", is_flag=True, help="Draw lines of equal value on the photo."),
    click.option("--grid", is_flag=True, help="Draw the borders of the layer's cells."),
    click.option(
        "--columns",
        type=WholeNumber(min=1, max=64),
        metavar="N",
        help="Maps beside each other on a sheet, which is then written.  "
        "[default: as many as there are]",
    ),
)
"""How maps are drawn."""


def display_of(options: dict[str, Any]) -> "Display":
    """Take the options of :data:`display_options` out of a command's.

    Raises:
        UsageError: There is no such colour map.
    """
    from inspector.render.drawing.display import Display

    found = {name: options.pop(name) for name in _DISPLAY}
    return Display(**found | {"columns": found["columns"] or 0})


limit_options = _stack(timeout(supervise.SECONDS), memory)
source_options = _stack(weights, inputs, signature, python)
_opening_options = _stack(preprocess, overrides, labels, feed, device, trust, source_options)
model_options = _stack(_opening_options, limit_options)
check_options = _stack(_opening_options, timeout(supervise.CHECK_SECONDS), memory)
"""As :data:`model_options`, under the clock of a command that somebody waits for."""

OPENING = (
    *("device", "preprocess", "overrides", "labels", "feed"),
    *("trust", "weights", "inputs", "signature", "python"),
)
"""Names of the options that :func:`open_model` takes."""


def opening_of(
    path: Path,
    *,
    device: str,
    preprocess: str | None,
    overrides: Sequence[str],
    labels: Path | None,
    trust: bool,
    weights: str,
    inputs: Sequence[str],
    signature: str,
    python: str,
    feed: Sequence[str] = (),
    engine: str = "auto",
) -> "Opening":
    """What opens a model with the shared options, here or in another process."""
    from converters.source import Options
    from inspector.opening import Opening

    return Opening(
        path,
        device=device,
        preprocess=preprocess,
        overrides=tuple(overrides),
        labels=labels,
        trust=trust,
        python=python,
        feed=tuple(feed),
        engine=engine,
        options=Options(inputs=shapes(inputs), weights=weights, signature=signature),
    )


def open_model(path: Path, **options: Any) -> "Explainer":
    """Open a model with the shared options; see :func:`opening_of`."""
    from inspector.explain import Explainer

    return opening_of(path, **options).open(Explainer)


def shapes(texts: Sequence[str]) -> tuple[tuple[int | None, ...], ...]:
    """``?,3,224,224`` as (None, 3, 224, 224), for each text."""
    return tuple(map(_shape, texts))


def _shape(text: str) -> tuple[int | None, ...]:
    pieces = [piece.strip() for piece in text.lower().replace("x", ",").split(",")]
    sizes = [None if piece in {"?", "n", "batch"} else whole_number(piece) for piece in pieces]
    for piece, size in zip(pieces, sizes, strict=True):
        if piece not in {"?", "n", "batch"} and not (
            size is not None and 0 <= size <= _LONGEST_AXIS
        ):
            raise click.UsageError(f"{quoted(text)} is not a shape; write it as ?,3,224,224")
    return tuple(sizes)


def supervised(
    work: Callable[[], int], *, timeout: float, memory: float | None, device: str
) -> int:
    """Run a command's work under a time and memory limit; see ``supervise``."""
    from inspector.cli.rights import child_rights

    # CUDA maps far more memory than it uses; a cap would stop it at once.
    # Rounded up: nothing but 0 is "no limit".
    limit = supervise.default_memory() if memory is None else math.ceil(memory * 2**30)
    if device == "cuda":
        limit = 0
    seconds = timeout or None
    python = next((c.params["python"] for c in _contexts() if c.params.get("python")), "")
    with child_rights(_texts(), _outputs(), seconds, python) as rights:
        return supervise.run(
            lambda: _with_cache_said(work), seconds=seconds, memory=limit or None, rights=rights
        )


def _with_cache_said(work: Callable[[], int]) -> int:
    """Do some work, and say once where the cache could not keep what it found."""
    try:
        return work()
    finally:
        from inspector.cache_folder import why_unwritable

        if why := why_unwritable():
            say(f"{why}: what it would hold is computed anew each time", "note")


def _contexts() -> Iterator[click.Context]:
    """The context of the command that runs, and those around it."""
    context = click.get_current_context(silent=True)
    while context is not None:
        yield context
        context = context.parent


def _texts() -> Iterator[str]:
    """Every text that the command line gives."""
    waiting: list[Any] = [value for context in _contexts() for value in context.params.values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str | Path):
            yield str(value)
        elif isinstance(value, list | tuple):
            waiting += value


def named_paths() -> tuple[Path, ...]:
    """Files and folders that are there and that the command line names, for whatever purpose."""
    from inspector.cli.rights import parts_of

    paths = (Path(part) for text in _texts() for part in parts_of(text) if part)
    return tuple(path for path in paths if os.path.lexists(path))


def _outputs() -> Iterator[Path]:
    """Folders that the command writes into."""
    for context in _contexts():
        for parameter in context.command.params:
            value = context.params.get(parameter.name or "")
            if isinstance(value, Path) and isinstance(parameter.type, OutputFolder):
                yield value
            elif isinstance(value, Path) and isinstance(parameter.type, OutputFile):
                yield value.parent

"""Errors of this package, and the exit status of each.

InspectorError (converters.errors)  1  the root
├── ConverterError           3  the model is refused; see converters.errors
├── UsageError               2  an argument or option that cannot be used
│   ├── UnknownTarget        2  a class, label or output that does not exist
│   ├── UnknownLayer         2  a tensor that is not a layer
│   ├── UnknownMethod        2  a method that does not exist
│   └── MissingExtra         2  an optional package that is not installed
├── MethodRefused            3  a method that cannot be right for this model
│   ├── NotFinite            3  numbers of one photo that are not finite
│   └── NoGradient           3  a target that does not depend differentiably on the input
├── ModelRefused             3  no image input, no convolution, onnxruntime will not run it
├── ImageRefused             4  an image that cannot be read
├── LimitExceeded            5  memory or time ran out
└── BrokenInstallation       6  an installed package does not start
"""

import contextlib
import importlib
from collections.abc import Iterable, Iterator

from converters.errors import ConverterError, ExplainedError, InspectorError, out_of_memory

__all__ = [
    "BrokenInstallation",
    "ConverterError",
    "ExplainedError",
    "ImageRefused",
    "InspectorError",
    "InspectorWarning",
    "LimitExceeded",
    "MethodRefused",
    "MissingExtra",
    "ModelRefused",
    "NoGradient",
    "NotFinite",
    "UnknownLayer",
    "UnknownMethod",
    "UnknownTarget",
    "UsageError",
    "nearest",
    "refusing",
    "require",
]


class UsageError(InspectorError):
    """An argument or option that cannot be used."""

    exit_status = 2


class UnknownTarget(UsageError):
    """A class, label or output that does not exist."""


class UnknownLayer(UsageError):
    """A tensor name that is not a layer of the model."""


class UnknownMethod(UsageError):
    """A method that does not exist."""


class MissingExtra(UsageError):
    """An optional package that is not installed.

    Args:
        what: What needs it.
        extra: The extra that brings it.
    """

    def __init__(self, what: str, extra: str) -> None:
        """Say what to install."""
        super().__init__(
            f"{what} needs packages that are not installed",
            hint=f"pip install 'onnx-inspector[{extra}]'",
        )


def require(module: str, what: str, extra: str) -> None:
    """Refuse to go on where an optional package is not installed.

    Args:
        module: The module that is needed.
        what: What needs it.
        extra: The extra that brings it.

    Raises:
        MissingExtra: It is not there, or lacks another one.
        BrokenInstallation: It is there, and does not start.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        raise MissingExtra(what, extra) from None
    except ImportError as error:
        said = " ".join(str(error).split())[:200]
        package = module.partition(".")[0]
        raise BrokenInstallation(
            f"{what} needs {package}, which is installed and does not start ({said})",
            hint=f"pip install --force-reinstall --no-deps {package}, or what the reason names",
        ) from None


class BrokenInstallation(InspectorError):
    """An installed package that does not start."""

    exit_status = 6


class MethodRefused(InspectorError):
    """A method that cannot be right for this model."""

    exit_status = 3


class NoGradient(MethodRefused):
    """A target that does not depend differentiably on what its gradient is asked for."""


class NotFinite(MethodRefused):
    """Numbers of one photo that are not finite; other photos may be right."""


class ModelRefused(InspectorError):
    """A model that cannot be explained at all."""

    exit_status = 3


class ImageRefused(InspectorError):
    """An image that cannot be read."""

    exit_status = 4


class LimitExceeded(InspectorError):
    """Memory or time ran out."""

    exit_status = 5


class InspectorWarning(UserWarning):
    """A map that may mislead, and why; every one also stands in the report."""


_NAME_LIMIT = 200


@contextlib.contextmanager
def refusing(what: str, hint: str = "") -> Iterator[None]:
    """Make a refusal of whatever the operators of a stranger's network raise; or as a decorator.

    Errors that explain themselves, and memory that ran out, pass as they are.

    Args:
        what: What failed.
        hint: What to do.

    Raises:
        MethodRefused: Anything else was raised.
    """
    try:
        yield
    except ExplainedError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise MethodRefused(f"{what} ({type(error).__name__}: {reason})", hint=hint) from error


def nearest(name: str, names: Iterable[str]) -> str:
    """Hint that lists the known names most like ``name`` (empty when nothing is near)."""
    known = {str(candidate).lower(): str(candidate) for candidate in names}
    # Comparing is quadratic: nothing is near a name of thousands of letters.
    import difflib  # only for what is wrong

    close = difflib.get_close_matches(name.lower()[:_NAME_LIMIT], known, n=3, cutoff=0.5)
    return "nearest: " + ", ".join(known[c] for c in close) if close else ""

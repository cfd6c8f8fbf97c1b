"""Errors of reading and converting a model, and the words by which memory errors are known.

InspectorError               the root: says what happened, where, and what to do
└── ConverterError           exit status 3: the model is refused
    ├── NotAModel            the bytes are not an ONNX model (and what they look like instead)
    ├── UnsafeModel          a limit is passed, or a path leaves the model's folder
    ├── UnsupportedOperator  operators that the twin does not implement, all of them
    └── ConversionFailed     a source model could not be brought to ONNX
        ├── NotTrusted       the source is a program, and nobody said that it may run
        ├── NotWritten       2  the place for the result cannot be written to, or is full
        └── ConversionLimit  5  time or memory ran out while it was converted
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converters.address import as_given

__all__ = [
    "DISK_FULL",
    "ConversionFailed",
    "ConversionLimit",
    "ConverterError",
    "ExplainedError",
    "InspectorError",
    "NotAModel",
    "NotTrusted",
    "NotWritten",
    "UnsafeModel",
    "UnsupportedNode",
    "UnsupportedOperator",
    "first_few",
    "out_of_memory",
    "reason_of",
    "said_by",
    "says_disk_full",
    "says_out_of_memory",
]


DISK_FULL = "the disk is full: make room, or choose another place with -o"


class InspectorError(Exception):
    """An error that a user can act on; the root of all that this distribution raises.

    Args:
        what: What happened, one clause, without a final full stop.
        where: File, node or tensor that it happened at; empty when there is none.
        hint: What to do about it; empty when nothing can be done.

    ``str(error)`` is the one line that the command line prints.

    Example:
        >>> from inspector import InspectorError
        >>> str(InspectorError("no such class", where="cat.jpg", hint="give an index"))
        'cat.jpg: no such class; give an index'
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Keep the three parts apart, so that a report can show them apart."""
        super().__init__(what)
        self.what, self.where, self.hint = what, as_given(where), hint

    def __str__(self) -> str:
        """Join the parts: ``where: what; hint``."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.hint}" if self.hint else line

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it says: the constructors of its kinds take other arguments than these."""
        return _restored, (type(self), self.args), self.__dict__


ExplainedError = InspectorError
"""The root by its name in the converters, which know nothing of who explains."""


def _restored(kind: type[InspectorError], args: tuple[Any, ...]) -> InspectorError:
    """An error without its attributes, which pickle sets afterwards."""
    error = kind.__new__(kind)
    error.args = args
    return error


class ConverterError(ExplainedError):
    """A model that cannot be opened or converted."""

    exit_status = 3


class NotAModel(ConverterError):
    """The bytes are not an ONNX model."""


class UnsafeModel(ConverterError):
    """The model passes a limit or reaches outside its folder.

    Args:
        findings: Every problem found, one clause each.
    """

    def __init__(self, findings: Sequence[str], *, where: str = "", hint: str = "") -> None:
        """Join all findings into one line."""
        super().__init__("; ".join(findings), where=where, hint=hint)
        self.findings = tuple(findings)


@dataclass(frozen=True)
class UnsupportedNode:
    """One node that the twin cannot run."""

    name: str
    op_type: str
    domain: str
    opset: int
    reason: str = ""


class UnsupportedOperator(ConverterError):
    """Operators that the twin, or the gradient graph, does not implement, all of them at once.

    Args:
        nodes: The nodes, each with its reason.
        where: The file.
        lacking: What is missing, in words that the list of operators follows.
        hint: What to do instead; that methods without a gradient work, when it is empty.
    """

    def __init__(
        self,
        nodes: Sequence[UnsupportedNode],
        *,
        where: str = "",
        lacking: str = "the PyTorch twin does not implement",
        hint: str = "",
    ) -> None:
        """Group the nodes by operator and name the first few of each."""
        self.nodes = tuple(nodes)
        groups: dict[str, list[UnsupportedNode]] = {}
        for node in nodes:
            label = f"{node.domain or 'ai.onnx'}::{node.op_type} (opset {node.opset})"
            groups.setdefault(label, []).append(node)
        parts = []
        for label, members in groups.items():
            names = first_few([repr(member.name) for member in members], 3)
            reason = f": {members[0].reason}" if members[0].reason else ""
            parts.append(f"{label} at {names}{reason}")
        hint = hint or "methods that need only forward passes (cam, occlusion) still work"
        if any(node.domain == "com.microsoft.nchwc" for node in nodes):
            hint = (
                "ONNX Runtime saved this file for one processor's memory layout; give the file "
                "it was made from, or one saved below its highest optimisation level; " + hint
            )
        super().__init__(f"{lacking} " + "; ".join(parts), where=where, hint=hint)


class ConversionFailed(ConverterError):
    """A source model could not be brought to ONNX, or differs from it afterwards."""


class NotTrusted(ConversionFailed):
    """Converting the source would run a program of its author's, and nobody allowed that."""


class NotWritten(ConversionFailed):
    """The place for the result of a conversion cannot be written to."""

    exit_status = 2

    @classmethod
    def by(cls, error: OSError, where: str) -> "NotWritten":
        """The error for what the system said of a place."""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return cls(
            f"cannot be written ({error.strerror or error})",
            where=where,
            hint=DISK_FULL if full else "choose another place with -o",
        )


class ConversionLimit(ConversionFailed):
    """Time or memory ran out while a source was converted."""

    exit_status = 5


_MEMORY_WORDS = (
    "bad_alloc",
    "bad allocation",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "memoryerror",
    "not enough memory",
    "oom when allocating",
    "out of memory",
    "exceeds the supported maximum",
)
"""What Python, NumPy, ONNX Runtime, torch and native allocators say, in small letters."""


def first_few(texts: Sequence[str], most: int, between: str = ", ") -> str:
    """The first of some texts, and how many more there are.

    Example:
        >>> first_few(["a", "b", "c", "d"], 2)
        'a, b and 2 more'
    """
    more = len(texts) - most
    return between.join(texts[:most]) + (f" and {more:,} more" if more > 0 else "")


def says_out_of_memory(text: str) -> bool:
    """Whether a message, of an exception or of a process that died, says that memory ran out."""
    lower = text.lower()
    return any(word in lower for word in _MEMORY_WORDS)


def reason_of(error: BaseException) -> str:
    r"""The line of a framework's error that says why: the last, of the innermost cause.

    Frameworks begin with what they were doing ("Error when deserializing class ...") and end with
    what went wrong; where lines name an exception, the last of those is taken. Advice and traces
    that follow ("For more information, run with ...") are left out.

    Example:
        >>> from converters.errors import reason_of
        >>> reason_of(TypeError("While loading.\nException encountered: no 'groups'\n"))
        "no 'groups'"
    """
    text = _DECORATION.sub("", str(_innermost(error)))
    lines = [line.strip() for line in text.splitlines() if line.strip(" -=\t")]
    named = [
        found
        for line in lines
        if (found := _EXCEPTION.match(line)) and "encountered when calling" not in line
    ]
    if named:
        return named[-1]["said"][:300]
    advice = next((n for n, line in enumerate(lines) if n and _ADVICE.match(line)), len(lines))
    return (lines[advice - 1] if lines else "")[:300]


def said_by(error: BaseException) -> str:
    r"""What a framework's error says, short enough for one line: its kind and its reason.

    Example:
        >>> from converters.errors import said_by
        >>> said_by(ValueError("While tracing\nsize 7 is not 8"))
        'ValueError: size 7 is not 8'
    """
    kind, reason = type(_innermost(error)).__name__, reason_of(error)
    return f"{kind}: {reason[:240]}" if reason else kind


def _innermost(error: BaseException) -> BaseException:
    """The cause behind all causes; one that only tells of frames left out, as JAX's, is none."""
    while (cause := error.__cause__) is not None and str(cause):
        if "traceback" in type(cause).__module__:
            break
        error = cause
    return error


_DECORATION = re.compile(r"\x1b\[[0-9;]*m|\{\{(?:function_)?node [^{}]*\}\} ?")
"""Colours of terminals, and TensorFlow's own names of where it was."""
_EXCEPTION = re.compile(r"(?:Exception encountered|[\w.]+(?:Error|Exception)): (?P<said>.*\S)")
_ADVICE = re.compile(
    r"(?i:arguments received|caused by|consider|for (?:more|extended|further)|\[?hint|if you|note:|"
    r"please|see (?:also|http)|stack trace|suggested|this error|"
    r"the (?:above|error above|error occurred|following call|problem arose)|to fix|traceback|"
    r"you (?:can|may))|Set [A-Z_]{4}"
)


def says_disk_full(text: str) -> bool:
    """Whether a message, of an exception or of a process that died, says that a disk is full."""
    lower = text.lower()
    return any(word in lower for word in ("no space left on device", "disk quota exceeded"))


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python, ONNX Runtime or torch means that memory ran out."""
    # The exceptions of ONNX Runtime have no common root but Exception.
    return isinstance(error, MemoryError) or says_out_of_memory(str(error))

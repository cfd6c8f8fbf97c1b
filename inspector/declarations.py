"""What methods and studies declare: their options, also read from a file's text without running it.

Each method and each study is one file, whose function stands below ``@method(...)`` or
``@study(...)``: keyword-only parameters are its options, the docstring describes them.  A help page
needs nothing else, and importing the files for it would load every library that they compute with.
"""

import ast
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from converters.plain_values import quoted, real_number, whole_number
from inspector.errors import UsageError

__all__ = ["HANDED_IN", "Declaration", "Option", "declarations", "options_of"]

HANDED_IN = ("progress", "journal")
"""Keyword-only parameters that are no options: whoever runs the function hands them in."""


@dataclass(frozen=True)
class Option:
    """One option of a method or study: a keyword-only parameter of its function."""

    name: str
    default: Any
    help: str

    def parse(self, text: str) -> Any:
        """Read a value from the command line by the type of the default.

        Raises:
            UsageError: It is not of that type.
        """
        if isinstance(self.default, bool):
            words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            if text.lower() in words:
                return words[text.lower()]
            raise UsageError(f"{self.name} is yes or no, not {quoted(text)}")
        number: float | None
        if isinstance(self.default, int):
            number = whole_number(text)
        elif isinstance(self.default, float):
            number = real_number(text)
        else:
            return text
        if number is None:
            raise UsageError(f"{self.name} is a number, not {quoted(text)}")
        return number


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Options of a function by name, with defaults and help from its signature and docstring."""
    parameters = inspect.signature(function).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return _options(found, inspect.getdoc(function) or "")


def _options(defaults: Mapping[str, Any], documentation: str) -> dict[str, Option]:
    described = _described_arguments(documentation)
    return {
        name: Option(name, default, described.get(name, ""))
        for name, default in defaults.items()
        if name not in HANDED_IN
    }


def _described_arguments(documentation: str) -> dict[str, str]:
    """Texts of the ``Args:`` section of a google-style docstring, by argument name."""
    section = documentation.partition("\nArgs:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    current = ""
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            current, _, text = line.strip().partition(": ")
            found[current] = text
        elif current:
            found[current] += " " + line.strip()
    return found


@dataclass(frozen=True)
class Declaration:
    """What the text of a file says of the method or study in it.

    Attributes:
        module: Name of the file's module.
        name: As it is typed: the decorator's first argument.
        facts: The decorator's other arguments.
        docstring: The function's, without its indentation.
        options: By name, in the function's order.
    """

    module: str
    name: str
    facts: Mapping[str, Any] = field(repr=False)
    docstring: str = field(repr=False)
    options: Mapping[str, Option] = field(repr=False)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.docstring.partition("\n")[0]

    @property
    def documentation(self) -> str:
        """The docstring up to its sections."""
        return self.docstring.partition("\nArgs:\n")[0].strip()


def declarations(package: str, decorator: str) -> Mapping[str, Declaration]:
    """What the files of a package declare, by name and in the files' order; none is imported.

    Args:
        package: Its full name.
        decorator: Name of the decorator above the functions; its arguments and the parameters'
            defaults are literals.

    Returns:
        Empty where the package is installed without its source text.

    Raises:
        ValueError: An argument or a default is not a literal.

    Example:
        >>> from inspector.declarations import declarations
        >>> declarations("inspector.methods", "method")["rise"].options["masks"].default
        1000
    """
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = (
        one
        for module in pkgutil.iter_modules(places)
        for one in _declared(module, f"{package}.{module.name}", decorator)
    )
    return MappingProxyType({one.name: one for one in found})


def _declared(module: pkgutil.ModuleInfo, name: str, decorator: str) -> Iterator[Declaration]:
    """Declarations in the text of one module."""
    spec = module.module_finder.find_spec(module.name, None)
    read = getattr(spec.loader, "get_source", None) if spec else None
    for node in ast.parse((read(module.name) if read else None) or "").body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Name)
                and call.func.id == decorator
            ):
                yield _declaration(name, node, call)


def _declaration(module: str, function: ast.FunctionDef, call: ast.Call) -> Declaration:
    documentation = ast.get_docstring(function) or ""
    defaults = {
        one.arg: inspect.Parameter.empty if value is None else ast.literal_eval(value)
        for one, value in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    }
    return Declaration(
        module,
        ast.literal_eval(call.args[0]),
        {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg},
        documentation,
        _options(defaults, documentation),
    )

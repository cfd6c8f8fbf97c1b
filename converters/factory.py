"""``package.module:name``: a function that makes a model, found and read without running it.

Which framework it belongs to is told from what its module imports, and what the modules of the
same package import that it imports: parsed, never executed.
"""

import ast
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from converters.errors import ConversionFailed, said_by
from converters.regular_file import read_regular

__all__ = ["TORCH", "imports_of", "named", "resolve"]

TORCH = ("torch", "timm", "pytorch", "lightning", "transformers")
"""How the names of PyTorch's own packages, and of those built on it, begin."""

_FACTORY = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*(\.\w+)*)")
_MOST_MODULES = 64
_MOST_BYTES = 2**21
_COMPILED = (".so", ".pyd")


def named(source: str) -> tuple[str, str] | None:
    """Module and name that a source gives; None when it is not a factory, or is a path."""
    match = _FACTORY.fullmatch(source)
    if match is None or os.path.exists(source):  # noqa: PTH110 - no path object of any text
        return None
    return match["module"], match["name"]


def imports_of(module: str) -> frozenset[str] | None:
    """Top-level packages that a module imports, itself or through its own package.

    Returns:
        None when there is no such module in this folder or on Python's path; an empty set when
        it is there and cannot be read (compiled, or not Python).
    """
    start = _find(module)
    if start is None:
        return None
    found: set[str] = set()
    root = module.partition(".")[0]
    waiting, seen = [(module, start)], {start}
    while waiting and len(seen) <= _MOST_MODULES:
        name, path = waiting.pop(0)
        for inner in _imports(name, path):
            found.add(inner.partition(".")[0])
            # What a package, or a file beside it, imports from its own kind decides as well.
            place = (
                _find(inner) if inner.partition(".")[0] == root or _beside(inner, start) else None
            )
            if place is not None and place not in seen:
                seen.add(place)
                waiting.append((inner, place))
    return frozenset(found)


def _roots() -> Iterator[Path]:
    yield Path()
    yield from (Path(entry) for entry in sys.path if entry)


def _find(module: str) -> Path | None:
    """The file of a module, without importing the packages around it."""
    parts = module.split(".")
    for root in _roots():
        base = root.joinpath(*parts)
        for path in (base / "__init__.py", base.with_name(base.name + ".py")):
            if path.is_file():
                return path
        if base.parent.is_dir() and any(
            p.suffix in _COMPILED for p in base.parent.glob(f"{base.name}.*")
        ):
            return base
    return None


def _beside(module: str, start: Path) -> bool:
    """Whether a top-level module lies in the folder of the file that was asked for."""
    name = module.partition(".")[0]
    folder = start.parent
    return (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()


def _imports(module: str, path: Path) -> set[str]:
    """Full names of what one file imports; nothing when it cannot be read."""
    try:
        tree = ast.parse(read_regular(path, _MOST_BYTES))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *filter(None, [node.module])])
            found.update(f"{stem}.{a.name}" if stem else a.name for a in node.names)
            if stem:
                found.add(stem)
    return found


def resolve(source: str) -> Callable[[], Any]:
    """Import a factory: runs its author's program.

    Raises:
        ConversionFailed: Its module cannot be imported, or has no such name.
    """
    module, name = named(source) or ("", "")
    try:
        target: Any = importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a stranger's program raises anything
        raise ConversionFailed(
            f"importing {module} fails ({said_by(error)})", where=source
        ) from None
    for part in name.split("."):
        if not hasattr(target, part):
            near = ", ".join(sorted(n for n in vars(target) if callable(getattr(target, n)))[:8])
            raise ConversionFailed(
                f"{module} has no {name!r}", where=source, hint=f"it has {near}" if near else ""
            )
        target = getattr(target, part)
    if not callable(target):
        raise ConversionFailed(
            f"is a {type(target).__name__}, not a function that makes a model", where=source
        )
    made: Callable[[], Any] = target
    return made

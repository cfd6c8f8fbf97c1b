"""Environment variables, files and folders that the child of a conversion gets.

Nothing that is not needed: tokens, passwords and the sockets of agents stay with the user.
"""

import os
import site
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from converters import rights

__all__ = ["environment_of", "kept_variables", "readable"]

_PASS = "INSPECTOR_PASS"  # noqa: S105 - names of variables
_NAMES = frozenset(
    {
        *("PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV"),
        *("CONDA_PREFIX", "NO_COLOR", "TERM", "ORT_DISABLE_TELEMETRY", "XLA_FLAGS"),
        *("TF_USE_LEGACY_KERAS", "TF_XLA_FLAGS", "KERAS_BACKEND", "INSPECTOR_DEBUG"),
        "INSPECTOR_SANDBOX",
        # Windows does not start a program without these.
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS"),
        *("PROCESSOR_ARCHITECTURE", "PROGRAMDATA"),
    }
)
_BEGINNINGS = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "PYTHON", "COV_CORE_")
_MOST_LINKS = 20_000


def kept_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that are passed on: what starts a program, and those named in INSPECTOR_PASS."""
    if not rights.wanted():
        return dict(environment)
    wished = {name.strip() for name in environment.get(_PASS, "").split(",")}
    return {
        name: value
        for name, value in environment.items()
        if name.upper() in _NAMES or name in wished or name.startswith(_BEGINNINGS)
    }


def environment_of(folder: Path) -> dict[str, str]:
    """Variables with a home that is the work folder, where frameworks keep their settings."""
    home = {"HOME": str(folder), "USERPROFILE": str(folder)}
    # Packages of the user's own lie below the real home.
    base = {"PYTHONUSERBASE": site.getuserbase()} if site.ENABLE_USER_SITE else {}
    return {**kept_variables(os.environ), **base, **home, "PYTHONSAFEPATH": "1"}


def readable(parts: Iterable[str]) -> tuple[Path, ...]:
    """Files and folders that a source consists of, and what links in them name.

    A snapshot of the Hugging Face cache consists of links into the folder ``blobs`` beside it.
    """
    found: list[Path] = []
    for part in filter(None, parts):
        path = Path(part).absolute()
        found += [path, *_links(path)]
    return tuple(dict.fromkeys(found))


def _links(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for count, path in enumerate(folder.rglob("*")):
        if count == _MOST_LINKS:
            return
        if path.is_symlink():
            end = Path(os.path.realpath(path))  # Path.resolve raises where links form a circle
            if end.parent.name == "blobs":
                yield end

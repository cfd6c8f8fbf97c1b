"""What a pickle of PyTorch's would build, told from its instructions: nothing is unpickled.

A pickle names every class and function that it needs before it calls them.  A state dict needs
those that build tensors; a whole module needs the classes of its parts, which only its author's
program has.
"""

import io
import json
import pickletools
import shlex
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from converters.regular_file import open_regular

__all__ = ["Pickled", "export_command", "pickled"]

_MOST_BYTES = 1 << 25
_MOST_PICKLES = 5
"""Before PyTorch 1.6 a file was five pickles: a mark, a version, the machine, the object, keys."""
_MOST_OWN = 5
_NO_MODULES = sys.stdlib_module_names | IMPORT_MAPPING.keys() | {"numpy", "omegaconf", "torch"}
"""Packages whose objects stand beside weights in checkpoints, or do harm; Python 2's names too."""


@dataclass(frozen=True)
class Pickled:
    """A whole module in a pickle.

    Attributes:
        name: Its class, ``module.Class``; empty where the pickle holds none.
        key: Name of the entry that it stands in, where the pickle is a dictionary.
        own: Classes in it that are not PyTorch's, without which it cannot be unpickled.
    """

    name: str = ""
    key: str = ""
    own: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """Its class, and those of its author's that it needs besides."""
        own = [name for name in self.own if name != self.name]
        text = ascii(self.name[:80])[1:-1]
        return f"{text} with {ascii(', '.join(own)[:120])[1:-1]}" if own else text

    @property
    def needs(self) -> str:
        """Whom and what a user needs to unpickle it."""
        return "where you trust its author" + (" and have its program" if self.own else "")


def pickled(path: Path) -> Pickled:
    """The whole module that a file of PyTorch's would build: of an archive, or a pickle alone.

    Returns:
        Nothing where there is none, and where the file is damaged.
    """
    try:
        with open_regular(path) as file:
            return next((found for data in _pickles(file) if (found := _module(data)).name), _NONE)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return _NONE


_NONE = Pickled()


def export_command(path: Path, found: Pickled) -> str:
    """What exports a whole module to ONNX, where its author's program can be imported.

    Args:
        path: The file.
        found: What ``pickled`` says of it.
    """
    output = path.with_suffix(".onnx")
    if found.name.startswith("ultralytics."):
        given = shlex.quote(f"model={path}")
        return f"pip install ultralytics; yolo export {given} format=onnx"
    inner = f"[{json.dumps(found.key)}]" if found.key else ""
    # What a script defined is looked for in the program that is run; -c runs one.
    scripts = [name.rpartition(".")[2] for name in found.own if name.startswith("__main__.")]
    known = f"from PROGRAM import {', '.join(scripts)}; " if scripts else ""
    program = (
        f"{known}import torch; net = torch.load({json.dumps(str(path))}, weights_only=False, "
        f'map_location="cpu"){inner}.float().eval(); torch.onnx.export(net, '
        f"(torch.zeros(1, 3, 224, 224),), {json.dumps(str(output))}, dynamo=True)"
    )
    meant = ", and in the place of PROGRAM the file, without .py, that has them" if scripts else ""
    return f"python -c {shlex.quote(program)} (with the size of your photos{meant})"


def _pickles(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of each pickle of a file, as far as they are looked through."""
    if file.read(2) == b"PK":
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.filename.partition("/")[2] == "data.pkl":
                    with archive.open(entry) as stream:
                        yield stream.read(_MOST_BYTES)
        return
    file.seek(0)
    data = io.BytesIO(file.read(_MOST_BYTES))
    for _ in range(_MOST_PICKLES):
        start = data.tell()
        for _ in pickletools.genops(data):
            pass
        yield data.getvalue()[start : data.tell()]


def _module(data: bytes) -> Pickled:
    """The first class that a pickle names and that may be a network, and its author's others.

    A module's state has its parts under ``_modules``; a pickle without that word holds none.
    """
    texts, first, found, own, parts = ("", ""), "", _NONE, dict[str, None](), False
    for place, (code, argument) in enumerate(_instructions(data)):
        if place == 1:
            first = code
        if code == "GLOBAL":
            name = argument.replace(" ", ".")
            # Before PyTorch 1.6 a class stood behind the word "module", with its program's text.
            key = texts[0] if texts[1] == "module" and texts[0] else texts[1]
        elif code == "STACK_GLOBAL":  # its two names are the last two texts
            name, key = ".".join(texts), ""
        else:
            parts = parts or argument == "_modules"
            texts = (texts[1], argument) if argument else texts
            continue
        if _is_module(name):
            if not found.name:
                found = Pickled(name, key if first == "EMPTY_DICT" else "")
            if not name.startswith("torch.") and len(own) < _MOST_OWN:
                own[name] = None
    return replace(found, own=tuple(own)) if parts else _NONE


def _instructions(data: bytes) -> Iterator[tuple[str, str]]:
    """Names of a pickle's instructions and their texts, up to its end or to where it is cut."""
    try:
        for code, argument, _ in pickletools.genops(data):
            yield code.name, argument if isinstance(argument, str) else ""
    except ValueError:
        return


def _is_module(name: str) -> bool:
    """Whether a class may be a network: one of another program's, or a layer of PyTorch's."""
    if name.startswith("torch.nn.modules."):
        return True
    outside = name.partition(".")[0] not in _NO_MODULES or name.startswith("__main__.")
    return outside and name.rpartition(".")[2][:1].isupper()

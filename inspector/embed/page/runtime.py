"""ONNX Runtime's build for browsers, out of its npm package."""

import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from converters.nearest_path import did_you_mean
from converters.plain_values import parse_json
from converters.regular_file import read_regular
from inspector.errors import UsageError
from inspector.printable import clean_text

__all__ = ["COMMAND", "WebRuntime", "read_runtime"]

COMMAND = "npm pack onnxruntime-web"
"""What fetches the package as a file, without installing it."""

_SCRIPT = "package/dist/ort.wasm.bundle.min.mjs"
_WASM = "package/dist/ort-wasm-simd-threaded.wasm"
_ABOUT = "package/package.json"
_LIMITS = {_SCRIPT: 4 << 20, _WASM: 64 << 20, _ABOUT: 1 << 20}
_MAX_PACKAGE = 256 << 20
_MAX_MEMBERS = 10_000

_EXPORTS = re.compile(r"export\s*\{([^{}]*)\};?\s*$")
_PAIR = re.compile(r"([\w$]+) as ([\w$]+)")
_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)

_MIT = """MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and \
associated documentation files (the "Software"), to deal in the Software without restriction, \
including without limitation the rights to use, copy, modify, merge, publish, distribute, \
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is \
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or \
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT \
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND \
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, \
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, \
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


@dataclass(frozen=True)
class WebRuntime:
    """What of the package goes into a page.

    Attributes:
        label: Its name and version.
        script: Its module, whose exports became the constant ``ort``.
        wasm: Its WebAssembly.
        licence: Its licence, whole.
    """

    label: str
    script: str
    wasm: bytes
    licence: str


def read_runtime(path: Path) -> WebRuntime:
    """Read the package of onnxruntime-web.

    Args:
        path: ``onnxruntime-web-1.30.0.tgz``, as npm stores it; nothing of it is unpacked to disk.

    Raises:
        UsageError: No such file, or another one.
    """
    hint = f"fetch it with: {COMMAND}"
    try:
        found = _members(read_regular(path, _MAX_PACKAGE))
    except FileNotFoundError:
        near = did_you_mean(path)
        raise UsageError("no such file", where=str(path), hint=near or hint) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot be read ({reason})", where=str(path), hint=hint) from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UsageError(f"no package of npm ({error})", where=str(path), hint=hint) from None
    missing = [name for name in _LIMITS if name not in found]
    if missing:
        raise UsageError(
            f"not the package of onnxruntime-web: it has no {missing[0]}",
            where=str(path),
            hint=hint,
        )
    try:
        about = parse_json(found[_ABOUT].decode("utf-8"))
        name, version = str(about["name"]), str(about["version"])
        script = _as_constant(found[_SCRIPT].decode("utf-8"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"not the package of onnxruntime-web ({error})", where=str(path), hint=hint
        ) from None
    label = clean_text(f"{name} {version}")
    return WebRuntime(label, script, found[_WASM], f"{label}\n\n{_MIT}")


def _members(data: bytes) -> dict[str, bytes]:
    """The files that are needed, each bounded.

    Raises:
        ValueError: One of them is larger than any known version's, or there are too many.
    """
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        for count, member in enumerate(archive):
            if count > _MAX_MEMBERS:
                raise ValueError("too many files")
            limit = _LIMITS.get(member.name)
            if limit is None or not member.isfile():
                continue
            if member.size > limit:
                raise ValueError(f"{member.name} has {member.size} bytes")
            stream = archive.extractfile(member)
            found[member.name] = b"" if stream is None else stream.read(limit)
            if len(found) == len(_LIMITS):
                break
    return found


def _as_constant(module: str) -> str:
    """The module's code with its exports in a constant ``ort``, to stand before other code.

    Raises:
        ValueError: It has no list of exports at its end, or would end the element it stands in.
    """
    text = _MAP.sub("", module).rstrip()
    exports = _EXPORTS.search(text)
    if exports is None:
        raise ValueError("its script exports nothing")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError("its script cannot stand in a page")
    names = dict(pair[::-1] for pair in _PAIR.findall(exports[1]))
    if not {"InferenceSession", "Tensor", "env"} <= names.keys():
        raise ValueError("its script has no InferenceSession")
    wanted = ", ".join(f"{name}: {names[name]}" for name in ("InferenceSession", "Tensor", "env"))
    return f"{text[: exports.start()]}\nconst ort = {{ {wanted} }};"

"""Files are opened, values read and terminals written to by one door each, found in the source."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("converters", "inspector")

OWN_FILES = {
    "converters/regular_file.py": "the door",
    "converters/rights.py": "paths for a rule of the kernel, of which nothing is read",
    "converters/work_folder.py": "files of the kernel that say which processes live",
    "converters/conversion/__init__.py": "copies and records in a work folder of its own",
    "converters/conversion/child.py": "the child's pipe, and arrays in its work folder",
    "converters/exported.py": "the draft in the child's work folder",
    "converters/to_onnx/pytorch/export.py": "the draft in the child's work folder",
    "converters/to_onnx/pytorch/module.py": "a source file of the installed torchvision",
    "inspector/audit/remote/transfer.py": "copies in its own staging folder, its parent's pipe",
    "inspector/cache_folder.py": "a temporary file that it has just made",
    "inspector/cli/streams.py": "the null device",
    "inspector/cli/supervise.py": "files of the kernel, and the terminal",
    "inspector/embed/page/__init__.py": "this package's own page",
    "inspector/doctor.py": "files of installed packages",
    "inspector/verify/cache.py": "this package's own source",
    "inspector/whole_file.py": "a temporary file that it has just made",
}
"""Modules that open files by themselves, and which."""

OPENERS = {"read_text", "read_bytes", "write_text", "write_bytes", "fdopen"}
SPEAKERS = {"echo", "secho", "print_exc", "print_exception", "showwarning"}


@cache
def _modules() -> list[Path]:
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


@cache
def _calls(path: Path) -> list[tuple[int, str, ast.Call]]:
    """Line, name of what is called (with what it is an attribute of), and the call."""
    calls = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call)]
    return [
        (call.lineno, ast.unparse(call.func), call)
        for call in calls
        if isinstance(call.func, ast.Name | ast.Attribute)
    ]


def _opens(name: str, call: ast.Call) -> bool:
    of, _, last = name.rpartition(".")
    if last in OPENERS or name in {"open", "os.open", "io.open"}:
        return True
    # ``path.open("rb")``, not ``Photo.open(source)``, nor ``archive.open(name)``.
    mode = call.args[0] if call.args else None
    return (
        bool(of)
        and last == "open"
        and isinstance(mode, ast.Constant)
        and set(str(mode.value)) <= set("rwxab+")
    )


def _found(wrong: Iterator[tuple[Path, int, str]], allowed: dict[str, str]) -> list[str]:
    places = [(str(path.relative_to(ROOT)), line, name) for path, line, name in wrong]
    return [f"{path}:{line} {name}" for path, line, name in places if path not in allowed]


def test_files_of_others_are_opened_by_one_door():
    opened = (
        (path, line, name)
        for path in _modules()
        for line, name, call in _calls(path)
        if _opens(name, call)
    )
    assert not _found(opened, OWN_FILES), "use converters.regular_file or inspector.whole_file"


def test_files_of_numpy_are_read_by_one_door():
    read = (
        (path, line, name)
        for path in _modules()
        for line, name, _ in _calls(path)
        if name.rpartition(".")[2].startswith(("read_array", "read_magic"))
    )
    assert not _found(read, {"converters/numpy_file.py": "the door"}), "use converters.numpy_file"


def test_arrays_are_loaded_without_pickles_from_own_folders():
    loads = [
        (path, line, call)
        for path in _modules()
        for line, name, call in _calls(path)
        if name in {"np.load", "numpy.load"}
    ]
    for path, line, call in loads:
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert keywords.get("allow_pickle") == "False", f"{path}:{line}"
        assert str(path.relative_to(ROOT)) in OWN_FILES, f"{path}:{line}"


READERS = {
    "converters/plain_values.py": "the reader",
    "converters/conversion/child.py": "requests of this program to its own child",
    "converters/rights.py": "the answer of an interpreter that the user named",
    "converters/conversion/sandbox.py": "answers of that child",
    "converters/to_onnx/keras/__init__.py": "layers are walked without recursion, in the child",
    "converters/to_onnx/other.py": "asked for two keys alone",
    "converters/to_onnx/pytorch/program.py": "held against lists of what is allowed, in the child",
    "inspector/audit/engines/ray_data.py": "rows of this program's own workers",
    "inspector/declarations.py": "literals in this program's own files",
    "inspector/audit/remote/staging.py": "answers of its own process",
    "inspector/audit/remote/transfer.py": "requests of its own parent",
    "inspector/passes/journal.py": "results of this program's own",
}
"""Modules that read JSON by themselves, and of what."""


def test_values_of_others_are_read_by_one_reader():
    parsers = {"json.loads", "json.load", "tomllib.loads", "tomllib.load", "ast.literal_eval"}
    parsers |= {"yaml.safe_load", "yaml.load", "yaml.safe_load_all", "yaml.load_all"}
    parsed = (
        (path, line, name)
        for path in _modules()
        for line, name, _ in _calls(path)
        if name in parsers
    )
    assert not _found(parsed, READERS), "use converters.plain_values"


@pytest.mark.parametrize("name", ["isdecimal", "isdigit", "isnumeric"])
def test_numbers_are_not_told_by_their_digits(name):
    """``"²".isdigit()`` holds, and ``int()`` refuses it; 5,000 digits are decimal, too."""
    told = (
        (path, line, called)
        for path in _modules()
        for line, called, _ in _calls(path)
        if called.endswith(f".{name}")
    )
    allowed = {
        "converters/onnx_file/tensor_data.py": "at most 19 ASCII digits without a sign",
        "converters/rights.py": "numbers of processes, from the kernel",
        "converters/to_onnx/jax.py": "names only",
        "inspector/cli/rights.py": "numbers of descriptors, from the kernel",
        "inspector/studies/evolution/snapshots.py": "digits of a file's name, found by \\d",
        "inspector/studies/localisation/maps.py": "one character at a time",
        "inspector/studies/transfer/summary.py": "names only",
    }
    assert not _found(told, allowed), "use converters.plain_values.whole_number"


SPEAKING = {
    "inspector/cli/streams.py": "the door",
    "converters/conversion/child.py": "into a file that only its parent reads",
}


def test_the_terminal_is_written_to_by_one_door():
    def speaks(name: str) -> bool:
        last = name.rpartition(".")[2]
        return (
            name in {"print", "sys.stdout.write", "sys.stderr.write", "error.show", "Console"}
            or last in SPEAKERS
            or (last == "dump" and name.startswith("json"))
        )

    spoken = (
        (path, line, name) for path in _modules() for line, name, _ in _calls(path) if speaks(name)
    )
    assert not _found(spoken, SPEAKING), "use inspector.cli.streams"


def test_options_that_are_numbers_are_typed():
    """Click's own ranges take NaN, infinities, and numbers of any length."""
    plain = (
        (path, line, name)
        for path in _modules()
        for line, name, _ in _calls(path)
        if name in {"click.FloatRange", "click.IntRange"}
    )
    assert not _found(plain, {}), "use inspector.cli.options.Number or WholeNumber"


def test_archives_of_arrays_take_arrays_alone():
    """NumPy 2.1 keeps ``savez(place, allow_pickle=False)`` as an array of that name."""
    written = (
        (path, line, name)
        for path in [*_modules(), *(ROOT / "sample_models").glob("*.py")]
        for line, name, call in _calls(path)
        if name.endswith((".savez", ".savez_compressed"))
        and any(keyword.arg == "allow_pickle" for keyword in call.keywords)
    )
    assert not _found(written, {})

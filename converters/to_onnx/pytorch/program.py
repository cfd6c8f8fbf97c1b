"""An exported program (``.pt2``) as data: a copy of it in which nothing is left that runs.

``torch.export.load`` runs a stranger's file in five ways: example inputs, weights and constants
may be pickles; symbolic sizes go through sympy's ``eval``; guards are Python source; operators
are looked up by their dotted names; and names of arguments stand in generated source.  So the
file is not given to it.  Its parts are read here, held to what a network needs, and written into
a new archive, which is:

    models/model.json      strings are plain names; operators are ATen's; sizes are arithmetic;
                           guards and all of the nodes' metadata but the module's path are gone
    data/weights, /constants    raw numbers; no entry is a pickle
    data/sample_inputs     empty
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.errors import ConversionFailed
from converters.to_onnx.pytorch.archive import inspect

__all__ = ["cleaned"]

_MODEL = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_PAYLOADS = (
    ("data/weights/model_weights_config.json", "data/weights/", r"weight_\d+"),
    ("data/constants/model_constants_config.json", "data/constants/", r"tensor_\d+"),
)
_FORMAT = ("archive_format", "archive_version", "byteorder", ".data/version", "version")
_MOST_JSON = 2**28
_HINT = "export it anew with torch.export.save from plain tensors and PyTorch's own operators"

_NAME = re.compile(r"[A-Za-z0-9_.:+\-]{0,512}")  # what cannot be more than a name in source text
_TEXT = re.compile(r"[A-Za-z0-9_.:+\-, >]{0,512}")  # einsum's equations, rounding modes
_IDENTIFIER = re.compile(r"\w{0,512}", re.ASCII)
_ALLOWED = {
    "as_string": _TEXT,
    "as_strings": _TEXT,
    "name": _IDENTIFIER,
    "as_name": _IDENTIFIER,
    "forward_arg_names": _IDENTIFIER,
}
_PATH = re.compile(r"[\w.,;:'\"\[\]()<>@$ \-]{0,65536}")  # modules around a node, and their types
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!from_file)[a-z_][a-z0-9_]*\.\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|torch\.sym_(max|min|not|int|float|ite|sum)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
_SYMBOLIC = frozenset(
    (
        "Symbol",
        "Integer",
        "Add",
        "Mul",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "ModularIndexing",
        "CleanDiv",
        "CeilDiv",
        "Max",
        "Min",
        "Eq",
        "Ne",
        "Lt",
        "Le",
        "Gt",
        "Ge",
        "And",
        "Or",
        "Not",
        "Where",
        "CeilToInt",
        "FloorToInt",
        "TruncToInt",
        "RoundToInt",
        "ToFloat",
        "IntTrueDiv",
        "FloatTrueDiv",
        "Identity",
        "true",
        "false",
        "True",
        "False",
    )
)
_POWERS = ("Pow", "PowByNatural")
_SYMBOL = re.compile(r"(zuf|[a-z])\d{1,6}")
_EXPRESSION = (
    ast.Expression,
    ast.Load,
    ast.keyword,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.USub,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
)
_LARGEST = 2**63
_TREES = frozenset(("builtins.list", "builtins.tuple", "builtins.dict", "collections.OrderedDict"))


def cleaned(path: Path, copy: Path) -> None:
    """Write a copy of an exported program that loading can run nothing from.

    Args:
        path: The file as its author made it.
        copy: Where the copy goes.

    Raises:
        ConversionFailed: The archive is not what it claims, or the program holds a pickle,
            compiled code, an operator that is not PyTorch's own, or text where names belong.
    """
    inspect(path)
    try:
        with zipfile.ZipFile(path) as archive:
            parts = _parts(archive)
            with zipfile.ZipFile(copy, "w") as target:
                _copy(archive, parts, target)
    except (ValueError, TypeError, KeyError, LookupError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise ConversionFailed(
            f"is not an exported program that this PyTorch knows ({reason})",
            where=str(path),
            hint=_HINT,
        ) from None
    except _Refused as error:
        raise ConversionFailed(str(error), where=str(path), hint=_HINT) from None


class _Refused(Exception):
    """What a program holds that a network does not need."""


def _parts(archive: zipfile.ZipFile) -> dict[str, str]:
    """Full names of the records by their names below the archive's folder."""
    names = archive.namelist()
    if "serialized_exported_program.json" in names:
        raise _Refused("was written before PyTorch 2.9, in a format that is built on pickles")
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1:
        raise _Refused("does not hold one folder, as torch.export.save writes it")
    parts = {name.partition("/")[2]: name for name in names}
    models = [name for name in parts if name.startswith("models/")]
    if any(name.startswith("data/aotinductor/") for name in parts):
        raise _Refused("holds compiled code (AOTInductor)")
    if models != [_MODEL]:
        raise _Refused(f"holds {len(models)} programs; one, called 'model', is converted")
    return parts


def _copy(archive: zipfile.ZipFile, parts: dict[str, str], target: zipfile.ZipFile) -> None:
    root = parts[_MODEL].partition("/")[0]
    root = root if re.fullmatch(r"[\w\-]{1,100}", root) else "program"

    def put(name: str, content: bytes) -> None:
        target.writestr(f"{root}/{name}", content)

    for name in _FORMAT:
        if name in parts:
            put(name, archive.read(parts[name])[:64])
    put(_MODEL, json.dumps(_program(_json(archive, parts[_MODEL]))).encode())
    put(_SAMPLES, b"")
    for config, folder, allowed in _PAYLOADS:
        if config not in parts:
            raise _Refused(f"has no {config}, or keeps its tensors in a pickle")
        entries = _json(archive, parts[config])
        records = _payloads(entries, allowed)
        put(config, json.dumps(entries).encode())
        for record in sorted(records):
            with archive.open(parts[folder + record]) as source:
                _stream(target, f"{root}/{folder}{record}", source)


def _stream(target: zipfile.ZipFile, name: str, source: Any) -> None:
    with target.open(zipfile.ZipInfo(name), "w", force_zip64=True) as stream:
        while block := source.read(2**22):
            stream.write(block)


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    size = archive.getinfo(name).file_size
    if size > _MOST_JSON:
        raise _Refused(f"has a description of {size} bytes; a network's is smaller")
    found = json.load(io.TextIOWrapper(archive.open(name), encoding="utf-8"))
    if not isinstance(found, dict):
        raise TypeError(name)
    return found


def _payloads(document: dict[str, Any], allowed: str) -> set[str]:
    """Records that a list of tensors names, none of them a pickle."""
    records = set()
    for name, entry in document["config"].items():
        if entry["use_pickle"] is not False or not re.fullmatch(allowed, entry["path_name"]):
            raise _Refused(f"keeps {name[:80]!a} as a pickle or an object, not as a tensor")
        _plain(entry, "a tensor")
        if not _NAME.fullmatch(name):
            raise _Refused(f"a tensor is called {name[:80]!a}")
        records.add(entry["path_name"])
    return records


def _program(document: dict[str, Any]) -> dict[str, Any]:
    """The program without what runs: checked in place, and returned."""
    document["guards_code"] = []
    for entry in document["graph_module"].get("module_call_graph", ()):
        if entry["fqn"] == "" and entry.get("signature"):
            signature = entry["signature"]
            for key in ("in_spec", "out_spec"):
                _tree(json.loads(signature[key])[1])
    # Of modules inside, only the outermost one's signature is needed.
    document["graph_module"]["module_call_graph"] = [
        entry for entry in document["graph_module"]["module_call_graph"] if entry["fqn"] == ""
    ]
    document["graph_module"] |= {"metadata": {}, "treespec_namedtuple_fields": {}}
    for node in _nodes(document["graph_module"]):
        path = node.get("metadata", {}).get("nn_module_stack", "")
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise _Refused("a node's path in the module is not made of names")
        node["metadata"] = {"nn_module_stack": path} if path else {}
        if not _OPERATOR.fullmatch(node["target"]):
            raise _Refused(f"calls {node['target'][:120]!a}, no operator of PyTorch's own")
    _plain(document, "the program")
    return document


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All nodes, those of graphs in arguments too."""
    if isinstance(value, dict):
        if "target" in value and "inputs" in value:
            yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _plain(value: Any, key: str) -> None:
    """Refuse every string that is more than a name, by the key that it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _key(name, inner)
            if name not in ("nn_module_stack", "in_spec", "out_spec"):  # checked before
                _plain(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, key)
    elif isinstance(value, str):
        if key == "expr_str":
            _arithmetic(value)
        elif not _ALLOWED.get(key, _NAME).fullmatch(value):
            raise _Refused(f"{key} is {value[:80]!a}, which is not a name")


def _key(name: str, value: object) -> None:
    """Refuse a key that is more than a name, and arguments that are looked up or unpickled."""
    if name in ("as_operator", "as_custom_obj") and value is not None:
        raise _Refused("takes an operator or an object as an argument")
    if not _NAME.fullmatch(name):
        raise _Refused(f"something is called {name[:80]!a}")


def _arithmetic(text: str) -> None:
    """Refuse a size that is more than arithmetic on symbols: it will be evaluated as Python."""
    wrong = _Refused(f"a size is {text[:80]!a}, which is not arithmetic")
    if len(text) > 4096:
        raise wrong
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        raise wrong from None
    if not all(_arithmetical(node) for node in ast.walk(tree)):
        raise wrong


def _arithmetical(node: ast.AST) -> bool:
    """Whether a piece of an expression is a symbol, a number, or an operation on them.

    Powers are not part of it but small ones: towers of them would fill the memory.
    """
    match node:
        case ast.Name(id=name):
            return name in _SYMBOLIC or name in _POWERS or _SYMBOL.fullmatch(name) is not None
        case ast.Call(func=ast.Name(id=name), args=[_, exponent]) if name in _POWERS:
            return _small(exponent)
        case ast.Call(func=ast.Name(id=name)):
            return name in _SYMBOLIC
        case ast.BinOp(op=ast.Pow(), right=exponent):
            return _small(exponent)
        case ast.Pow():
            return True  # judged with its operands
        case ast.Constant(value=str(name)):
            return _SYMBOL.fullmatch(name) is not None
        case ast.Constant(value=int() | float() as number):
            return abs(number) <= _LARGEST
        case _:
            return isinstance(node, _EXPRESSION)


def _small(exponent: ast.AST) -> bool:
    match exponent:
        case ast.Call(func=ast.Name(id="Integer"), args=[ast.Constant(value=int(number))]):
            return abs(number) <= 4
        case ast.Constant(value=int(number)):
            return abs(number) <= 4
        case _:
            return False


def _tree(spec: dict[str, Any]) -> None:
    """Refuse arguments and results in anything but tuples, lists and mappings by name."""
    if spec["type"] is not None and spec["type"] not in _TREES:
        raise _Refused(f"takes or returns a {str(spec['type'])[:80]!a}")
    context = spec["context"]
    keys = json.loads(context) if isinstance(context, str) else context
    if keys is not None and not (isinstance(keys, list) and all(isinstance(k, str) for k in keys)):
        raise _Refused("takes or returns a structure that is not made of names")
    _plain(keys, "a key of the results")
    for inner in spec["children_spec"]:
        _tree(inner)

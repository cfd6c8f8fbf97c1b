"""Models that are not converted: named, and sent to the tool that can export them.

Asked last, about what no other converter knows.  A name alone is never enough: a file's first
bytes, or what lies beside it, have to agree.  Nothing is unpickled and nothing is parsed.
"""

import glob
import json
import re
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import ConversionFailed
from converters.frozen_graph import command_for
from converters.nearest_path import as_typed
from converters.plain_values import parse_json
from converters.regular_file import first_bytes, open_regular, read_beside, read_regular
from converters.source import Export, Options, as_path

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE, EXTRA = "", ""

_HEAD = 4096
_MOST_INDICES = 10
_MOST_JSON = 64 << 20
_PACKED = (
    b"x\x01",
    b"x\x5e",
    b"x\x9c",
    b"x\xda",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00\x00",
    b"\x04\x22\x4d\x18",
)


def recognises(source: str) -> None:
    """Refuse a known model that no converter reads; see ``converters.source``.

    Raises:
        ConversionFailed: What it is, and what to export from instead.
    """
    path = as_path(source)
    if path is None:
        return
    if _has_damaged_config(path):
        raise ConversionFailed(
            "has weights and a config.json that is not a JSON object",
            where=source,
            hint="config.json is cut off or damaged: ask for it anew",
        )
    if _checkpoint(path):
        raise ConversionFailed(
            "is a checkpoint of TensorFlow, or part of one: weights alone, and no way to compute",
            where=source,
            hint=_TF_WEIGHTS,
        )
    for kind in _KINDS:
        if _suffix(path) in kind.suffixes and kind.holds(path):
            what, hint = (text(path) if callable(text) else text for text in (kind.what, kind.hint))
            raise ConversionFailed(f"is {what}", where=source, hint=hint)


def convert(source: str, draft: Path, options: Options) -> Export:
    """Refuse: nothing here can be converted.

    Args:
        source: What was recognised.
        draft: Not written.
        options: Not used.

    Raises:
        ConversionFailed: Always.
    """
    del draft, options
    recognises(source)
    raise ConversionFailed("is not a model that any converter knows", where=source)


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _head(path: Path) -> bytes:
    return first_bytes(path, _HEAD)


def _begins(*marks: bytes) -> Callable[[Path], bool]:
    return lambda path: _head(path).startswith(marks)


def _matches(pattern: bytes) -> Callable[[Path], bool]:
    compiled = re.compile(pattern, re.DOTALL)
    return lambda path: compiled.search(_head(path)) is not None


def _beside(*suffixes: str) -> Callable[[Path], bool]:
    """Whether a file of the same name lies beside it, as weights do beside their network."""
    return lambda path: any(path.with_suffix(suffix).is_file() for suffix in suffixes)


def _pickled(path: Path) -> bool:
    """A pickle, plain or compressed as joblib does (zlib, gzip, bzip2, xz, lz4)."""
    head = _head(path)
    pickle = re.match(rb"\x80[\x02-\x05]", head) is not None
    packed = head.startswith(_PACKED) and _suffix(path) != ".pkl"
    return pickle or packed


def _skops(path: Path) -> bool:
    return _head(path).startswith(b"PK\x03\x04")


def _folder_with(*names: str) -> Callable[[Path], bool]:
    return lambda path: path.is_dir() and all((path / name).exists() for name in names)


def _has_damaged_config(path: Path) -> bool:
    """Whether a folder has weights of the hub, and a configuration that nobody can read."""
    if not _folder_with("config.json")(path):
        return False
    if not any((path / name).is_file() for name in ("model.safetensors", "pytorch_model.bin")):
        return False
    try:
        found = parse_json(read_beside(path, "config.json", _MOST_JSON), finite=False)
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(found, dict)


def _checkpoint(path: Path) -> bool:
    """A file of TensorFlow's checkpoint, which names the others: an index, data, the graph.

    Or the folder that they lie in.
    """
    if path.is_dir():
        return any(map(_checkpoint, sorted(path.glob("*.index"))[:_MOST_INDICES]))
    stem = re.sub(r"\.(index|meta|data-[0-9]{5}-of-[0-9]{5})$", "", path.name)
    if stem == path.name or not path.with_name(f"{stem}.index").is_file():
        return False
    return any(path.parent.glob(f"{glob.escape(stem)}.data-?????-of-?????"))


def _variables_alone(path: Path) -> bool:
    """The weights of a SavedModel, without the file that says how to compute."""
    return (path / "variables" / "variables.index").is_file()


def _caffe_weights(path: Path) -> bool:
    """Protobuf of a NetParameter: its name (field 1) or a layer (fields 2, 100)."""
    return _head(path)[:1] in (b"\x0a", b"\x12") or _head(path)[:2] == b"\xa2\x06"


def _core_ml(path: Path) -> bool:
    """Protobuf of a Model: its version (field 1, a number), then its description (field 2)."""
    return re.match(rb"\x08[\x01-\x20](\x12|\x50)", _head(path)) is not None


def _darknet_weights(path: Path) -> bool:
    """Version 0.1 or 0.2, three small numbers; only the .cfg beside it says the rest."""
    head = _head(path)
    return _beside(".cfg")(path) or (head[:4] == bytes(4) and head[4:5] in (b"\1", b"\2"))


def _frozen_graph(path: Path) -> bool:
    """A GraphDef: nodes (field 1), each of a name and an operator; not ONNX and no SavedModel."""
    head = _head(path)
    if path.name == "saved_model.pb" or head[:1] != b"\x0a":
        return False
    start = 2
    while head[start - 1 : start] and head[start - 1] & 128:
        start += 1  # the length of the node, seven bits a byte
    return (
        head[start : start + 1] == b"\x0a"
        and re.search(rb"\x12[\x02-\x40][A-Z_][A-Za-z0-9_]+", head[start:]) is not None
    )


def _mnn(path: Path) -> bool:
    """A flatbuffer without a mark of its own: its first table and that table's list of places."""
    head = _head(path)
    if len(head) < 12:
        return False
    root = int.from_bytes(head[:4], "little")
    places = root - int.from_bytes(head[root : root + 4], "little", signed=True)
    size = int.from_bytes(head[places : places + 2], "little") if 4 <= places < len(head) else 0
    return 8 <= root < len(head) - 4 and 4 < size < 64 and size % 2 == 0


def _caffe2(path: Path) -> bool:
    """A NetDef: maybe a name (field 1), then operators (field 2) with their type (field 4)."""
    head = _head(path)
    if head[:1] == b"\x0a" and len(head) > 2:
        name, head = head[2 : 2 + head[1]], head[2 + head[1] :]
        if not name.isascii() or not name.decode("ascii").isprintable():
            return False
    return head[:1] == b"\x12" and re.search(rb"\x22[\x02-\x40][A-Z][A-Za-z0-9]+", head) is not None


def _weights_manifest(path: Path) -> bool:
    """JSON of a list of files with the weights in them, and no network."""
    try:
        content = json.loads(read_regular(path, _MOST_JSON))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, list) and any(
        isinstance(group, dict) and {"paths", "weights"} <= group.keys() for group in content
    )


def _archive_with(pattern: str) -> Callable[[Path], bool]:
    """Whether a zip archive has an entry of such a name."""
    compiled = re.compile(pattern)

    def holds(path: Path) -> bool:
        if not _head(path).startswith(b"PK\x03\x04"):
            return False
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                return any(compiled.search(name) for name in archive.namelist())
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return False

    return holds


def _unpack(path: Path) -> str:
    """The command that unpacks an archive of models."""
    return f"unpack it: unzip {as_typed(path)} -d {as_typed(path.with_suffix(''))}"


def _tf_js(path: Path) -> bool:
    """JSON of a topology and a manifest of its weights."""
    return {"modelTopology", "weightsManifest"} <= set(_tf_js_content(path))


def _tf_js_layers(path: Path) -> bool:
    """Whether it holds Keras' layers, by its own word or by its topology."""
    content = _tf_js_content(path)
    said, topology = content.get("format"), content.get("modelTopology")
    if said in ("layers-model", "graph-model"):
        return bool(said == "layers-model")
    return isinstance(topology, dict) and "node" not in topology


def _tf_js_content(path: Path) -> dict[str, Any]:
    if path.is_dir():
        path /= "model.json"
    try:
        content = json.loads(read_regular(path, _MOST_JSON))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _mxnet(path: Path) -> bool:
    return path.name.endswith("-symbol.json") and b'"nodes"' in _head(path)


def _mxnet_weights(path: Path) -> bool:
    """A list of arrays: the number 0x112, little-endian in eight bytes."""
    return _head(path)[:8] == (0x112).to_bytes(8, "little")


def _engine(path: Path) -> bool:
    """TensorRT's own mark, at the start or behind a header that a wrapper put before it."""
    head = _head(path)
    return head.startswith((b"ftrt", b"ptrt")) or b"ftrt" in head


def _ncnn_weights(path: Path) -> bool:
    return _beside(".param")(path) and _ncnn(path.with_suffix(".param"))


def _ncnn(path: Path) -> bool:
    head = _head(path)
    return head.startswith((b"7767517", (7767517).to_bytes(4, "little")))


def _open_vino_weights(path: Path) -> bool:
    return _beside(".xml")(path) and _open_vino(path.with_suffix(".xml"))


_open_vino = _matches(rb"^\s*(\xef\xbb\xbf)?(<\?xml[^>]*>)?\s*(<!--.*?-->\s*)?<net\s[^>]*version=")


@dataclass(frozen=True)
class _Kind:
    """One format: its suffixes, what has to be in it, what it is, what to do instead."""

    suffixes: tuple[str, ...]
    holds: Callable[[Path], bool]
    what: str | Callable[[Path], str]
    hint: str | Callable[[Path], str]


_SKLEARN = (
    "in the program that trained it, export with skl2onnx (scikit-learn), onnxmltools (XGBoost, "
    "LightGBM) or torch.onnx.export (PyTorch)"
)
_OPEN_VINO = "export the model that it was made from (PyTorch, TensorFlow, ONNX) instead"
_CORE_ML = "export the model that it was made from (PyTorch, Keras) instead"
_CAFFE = (
    "no tool that is kept up turns it into ONNX: build the network in PyTorch, give its weights to "
    "it, and convert the function that does so: package.module:name"
)
_DARKNET = (
    "build it in PyTorch by the program that trained it, and convert the function that does so: "
    "package.module:name"
)
_CAFFE2 = (
    "give the PyTorch model or the ONNX file that it was made from: PyTorch lost Caffe2 in 2.0"
)
_COMPILED = "give the ONNX file, or the model of PyTorch or TensorFlow, that it was compiled from"
_MXNET = "export with MXNet's own mx.onnx.export_model (MXNet 1.9), in an environment of its own"
_NCNN = "give the ONNX or PyTorch model that onnx2ncnn or pnnx made it from"


def _frozen(path: Path) -> str:
    """The command with the graph's own placeholders and results, where they can be read."""
    command = command_for(path)
    return f"convert it with {command}, and give the .onnx file" if command else _FROZEN


_FROZEN = (
    "export with python -m tf2onnx.convert --graphdef MODEL.pb --inputs NAME:0 --outputs NAME:0 "
    "--output MODEL.onnx, or save it as a SavedModel"
)


def _in_text(path: Path) -> str:
    """The command that turns a graph in text into one in bytes."""
    written = path.with_suffix(".pb")
    program = (
        "import tensorflow as tf; from google.protobuf import text_format; "
        "graph = tf.compat.v1.GraphDef(); "
        f"text_format.Parse(open({json.dumps(str(path))}).read(), graph); "
        f'open({json.dumps(str(written))}, "wb").write(graph.SerializeToString())'
    )
    return f"python -c {shlex.quote(program)}; then give {as_typed(written)}, if it has its weights"


def _tf_js_kind(path: Path) -> str:
    return "a layers model of TensorFlow.js" if _tf_js_layers(path) else _TF_JS_GRAPH


def _tf_js_hint(path: Path) -> str:
    return _TF_JS if _tf_js_layers(path) else "give the SavedModel that it was made from"


_TF_JS_GRAPH = "a graph model of TensorFlow.js"
_TF_JS = "give the Keras model that it was made from"
_FLAX = (
    "weights alone say not how to compute: give a function that makes the model and loads them, "
    "package.module:name --input '?,224,224,3'"
)

_TF_WEIGHTS = (
    "in the program that has the network: model.export('folder') (Keras) or tf.saved_model.save, "
    "and give that folder with --trust"
)

_KINDS = (
    _Kind(
        (".pkl", ".pickle", ".joblib", ".pt", ".pth"),
        _pickled,
        "a pickle (scikit-learn and others): a program, which is never unpickled",
        _SKLEARN,
    ),
    _Kind(
        (".ort",),
        _matches(rb"^.{4}ORTM"),
        "a model in ONNX Runtime's own format",
        "give the .onnx file that it was made of",
    ),
    _Kind((".skops",), _skops, "a model of scikit-learn (skops)", _SKLEARN),
    _Kind((".xml",), _open_vino, "a model of OpenVINO (IR)", _OPEN_VINO),
    _Kind((".bin",), _open_vino_weights, "the weights of a model of OpenVINO (IR)", _OPEN_VINO),
    _Kind((".mlmodel",), _core_ml, "a model of Core ML", _CORE_ML),
    _Kind((".mlpackage",), _folder_with("Manifest.json"), "a model of Core ML", _CORE_ML),
    _Kind(
        (".prototxt",),
        _matches(rb"(^|\n)\s*(layers?|input|name|input_param)\s*[:{]"),
        "a network of Caffe",
        _CAFFE,
    ),
    _Kind((".caffemodel",), _caffe_weights, "the weights of a network of Caffe", _CAFFE),
    _Kind((".cfg",), _matches(rb"(^|\n)\s*\[(net|network)\]"), "a network of Darknet", _DARKNET),
    _Kind((".weights",), _darknet_weights, "the weights of a network of Darknet", _DARKNET),
    _Kind((".json",), _mxnet, "a network of MXNet", _MXNET),
    _Kind((".params",), _mxnet_weights, "the weights of a network of MXNet", _MXNET),
    _Kind(
        (".engine", ".plan", ".trt"),
        _engine,
        "an engine of TensorRT, compiled for one kind of GPU",
        "give the ONNX file that trtexec or polygraphy built it from",
    ),
    _Kind((".param",), _ncnn, "a network of ncnn", _NCNN),
    _Kind((".bin",), _ncnn_weights, "the weights of a network of ncnn", _NCNN),
    _Kind(
        (".gguf", ".bin"),
        _begins(b"GGUF"),
        "a GGUF file of a language model",
        "only image models are read; take the checkpoint that llama.cpp converted it from",
    ),
    _Kind((".pb",), _frozen_graph, "a frozen graph of TensorFlow 1", _frozen),
    _Kind((".pbtxt",), _matches(rb"^\s*node\s*\{"), "a graph of TensorFlow 1 in text", _in_text),
    _Kind((".pb",), _caffe2, "a network of Caffe2", _CAFFE2),
    _Kind((".mnn",), _mnn, "a network of MNN", _COMPILED),
    _Kind((".rknn",), _begins(b"RKNN", b"CYPTRKNN"), "a network compiled for Rockchip", _COMPILED),
    _Kind((".pte",), _matches(rb"^....ET1[0-9]"), "a program of ExecuTorch", _COMPILED),
    _Kind((".mlmodelc",), _folder_with("coremldata.bin"), "a model of Core ML, compiled", _CORE_ML),
    _Kind(
        (".task",),
        _archive_with(r"\.tflite$"),
        "a bundle of MediaPipe, of several TFLite files",
        lambda path: f"{_unpack(path)}, and give one of its .tflite files",
    ),
    _Kind(
        (".mar",),
        _archive_with(r"^MAR-INF/"),
        "an archive of TorchServe",
        lambda path: f"{_unpack(path)}, and give the model in it",
    ),
    _Kind(
        (".json",),
        _weights_manifest,
        "a manifest of weights (TensorFlow.js, face-api.js), whose network stands in a program",
        "give the model that they were trained in",
    ),
    _Kind((".msgpack",), _matches(rb"^[\x80-\x8f\xde\xdf]"), "weights of Flax", _FLAX),
    _Kind(("",), _folder_with("_METADATA", "manifest.ocdbt"), "a checkpoint of Orbax", _FLAX),
    _Kind((".json", ""), _tf_js, _tf_js_kind, _tf_js_hint),
    _Kind(("",), _variables_alone, "a SavedModel without its saved_model.pb", "ask for it anew"),
    _Kind(
        ("",),
        _folder_with("model_index.json"),
        "a pipeline of diffusers, which draws images",
        "give the folder of a network that looks at them",
    ),
    _Kind(
        ("",),
        _folder_with("adapter_config.json"),
        "an adapter to another model",
        "merge the two and save the result",
    ),
    _Kind(
        ("",),
        _folder_with("open_clip_config.json"),
        "a model of OpenCLIP",
        "give a function that makes its image part by open_clip and loads the weights: "
        "package.module:name --input '?,3,224,224'",
    ),
)

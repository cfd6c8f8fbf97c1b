"""Formats that are refused: each is named and sent on; nothing else is swallowed."""

import contextlib
import io
import json
import pickle
import shlex
import shutil
import zipfile
import zlib
from pathlib import Path

import pytest

from converters.conversion import convert, frameworks, recognise
from converters.errors import ConversionFailed
from converters.to_onnx import keras, other
from converters.to_onnx.pytorch.weights import state_of

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"


class Bomb:
    def __reduce__(self):
        return (open, ("unpickled", "w"))


def archive(name="schema.json"):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr(name, "{}")
    return data.getvalue()


def graph():
    node = b"\x0a\x01x\x12\x0bPlaceholder"
    return b"\x0a" + bytes([len(node)]) + node


GRAPH = b"\x0a\x10\x0a\x01x\x12\x0bPlaceholder\x0a\x0c\x0a\x01y\x12\x04Relu\x1a\x01x"
PICKLE = pickle.dumps(Bomb(), protocol=4)
IR = b'<?xml version="1.0"?>\n<net name="model" version="11">\n<layers></layers></net>'
TF_JS = json.dumps({"modelTopology": {}, "weightsManifest": []}).encode()
TF_JS_GRAPH = json.dumps({"modelTopology": {"node": []}, "weightsManifest": []}).encode()
KNOWN = {  # file: bytes, a word of what it is, a tool that the hint names
    "model.pkl": (PICKLE, "scikit-learn", "skl2onnx"),
    "model.joblib": (zlib.compress(PICKLE), "scikit-learn", "skl2onnx"),
    "model.skops": (archive(), "skops", "skl2onnx"),
    "model.xml": (IR, "OpenVINO", "PyTorch"),
    "old.mlmodel": (b"\x08\x01\x12\x04name", "Core ML", "PyTorch"),
    "net.prototxt": (b'name: "LeNet"\nlayer {\n}\n', "Caffe", "package.module:name"),
    "net.caffemodel": (b"\x0a\x05LeNet\xa2\x06\x00", "Caffe", "package.module:name"),
    "yolo.cfg": (b"# comment\n[net]\nbatch=64\n", "Darknet", "package.module:name"),
    "yolo.weights": (b"\0\0\0\0\2\0\0\0\5\0\0\0", "Darknet", "package.module:name"),
    "net-symbol.json": (b'{"nodes": []}', "MXNet", "export_model"),
    "net-0000.params": (b"\x12\1\0\0\0\0\0\0", "MXNet", "export_model"),
    "model.pt": (PICKLE, "pickle", "torch.onnx.export"),
    "model.ort": (b"\x18\0\0\0ORTM", "ONNX Runtime's own", ".onnx file"),
    "net.engine": (b"ftrt\0\0\0\0", "TensorRT", "trtexec"),
    "net.param": (b"7767517\n3 3\n", "ncnn", "onnx2ncnn"),
    "model.gguf": (b"GGUF\3\0\0\0", "GGUF", "llama.cpp"),
    "frozen.pb": (graph(), "frozen graph", "tf2onnx"),
    "graph.pbtxt": (b'node {\n  name: "x"\n}\n', "in text", "SerializeToString"),
    "flax_model.msgpack": (b"\x81\xa6params\x80", "Flax", "package.module:name"),
    "predict_net.pb": (
        b"\x0a\x03net\x12\x10\x0a\x01x\x12\x01y\x22\x04Conv\x2a\x00",
        "Caffe2",
        "PyTorch model",
    ),
    "init_net.pb": (b"\x12\x0e\x12\x01w\x22\x09GivenFill", "Caffe2", "ONNX file"),
    "net.mnn": (
        b"\x10\0\0\0\0\0\x08\0\x08\0\x04\0\0\0\0\0\x0a\0\0\0data",
        "MNN",
        "ONNX file",
    ),
    "net.rknn": (b"RKNN\0\0\0\0", "Rockchip", "ONNX file"),
    "net.pte": (b"\x30\0\0\0ET12\0\0", "ExecuTorch", "PyTorch"),
    "hand.task": (archive("hand.tflite"), "MediaPipe", "unzip"),
    "net.mar": (archive("MAR-INF/MANIFEST.json"), "TorchServe", "unzip"),
    "tiny-weights_manifest.json": (
        b'[{"weights": [{"name": "conv0/filters"}], "paths": ["shard1"]}]',
        "face-api",
        "trained in",
    ),
    "model.json": (TF_JS, "layers model of TensorFlow.js", "Keras model"),
    "graph.json": (TF_JS_GRAPH, "graph model of TensorFlow.js", "SavedModel"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, word, tool = KNOWN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConversionFailed) as caught:
        recognise(str(path))
    assert word in caught.value.what
    assert tool in caught.value.hint
    assert caught.value.where == str(path)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("name", KNOWN)
def test_a_name_alone_is_not_enough(name, tmp_path):
    path = tmp_path / name
    for content in (b"", b"no such thing", b"\xff" * 64):
        path.write_bytes(content)
        assert recognise(str(path)) is None


def frozen(*nodes):
    """A GraphDef of (name, operator, inputs), with a constant's value to be skipped."""

    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    made = b""
    for name, kind, *inputs in nodes:
        node = field(1, name.encode()) + field(2, kind.encode())
        node += b"".join(field(3, i.encode()) for i in inputs) + field(5, b"\x0a\x04data")
        made += field(1, node)
    return made


def test_the_command_for_a_frozen_graph_names_its_inputs_and_outputs(tmp_path):
    path = tmp_path / "frozen.pb"
    nodes = [
        ("image", "Placeholder"),
        ("w", "Const"),
        ("conv", "Conv2D", "image", "w"),
        ("head/scores", "Softmax", "conv:0", "^init"),
        ("head/boxes", "Relu", "conv"),
        ("init", "NoOp"),
    ]
    path.write_bytes(frozen(*nodes))
    with pytest.raises(ConversionFailed) as caught:
        recognise(str(path))
    assert "--inputs image:0 --outputs head/scores:0,head/boxes:0 --output" in caught.value.hint
    path.write_bytes(frozen(*nodes, ("pooled", "PlaceholderWithDefault", "head/boxes")))
    with pytest.raises(
        ConversionFailed
    ) as caught:  # as retraining by TensorFlow's script leaves one
        recognise(str(path))
    assert "--outputs head/scores:0 --use_default pooled --output" in caught.value.hint
    path.write_bytes(frozen(*nodes, ("; rm x", "Relu", "conv")))
    with pytest.raises(ConversionFailed) as caught:
        recognise(str(path))
    assert "rm x" not in caught.value.hint
    assert "--inputs NAME:0" in caught.value.hint


def test_a_real_frozen_graph(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="not installed: tensorflow")
    with tf.Graph().as_default() as made:
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="image")
        tf.nn.relu(x, name="scores")
    path = tmp_path / "frozen.pb"
    path.write_bytes(made.as_graph_def().SerializeToString())
    with pytest.raises(ConversionFailed, match="--inputs image:0 --outputs scores:0"):
        recognise(str(path))


def test_an_archive_of_models_is_unpacked_by_the_command(tmp_path):
    path = tmp_path / "a hand.task"
    path.write_bytes(archive("hand.tflite"))
    with pytest.raises(ConversionFailed) as caught:
        recognise(str(path))
    command = caught.value.hint.partition(": ")[2].partition(", and give")[0]
    assert shlex.split(command) == ["unzip", str(path), "-d", str(tmp_path / "a hand")]


@pytest.mark.parametrize("name", ["-rf.task", "-x.pb"])
def test_a_command_never_takes_a_name_for_an_option(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(archive("a.tflite") if name.endswith("task") else GRAPH)
    with pytest.raises(ConversionFailed) as caught:
        recognise(name)
    words = shlex.split(caught.value.hint)
    paths = [word for word in words if Path(word).stem.rstrip(",") == Path(name).stem]
    assert len(paths) == 2, words
    assert all(path.startswith("./-") for path in paths)


def test_files_of_no_model_are_called_what_they_are(tmp_path):
    """A pointer where the model should be, a web page in its place, an archive around it."""
    for name, content, said, hint in (
        ("net.keras", b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs", "lfs pull"),
        ("net.tflite", b"<!DOCTYPE html><html>", "HTML page", "raw file"),
        ("net.zip", archive("net.onnx"), "an .onnx file inside", "unpack"),
        ("net.model", b"\x89HDF\r\n\x1a\n", "HDF5", "under the names"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConversionFailed, match=said) as caught:
            convert(str(tmp_path / name), tmp_path / "m.onnx")
        assert hint in caught.value.hint
        assert "inspector convert" not in caught.value.hint


def test_a_pointer_in_the_place_of_weights_is_no_damaged_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ConversionFailed, match="git-lfs pointer"):
        state_of(path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ConversionFailed, match="git-lfs pointer"):
        recognise(str(tmp_path))


def test_parts_of_a_checkpoint_are_told_by_each_other(tmp_path):
    parts = [tmp_path / f"model.ckpt-7.{end}" for end in ("index", "meta", "data-00000-of-00001")]
    for path in parts[:2]:
        path.write_bytes(b"\0\0\x01\x02")
        assert recognise(str(path)) is None
    parts[2].write_bytes(bytes(8))
    for path in (*parts, tmp_path):
        with pytest.raises(ConversionFailed, match="checkpoint of TensorFlow"):
            recognise(str(path))


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("variables/variables.index", "without its saved_model"),
        ("model_index.json", "diffusers"),
        ("adapter_config.json", "adapter"),
        ("open_clip_config.json", "OpenCLIP"),
    ],
)
def test_folders_of_other_programs(inner, said, tmp_path):
    path = tmp_path / "net" / inner
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(ConversionFailed, match=said):
        recognise(str(tmp_path / "net"))


def test_folders(tmp_path):
    package = tmp_path / "net.mlpackage"
    package.mkdir()
    assert recognise(str(package)) is None
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(ConversionFailed, match="Core ML"):
        recognise(str(package))
    steps = tmp_path / "checkpoint"
    steps.mkdir()
    (steps / "manifest.ocdbt").write_bytes(b"")
    assert recognise(str(steps)) is None
    (steps / "_METADATA").write_text("{}")
    with pytest.raises(ConversionFailed, match="Orbax"):
        recognise(str(steps))
    web = tmp_path / "web"
    web.mkdir()
    (web / "model.json").write_bytes(TF_JS)
    with pytest.raises(ConversionFailed, match=r"TensorFlow\.js"):
        recognise(str(web))


def test_weights_are_told_by_the_network_beside_them(tmp_path):
    weights = tmp_path / "model.bin"
    weights.write_bytes(b"\1\2\3\4" * 8)
    assert recognise(str(weights)) is None
    (tmp_path / "model.xml").write_bytes(IR)
    with pytest.raises(ConversionFailed, match="OpenVINO"):
        recognise(str(weights))
    (tmp_path / "model.xml").unlink()
    (tmp_path / "model.param").write_bytes(b"7767517\n")
    with pytest.raises(ConversionFailed, match="ncnn"):
        recognise(str(weights))


def test_asked_last_and_swallows_nothing(tmp_path):
    assert list(frameworks())[-1] == "other"
    model = SAMPLES / "resnet20.onnx"
    for name in ("model.onnx", "model.pb", "model"):
        shutil.copy(model, tmp_path / name)
        assert recognise(str(tmp_path / name)) is None
        other.recognises(str(tmp_path / name))
    (tmp_path / "saved_model.pb").write_bytes(graph())
    assert recognise(str(tmp_path)).framework == "tensorflow"
    assert recognise("json:dumps", "other") is None
    assert recognise(str(tmp_path / "absent.pkl"), "other") is None


def test_layers_of_tensorflow_hub_are_sent_through_a_saved_model(tmp_path):
    path = tmp_path / "flowers.keras"
    layer = {"class_name": "KerasLayer", "config": {"name": "features"}}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
    with pytest.raises(ConversionFailed, match="TensorFlow Hub") as caught:
        keras._refuse_programs(path)
    program = shlex.split(caught.value.hint.partition("; python -c ")[2].rpartition("; then")[0])
    compile(program[0], "command", "exec")
    assert f'"{tmp_path / "flowers"}"' in program[0]


BROKEN = {
    "empty": b"",
    "zeros": bytes(600),
    "ones": b"\xff" * 600,
    "archive": b"PK\x03\x04",
    "inner pickle": archive("m/data.pkl"),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(600),
    "pickle": b"\x80\x02}q\0.",
    "brackets": b"[" * 3000,
    "protobuf": b"\x0a\xff\xff\xff\xff",
    "flatbuffer": b"\x1c\0\0\0TFL3" + bytes(30),
}
SUFFIXES = (
    *("pt", "pth", "bin", "ckpt", "pt2", "safetensors", "h5", "keras", "tflite", "pb", "pdmodel"),
    *("json", "pdparams", "mnn", "mlmodel", "param", "cfg", "weights", "caffemodel", "pkl"),
    *("xml", "task", "mar", "rknn", "pte", "msgpack", "params"),
)


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_nothing_but_a_refusal_comes_of_broken_files(content, tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"net.{suffix}"
        path.write_bytes(content)
        with contextlib.suppress(ConversionFailed):
            recognise(str(path))


@pytest.mark.parametrize(
    "index", ["{}", "[", '{"weight_map": [1]}', '{"weight_map": {"a": ["x"]}}']
)
@pytest.mark.parametrize("config", ['{"model_type": "resnet"}', '{"architecture": "resnet18"}'])
def test_an_index_that_names_no_files_is_refused(config, index, tmp_path):
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(ConversionFailed, match=r"names no files of weights|outside the folder"):
        recognise(str(tmp_path))

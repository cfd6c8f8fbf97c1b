"""PyTorch's four forms become files that compute the same; nothing in a file of data runs."""

import json
import os
import re
import struct
import warnings
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from converters import factory
from converters.conversion import convert, recognise
from converters.errors import ConversionFailed, NotTrusted
from converters.source import Options
from converters.to_onnx import pytorch
from converters.to_onnx.pytorch import archive as torch_archive
from converters.to_onnx.pytorch import program as torch_program
from converters.to_onnx.pytorch.fit import fill
from converters.to_onnx.pytorch.module import module_to_file

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.pool(self.stem(x)).flatten(1))

class Fixed(Net):
    def forward(self, x):
        return self.head(self.pool(self.stem(x)).reshape(1, 6))

def spread():
    return nn.DataParallel(Net())

def compiled():
    return torch.compile(Net())

made = Net()

def scripted():
    return torch.jit.script(Net())

def quantised():
    quantise = torch.ao.quantization.quantize_dynamic
    return quantise(Net(), {nn.Linear}, dtype=torch.qint8)

def number():
    return 3

def broken():
    raise RuntimeError("no such file of settings")
"""
pytestmark = pytest.mark.usefixtures("forked_children")
INPUT = Options(inputs=((None, 3, 12, 12),))
MARKER = "it-ran"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder with the module ``nets`` in it."""
    path = tmp_path_factory.mktemp("nets")
    (path / "nets.py").write_text(NETS)
    return path


@pytest.fixture(scope="session")
def net(folder):
    """A network whose weights no function makes: it was trained, so to speak."""
    scope = {"__name__": "nets"}
    exec(NETS, scope)  # noqa: S102 - the text above
    torch.manual_seed(7)
    network = scope["Net"]()
    network.stem[1].running_mean.uniform_(-1, 1)
    network.stem[1].running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture(scope="session")
def program(folder, net):
    """The network as an exported program with a free batch."""
    path = folder / "net.pt2"
    batch = torch.export.Dim("batch")
    x = torch.zeros(2, 3, 12, 12)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: batch},)), path)
    return path


@pytest.fixture(scope="session")
def script(folder, net):
    """The network as TorchScript."""
    path = folder / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, torch.zeros(1, 3, 12, 12)).save(str(path))
    return path


def check(path, net, batches=(1, 3)):
    """The file computes what the network computes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    for n in batches:
        x = torch.randn(n, 3, 12, 12, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            expected = net(x).numpy()
        (got,) = session.run(None, {entry.name: x.numpy()})
        np.testing.assert_allclose(got, expected, atol=1e-5)
    return entry


def scopes(path):
    """Where in the module the nodes of a file come from."""
    model = onnx.load(path)  # noqa: TID251 - this test made the file
    return [{p.key: p.value for p in node.metadata_props} for node in model.graph.node]


@pytest.mark.conformance
def test_an_exported_program(program, net, tmp_path):
    certificate = convert(str(program), tmp_path / "m.onnx")
    assert certificate.worst < 1e-4
    assert certificate.framework == "PyTorch"
    assert certificate.versions["torch"]
    assert check(tmp_path / "m.onnx", net).shape == ["batch", 3, 12, 12]
    found = scopes(tmp_path / "m.onnx")
    assert any("stem.2" in entry.get("pkg.torch.onnx.name_scopes", "") for entry in found)
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.onnx", "m.onnx.certificate.json"}


def test_a_factory_with_weights(folder, net, tmp_path, monkeypatch):
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}},
        folder / "trained.pth",
    )
    monkeypatch.chdir(folder)
    options = Options(inputs=INPUT.inputs, weights="trained.pth")
    with pytest.raises(NotTrusted, match="function that makes a model"):
        convert("nets:Net", tmp_path / "m.onnx", options=options)
    certificate = convert("nets:Net", tmp_path / "m.onnx", options=options, trust=True)
    assert certificate.worst < 1e-4
    assert certificate.source == "nets:Net"
    assert len(certificate.source_sha256) == 64
    assert "'state_dict'" in certificate.notes[0]
    assert "'module.'" in certificate.notes[1]
    assert check(tmp_path / "m.onnx", net).shape == ["batch", 3, 12, 12]
    assert any("stem.2" in entry.get("namespace", "") for entry in scopes(tmp_path / "m.onnx"))


@pytest.mark.conformance
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
@pytest.mark.parametrize("name", ["spread", "compiled", "made"])
def test_a_network_in_a_wrapper_or_made_already(folder, net, tmp_path, monkeypatch, name):
    torch.save(net.state_dict(), folder / "plain.pth")
    monkeypatch.syspath_prepend(folder)
    options = Options(inputs=INPUT.inputs, weights=str(folder / "plain.pth"))
    export = pytorch.convert(f"nets:{name}", tmp_path / "m.onnx", options)
    assert (export.inputs[0].shape, export.notes) == ((None, 3, 12, 12), ())
    assert check(tmp_path / "m.onnx", net).shape == ["batch", 3, 12, 12]


def test_torchscript(script, net, tmp_path):
    with pytest.raises(NotTrusted, match="TorchScript is a program"):
        convert(str(script), tmp_path / "m.onnx", options=INPUT)
    certificate = convert(str(script), tmp_path / "m.onnx", options=INPUT, trust=True)
    assert certificate.worst < 1e-4
    assert check(tmp_path / "m.onnx", net).shape == ["batch", 3, 12, 12]
    model = onnx.load(tmp_path / "m.onnx")  # noqa: TID251 - this test made the file
    assert any(node.name.startswith("/stem/0/") for node in model.graph.node)


def test_a_module_in_this_process(net, tmp_path):
    path = module_to_file(net, torch.zeros(1, 3, 12, 12), tmp_path)
    assert path == tmp_path / "Net.onnx"
    assert check(path, net).shape == ["batch", 3, 12, 12]


def test_a_batch_that_is_written_into_the_program(folder, net, tmp_path):
    path = folder / "fixed.pt2"
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 12, 12),)), path)
    export = pytorch.convert(str(path), tmp_path / "m.onnx", Options())
    assert export.inputs[0].shape == (2, 3, 12, 12)
    assert "batch is fixed at 2" in export.notes[0]
    assert check(tmp_path / "m.onnx", net, (2,)).shape == [2, 3, 12, 12]


def test_a_batch_that_is_written_into_the_module(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    export = pytorch.convert("nets:Fixed", tmp_path / "m.onnx", INPUT)
    assert export.inputs[0].shape == (1, 3, 12, 12)
    assert any("batch is fixed at 1" in note for note in export.notes)


def test_a_program_in_training_mode_is_refused(folder, net, tmp_path):
    path = folder / "training.pt2"
    net.train()
    try:
        torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 12, 12),)), path)
    finally:
        net.eval()
    with pytest.raises(ConversionFailed, match="training mode"):
        pytorch.convert(str(path), tmp_path / "m.onnx", Options())


# What does not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("stem.0.weight"), r"lacks stem\.0\.weight"),
        (lambda s: s.update(strange=torch.zeros(1)), "beyond the model's, strange"),
        (lambda s: s.update({"head.bias": torch.zeros(9)}), "head.bias is 9 instead of 5"),
    ],
)
def test_weights_of_another_model_are_named(net, change, message):
    state = dict(net.state_dict())
    change(state)
    with pytest.raises(ConversionFailed, match=message):
        fill(net, state, "weights.pth")


def test_everything_wrong_is_said_at_once(net):
    state = dict(net.state_dict())
    del state["head.weight"]
    state |= {"more": torch.zeros(1), "head.bias": torch.zeros(9)}
    with pytest.raises(ConversionFailed) as caught:
        fill(net, state, "weights.pth")
    assert all(name in caught.value.what for name in ("head.weight", "more", "head.bias"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nets:scripted", INPUT, "makes TorchScript"),
        ("nets:quantised", INPUT, "PyTorch quantised, such as 'head'"),
        ("nets:number", INPUT, "makes a int, not a torch.nn.Module"),
        ("nets:broken", INPUT, "no such file of settings"),
        ("nets:nothing", INPUT, "nets has no 'nothing'"),
        ("nets:Net", Options(inputs=((None, 1, 12, 12),)), r"does not run on an input of 1x1x12"),
        ("nets:Net", Options(inputs=((None, 3, None, 12),)), "only the batch may be free"),
        ("nets:Net", Options(weights="/nowhere.pth"), "no such file of weights"),
    ],
)
def test_factories_that_do_not_fit(folder, source, options, message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(ConversionFailed, match=message):
        pytorch.convert(source, tmp_path / "m.onnx", options)


def test_an_input_is_assumed_aloud(folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    export = pytorch.convert("nets:Net", tmp_path / "m.onnx", Options())
    assert export.inputs[0].shape == (None, 3, 224, 224)
    assert any("Nx3x224x224 was assumed" in note for note in export.notes)
    assert any("function made" in note for note in export.notes)


# Which framework a factory belongs to, without running it


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"m.py": "import torch"}, True),
        ({"m.py": "import jax.numpy as jnp\nfrom flax import nnx"}, False),
        ({"m.py": "import jax, torch"}, True),
        ({"m.py": "from beside import x", "beside.py": "import flax"}, False),
        ({"m/__init__.py": "from .inner import x", "m/inner.py": "import tensorflow"}, False),
        ({"m/__init__.py": "from m.inner import x", "m/inner.py": "import torch"}, True),
        ({"m.py": "this is no Python ("}, True),
    ],
)
def test_a_factory_is_told_by_its_imports(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        marker = f"\nopen({str(tmp_path / MARKER)!r}, 'w')\n"
        path.write_text(text + marker)
    monkeypatch.chdir(tmp_path)
    assert (pytorch.recognises("m:make") is not None) is expected
    assert not (tmp_path / MARKER).exists()


def test_a_module_that_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConversionFailed, match="no module 'nowhere_at_all'"):
        pytorch.recognises("nowhere_at_all:make")
    assert factory.named("C:\\models\\net.onnx") is None
    assert factory.named("folder/net.pt2") is None


# Hostile files


class Payload:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def torch_bytes(value, tmp_path):
    path = tmp_path / "value.bin"
    torch.save(value, path)
    return path.read_bytes()


def rewritten(source, target, change):
    """A copy of an archive with some of its records changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def edited(document, change):
    found = json.loads(document)
    change(found)
    return json.dumps(found).encode()


@pytest.mark.parametrize("whole", [True, False], ids=["module", "state-dict"])
def test_weights_without_a_program_are_refused_unread(whole, net, tmp_path):
    path = tmp_path / "weights.pth"
    marker = tmp_path / MARKER
    torch.save(Payload(marker) if whole else net.state_dict(), path)
    with pytest.raises(ConversionFailed, match=r"package\.module:name --weights"):
        recognise(str(path))
    assert not marker.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_payload_among_weights_never_runs(folder, legacy, tmp_path, monkeypatch):
    path, marker = tmp_path / "weights.pth", tmp_path / MARKER
    torch.save({"w": Payload(marker)}, path, _use_new_zipfile_serialization=not legacy)
    monkeypatch.syspath_prepend(folder)
    options = Options(inputs=INPUT.inputs, weights=str(path))
    with pytest.raises(ConversionFailed, match="holds more than weights"):
        pytorch.convert("nets:Net", tmp_path / "m.onnx", options)
    assert not marker.exists()
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.conformance
def test_example_inputs_and_guards_of_a_program_never_run(program, net, tmp_path):
    marker = tmp_path / MARKER
    code = f"__import__('os').system('touch {marker}') == 0"

    def change(name, content):
        if name.endswith("sample_inputs/model.pt"):
            return torch_bytes(((Payload(marker),), {}), tmp_path)
        if name.endswith("models/model.json"):
            return edited(content, lambda found: found.update(guards_code=[code]))
        return content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    convert(str(path), tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", net)
    assert not marker.exists()


def graph_of(found):
    return found["graph_module"]["graph"]


def outermost(found):
    return found["graph_module"]["module_call_graph"][0]["signature"]


CALL = "__import__('os').system('true')"
TREE = json.dumps([1, {"type": "collections.defaultdict", "context": None, "children_spec": []}])
MODEL_CHANGES = [
    (lambda f: graph_of(f)["nodes"][0].update(target="torch.os.system"), "calls 'torch.os.system'"),
    (lambda f: graph_of(f)["nodes"][0].update(target="torch.ops.aten.from_file.default"), "calls"),
    (lambda f: graph_of(f)["nodes"][0].update(target="torch.ops.mine.op.default"), "calls"),
    (lambda f: graph_of(f)["inputs"][0]["as_tensor"].update(name=f"x={CALL}"), "not a name"),
    (lambda f: graph_of(f)["nodes"][0].update(name=CALL), "not a name"),
    (lambda f: outermost(f).update(forward_arg_names=[f"x={CALL}"]), "not a name"),
    (lambda f: outermost(f).update(out_spec=TREE), "takes or returns a"),
    (
        lambda f: graph_of(f)["nodes"][0]["inputs"][0].update(
            arg={"as_operator": "torch.os.system"}
        ),
        "an operator or an object",
    ),
    (lambda f: f["range_constraints"].update({CALL: {"min_val": 0, "max_val": 9}}), "called"),
    (lambda f: f.update(graph_module=None), "not an exported program"),
]


@pytest.mark.parametrize(("change", "message"), MODEL_CHANGES)
def test_programs_that_hold_more_than_a_network(program, change, message, tmp_path):
    path = rewritten(
        program,
        tmp_path / "evil.pt2",
        lambda name, content: edited(content, change) if name.endswith("model.json") else content,
    )
    with pytest.raises(ConversionFailed, match=re.escape(message)):
        torch_program.cleaned(path, tmp_path / "copy.pt2")


@pytest.mark.parametrize(
    "size",
    [
        CALL,
        "().__class__",
        "Symbol('s0').subs",
        "lambda: 1",
        "[1]",
        'Symbol("s0\'")',
        "9**9**9",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "1 << 99999999",
        "s0 if s1 else s2",
        "open('x')",
        "f'{s0}'",
        "s0[0]",
        "(s0 := 1)",
        "1" * 5000,
        str(2**80),
        "",
        "system",
    ],
)
def test_sizes_that_are_no_arithmetic(program, size, tmp_path):
    def change(name, content):
        if name.endswith("model.json"):
            content = re.sub(
                rb'"expr_str": "[^"]*"', b'"expr_str": ' + json.dumps(size).encode(), content
            )
        return content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    with pytest.raises(ConversionFailed, match="not arithmetic"):
        torch_program.cleaned(path, tmp_path / "copy.pt2")


@pytest.mark.parametrize(
    "entry",
    [{"use_pickle": True}, {"path_name": "opaque_obj_0"}, {"path_name": "../weight_0"}],
)
def test_weights_of_a_program_are_numbers_alone(program, entry, tmp_path):
    def change(name, content):
        if name.endswith("weights_config.json"):
            return edited(content, lambda f: next(iter(f["config"].values())).update(entry))
        return content

    path = rewritten(program, tmp_path / "evil.pt2", change)
    with pytest.raises(ConversionFailed, match="as a pickle or an object"):
        torch_program.cleaned(path, tmp_path / "copy.pt2")


def test_a_bomb_a_lie_and_a_path_are_refused(tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(2**24))
    with pytest.raises(ConversionFailed, match="decompression bomb"):
        torch_archive.inspect(bomb)

    lie = tmp_path / "lie.pt"
    with zipfile.ZipFile(lie, "w") as archive:
        archive.writestr("m/data.pkl", b"12345678")
    content = bytearray(lie.read_bytes())
    place = content.index(b"PK\x01\x02") + 24  # the declared size in the directory
    content[place : place + 4] = struct.pack("<I", 2**31)
    lie.write_bytes(content)
    with pytest.raises(ConversionFailed, match="declares another size"):
        torch_archive.inspect(lie)

    path = tmp_path / "path.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../data.pkl", b"")
    with pytest.raises(ConversionFailed, match="path out of the archive"):
        torch_archive.inspect(path)


def test_files_cut_short_are_refused(program, tmp_path):
    content = program.read_bytes()
    path = tmp_path / "cut.pt2"
    for size in (0, 4, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        assert torch_archive.kind_of(path) in ("", "cut")
        with pytest.raises(ConversionFailed):
            torch_program.cleaned(path, tmp_path / "copy.pt2")


def test_what_is_not_pytorchs_is_left_to_others(tmp_path):
    for name in ("m.pt2", "m.onnx", "m.zip"):
        (tmp_path / name).write_bytes(b"something else")
        assert pytorch.recognises(str(tmp_path / name)) is None
    assert pytorch.recognises(str(tmp_path)) is None
    assert pytorch.recognises(str(tmp_path / "missing.pt2")) is None


def test_modules_keep_their_mode(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout(), nn.Flatten())
    network.train()
    module_to_file(network, torch.zeros(2, 3, 8, 8), tmp_path)
    assert network.training
    assert network[0].weight.requires_grad

"""The page of ``inspector embed --page``: what stands in it, and what it is refused for."""

import base64
import gzip
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import node, onnx_model

import inspector
from inspector import cli
from inspector.embed.page import trial_picture, write_page
from inspector.embed.page.runtime import read_runtime
from inspector.errors import InspectorError, MethodRefused, UsageError
from inspector.photos.photo import Photo

SCRIPT = "const a=1,b=2,c=3;export{a as InferenceSession,b as Tensor,c as env,b as default};\n"


def package(path, script=SCRIPT, wasm=b"\0asm", about=None, **more):
    """A package of npm as small as can be."""
    about = {"name": "onnxruntime-web", "version": "1.2.3"} if about is None else about
    members = {
        "package/package.json": json.dumps(about).encode(),
        "package/dist/ort.wasm.bundle.min.mjs": script.encode(),
        "package/dist/ort-wasm-simd-threaded.wasm": wasm,
        **more,
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            if data is not None:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def network(kind=1, channels=3, name="x"):
    weights = np.random.default_rng(0).standard_normal((4, channels, 3, 3)).astype(np.float32)
    nodes = [
        node("Cast", "x", "f", to=1),
        node("Conv", "f w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "y"),
    ]
    proto = onnx_model(nodes, {"x": ["n", channels, 16, 16]}, {"y": ["n", 4]}, {"w": weights})
    proto.graph.input[0].type.tensor_type.elem_type = kind
    return proto


def load(path, **kind):
    onnx.save(network(**kind), path)
    return inspector.load(path, device="cpu", unverified=True, preprocess="unit")


def part(page, name):
    found = re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', page, re.DOTALL)
    return found[1]


def test_the_model_inside_gives_what_the_page_is_tried_with(tmp_path):
    model = load(tmp_path / "a<b>.onnx")
    made = write_page(model, tmp_path / "page", runtime=package(tmp_path / "r.tgz"))
    page = made.path.read_text()
    assert "<title>a&lt;b&gt;.onnx: where it looks</title>" in page
    assert made.runtime == "onnxruntime-web 1.2.3"
    facts = json.loads(part(page, "facts"))
    session = onnxruntime.InferenceSession(
        gzip.decompress(base64.b64decode(part(page, "model"))), providers=["CPUExecutionProvider"]
    )
    x, _ = model.preprocessing.preprocess.apply(Photo.of(trial_picture()))
    y, heatmap = session.run(None, {"x": x[None]})
    known = np.frombuffer(base64.b64decode(facts["test"]["heatmap"]), "<f4")
    np.testing.assert_allclose(heatmap.ravel(), known, atol=1e-6)
    known = np.frombuffer(base64.b64decode(facts["test"]["scores"]), "<f4")
    np.testing.assert_allclose(y.ravel(), known, atol=1e-6)


def test_the_policy_allows_this_script_and_nothing_else(tmp_path):
    made = write_page(load(tmp_path / "m.onnx"), tmp_path, runtime=package(tmp_path / "r.tgz"))
    page = made.path.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith(
        f"default-src 'none'; script-src 'sha256-{digest}' 'wasm-unsafe-eval'; style-src 'sha256-"
    )
    assert "http" not in policy
    assert "const ort = { InferenceSession: a, Tensor: b, env: c };" in script
    assert "export" not in script.partition("const ort")[0]
    assert "MIT License" in page


@pytest.mark.parametrize(
    "more",
    [
        {"script": "nothing"},
        {"script": SCRIPT.replace("InferenceSession", "Other")},
        {"script": "'</script>';" + SCRIPT},
        {"about": [1]},
        {"package/package.json": b"{"},
        {"package/dist/ort-wasm-simd-threaded.wasm": None},
        {"package/dist/ort.wasm.bundle.min.mjs": b"\xff\xfe" + SCRIPT.encode()},
    ],
    ids=["exports", "names", "tags", "list", "json", "wasm", "encoding"],
)
def test_another_package_is_refused_with_the_command(tmp_path, more):
    with pytest.raises(UsageError, match="not the package") as caught:
        read_runtime(package(tmp_path / "r.tgz", **more))
    assert "npm pack onnxruntime-web" in str(caught.value.hint)


@pytest.mark.parametrize(
    "data", [b"", b"no archive", gzip.compress(bytes(600), mtime=0)], ids=["empty", "text", "zeros"]
)
def test_no_package_is_refused(tmp_path, data):
    path = tmp_path / "r.tgz"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="package"):
        read_runtime(path)
    with pytest.raises(UsageError, match="no such file"):
        read_runtime(tmp_path / "none.tgz")


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path):
    with tarfile.open(tmp_path / "r.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/package.json")
        member.size = 2 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(UsageError, match="bytes"):
        read_runtime(tmp_path / "r.tgz")


@pytest.mark.parametrize(("kind", "channels"), [(10, 3), (11, 3), (1, 5)])
def test_inputs_that_a_page_does_not_make_are_refused(tmp_path, kind, channels):
    with pytest.raises(InspectorError) as caught:
        write_page(
            load(tmp_path / "m.onnx", kind=kind, channels=channels),
            tmp_path / "page",
            runtime=package(tmp_path / "r.tgz"),
        )
    assert isinstance(caught.value, MethodRefused)
    assert not (tmp_path / "page").exists()


def test_commands_that_cannot_be_meant(tmp_path, capsys):
    onnx.save(network(), tmp_path / "m.onnx")
    runtime, model = str(package(tmp_path / "r.tgz")), str(tmp_path / "m.onnx")
    page = str(tmp_path / "page")
    for more, word in [
        ([], "--page"),
        (["--page", page], "npm pack onnxruntime-web"),
        (["-o", str(tmp_path / "o.onnx"), "--web-runtime", runtime], "belongs to --page"),
        (["--page", page, "--web-runtime", runtime, "--size", "layer"], "belong to -o"),
    ]:
        assert cli.run(["embed", model, *more]) == 2
        assert word in capsys.readouterr().err
    for _ in range(2):
        status = cli.run(["embed", model, "--page", page, "--web-runtime", runtime])
        shown = capsys.readouterr()
        assert status == (0 if "MiB" in shown.out else 2), shown.err
    assert "exists already" in shown.err
    assert [path.name for path in Path(page).iterdir()] == ["index.html"]

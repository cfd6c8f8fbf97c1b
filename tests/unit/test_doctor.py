"""What `inspector doctor` says of installations: made of folders that pip would leave."""

import base64
import hashlib
import importlib.metadata
import sys

import pytest

from converters import rights
from converters.conversion import frameworks
from inspector import doctor
from inspector.cli import run


class Site:
    """A folder of packages, written as pip writes it."""

    def __init__(self, path):
        self.path = path

    def install(self, name, version, files):
        rows = []
        for file, text in files.items():
            place = self.path / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            rows.append(f"{file},sha256={digest.rstrip(b'=').decode()},{len(text)}")
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")

    def uninstall(self, name, version):
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        for row in (info / "RECORD").read_text().splitlines():
            (self.path / row.partition(",")[0]).unlink(missing_ok=True)
        (info / "METADATA").unlink()
        info.rmdir()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The only folder that distributions are found in; modules still come from everywhere."""
    monkeypatch.setattr(
        importlib.metadata.MetadataPathFinder,
        "find_distributions",
        classmethod(lambda cls, context=None: _found(tmp_path, context)),
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return Site(tmp_path)


ORIGINAL = importlib.metadata.MetadataPathFinder.find_distributions


def _found(path, context):
    name = getattr(context, "name", None)
    return ORIGINAL(importlib.metadata.DistributionFinder.Context(name=name, path=[str(path)]))


GPU = {"onnxruntime/__init__.py": "gpu", "onnxruntime/cuda.so": "cuda", "onnxruntime/same": "same"}
CPU = {
    "onnxruntime/__init__.py": "cpu",
    "onnxruntime/azure.so": "azure",
    "onnxruntime/same": "same",
}
FIXES = ["pip uninstall -y onnxruntime onnxruntime-gpu", "pip install onnxruntime-gpu==1.31.1"]


def test_one_whole_distribution_is_well(site):
    site.install("onnxruntime-gpu", "1.31.1", GPU)
    site.install("onnxruntime-extensions", "0.1", {"onnxruntime_extensions/__init__.py": ""})
    site.install("onnxruntime_genai", "0.1", {"onnxruntime_genai/__init__.py": ""})
    found = doctor.runtimes()
    assert found == [doctor.Runtime("onnxruntime-gpu", "1.31.1", 3, 0, 0)]
    assert doctor.problems(found) == []


def test_two_distributions_overwrite_each_other(site):
    site.install("onnxruntime-gpu", "1.31.1", GPU)
    site.install("onnxruntime", "1.32.0", CPU)
    found = doctor.runtimes()
    assert [(r.name, r.missing, r.changed) for r in found] == [
        ("onnxruntime", 0, 0),
        ("onnxruntime-gpu", 0, 1),
    ]
    both, lost = doctor.problems(found)
    assert both.startswith("onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are installed into one")
    assert lost == "1 of the 3 files of onnxruntime-gpu 1.31.1 are not its own"
    assert doctor.fixes(found) == FIXES


def test_uninstalling_one_takes_the_others_files_along(site):
    site.install("onnxruntime-gpu", "1.31.1", GPU)
    site.install("onnxruntime", "1.32.0", CPU)
    site.uninstall("onnxruntime", "1.32.0")
    found = doctor.runtimes()
    assert found == [doctor.Runtime("onnxruntime-gpu", "1.31.1", 3, 2, 0)]
    (said,) = doctor.problems(found)
    assert said.startswith("onnxruntime-gpu 1.31.1 lacks 2 of its 3 files")
    assert doctor.fixes(found)[1] == FIXES[1]


def test_a_file_of_the_same_size_is_told_by_its_hash(site):
    site.install("onnxruntime", "1.32.0", CPU)
    (site.path / "onnxruntime/__init__.py").write_text("gpu")
    assert doctor.runtimes()[0].changed == 1


@pytest.mark.skipif(rights.landlock_version() < 2, reason="this kernel has no Landlock")
def test_what_child_processes_may_not_do_is_tried(monkeypatch):
    version = rights.landlock_version()
    assert dict(doctor.sandbox()) == dict.fromkeys(
        ("child: reading elsewhere", "child: writing elsewhere", "child: network"),
        f"refused (Landlock {version})",
    )
    free = rights._TRIAL.replace("raise", "rights.restrict = lambda _: None; raise")
    monkeypatch.setattr(rights, "_TRIAL", free)
    assert {a for _, a in doctor.sandbox()} == {f"allowed (Landlock {version})"}
    monkeypatch.setattr(rights, "_TRIAL", "import time; time.sleep(60)")
    monkeypatch.setattr(rights, "_PATIENCE", 0.5)
    assert {a for _, a in doctor.sandbox()} == {f"could not be tried (Landlock {version})"}
    monkeypatch.setenv("INSPECTOR_SANDBOX", "off")
    assert doctor.sandbox() == [("child processes", "have all your rights (INSPECTOR_SANDBOX=off)")]


def test_none_at_all(site):
    assert doctor.problems([]) == ["no distribution of ONNX Runtime is installed"]
    assert doctor.fixes([])[0].startswith("pip install onnxruntime")


def test_frameworks_are_listed_without_being_imported(site):
    site.install("keras", "3.13.0", {})
    site.install("tensorflow-cpu", "2.21.0", {})
    before = set(sys.modules)
    found = {f.extra: str(f) for f in doctor.frameworks()}
    assert not {"keras", "tensorflow", "jax", "timm"} & (set(sys.modules) - before)
    assert found["keras"] == "tf2onnx not installed: pip install 'onnx-inspector[keras]'"
    assert found["timm"] == "not installed: pip install 'onnx-inspector[timm]'"
    site.install("tf2onnx", "1.17.0", {})
    found = {f.extra: str(f) for f in doctor.frameworks()}
    assert found["keras"] == "keras 3.13.0, tensorflow-cpu 2.21.0, tf2onnx 1.17.0"


def test_every_extra_of_a_converter_is_listed():
    listed = {framework.extra for framework in doctor.frameworks()}
    assert {module.EXTRA for module in frameworks().values() if module.EXTRA} <= listed


def test_the_command_works_where_onnxruntime_does_not(site, monkeypatch, capsys):
    site.install("onnxruntime-gpu", "1.31.1", GPU)
    site.install("onnxruntime", "1.32.0", CPU)
    site.uninstall("onnxruntime", "1.32.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    assert run(["doctor"]) == 6
    said = capsys.readouterr().out
    assert "conflict: onnxruntime-gpu 1.31.1 lacks 2 of its 3 files" in said
    assert "conflict: ONNX Runtime does not start (" in said
    assert "child: writing elsewhere   " in said
    assert "ONNX Runtime statistics    off (ORT_DISABLE_TELEMETRY=1)" in said
    assert "    pip install onnxruntime-gpu==1.31.1" in said
    assert "not installed: pip install 'onnx-inspector[keras]'" in said

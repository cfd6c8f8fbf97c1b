"""The package as somebody gets it: what is packed, what runs from it, what a type checker sees.

The wheel is built from this tree and installed, as its only package, into an environment of its
own; what it depends on is borrowed from the environment of the tests.
"""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("inspector", "converters")
# Bytecode, what editors leave, and the metadata of the editable installation of this tree.
NOT_PACKED = re.compile(r"__pycache__|\.pyc$|~$|(^|/)\.[^/]*(/|$)|\.egg-info")

USER = """
from collections.abc import Iterator

import inspector
from inspector import Explainer, ImageRefused, InspectorError, MethodName, Photo, Report


def peaks(paths: list[str], method: MethodName = "grad-cam") -> Iterator[float]:
    model: Explainer = inspector.load("model.onnx")
    window = inspector.configured("occlusion", window=16, stride=8)
    report: Report = model.explain(paths, [method, "cam", window], target=lambda s: s[:, 1])
    for image in report:
        for found in image:
            yield float(found.heatmap.values.max())
    model.explain(b"...", "cam", target=["cat", 3], layer=["a", "b"])
    model.explain_tensor([[1.0]], "gradient")
    best: str = model.predict(paths, top=1)[0][0]["label"]
    photo: Photo = inspector.load_photo(paths[0])
    inspector.overlay(photo, [[1.0]], label=best).save(f"{inspector.__version__}.png")


try:
    print(len(list(peaks(["cat.jpg"]))))
except ImageRefused as refused:
    print(refused.hint)
except InspectorError as error:
    print(error.what, error.where, error.exit_status)
"""

WRONG = """
import inspector

model = inspector.load("model.onnx")
model.explain("cat.jpg", "gradcam")
model.explain("cat.jpg", ["grad-cam", "gradcam"])
model.attribute([[1.0]], "gradcam")
inspector.configured("oclusion", window=16)
model.explane("cat.jpg")
model.explain("cat.jpg")[0].heatmapp
"""


def run(*words, cwd, **more):
    # Neither this tree nor what a developer has set may be found in the place of the wheel.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(  # noqa: S603 - our own programs
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
        **more,
    )


def done(*words, cwd):
    found = run(*words, cwd=cwd)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    return found.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """This tree by links, so that building leaves nothing in it."""
    folder = tmp_path_factory.mktemp("tree")
    for entry in ROOT.iterdir():
        if not re.match(r"\.venv|\.git$|build|dist$|.*\.egg-info|.*cache", entry.name):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    done(*pip, "--wheel-dir", folder, tree, cwd=tree)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of an environment into which the wheel alone is installed."""
    folder = tmp_path_factory.mktemp("environment")
    done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    site = done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # Folders that such a file names come last, and their own such files are not read: the
    # editable installation of this tree stays out.
    Path(site.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    done(*pip, "--no-index", wheel, cwd=folder)
    return python


def files_of(*folders):
    """Files of this tree that belong to somebody else's copy of it too."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in paths}
    return {name for name in names if not NOT_PACKED.search(name)}


def test_the_wheel_carries_every_file_of_the_packages(wheel):
    packed = zipfile.ZipFile(wheel).namelist()
    assert files_of(*PACKAGES) - set(packed) == set()
    assert {"inspector/sample/resnet20.onnx", "inspector/py.typed"} <= set(packed)
    foreign = {name.split("/")[0] for name in packed} - {*PACKAGES}
    assert all(name.endswith(".dist-info") for name in foreign), foreign


def test_the_source_distribution_carries_tests_documents_and_changes(tree):
    setup = "import setuptools; setuptools.setup()"
    done(sys.executable, "-c", setup, "--quiet", "egg_info", cwd=tree)
    packed = set((tree / "onnx_inspector.egg-info/SOURCES.txt").read_text().splitlines())
    folders = (*PACKAGES, "tests", "docs", "benchmarks", "sample_models")
    assert files_of(*folders) - packed == set()
    at_the_top = {path.name for path in ROOT.iterdir() if path.suffix in {".md", ".txt", ".cff"}}
    assert {*at_the_top, "Makefile", "LICENSE", "Dockerfile", "pyproject.toml"} - packed == set()


def test_the_demo_runs_from_the_wheel(installed, tmp_path):
    where = done(installed, "-c", "import inspector; print(inspector.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])
    said = done(installed.with_name("inspector"), "demo", "-o", "out", cwd=tmp_path)
    assert "horse" in said
    assert (tmp_path / "out/horse.sheet.png").stat().st_size
    assert "no conflicts" in done(installed, "-m", "inspector", "doctor", cwd=tmp_path)


def test_a_users_file_is_checked_strictly_against_the_wheel(installed, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", installed)
    # Those of `make lint`, so that what it knows of torch and others is not found out again.
    settings = ("--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache")
    found = run(*mypy, *settings, "user.py", "wrong.py", cwd=tmp_path)
    lines = set(re.findall(r"wrong\.py:(\d+): error", found.stdout, re.MULTILINE))
    assert lines == {str(line) for line in range(5, 11)}, found.stdout[-3000:] + found.stderr
    assert "user.py" not in found.stdout

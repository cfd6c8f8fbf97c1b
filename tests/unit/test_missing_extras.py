"""What an optional package is missing for is said before anything is computed."""

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import inspector
from inspector import doctor
from inspector.audit.run import audit
from inspector.errors import InspectorWarning, MissingExtra
from inspector.opening import Opening
from inspector.studies import NEEDS, studies

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "sample_models/resnet20.onnx"
PHOTOS = [ROOT / f"sample_models/images/{name}_1.png" for name in ("horse", "dog")]

ASKED_BY_ITSELF = {
    "evolution": "draws its figure without the chart of convergence",
    "reconstruction": "asks for SciPy where photos are given, and does not need it without",
}


@pytest.fixture(scope="module")
def model():
    return inspector.load(MODEL, unverified=True)


def untouched():
    raise AssertionError("a photo was opened before the package was asked for")
    yield


def without(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", [name for name, one in studies().items() if one.needs])
def test_a_study_asks_for_its_packages_before_the_first_photo(model, name, monkeypatch):
    for need in studies()[name].needs:
        with monkeypatch.context() as blocked:
            without(blocked, NEEDS[need][0])
            with pytest.raises(MissingExtra, match=r"onnx-inspector\[studies\]"):
                studies()[name].function(model, untouched())


def imported(folder):
    """Modules of this package, and names of them, that a study's files import."""
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                yield from (f"{node.module}.{one.name}" for one in node.names)


@pytest.mark.parametrize("name", studies())
def test_a_study_declares_what_its_files_import(name):
    module = importlib.import_module(studies()[name].function.__module__)
    found = set(imported(Path(module.__file__).parent))
    curves = any(one.startswith("inspector.render.drawing.chart.") for one in found)
    statistics = {
        f"inspector.measures.statistics.{one}"
        for one in ("bootstrap", "mean_interval", "mcnemar", "wilson", "wald_difference")
    }
    scipy = bool(found & statistics) or "inspector.measures.sharpness" in found
    if name in ASKED_BY_ITSELF:
        return
    assert studies()[name].draws == curves
    assert ("scipy" in studies()[name].needs) >= scipy


def test_without_matplotlib_the_numbers_are_written(model, monkeypatch, tmp_path):
    without(monkeypatch, "matplotlib.figure")
    with pytest.warns(InspectorWarning, match=r"without the figure.*onnx-inspector\[studies\]"):
        found = studies()["sanity"].function(model, PHOTOS[:1], method=("gradient",), stages=1)
    assert sorted(path.suffix for path in found.save(tmp_path)) == [".csv", ".json"]
    assert (
        "without the figure" in json.loads((tmp_path / "sanity.json").read_text())["warnings"][-1]
    )


BLOCK = "import sys\nfor name in {names}:\n    sys.modules[name] = None\n"
RUN = "from inspector.cli import main\nmain({arguments})"
OPTIONAL = ("matplotlib", "matplotlib.figure", "scipy", "scipy.stats", "scipy.ndimage", "sklearn")


@pytest.mark.conformance
@pytest.mark.parametrize(
    "arguments",
    [
        ("top-activations", "--units", "0"),
        ("units", "--count", "1"),
        ("layers", "--most", "2", "--units", "1"),
        ("filters",),
        ("occlusion", "--window", "16", "--stride", "16"),
        ("reconstruction",),
        ("invariance",),
        ("sanity",),
        ("faithfulness",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_study_is_done_without_optional_packages_or_refused_at_once(arguments, tmp_path):
    name, *options = arguments
    words = ["study", name, str(MODEL), *map(str, PHOTOS), *options, "-o", str(tmp_path / "out")]
    code = BLOCK.format(names=OPTIONAL) + RUN.format(arguments=words)
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    if run.returncode:
        assert "onnx-inspector[studies]" in run.stderr
        assert studies()[name].needs or name in ASKED_BY_ITSELF
    else:
        assert (tmp_path / "out" / f"{name}.json").is_file()


def test_doctor_knows_every_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {one.extra for one in (*doctor.frameworks(), *doctor.features())} - {""}
    own = {"samples", "test", "formats", "lint", "truth", "benchmark", "docs"}
    assert known == set(extras) - own
    for feature in doctor.features():
        wanted = {one.partition(">")[0].partition("[")[0] for one in extras[feature.extra]}
        assert {*feature.found, *feature.lacking} == wanted, feature.extra


def test_doctor_says_what_is_missing_for_what(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "" if name == "pyarrow" else "1.0")
    found = {one.extra: str(one) for one in doctor.features()}
    assert found["audit"] == "pyarrow not installed: pip install 'onnx-inspector[audit]'"
    assert found["studies"].startswith("matplotlib 1.0")


def imports_at_once(path):
    """Names that a file imports as soon as it is imported itself."""
    waiting = list(ast.parse(path.read_bytes()).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)
        elif isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.dump(node):
            waiting += node.body


def packages_of(folder):
    """Packages of others that programs of a folder, and what they import, need at once."""
    waiting, seen, found = sorted(folder.rglob("*.py")), set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imports_at_once(path):
            top, *rest = name.split(".")
            if top in {"inspector", "converters"}:
                places = [ROOT / top / Path(*rest[:n]) for n in range(len(rest) + 1)]
                files = [f for p in places for f in (p.with_suffix(".py"), p / "__init__.py")]
                waiting += [file for file in files if file.is_file()]
            elif top not in sys.stdlib_module_names and not (folder / f"{top}.py").is_file():
                found.add(top)
    return found


@pytest.mark.parametrize(("folder", "extra"), [("truth", "truth"), ("costs", "benchmark")])
def test_an_extra_of_a_benchmark_brings_what_its_programs_import(folder, extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"], *project["optional-dependencies"][extra]]
    brought = set()
    while waiting:
        name = canonicalize_name(Requirement(waiting.pop()).name)
        if name not in brought:
            brought.add(name)
            with suppress(metadata.PackageNotFoundError):
                wanted = map(Requirement, metadata.requires(name) or ())
                waiting += [str(one) for one in wanted if not one.marker or one.marker.evaluate()]
    modules = metadata.packages_distributions()
    needed = packages_of(ROOT / "benchmarks" / folder)
    named = {module: {canonicalize_name(d) for d in modules.get(module, ())} for module in needed}
    missing = {module for module, given in named.items() if given and not given & brought}
    assert not missing


def test_a_torch_module_asks_for_the_exporter(monkeypatch):
    import torch

    # The first import of the exporter is what fails where it is not installed.
    for name in [name for name in sys.modules if name.startswith("converters.to_onnx.pytorch")]:
        monkeypatch.delitem(sys.modules, name)
    without(monkeypatch, "onnxscript", "onnx_ir")
    with pytest.raises(MissingExtra, match=r"onnx-inspector\[pytorch\]"):
        inspector.load(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("name", ["scipy.stats", "sklearn.cluster", "pyarrow.parquet"])
def test_an_audit_names_the_one_extra_that_brings_all_of_it(name, monkeypatch, tmp_path):
    without(monkeypatch, name)
    with pytest.raises(MissingExtra, match=r"onnx-inspector\[audit\]"):
        audit(Opening(MODEL), PHOTOS[0].parent, tmp_path)

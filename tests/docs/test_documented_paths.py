"""Files, modules, targets and statuses that the documentation names exist."""

import importlib
import re
import runpy
import tomllib
from functools import cache

from commands import ROOT

TEXTS = sorted(
    {
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").rglob("README.md"),
        ROOT / "sample_models/README.md",
        ROOT / "pyproject.toml",
        ROOT / "Makefile",
        ROOT / ".ci/run",
        ROOT / ".pre-commit-config.yaml",
        ROOT / ".github/workflows/ci.yml",
        *(ROOT / "inspector").rglob("*.py"),
        *(ROOT / "converters").rglob("*.py"),
    }
)
FOLDERS = r"(?:inspector|converters|docs|tests|benchmarks|sample_models)"
PLACEHOLDERS = ("NAME", "ROOM")
METADATA = {"inspector.labels", "inspector.preprocess", "inspector.conversion", "inspector.flat"}
"""Keys in files' metadata and names in programs, which look like modules."""


def named(pattern: str) -> list[tuple[str, str]]:
    found = set()
    for text in TEXTS:
        for match in re.findall(pattern, text.read_text()):
            found.add((text.relative_to(ROOT).as_posix(), match))
    return sorted(found)


def test_paths_exist():
    paths = named(rf"(?<![\w/.-]){FOLDERS}/[\w./-]*[\w/]")
    assert len(paths) > 30
    missing = [
        f"{text}: {path}"
        for text, path in paths
        if not any(word in path for word in PLACEHOLDERS) and not (ROOT / path).exists()
    ]
    assert not missing


def test_the_site_lists_every_page():
    """Without Sphinx, whose own check is among the long runs."""
    order = runpy.run_path(str(ROOT / "docs/site/conf.py"))["ORDER"]
    listed = {page.split("/")[-1] for pages in order["docs/index"].values() for page in pages}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= listed | {"index"}


def test_links_lead_somewhere():
    missing = [
        f"{text}: {link}"
        for text, link in named(r"\]\(([^)#]+)[^)]*\)")
        if text.endswith(".md")
        and "://" not in link
        and not (ROOT / text).parent.joinpath(link).exists()
    ]
    assert not missing


@cache
def resolves(name: str) -> bool:
    """Whether a dotted name is a module or what a module holds."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_modules_exist():
    names = named(r"(?<![\w/.-])(?:inspector|converters)(?:\.[A-Za-z_]\w*)+\b(?!\()")
    names = [(t, n) for t, n in names if n not in METADATA and not re.search(r"\.(md|py)$", n)]
    assert len(names) >= 5
    assert not [f"{text}: {name}" for text, name in names if not resolves(name)]


def test_the_tree_of_the_architecture_is_the_tree():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    tree = text.partition("## The tree")[2].split("```")[1].strip().splitlines()
    missing, above = [], {-2: ROOT}
    for line in tree:
        depth = len(line) - len(line.lstrip(" "))
        path = above[depth - 2] / line.split()[0]
        above[depth] = path
        if not path.exists():
            missing.append(line)
    assert not missing
    rooms = {path.parent.name for path in (ROOT / "inspector").glob("*/__init__.py")}
    shown = {line.split()[0].rstrip("/") for line in tree}
    assert rooms <= shown, "a room of inspector/ is not in ARCHITECTURE.md's tree"


def test_every_target_of_the_makefile_is_explained():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert targets - {"help"} == set(re.findall(r"^\| `make ([a-z-]+)`", page, re.MULTILINE))
    for text, target in named(r"`make ([a-z-]+)[^`]*`"):
        assert target in targets, f"{text}: make {target}"


def test_statuses_of_errors_are_documented():
    from inspector import cli, errors

    statuses = {
        error.exit_status
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.ExplainedError)
    }
    said = {int(status) for status in re.findall(r"\b(\d+) [a-z]", cli.program.help)}
    assert statuses <= said


def test_the_lowest_versions_are_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {}
    for line in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        name, _, bound = re.match(r"([\w-]+)(>=([\d.]+))", line).groups()
        bounds[name] = bound
    lowest = dict(
        line.split("==")
        for line in (ROOT / "constraints-lowest.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    numbers = {name: version(text) for name, text in lowest.items()}
    assert numbers == {name: version(text) for name, text in bounds.items()}


def test_hashes_are_of_the_known_good_versions():
    """After a change of constraints.txt: make hashes."""
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = {version_pin(line) for line in pins if line and not line.startswith("#")}
    text = (ROOT / "constraints-hashes.txt").read_text()
    hashed = re.findall(
        r"^([\w.-]+==\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.MULTILINE
    )
    assert {version_pin(pin) for pin, _ in hashed} == wanted


def version_pin(line: str) -> tuple[str, str]:
    name, _, number = line.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower(), number.strip()


def version(text: str) -> tuple[int, ...]:
    """A version's numbers without trailing zeros: 9 is 9.0.0."""
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", text).split("."))


def test_the_citation_has_the_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\ntitle: {project['name']}\n" in citation


def test_issue_forms_ask_for_the_installation_and_the_model():
    forms = [f for f in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if f.name != "config.yml"]
    assert len(forms) >= 3
    for form in forms:
        assert "inspector doctor" in form.read_text(), form.name
        assert "inspector check MODEL --json" in form.read_text(), form.name

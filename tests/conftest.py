"""What every test may ask for."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marked_files import MARKS, can_hold, named_marks

# Tests import ONNX Runtime themselves, before this package does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Verdicts on the twin are kept in the user's cache folder; tests have none to share.
os.environ["INSPECTOR_CACHE"] = "off"

# A shell that starts the tests in the background ignores interrupts, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_GENERATORS: dict[int, tuple[np.random.Generator, Any]] = {}

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files unread that hold no test that is asked for."""
    return None if can_hold(collection_path, config.option.markexpr) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a mark that a file does not name, for which it would be left unread."""
    for item in items:
        of_all, of_any = named_marks(item.path)
        marks = {mark.name for mark in item.iter_markers()} & set(MARKS)
        if not of_all <= marks <= of_any:
            raise pytest.UsageError(
                f"{item.nodeid}: has the marks {sorted(marks)}, and its file names "
                f"{sorted(of_any)}: write pytest.mark.NAME into the file of the test"
            )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember the random generators that modules of tests keep, as they were imported."""
    folder = str(Path(__file__).parent)
    for module in list(sys.modules.values()):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            kept = [one for one in vars(module).values() if isinstance(one, np.random.Generator)]
            _GENERATORS.update((id(one), (one, one.bit_generator.state)) for one in kept)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    """Let no test's random numbers depend on which tests ran before it."""
    for generator, state in _GENERATORS.values():
        generator.bit_generator.state = state


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of third-party models and photos, which the project does not ship."""
    if not SHARED.is_dir():
        pytest.skip("third-party models and photos (../shared) are not here")
    return SHARED


@pytest.fixture
def system_fonts(tmp_path, monkeypatch):
    """A folder for fonts in the place of the system's."""
    from inspector.render.drawing import fonts

    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(fonts, "_folders", lambda: (folder,))
    caches = (fonts._system_files, fonts._system_font, fonts._runs, fonts._characters)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(fonts, "_warned", set())
    yield folder
    for cached in caches:
        cached.cache_clear()

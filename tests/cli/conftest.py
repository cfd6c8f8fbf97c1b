"""The command line as a user calls it, in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inspector(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``inspector ARGUMENTS`` in an empty folder."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "inspector", *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return call


@pytest.fixture
def samples() -> Path:
    """The sample models and images."""
    return ROOT / "sample_models"

"""The command line as a user calls it, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import call as forked

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240
"""How long a command may take, on a busy machine."""


@pytest.fixture
def inspector(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``inspector ARGUMENTS`` in an empty folder."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        if hasattr(os, "fork"):
            return forked(words, tmp_path, SECONDS)
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "inspector", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return call


@pytest.fixture
def samples() -> Path:
    """The sample models and images."""
    return ROOT / "sample_models"

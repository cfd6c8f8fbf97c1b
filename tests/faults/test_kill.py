"""An audit that is killed at random and goes on: the same rows, no photo twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(1200)
@pytest.mark.conformance
@pytest.mark.skipif(not hasattr(os, "fork"), reason="without fork no process dies with its parent")
def test_an_audit_that_is_killed_again_and_again_ends_in_the_same_rows():
    script = Path(__file__).with_name("kill.py")
    found = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(script), "--command", "audit", "--kills", "3", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "audit: 3 kills" in found.stdout

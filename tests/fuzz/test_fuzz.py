"""Thousands of mutants through the real command path, each in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
MUTANTS = 3000

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each mutant is a forked child")


def fuzzed(*options):
    command = [sys.executable, str(RUN), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own program
        command, capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.conformance
def test_a_few_mutants_end_in_order():
    status, said = fuzzed("--mutants", "40")
    assert status == 0, said
    assert "worker 0: 40 mutants" in said


@pytest.mark.conformance
def test_the_same_seed_makes_the_same_mutant():
    first, second = (fuzzed("--seed", "7")[1] for _ in range(2))
    assert first == second
    assert first.startswith("$ inspector ")


@pytest.mark.conformance
@pytest.mark.timeout(3600)
def test_thousands_of_mutants_end_in_order():
    """No signal, no internal error, no hang, and no more memory than the cap."""
    status, said = fuzzed("--mutants", str(MUTANTS), "--start", "1000", "--workers", "2")
    assert status == 0, said
    assert sum(map(int, re.findall(r"worker \d: (\d+) mutants", said))) == MUTANTS
    assert said.count(": 0 faults") == 2

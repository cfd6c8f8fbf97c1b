"""The standard's node cases through the twin; ``pytest -s`` on this file prints the figures."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import node_cases

pytestmark = pytest.mark.conformance

LEAST_PASSED = 1500


@pytest.fixture(scope="module")
def figures():
    return node_cases.Figures(list(node_cases.judged()))


def listed(outcomes):
    return "\n".join(f"{outcome.name}: {outcome.reason}" for outcome in outcomes)


def test_no_case_is_wrong(figures, capsys):
    with capsys.disabled():
        print(f"\n{figures}")  # noqa: T201 - the figures are what this file is run for
    assert not figures.of("wrong"), listed(figures.of("wrong"))


def test_enough_cases_pass(figures):
    assert len(figures.of("passed")) >= LEAST_PASSED


def test_what_does_not_pass_is_excluded_with_a_reason(figures):
    short = [
        outcome
        for verdict in ("refused", "failed")
        for outcome in figures.of(verdict)
        if node_cases.exclusion(outcome.name) is None
    ]
    assert not short, listed(short)


def test_no_exclusion_is_left_over(figures):
    names = [o.name for verdict in ("refused", "failed") for o in figures.of(verdict)]
    unused = [
        pattern
        for pattern in node_cases.EXCLUDED
        if not any(node_cases.fnmatch(name, pattern) for name in names)
    ]
    assert unused == []


def test_rounding_is_judged_by_the_units_it_claims(figures):
    close, far = [node_cases.torch.tensor([1.0, 1.0 + step]) for step in (2e-7, 2e-6)]
    wanted = [node_cases.np.ones(2, node_cases.np.float32)]
    assert node_cases._is_rounding("test_dft_inverse", [close], wanted)
    assert not node_cases._is_rounding("test_dft_inverse", [far], wanted)
    assert not node_cases._is_rounding("test_add", [close], wanted)

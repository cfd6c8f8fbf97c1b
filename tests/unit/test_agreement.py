"""Two sides of one network agree on their scores, up to rounding of the largest of them."""

import numpy as np
import pytest

from inspector.verify.agreement import _agreement

NOISE = np.array([[0.0, 3.0, 1.0]], np.float32)


def judged(*pairs):
    theirs, ours = zip(*pairs, strict=True)
    return _agreement("top-1", theirs, ours, side="the twin", allowed=1e-4, floor=0.0)


@pytest.mark.parametrize("blank", [(0.0, 2e-9, 0.0), (0.0, 0.0, -3e-9)])
def test_scores_that_are_rounding_at_one_input_are_no_disagreement(blank):
    """A blank image, of whose colours the network takes differences."""
    zero = np.zeros((1, 3), np.float32)
    found = judged((NOISE, NOISE), (np.array([blank], np.float32), zero))
    assert found.status == "pass"


def test_a_small_score_that_is_wrong_is_a_disagreement():
    small = np.array([[0.0, 0.01, 0.0]], np.float32)
    assert judged((NOISE, NOISE), (small, 0 * small)).status == "fail"
    assert judged((NOISE, 1.01 * NOISE)).status == "fail"
    assert judged((NOISE, NOISE[:, ::-1])).status == "fail"

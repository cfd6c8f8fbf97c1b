"""No map is silently wrong: it points at the planted square, or it is refused, or it says so."""

from collections import Counter
from functools import cache

import pytest
from wrongable_graphs import KINDS, scene
from wrongable_oracle import judge, methods_of, opened

SEEDS = 17
"""Scenes per kind: 31 kinds make 527 networks."""

QUICK = 3
"""Scenes per kind in the default tests; the others are conformance runs."""


@pytest.fixture(autouse=True)
def _versions_once(monkeypatch):
    """Reading the versions of all packages for each report takes longer than a tiny network."""
    import inspector.opened

    monkeypatch.setattr(inspector.opened, "versions", cache(inspector.opened.versions))


def test_there_are_enough_networks():
    assert SEEDS * len(KINDS) >= 500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(QUICK), id="few"),
        pytest.param(range(QUICK, SEEDS), id="many", marks=pytest.mark.conformance),
    ],
)
def test_no_map_is_silently_wrong(kind, seeds):
    rows = []
    words = Counter()
    for seed in seeds:
        found = scene(kind, seed)
        explainer = opened(found)
        for method in methods_of(found):
            verdict = judge(found, method, explainer)
            words[verdict.word] += 1
            if verdict.word == "wrong":
                rows.append(f"{seed:4} {method:16} {verdict.text[:160]}")
    table = "\n".join(rows)
    assert not rows, (
        f"{kind}: {len(rows)} of {words.total()} maps are silently wrong\n{table}\n"
        f"see one: python tests/property/wrongable_graphs.py --kind {kind} --seed SEED"
    )


def test_scenes_are_the_same_each_time():
    one, other = (scene("tiles-slices", 3) for _ in range(2))
    assert one.model.SerializeToString() == other.model.SerializeToString()
    assert (one.photo == other.photo).all()

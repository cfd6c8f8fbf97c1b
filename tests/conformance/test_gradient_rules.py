"""Every rule at every opset, against the twin, and against differences of ONNX Runtime's results.

And which nodes of whole networks have a rule: ``pytest -s -k coverage`` prints the table.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.errors import ConverterError, UnsupportedOperator
from converters.onnx_file import read
from inspector.engines.gradient_graph import GradientGraph
from inspector.errors import InspectorError
from inspector.model import Model
from inspector.network.tail import tail_of
from inspector.surgery.gradient import RULES
from tests.unit.gradient_cases import Weighted, differences
from tests.unit.test_gradient_graph import CASES, TOLERANCE

pytestmark = pytest.mark.conformance

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "sample_models").glob("*.onnx"))
ZOO = sorted((ROOT.parent / "shared" / "zoo").glob("*.onnx"))

OPSETS = (7, 9, 11, 13, 16, 18, 21, 23)
OF_EACH = 2

KINDS = sorted({(case.domain, case.op_type) for case in CASES})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[1])
def test_a_rule_is_the_twins_at_every_opset_that_has_its_operator(kind):
    tried = 0
    for case in [one for one in CASES if (one.domain, one.op_type) == kind][:OF_EACH]:
        for opset in sorted({*OPSETS, case.opset}):
            one = replace(case, opset=opset)
            try:
                file = one.file()
                GradientGraph(file)._runtime(file.model).run({"x": one.feed()}, ["y"])
            except (ConverterError, InspectorError):
                continue  # no such operator, or spelled otherwise, at this opset
            try:
                found, _ = differences(one)
            except UnsupportedOperator as error:  # its backward pass needs what came later
                assert "opset" in error.nodes[0].reason  # noqa: PT017
                continue
            assert found <= TOLERANCE * (10 if "Norm" in one.op_type else 1), one
            tried += 1
    assert tried >= 1


SHARE, STEP = 0.02, 5e-3
"""Of the slope with all signs alike: float32 rounds the difference, and corners lie in a step."""


_JUMPS = {"Shrink", "Mod"}


@pytest.mark.parametrize("case", [c for c in CASES if c.op_type not in _JUMPS], ids=str)
def test_the_slope_is_that_of_onnx_runtimes_own_differences(case):
    file, x = case.file(), case.feed()
    graph = GradientGraph(file)
    runtime = graph._runtime(file.model)
    known = runtime.run({"x": x}, ["y"])["y"]
    weights = np.random.default_rng(4).normal(size=known.shape)
    weights[len(x) :] = 0  # one target per sample reads one row
    direction = np.random.default_rng(5).normal(size=x.shape)
    signal = graph.signals({"x": x}, {}, [Weighted(weights)] * len(x))["x"].astype(np.float64)
    moved = [(x + s * STEP * direction).astype(np.float32) for s in (1, -1)]
    ahead, behind = ((runtime.run({"x": one}, ["y"])["y"] * weights).sum() for one in moved)
    slope = (ahead - behind) / (2 * STEP)
    rounding = 3e-7 * np.abs(known * weights).sum() / STEP
    allowed = SHARE * np.abs(signal * direction).sum() + rounding
    assert abs((signal * direction).sum() - slope) <= allowed


def test_coverage_of_whole_networks():
    rows = []
    for path in [*SAMPLES, *ZOO]:
        file = read(path)
        model = Model(file, device="cpu")
        nodes = tail_of(file.graph, [model.input.name], model.scores.tensor).nodes
        missing = Counter(
            node.op_type
            for node in nodes
            if RULES.lookup(node.domain, node.op_type, file.graph.opset(node.domain)) is None
        )
        rows.append((path.stem, len(nodes), len(nodes) - sum(missing.values()), dict(missing)))
    for name, count, covered, missing in rows:
        sys.stdout.write(f"{name:40} {covered:4} of {count:4} nodes  {missing or ''}\n")
    assert not [row for row in rows if row[3]]

"""The pages that the cost table is written into."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "costs"))

from costs_page import BEGIN, END, page, short
from runs import Run, counted
from table import Costs, networks

SPENT = {
    ("grad-cam", "inspector"): [0.11, 0.12, 0.1],
    ("grad-cam", "captum"): [0.4, 0.4, 0.4],
    ("grad-cam", "torchcam"): [0.3, 0.3, 0.3],
    ("ablation-cam", "inspector"): [0.00005] * 3,
}


@pytest.fixture
def costs():
    return Costs(
        "Tiny",
        forward=[0.1, 0.2, 0.1],
        spent=SPENT,
        beside={key: [0.1, 0.2, 0.1] for key in SPENT},
        refused={("deconvnet", "inspector"): "no ReLU"},
        cold={"inspector, ONNX Runtime": (1.25, 240.4)},
    )


def test_a_page_has_medians_in_forward_passes_and_says_why_cells_are_empty(costs):
    text = page([costs], versions={"captum": "0.9", "torchcam": "0.5"}, rounds=3, minutes=2.4)
    assert "| Grad-CAM | 1.10 (1.05 to 1.15) | 4.00 (4.00 to 4.00) | 3.00 (3.00 to 3.00) |" in text
    assert "| Ablation-CAM, per channel | 0.0005 (0.0005 to 0.0005) | - | - |" in text
    assert "| Tiny | 1.25 s (240) |" in text
    assert "- Tiny, inspector, deconvnet: no ReLU" in text
    assert "captum 0.9, torchcam 0.5" in text


def test_a_cell_is_a_multiple_of_the_pass_in_its_own_rounds(costs):
    costs.beside = {**costs.beside, ("grad-cam", "captum"): [0.2, 0.2, 0.2]}
    assert costs.quartiles("grad-cam", "captum")[1] == pytest.approx(2)
    kept = Costs.of_dict(json.loads(json.dumps(costs.to_dict())))
    assert kept.quartiles("grad-cam", "captum") == costs.quartiles("grad-cam", "captum")


def test_the_readme_gets_our_cost_and_the_cheapest_of_the_others(costs, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nbehind\n")
    short([costs], readme)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{END}\nbehind\n")
    assert "old" not in text
    assert "| Grad-CAM | 1.10 (3.00) |" in text
    assert "| deconvnet | - |" in text


def test_a_readme_without_its_marks_is_left_alone(costs, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n")
    with pytest.raises(SystemExit, match="no lines"):
        short([costs], readme)
    assert readme.read_text() == "before\n"


def test_results_come_back_from_json(costs):
    found = Costs.of_dict(json.loads(json.dumps(costs.to_dict())))
    assert found.quartiles("grad-cam", "captum") == pytest.approx((4, 4, 4))
    assert found.refused == costs.refused


def test_costs_are_per_unit_and_share_what_is_done_once():
    calls = []
    assert counted(lambda: calls.append(0), 5).call() == 5
    assert len(calls) == 2  # one warms up
    many = Run(lambda: float(np.inf), once=0.25)
    assert many.measure() == 0.25


def test_every_network_has_a_name_of_its_own():
    names = list(networks())
    assert len(set(names)) == len(names) == 7

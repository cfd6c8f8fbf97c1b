"""Heatmaps in the files of the samples and of the zoo: proved, or refused without a file.

A sample of files and methods; ``INSPECTOR_WHOLE_ZOO=1`` takes all of them (ten CPU-minutes).
``docs/embed.md`` has the table of a whole run.
"""

import os
from pathlib import Path

import pytest

import inspector
from converters.errors import ConverterError
from inspector.embed import checks_of, embed
from inspector.errors import InspectorError

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 60_000_000
METHODS = ("grad-cam", "guided-backprop", "hires-cam", "cam", "layer-cam", "gradient")
SLOW = {"caffe2_zfnet512_constant_weights", "mltools_style_transfer", "tf2onnx_resnet50thin_nhwc"}
GROWN, SMALL = 0.01, 1 << 17
"""Largest growth of a file, as a share of it or in bytes: the backward pass is as long in a small
network as in a large one."""

pytestmark = pytest.mark.conformance


def _cases():
    folders = (ROOT / "sample_models", ROOT.parent / "shared" / "zoo")
    found = [path for folder in folders for path in sorted(folder.glob("*.onnx"))]
    found = [path for path in found if path.stat().st_size < LARGEST]
    if os.environ.get("INSPECTOR_WHOLE_ZOO"):
        return [(path, method) for path in found for method in METHODS]
    quick = [path for path in found if path.stem not in SLOW]
    return [(path, METHODS[i % len(METHODS)]) for i, path in enumerate(quick)][::2]


@pytest.mark.parametrize(
    ("path", "method"), _cases(), ids=lambda value: getattr(value, "stem", value)
)
def test_a_heatmap_is_the_twins_or_is_refused(path, method, tmp_path):
    out = tmp_path / "out.onnx"
    refusal, opened, made = None, None, None
    try:
        opened = inspector.load(path)
        made = embed(opened, out, method)
    except (ConverterError, InspectorError) as error:
        refusal = error
    if refusal is not None:
        assert refusal.exit_status == 3, refusal
        assert not out.exists()
        return
    again = inspector.load(out)
    assert again.graph.outputs.keys() == {*opened.graph.outputs, "heatmap"}
    assert {check.status for check in checks_of(again, opened, made.facts)} == {"pass"}
    grown = made.after - made.before
    assert grown < max(GROWN * made.before, SMALL)

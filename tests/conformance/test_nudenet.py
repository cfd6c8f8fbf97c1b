"""A trained YOLOv8n, as the PyPI package nudenet ships it, on photos with boxes."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from references import SHARED

import inspector
from inspector.measures.faithfulness import grid_share
from inspector.photos.photo import Photo

pytestmark = pytest.mark.conformance

PHOTOS = ("000000000110.jpg", "000000000294.jpg", "000000000428.jpg")
"""Photos in which it is sure of a face."""

NAMES = 18
PIXEL = 1.0


@pytest.fixture(scope="module")
def model():
    found = importlib.util.find_spec("nudenet")
    if found is None or found.origin is None:
        pytest.skip("the package nudenet, whose wheel holds the model, is not installed")
    path = Path(found.origin).parent / "320n.onnx"
    return inspector.load(
        path, device="cpu", preprocess="unit", overrides=("resize=letterbox", "size=320")
    )


def native(path, x):
    """Boxes and scores by the published decoding: transposed rows, best class, suppression."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = session.run(None, {session.get_inputs()[0].name: x})[0][0].T
    scores, kinds = rows[:, 4:].max(1), rows[:, 4:].argmax(1)
    kept = []
    for row in np.argsort(-scores):
        cx, cy, w, h = rows[row, :4]
        box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        if scores[row] < 0.25:
            break
        for other, _, kind in kept:
            inner = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
            inner = np.maximum(inner, 0).prod()
            union = (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - inner
            if kind == kinds[row] and inner / union > 0.45:
                break
        else:
            kept.append((box, float(scores[row]), int(kinds[row])))
    return kept


@pytest.mark.parametrize("name", PHOTOS)
def test_boxes_are_those_of_the_published_decoding_and_maps_lie_in_them(model, name):
    photo = SHARED / "photos" / "boxed" / name
    if not photo.exists():
        pytest.skip("the photos (../shared/photos) are not here")
    assert model.meaning.startswith(f"detector (YOLOv8 head (N, 4 + {NAMES}, 2100)")
    x, geometry = model.preprocessing.preprocess.apply(Photo.open(photo))
    wanted = native(model.path, x[None])
    report = model.explain(photo, target="top1")
    (sy, sx), (ty, tx) = geometry.scale, geometry.shift
    items = report.images[0].items
    assert len(items) == len(wanted)
    for item, (box, score, kind) in zip(items, wanted, strict=True):
        left, top, right, bottom = item["box"]
        mine = [left * sx + tx, top * sy + ty, right * sx + tx, bottom * sy + ty]
        np.testing.assert_allclose(mine, box, atol=PIXEL)
        assert (item["index"], item["score"]) == (kind, pytest.approx(score, rel=1e-4))
    heatmap = report.explanation.heatmap.values
    left, top, right, bottom = (max(round(v), 0) for v in items[0]["box"])
    inside = grid_share(heatmap, (top, left, bottom, right))
    assert inside > 0.6
    assert inside > 5 * (bottom - top) * (right - left) / heatmap.size

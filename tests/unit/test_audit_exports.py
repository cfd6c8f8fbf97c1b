"""Exports of an audit for FiftyOne and ViRelAy: what their files hold.

That the viewers open them is in tests/conformance/test_audit_viewers.py.
"""

import io
import json
import sys

import audit_scenes as scenes
import numpy as np
import pytest
from PIL import Image

from inspector.audit.run import AuditOptions, audit
from inspector.errors import MissingExtra, UsageError
from inspector.opening import Opening
from inspector.render import virelay

SETTINGS = ("mean=0", "std=1")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A report with an export for FiftyOne: eight photos, two of them with a box."""
    place = tmp_path_factory.mktemp("exports")
    model = scenes.saved(place, cheats=True)
    scenes.folder(place / "data", photos=4)
    lines = ["image,label,x0,y0,x1,y1,camera no.1"]
    lines += [f"data/thing/{n:03}.png,thing,12,24,36,48,A" for n in range(2)]
    lines += [f"data/thing/{n:03}.png,thing,,,,,B" for n in range(2, 4)]
    lines += [f"data/other/{n:03}.png,other,,,,,B" for n in range(4)]
    table = place / "table.csv"
    table.write_text("\n".join(lines))
    options = AuditOptions(workers=1, exports=("fiftyone",))
    report = audit(Opening(model, overrides=SETTINGS), table, place / "out", options)
    return report, place / "out" / "fiftyone"


def test_samples_hold_what_the_rows_hold(exported):
    report, folder = exported
    samples = json.loads((folder / "samples.json").read_bytes())["samples"]
    assert len(samples) == len(report.rows) == 8
    for sample, row in zip(samples, report.rows, strict=True):
        assert (folder / sample["filepath"]).resolve().name == row["photo"].rpartition("/")[2]
        assert (folder / sample["filepath"]).is_file()
        assert sample["ground_truth"]["label"] == row["label"]
        assert sample["prediction"]["label"] == row["predicted"]
        assert sample["prediction"]["confidence"] == row["probability"]
        assert sample["border"] == row["border"]
        assert sample["group_camera_no_1"] == row["camera no.1"]
        heat = np.asarray(Image.open(folder / sample["heatmap"]["map_path"]))
        assert heat.tobytes().hex() == row["grid"]
    boxed = [sample["objects"]["detections"] for sample in samples if "objects" in sample]
    assert [one["bounding_box"] for found in boxed for one in found] == [[0.25, 0.5, 0.5, 0.5]] * 2


def test_metadata_names_no_version_of_a_database(exported):
    _, folder = exported
    found = json.loads((folder / "metadata.json").read_bytes())
    assert found["media_type"] == "image"
    assert not {"version", "sample_fields"} & set(found)


@pytest.mark.parametrize(
    ("exports", "thumbnails", "reason"),
    [(("fiftytwo",), True, "no export"), (("virelay",), False, "small pictures")],
)
def test_what_cannot_be_exported_is_said_before_work_starts(
    tmp_path, exports, thumbnails, reason, monkeypatch
):
    monkeypatch.setattr(virelay, "check", lambda: None)
    options = AuditOptions(exports=exports, thumbnails=thumbnails)
    with pytest.raises(UsageError, match=reason):
        audit(Opening(tmp_path / "gone.onnx"), tmp_path, tmp_path / "out", options)


def test_h5py_is_asked_for_before_work_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match="virelay"):
        audit(
            Opening(tmp_path / "gone.onnx"),
            tmp_path,
            tmp_path / "out",
            AuditOptions(exports=("virelay",)),
        )


def test_components_of_maps_on_a_line_lie_on_the_first_axis():
    steps = np.array([[-1.0], [0.0], [3.0]])
    found = virelay._components(steps * np.array([[3.0, 4.0, 0.0]]))
    np.testing.assert_allclose(np.abs(np.diff(found[:, 0])), [5, 15], rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-6)


def test_databases_for_virelay_hold_maps_labels_and_clusters():
    h5py = pytest.importorskip("h5py")
    rows = [
        {"photo": f"{n}.png", "label": "a/b" if n % 2 else None, "predicted": "dog",
         "probability": 0.75, "cluster": f"dog-{n % 2 + 1}", "method": "grad-cam",
         "grid": bytes([n] * 255 + [255]).hex()}
        for n in range(6)
    ]  # fmt: skip
    picture = Image.new("RGB", (8, 4), "seagreen")
    found = {file.name: file.content() for file in virelay.files({}, rows, lambda row: picture)}
    with h5py.File(io.BytesIO(found["dataset.h5"])) as file:
        assert file["data"].shape == (6, virelay.SIDE, virelay.SIDE, 3)
        assert tuple(file["data"][0, 0, 0]) == (46, 139, 87)
        assert file["label"][:].tolist() == [2, 0, 2, 0, 2, 0]
    with h5py.File(io.BytesIO(found["attribution.h5"])) as file:
        assert file["attribution"].shape == (6, 3, virelay.SIDE, virelay.SIDE)
        np.testing.assert_allclose(file["attribution"][3, :, 0, 0].sum(), 3 / 255, rtol=1e-6)
        assert file["prediction"][0].tolist() == [0, 0.75, 0]
    with h5py.File(io.BytesIO(found["analysis.h5"])) as file:
        assert list(file) == ["class-00001"]
        assert file["class-00001/cluster/spectral"][:].tolist() == [1, 2, 1, 2, 1, 2]
        assert file["class-00001/index"][:].tolist() == list(range(6))
        assert file["class-00001/embedding/pca"].shape == (6, 2)
    names = [one["name"] for one in json.loads(found["label-map.json"])]
    assert names == ["a/b", "dog", "(no label)"]

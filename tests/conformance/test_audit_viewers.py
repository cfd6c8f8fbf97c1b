"""Exports of an audit, read by the viewers' own code.

ViRelAy's project is opened by ViRelAy where it is installed.  FiftyOne has requirements of its own:
``make fiftyone`` installs it apart, and its importer reads the export there.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspector.render import fiftyone, virelay
from inspector.whole_file import write_whole

ROOT = Path(__file__).parents[2]
FIFTYONE = Path(os.environ.get("FIFTYONE_PYTHON", ROOT / ".venv-fiftyone" / "bin" / "python"))

READ = """
import json, sys
from fiftyone.utils.data.importers import FiftyOneDatasetImporter

importer = FiftyOneDatasetImporter(sys.argv[1])
assert importer._is_legacy_format_data()
importer = importer._to_legacy_importer()
importer.setup()
found = []
for sample in importer:
    objects = sample.objects.detections if sample.has_field("objects") and sample.objects else []
    found.append({
        "filepath": sample.filepath,
        "tags": list(sample.tags),
        "label": sample.ground_truth.label,
        "predicted": sample.prediction.label,
        "confidence": sample.prediction.confidence,
        "heatmap": sample.heatmap.map_path,
        "boxes": [list(one.bounding_box) for one in objects],
        "border": sample["border"],
        "site": sample["group_site"],
    })
print(json.dumps(found))
"""


def rows():
    """Six rows of an audit."""
    return [
        {
            "photo": f"{n}.png",
            "label": "cat",
            "predicted": "dog",
            "probability": 0.75,
            "border": 0.5,
            "cluster": f"dog-{n % 2 + 1}",
            "method": "grad-cam",
            "grid": bytes([n] * 256).hex(),
            "site": "A",
        }
        for n in range(6)
    ]


def written(folder, files):
    for file in files:
        write_whole(folder / file.name, file.content())
    return folder


@pytest.mark.conformance
def test_virelay_opens_the_project(tmp_path):
    pytest.importorskip("h5py")
    model = pytest.importorskip("virelay.model")
    picture = Image.new("RGB", (8, 4), "seagreen")
    written(tmp_path, virelay.files({}, rows(), lambda row: picture))
    project = model.Project(str(tmp_path / "project.yaml"))
    try:
        assert project.dataset.get_sample(3).labels[0].name == "cat"
        assert project.dataset.get_sample(3).data.shape == (virelay.SIDE, virelay.SIDE, 3)
        attribution = project.attributions[0].get_attribution(3)
        assert attribution.data.shape == (virelay.SIDE, virelay.SIDE, 3)
        np.testing.assert_allclose(attribution.data.sum(2), 3 / 255, rtol=1e-6)
        assert attribution.render_heatmap("gray-red").shape[:2] == (virelay.SIDE, virelay.SIDE)
        (analyses,) = project.analyses.values()
        (category,) = analyses[0].get_categories()
        assert category.human_readable_name == "dog"
        found = analyses[0].get_analysis(category.name, "spectral", "pca")
        assert list(found.clustering) == [1, 2, 1, 2, 1, 2]
        assert list(found.attribution_indices) == list(range(6))
    finally:
        project.close()


@pytest.mark.apart
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not FIFTYONE.exists(), reason="`make fiftyone` installs FiftyOne apart")
def test_fiftyone_s_importer_reads_the_samples(tmp_path):
    document = {
        "data": {"groups": ["site"]},
        "suspicious": [{"photo": "2.png"}],
        "findings": [{"id": "F1", "photos": ["2.png", "3.png"]}],
    }
    places = {row["photo"]: f"../photos/{row['photo']}" for row in rows()}
    boxes = {"1.png": [("cat", (0.25, 0.5, 0.5, 0.5))]}
    folder = written(tmp_path / "export", fiftyone.files(document, rows(), places, boxes))
    # Reading needs no database; where one would be asked for, there is none.
    nowhere = {"FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:1", "FIFTYONE_DO_NOT_TRACK": "true"}
    said = subprocess.run(  # noqa: S603 - our own script
        [str(FIFTYONE), "-c", READ, str(folder)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **nowhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-3000:]
    found = json.loads(said.stdout.splitlines()[-1])
    assert len(found) == 6
    assert found[1]["boxes"] == [[0.25, 0.5, 0.5, 0.5]]
    assert found[2]["tags"] == ["suspicious", "F1"]
    assert found[3] == {
        "filepath": str(tmp_path / "photos" / "3.png"),
        "tags": ["F1"],
        "label": "cat",
        "predicted": "dog",
        "confidence": 0.75,
        "heatmap": str(folder / "fields" / "heatmap" / "0000003.png"),
        "boxes": [],
        "border": 0.5,
        "site": "A",
    }

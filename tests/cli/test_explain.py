"""``inspector explain``: files, report, exit status."""

import json
import shutil

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import TensorProto, helper
from PIL import Image

from inspector import load_heatmap


def one_line(text: str) -> str:
    """The only error line among what was written to standard error."""
    errors = [line for line in text.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, text
    assert "Traceback" not in text
    return errors[0]


def test_writes_picture_numbers_and_report(inspector, samples, tmp_path):
    done = inspector(
        "explain",
        samples / "resnet20.onnx",
        samples / "images" / "cat_1.png",
        "-m",
        "cam",
        "-m",
        "grad-cam",
        "-m",
        "occlusion:window=8,stride=8",
        "--sheet",
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "inspection"
    names = {path.name for path in folder.iterdir()}
    occlusion = "cat_1.occlusion_stride-8_window-8.cat"
    assert names == {
        "cat_1.cam.cat.png",
        "cat_1.cam.cat.npz",
        "cat_1.grad-cam.cat.png",
        "cat_1.grad-cam.cat.npz",
        f"{occlusion}.png",
        f"{occlusion}.npz",
        "cat_1.sheet.png",
        "cat_1.json",
    }
    numbers = np.load(folder / "cat_1.cam.cat.npz")
    assert load_heatmap(folder / "cat_1.cam.cat.npz").shape == (32, 32)
    assert numbers["attribution"].shape == (8, 8)
    report = json.loads((folder / "cat_1.json").read_text())
    assert report["model"]["name"] == "resnet20.onnx"
    assert report["predictions"][0]["label"] == "cat"
    assert [r["method"] for r in report["results"]] == ["cam", "grad-cam", "occlusion"]
    assert report["results"][0]["facts"]["cam_residual"] < 1e-4
    with Image.open(folder / "cat_1.cam.cat.png") as picture:
        assert picture.format == "PNG"


def test_json_is_all_there_is_on_standard_output(inspector, samples):
    done = inspector(
        "explain",
        samples / "resnet20.onnx",
        samples / "images" / "dog_1.png",
        "-m",
        "cam",
        "--target",
        "top3",
        "--json",
    )
    document = json.loads(done.stdout)
    results = document["images"][0]["results"]
    assert len(results) == 3
    assert len({r["target"]["index"] for r in results}) == 3
    assert len({r["files"]["png"] for r in results}) == 3


def test_two_images_of_one_name_get_distinct_files(inspector, samples, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(
            samples / "images" / f"{'cat' if name == 'a' else 'dog'}_1.png",
            tmp_path / name / "photo.png",
        )
    done = inspector(
        "explain", samples / "resnet20.onnx", "a/photo.png", "b/photo.png", "-m", "cam", "-o", "out"
    )
    assert done.returncode == 0, done.stderr
    labels = [
        json.loads((tmp_path / "out" / name).read_text())["predictions"][0]["label"]
        for name in ("a-photo.json", "b-photo.json")
    ]
    assert labels == ["cat", "dog"]


def test_bad_image_among_good_ones(inspector, samples, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = inspector(
        "explain",
        samples / "resnet20.onnx",
        samples / "images" / "cat_1.png",
        "broken.png",
        samples / "images" / "dog_1.png",
        "-m",
        "cam",
    )
    assert done.returncode == 4
    assert "broken.png" in one_line(done.stderr)
    names = {path.name for path in (tmp_path / "inspection").iterdir()}
    assert {"cat_1.json", "dog_1.json"} <= names
    assert not any(name.startswith("broken") for name in names)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{m}/none.onnx", "{i}"], 3, "does not exist"),
        (["{m}/labels.txt", "{i}"], 3, "not an ONNX model"),
        (["{m}/resnet20.onnx", "{i}", "--target", "kat"], 2, "cat"),
        (["{m}/resnet20.onnx", "{i}", "--target", "99"], 2, "0 to 9"),
        (["{m}/resnet20.onnx", "{i}", "--layer", "relu_81"], 2, "relu_18"),
        (["{m}/resnet20.onnx", "{i}", "-m", "gradcam"], 2, "grad-cam"),
        (["{m}/resnet20.onnx", "{i}", "-m", "occlusion:windw=3"], 2, "window"),
        (["{m}/resnet20.onnx", "{i}", "-m", "occlusion:window=99"], 2, "99"),
        (["{m}/zfnet.onnx", "{i}", "-m", "cam"], 3, "CAM is not exact"),
        (["{m}/resnet20.onnx", "{i}", "--preprocess", "imagnet"], 2, "imagenet"),
        (["{m}/resnet20.onnx", "{i}", "--set", "sise=3"], 2, "size"),
        (["{m}/resnet20.onnx", "{i}", "--labels", "{m}/none.txt"], 2, "none.txt"),
        (["{m}/resnet20.onnx", "{i}", "--layer", "a", "--layer", "b"], 2, "--layer is given 2"),
        (["{m}/resnet20.onnx", "{i}", "--target", "@3,3"], 2, "read as a classifier"),
    ],
)
def test_bad_requests_end_in_one_line_and_a_status(
    inspector, samples, tmp_path, arguments, status, says
):
    image = samples / "images" / "cat_1.png"
    done = inspector("explain", *(a.format(m=samples, i=image) for a in arguments))
    assert done.returncode == status, done.stderr
    assert says in one_line(done.stderr)
    assert not (tmp_path / "inspection").exists(), "something was written all the same"


def test_two_targets_give_two_maps(inspector, samples, tmp_path):
    image = samples / "images" / "cat_1.png"
    chosen = ("--target", "dog", "--target", "cat", "-m", "cam")
    done = inspector("explain", samples / "resnet20.onnx", image, *chosen)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "inspection" / "cat_1.json").read_text())
    assert [one["target"]["label"] for one in report["results"]] == ["dog", "cat"]


def test_only_bad_images(inspector, samples, tmp_path):
    done = inspector("explain", samples / "resnet20.onnx", "none.png", "-m", "cam")
    assert done.returncode == 4
    assert "none.png" in one_line(done.stderr)


def test_usage_error_is_two(inspector):
    assert inspector("explain").returncode == 2
    assert inspector("explian").returncode == 2


def test_cuda_on_a_machine_without_it_is_said(inspector, samples):
    done = inspector(
        "explain",
        samples / "resnet20.onnx",
        samples / "images" / "cat_1.png",
        "-m",
        "cam",
        "--device",
        "cuda",
        "--json",
    )
    report = json.loads(done.stdout)["images"][0]
    if report["provider"] == "CUDAExecutionProvider":
        pytest.skip("this machine has a working CUDA device")
    assert report["provider"] == "CPUExecutionProvider"
    assert "CUDA was asked for" in done.stderr


def test_external_data_beside_the_model(inspector, samples, tmp_path):
    import onnx

    model = onnx.load_model(samples / "resnet20.onnx")  # a test may skip the preflight
    onnx.save_model(
        model,
        tmp_path / "m.onnx",
        save_as_external_data=True,
        location="m.onnx.data",
        size_threshold=256,
    )
    image = samples / "images" / "cat_1.png"
    done = inspector("explain", "m.onnx", image, "-m", "grad-cam", "-m", "gradient", "-o", "ext")
    assert done.returncode == 0, done.stderr
    plain = inspector(
        "explain",
        samples / "resnet20.onnx",
        image,
        "-m",
        "grad-cam",
        "-m",
        "gradient",
        "-o",
        "plain",
    )
    assert plain.returncode == 0, plain.stderr
    for method in ("grad-cam", "gradient"):
        a, b = (
            np.load(tmp_path / d / f"cat_1.{method}.cat.npz")["attribution"]
            for d in ("ext", "plain")
        )
        np.testing.assert_array_equal(a, b)


def test_a_refused_method_does_not_discard_the_others(inspector, samples, tmp_path):
    image = samples / "images" / "cat_1.png"
    done = inspector("explain", samples / "zfnet.onnx", image, "-m", "cam", "-m", "grad-cam")
    assert done.returncode == 0, done.stderr
    assert "cam is not drawn" in done.stderr
    assert "CAM is not exact" in done.stderr
    assert {p.name for p in (tmp_path / "inspection").iterdir()} == {
        "cat_1.grad-cam.cat.png",
        "cat_1.grad-cam.cat.npz",
        "cat_1.json",
    }
    report = json.loads((tmp_path / "inspection" / "cat_1.json").read_text())
    assert [refusal["method"] for refusal in report["refused"]] == ["cam"]


def test_inputs_beside_the_image_are_fed(inspector, tmp_path):
    """Scores (N, texts): pooled colours times the mean embedding of each text."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["p"], axes=[2, 3], keepdims=0),
        helper.make_node("Gather", ["tokens", "ids"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Transpose", ["m"], ["mt"], perm=[1, 0]),
        helper.make_node("MatMul", ["p", "mt"], ["scores"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["texts", "length"]),
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16]),
    ]
    constants = {
        "w": rng.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "tokens": rng.standard_normal((20, 6)).astype(np.float32),
    }
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", "texts"])]
    model, photo, ids = (tmp_path / name for name in ("two.onnx", "photo.png", "ids.npy"))
    onnx.save(onnx_model(nodes, inputs, outputs, constants), model)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(photo)
    np.save(ids, np.array([[1, 2, 3], [4, 5, 6]]))
    asked = ("explain", model, photo, "--target", "scores[1]", "-m", "grad-cam", "--json")
    done = inspector(*asked, "--feed", f"ids={ids}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["model"]["fed"]["ids"]["shape"] == [2, 3]
    assert inspector(*asked, "--feed", "ids=4,5,6").returncode == 2  # one text has one score
    bare = inspector(*asked)
    assert bare.returncode == 3
    assert "--feed ids=1" in bare.stderr

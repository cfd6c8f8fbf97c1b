"""What every study says of input that is not as it should be, and that it says the same twice."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from PIL import Image

import inspector as library
from inspector import cli
from inspector.cli import supervise
from inspector.photos.dataset import labelled_photos
from inspector.studies import studies

pytestmark = pytest.mark.conformance

BODY = (
    "c1 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1) r1 = Relu(c1) "
    "p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r1) "
    "c2 = Conv<pads = [1, 1, 1, 1]>(p, w2) r2 = Relu(c2) "
    "g = GlobalAveragePool(r2) f = Flatten(g) y = Gemm<transB = 1>(f, fc)"
)
COUNT = 10  # photos

# Options of a short run of each study; files are named as in ``folder``.
PLAIN = {
    "top-activations": {"count": 3},
    "evolution": {"snapshots": ("snapshots",), "count": 2},
    "invariance": {"count": 99, "translation": "-0.2:0.2:3", "scale": "", "rotation": "0:90:2"},
    "filters": {"second_units": 3},
    "occlusion": {"window": 8, "stride": 8},
    "correspondence": {"parts": "photos/parts.json", "draws": 9},
    "transfer": {"folds": 2, "cost": 1.0},
    "reconstruction": {"unconditioned": "0-2"},
    "pooling": {"reconstructed": COUNT},
    "localisation": {"boxes": "photos/boxes.csv", "tolerance": 0.0, "resamples": 50},
    "units": {"count": 2, "photos": 3},
    "layers": {"units": 2},
    "faithfulness": {"method": ("grad-cam",), "count": COUNT, "steps": 2, "subsets": 3},
    "sanity": {"method": ("grad-cam",), "count": COUNT, "stages": 2},
}
LABELLED, TABLED = ("pooling", "transfer"), ("correspondence", "localisation")
SEEDED = (
    *("correspondence", "evolution", "faithfulness", "localisation"),
    *("pooling", "reconstruction", "sanity", "transfer"),
)


def network(path, seed=0, units=4):
    """Conv of stride 2, Relu, MaxPool, Conv, Relu and a linear head on an RGB image of 16x16."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 16, 16] x) => (float[N, 3] y) {'
        + BODY
        + "}"
    )
    rng = np.random.default_rng(seed)
    for name, shape in (("w1", (6, 3, 3, 3)), ("w2", (units, 6, 3, 3)), ("fc", (3, units))):
        value = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(model, path)


def tables(photos, names):
    """Write boxes and parts of photos: whole photos and small boxes in turn."""
    rows = [
        f"{name},{at % 3},{'0,0,16,16' if at % 2 else '5,6,9,12'}" for at, name in enumerate(names)
    ]
    (photos / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1", *rows]))
    parts = [
        {"image": name, "parts": {"eye": [1 + at, 2, 5 + at, 6]}} for at, name in enumerate(names)
    ]
    (photos / "parts.json").write_text(json.dumps({"photos": parts}))


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A network, an earlier state of it, and photos: in a folder, and in two folders a class."""
    folder = tmp_path_factory.mktemp("studies")
    for name in ("photos", "snapshots", "labelled/0", "labelled/1"):
        (folder / name).mkdir(parents=True)
    network(folder / "net.onnx")
    network(folder / "snapshots" / "net_epoch_1.onnx", seed=1)
    rng = np.random.default_rng(5)
    for at in range(COUNT):
        path = folder / "photos" / f"{at}.png"
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(path)
        shutil.copy(path, folder / "labelled" / str(at * 2 // COUNT))
    tables(folder / "photos", [f"{at}.png" for at in range(COUNT)])
    return folder


@pytest.fixture
def folder(pristine, tmp_path, monkeypatch):
    """A copy to work in; the working directory."""
    shutil.copytree(pristine, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(folder, monkeypatch, capsys):
    """Exit status of ``inspector study ARGUMENTS``, and what it says; in this process."""
    monkeypatch.setattr(supervise, "_can_fork", lambda: False)

    def call(*arguments):
        with warnings.catch_warnings():  # the command line shows them
            warnings.simplefilter("default")
            status = cli.run(["study", *map(str, arguments), "--preprocess", "unit", "-o", "out"])
        streams = capsys.readouterr()
        return status, streams.out + streams.err

    return call


def spoil(folder):
    """Add a file that is not a picture behind all photos, and name it wherever they are named."""
    for place in ("photos", "labelled/1"):
        (folder / place / "bad.png").write_bytes(b"no picture")
    tables(folder / "photos", [*(f"{at}.png" for at in range(COUNT)), "bad.png"])


def typed(options):
    """Options as a user types them."""
    return [
        text
        for name, value in options.items()
        for one in (value if isinstance(value, tuple) else (value,))
        for text in (f"--{name.replace('_', '-')}", str(one))
    ]


def arguments(name, **options):
    """Model, photos and options of a short run of a study, as typed."""
    photos = "labelled" if name in LABELLED else "photos"
    return [name, "net.onnx", *([] if name in TABLED else [photos]), *typed(PLAIN[name] | options)]


def called(name, **options):
    """The same as a call of the library."""
    model = library.load("net.onnx", preprocess="unit")
    photos = sorted(Path("photos").glob("*.png"))
    if name in LABELLED:
        photos = labelled_photos([Path("labelled")])
    return studies()[name].function(
        model, [] if name in TABLED else photos, **PLAIN[name] | options
    )


def test_every_study_is_here():
    assert set(PLAIN) == set(studies())
    assert set(SEEDED) == {name for name, one in studies().items() if "seed" in one.options}


# -- photos ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_an_unreadable_photo_is_named_skipped_and_counted(inspector, folder, name):
    """All else is as without it, to the last byte of what another process has written."""
    expected = called(name).save(folder / "without")
    spoil(folder)
    done = inspector("study", *arguments(name), "--preprocess", "unit", "-o", "out")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("bad.png: not an image that is known") == 1
    assert "Traceback" not in done.stderr
    written = [folder / "out" / path.name for path in expected]
    assert sorted(written) == sorted((folder / "out").iterdir())
    for mine, theirs in zip(expected[:-1], written[:-1], strict=True):
        assert mine.read_bytes() == theirs.read_bytes()
    without, report = (json.loads(paths[-1].read_text()) for paths in (expected, written))
    images = report.pop("images")
    assert images["used"] == without.pop("images")["used"] == COUNT
    (refused,) = images["refused"]
    assert "bad.png" in refused
    assert report == without


@pytest.mark.parametrize("name", PLAIN)
def test_photos_of_which_none_can_be_read(folder, said, name):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    status, text = said(*arguments(name))
    assert status == 4, text
    assert "0.png: not an image that is known" in text
    assert not [path.name for path in folder.glob("out/*") if path.suffix != ".jsonl"]


@pytest.mark.parametrize("name", PLAIN)
def test_a_folder_without_photos(folder, said, name):
    (folder / "empty").mkdir()
    status, text = said(name, "net.onnx", "empty", *typed(PLAIN[name]))
    assert status == 2, text
    assert "empty: no picture files" in text or "empty: no labelled photos" in text


@pytest.mark.parametrize(
    ("name", "options", "status", "words"),
    [
        (
            "top-activations",
            {"count": 9},
            0,
            ("over 2 photo(s)", "active on fewer than 9 photo(s)"),
        ),
        ("invariance", {"count": 9}, 0, ("(mean of 2 photo(s))",)),
        ("units", {"photos": 9}, 0, ("of 2 photos are called",)),
        ("layers", {}, 0, ("2 photo(s) tell little of selectivity",)),
        ("pooling", {"reconstructed": 9}, 0, ("2 photos are few for a bootstrap",)),
        ("transfer", {"folds": 5}, 2, ("5 folds need 5 photos of each class: '0' has 1",)),
        ("localisation", {}, 4, ("8.png: no such file", "2 photos: mind the intervals")),
        ("correspondence", {}, 4, ("8.png: no such file", "eye: fewer than 4 photos")),
    ],
)
def test_fewer_photos_than_asked_for(folder, said, name, options, status, words):
    """What there are is done and their number said; what cannot be done with them is refused."""
    for path in folder.rglob("[1-8].png"):
        path.unlink()
    tables(folder / "photos", ["0.png", "9.png", "8.png"])
    found, text = said(*arguments(name, **options))
    assert found == status, text
    assert all(word in text for word in words), text
    if status != 2:
        report = json.loads((folder / "out" / f"{name}.json").read_text())
        assert report["images"]["used"] == 2


def test_training_photos_that_a_class_does_not_have(said):
    status, text = said(*arguments("transfer", per_class=4))
    assert status == 2
    assert "4 training photos a class, and a class has 2 in a fold" in text


# -- units, layers and seeds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("top-activations", {"units": "0,4"}, "there is no unit 4; units run from 0 to 3"),
        ("top-activations", {"units": "2-9"}, "there is no unit 2-9"),
        ("evolution", {"units": "6"}, "there is no unit 6; units run from 0 to 5"),
        ("evolution", {"units": "0/4"}, "there is no unit 4; units run from 0 to 3"),
        ("reconstruction", {"unit": "6"}, "layer r1: there is no unit 6"),
        ("reconstruction", {"unconditioned": "6"}, "layer r1: there is no unit 6"),
        ("occlusion", {"feature": "4"}, "no feature map '4'; total, peak, or a number from 0 to 3"),
        ("filters", {"second_units": 257}, "257 units; 0 to 256"),
        ("units", {"count": 33}, "33 units; 1 to 32"),
        ("units", {"target": "3"}, "there is no class 3; classes run from 0 to 2"),
        ("layers", {"units": 13}, "13 units a layer; 1 to 12"),
    ],
)
def test_units_out_of_range(folder, said, name, options, words):
    status, text = said(*arguments(name, **options))
    assert status == 2, text
    assert words in text
    assert not [path.name for path in folder.glob("out/*") if path.suffix != ".jsonl"]


LAYERS = [
    (name, option)
    for name, one in studies().items()
    for option in ("layer", "layers", "early", "late")
    if option in one.options
]


@pytest.mark.parametrize(("name", "option"), LAYERS)
def test_layers_out_of_range(folder, said, name, option):
    for layer, words in (
        ("2", "there is no layer 2: the model has 2, 0 to 1"),
        ("r9", "there is no layer 'r9'"),
    ):
        status, text = said(*arguments(name, **{option: layer}))
        assert status == 2, text
        assert words in text
    assert not [path.name for path in folder.glob("out/*") if path.suffix != ".jsonl"]


@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_decides_and_must_be_one(folder, said, name):
    first, again, other = (called(name, seed=seed) for seed in (3, 3, 4))
    assert str(first.numbers) == str(again.numbers)
    assert first.table == again.table
    assert first.figure.tobytes() == again.figure.tobytes()
    assert str(first.numbers) != str(other.numbers)
    status, text = said(*arguments(name, seed=-1))
    assert status == 2, text
    assert "seed" in text
    assert "-1" in text


def test_a_seed_that_scikit_learn_does_not_take(said):
    status, text = said(*arguments("transfer", seed=1 << 32))
    assert status == 2, text
    assert "seed = 4294967296; 0 to 4294967295" in text


# -- files beside the photos ----------------------------------------------------------------------


def test_checkpoints_of_another_network(folder, said):
    network(folder / "snapshots" / "net_epoch_2.onnx", units=5)
    status, text = said(*arguments("evolution"))
    assert status == 2, text
    assert "net_epoch_2.onnx: layer 1 (r2) is 1x5x4x4, the model's 1x4x4x4" in text
    assert "net_epoch_1" not in text
    (folder / "snapshots" / "net_epoch_2.onnx").write_bytes(b"no model")
    status, text = said(*arguments("evolution"))
    assert status == 3, text
    assert "net_epoch_2.onnx: is not an ONNX model" in text
    for where, words in (
        ("nowhere", "nowhere: there is no such file or folder"),
        ("photos", "photos: no .onnx files in the folder"),
    ):
        status, text = said(*arguments("evolution", snapshots=(where,)))
        assert status == 2, text
        assert words in text
    assert not (folder / "out" / "evolution.json").exists()


def test_boxes_outside_their_photo(folder, said):
    """One object less leaves the others; a part less would change what is compared."""
    boxes, parts = folder / "photos" / "boxes.csv", folder / "photos" / "parts.json"
    boxes.write_text(boxes.read_text().replace("2.png,2,5,6,9,12", "2.png,2,5,6,9,17"))
    status, text = said(*arguments("localisation"))
    assert status == 4, text
    assert "2.png: line 4: the box 5,6,9,17 reaches outside the photo of 16x16" in text
    report = json.loads((folder / "out" / "localisation.json").read_text())
    assert report["images"]["used"] == COUNT - 1
    assert len(report["images"]["refused"]) == 1
    parts.write_text(parts.read_text().replace("[3, 2, 7, 6]", "[3, 2, 17, 6]"))
    status, text = said(*arguments("correspondence"))
    assert status == 2, text
    assert "2.png, eye: the box reaches beyond the photo of 16x16 pixels" in text
    assert not (folder / "out" / "correspondence.json").exists()

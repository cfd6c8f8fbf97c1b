"""The study of features on another data set, against the definitions written out."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from PIL import Image

import inspector
from inspector.errors import ImageRefused, MissingExtra, UnknownLayer, UsageError
from inspector.measures.statistics import wilson
from inspector.passes.journal import Journal
from inspector.photos.dataset import LabelledPhoto
from inspector.studies.transfer import classification, transfer
from inspector.studies.transfer.extraction import Pool, extract
from inspector.studies.transfer.feature_layers import FeatureLayer, chosen_layers

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = [LabelledPhoto(p, p.stem[:-2]) for p in sorted((SAMPLES / "images").glob("*.png"))]
RNG = np.random.default_rng(4)
BODY = (
    "c1 = Conv<pads = [1, 1, 1, 1]>(x, w1) r1 = Relu(c1) "
    "h = Transpose<perm = [0, 2, 3, 1]>(r1) n = Mul(h, two) "
    "k = Constant<value = int64[2] {0, -1}>() f = Reshape(r1, k) "
    "g1 = Gemm<transB = 1>(f, w2) r2 = Relu(g1) y = Gemm<transB = 1>(r2, w3)"
)
WEIGHTS = {
    "w1": RNG.normal(size=(4, 3, 3, 3)),
    "two": np.full(4, 2.0),
    "w2": RNG.normal(size=(6, 4 * 30)),
    "w3": RNG.normal(size=(5, 6)),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Conv 3x3, Relu on 6x5, then two fully connected layers; n is a map in NHWC."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[b,3,6,5] x) => '
        f"(float[b,5] y, float[b,6,5,4] n) {{ {BODY} }}"
    )
    for name, value in WEIGHTS.items():
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(model, path)
    return inspector.load(path, preprocess="unit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of 6x5 in three classes, of different colour, with noise; 8, 9 and 10 of them."""
    found, generator = [], np.random.default_rng(9)
    where = tmp_path_factory.mktemp("photos")
    for label, count, colour in (
        ("a", 8, (134, 108, 108)),
        ("b", 9, (108, 134, 108)),
        ("c", 10, (108, 108, 134)),
    ):
        for number in range(count):
            pixels = np.clip(generator.normal(colour, 60, (6, 5, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(where / f"{label}{number}.png")
            found.append(LabelledPhoto(where / f"{label}{number}.png", label))
    return found


def maps_of(photo):
    """The first layer's maps (4, 6, 5), place by place."""
    image = np.asarray(Image.open(photo), float).transpose(2, 0, 1) / 255
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    w1 = WEIGHTS["w1"].astype(np.float32).astype(float)
    return np.array(
        [
            [
                [max((one * padded[:, y : y + 3, x : x + 3]).sum(), 0) for x in range(5)]
                for y in range(6)
            ]
            for one in w1
        ]
    )


def slow_pool(maps, pool):
    found = []
    for one in maps:
        if pool == "mean":
            found.append(sum(one.ravel()) / one.size)
        elif pool == "max":
            found.append(max(one.ravel()))
        elif pool == "flat":
            found += list(one.ravel())
        else:  # 5 columns in 2 cells: 0..2 and 2..4, overlapping in the middle one
            cells = [(0, 3, 0, 3), (0, 3, 2, 5), (3, 6, 0, 3), (3, 6, 2, 5)]
            found += [one[a:b, c:d].mean() for a, b, c, d in cells]
    return found


@pytest.mark.parametrize("pool", ["mean", "max", "flat", "grid:2"])
def test_features_equal_the_definition(small, folder, pool):
    layers, _ = chosen_layers(small, ["r1", "n, r2", "x"])
    assert [x.shape for x in layers] == [(4, 6, 5), (4, 6, 5), (6,), (3, 6, 5)]
    found = extract(
        small,
        layers,
        Pool.read(pool),
        [p.path for p in folder[:11]],
        refused=[],
        name="0",
        progress=None,
        journal=Journal(),
    )
    assert found.places == tuple(range(11))
    for row, photo in enumerate(folder[:11]):
        maps = maps_of(photo.path)
        hidden = np.maximum(np.float32(WEIGHTS["w2"]).astype(float) @ maps.ravel(), 0)
        pixels = np.asarray(Image.open(photo.path), float).transpose(2, 0, 1) / 255
        for at, values in enumerate([maps, 2 * maps]):
            np.testing.assert_allclose(
                found.of(at)[row], slow_pool(values, pool), rtol=1e-5, atol=1e-6
            )
        np.testing.assert_allclose(found.of(2)[row], hidden, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.of(3)[row], slow_pool(pixels, pool), rtol=1e-5)


def test_cells_of_a_grid_cover_the_map():
    layer = FeatureLayer("t", (1, 7, 3))
    for cells in (1, 2, 3, 5, 9):
        values = np.arange(21.0).reshape(1, 1, 7, 3)
        found = Pool("grid", cells)(values, layer).reshape(cells, cells)
        for i in range(cells):
            for j in range(cells):
                rows = range(math.floor(i * 7 / cells), math.ceil((i + 1) * 7 / cells))
                columns = range(math.floor(j * 3 / cells), math.ceil((j + 1) * 3 / cells))
                every = [values[0, 0, y, x] for y in rows for x in columns]
                assert found[i, j] == pytest.approx(sum(every) / len(every))


def softmax_regression(X, y, C):
    """Minimum of C sum_i loss_i + |W|^2 / 2, the bias free, by plain gradient steps."""
    classes = y.max() + 1
    W, b = np.zeros((classes, X.shape[1])), np.zeros(classes)
    for _ in range(3000):
        z = X @ W.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = p - np.eye(classes)[y]
        W -= 0.02 / (1 + C) * (C * error.T @ X + W)
        b -= 0.02 / (1 + C) * C * error.sum(0)
    return W, b


def test_predictions_are_those_of_classifiers_that_never_saw_the_photo(small, folder):
    found = transfer(small, folder, layers=("r1,r2",), cost=0.05, folds=4, seed=3)
    y = np.array(["abc".index(photo.label) for photo in folder])
    rows = found.numbers["models"][0]["layers"]
    plan = classification.plan(y, classifier="logistic", folds=4, cost=0.05, per_class=0, seed=3)
    tested = np.concatenate([test for _, test in plan.parts])
    assert sorted(tested) == list(range(27))
    layers, _ = chosen_layers(small, ["r1", "r2"])
    features = extract(
        small,
        layers,
        Pool("mean"),
        [p.path for p in folder],
        refused=[],
        name="0",
        progress=None,
        journal=Journal(),
    )
    for at, row in enumerate(rows):
        X, right = features.of(at).astype(float), 0
        each, row_said = [], np.full(27, -1)
        for train, test in plan.parts:
            assert not set(train) & set(test)
            assert max(abs(np.bincount(y[test]) - np.bincount(y) / 4)) < 1
            mean, deviation = X[train].mean(0), X[train].std(0)
            deviation[deviation == 0] = 1
            W, b = softmax_regression((X[train] - mean) / deviation, y[train], 0.05)
            said = (((X[test] - mean) / deviation) @ W.T + b).argmax(1)
            row_said[test] = said
            each.append((said == y[test]).mean())
            right += int((said == y[test]).sum())
        assert row["right"] == right
        assert row["fold_accuracy"] == pytest.approx(each)
        assert row["accuracy"] == pytest.approx(right / 27)
        assert row["mean_class_accuracy"] == pytest.approx(
            np.mean([*row["class_accuracy"].values()])
        )
    assert found.numbers["majority"] == pytest.approx(10 / 27)
    assert found.numbers["chance"] == pytest.approx(1 / 3)
    assert 0.5 < rows[0]["accuracy"] < 1


@pytest.mark.parametrize("classifier", ["logistic", "svm"])
def test_c_is_chosen_inside_the_training_part(classifier):
    """As if written out, and the held-out photos have no say in it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    generator = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 14)
    X = generator.normal(size=(42, 20)) + 0.5 * generator.normal(size=(3, 20))[y]
    plan = classification.plan(y, classifier=classifier, folds=3, cost=0, per_class=0, seed=1)
    found = classification.fit(X, y, plan)
    made = {
        "logistic": lambda C: LogisticRegression(C=C, max_iter=5000),
        "svm": lambda C: LinearSVC(C=C, max_iter=5000, random_state=1),
    }[classifier]

    def right(train, test, C):
        mean, deviation = X[train].mean(0), X[train].std(0)
        model = made(C).fit((X[train] - mean) / deviation, y[train])
        said = model.predict((X[test] - mean) / deviation)
        return said, (said == y[test]).mean()

    for fold, (train, test) in enumerate(plan.parts):
        inner = list(StratifiedKFold(3, shuffle=True, random_state=1).split(X[train], y[train]))
        means = [
            np.mean([right(train[a], train[b], C)[1] for a, b in inner])
            for C in classification.COSTS
        ]
        best = classification.COSTS[int(np.argmax(means))]
        assert found.costs[fold] == best
        np.testing.assert_array_equal(found.predicted[test], right(train, test, best)[0])
    assert found.fits == 3 * (4 * 3 + 1)


def test_noise_stays_at_chance():
    """More dimensions than photos: whoever chose on the held-out photos would beat chance."""
    generator = np.random.default_rng(7)
    y = np.repeat([0, 1], 60)
    right = 0
    for seed in range(3):
        plan = classification.plan(
            y, classifier="logistic", folds=4, cost=0, per_class=0, seed=seed
        )
        said = classification.fit(generator.normal(size=(120, 300)), y, plan).predicted
        right += int((said == y).sum())
    low, high = wilson(right, 360)
    assert low < 0.5 < high


def test_layers_from_first_to_last():
    found = {
        "zfnet": ["relu", "relu_1", "relu_2", "relu_3", "relu_4", "relu_5", "relu_6"],
        "all_cnn_c": ["relu", *(f"relu_{i}" for i in range(1, 8))],
        "resnet20": [
            "relu",
            "relu_2",
            "relu_6",
            "relu_8",
            "relu_10",
            "relu_12",
            "relu_16",
            "relu_18",
        ],
    }
    for name, expected in found.items():
        model = inspector.load(SAMPLES / f"{name}.onnx")
        layers, why = chosen_layers(model, ())
        assert [x.tensor for x in layers] == expected
        assert ("8 of 10" in why) == (name == "resnet20")
    layers, why = chosen_layers(model, ("0,2", "relu_5", "2", "-1", "logits"))
    assert [x.tensor for x in layers] == ["relu", "relu_2", "relu_5", "relu_18", "logits"]
    assert why == "chosen by the user"
    for text in ("99", "nothing", "relu,nothing"):
        with pytest.raises(UnknownLayer):
            chosen_layers(model, (text,))
    with pytest.raises(UsageError):
        chosen_layers(model, (" , ",))


def test_a_resumed_run_gives_the_same_numbers(small, folder, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    photos = [*folder[:3], LabelledPhoto(bad, "a"), *folder[3:]]
    options = {"layers": ("r1,r2",), "folds": 3, "cost": 0.1, "against": (str(small.path),)}
    path = tmp_path / "whole.jsonl"
    journal = Journal(path, "id")
    whole = transfer(small, photos, **options, journal=journal)
    journal.close()
    assert (whole.images, len(whole.refused)) == (27, 1)
    lines = path.read_bytes().splitlines(keepends=True)
    # Twice four batches; then classifiers for two layers, and for those chosen for the other.
    assert sum(b'"features ' in line for line in lines) == 8
    assert sum(b'"fit ' in line for line in lines) == len(lines) - 9 == 4
    for cut in (1, 3, 5, 8, 10, 12):
        part = tmp_path / f"{cut}.jsonl"
        part.write_bytes(b"".join(lines[:cut]) + lines[cut][:9])
        journal = Journal(part, "id")
        assert journal.found == cut - 1
        again = transfer(small, photos, **options, journal=journal)
        journal.close()
        assert again.numbers == whole.numbers
        assert len(again.refused) == 1
        assert part.read_bytes() == path.read_bytes()
    assert transfer(small, photos, **options).numbers == whole.numbers
    assert transfer(small, photos, **options | {"seed": 1}).numbers != whole.numbers


def test_training_photos_a_class(small, folder):
    found = transfer(small, folder, layers=("r1",), folds=3, per_class=2, cost=0.1, seed=5)
    assert found.numbers["classification"]["trained_on"] == [6, 6, 6]
    y = np.array(["abc".index(photo.label) for photo in folder])
    plan = classification.plan(y, classifier="svm", folds=3, cost=1, per_class=2, seed=5)
    for train, test in plan.parts:
        assert list(np.bincount(y[train])) == [2, 2, 2]
        assert not set(train) & set(test)
    with pytest.raises(UsageError, match=r"7 training photos a class, and a class has \d"):
        transfer(small, folder, layers=("r1",), folds=3, per_class=7)
    with pytest.raises(UsageError, match="too few to choose C"):
        transfer(small, folder, layers=("r1",), folds=3, per_class=1)


def test_classes_with_too_few_photos(small, folder, tmp_path):
    with pytest.raises(
        UsageError, match=r"10 folds need 10 photos of each class: 'a' has 8, 'b' h"
    ):
        transfer(small, folder, folds=10)
    lone = [*folder[:20], LabelledPhoto(folder[0].path, "lone")]
    with pytest.raises(UsageError, match=r"'lone' has 1") as caught:
        transfer(small, lone, folds=2)
    assert "--folds" not in str(caught.value)
    with pytest.raises(UsageError, match=r"1 class\(es\)"):
        transfer(small, folder[:8], folds=2)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    gone = [LabelledPhoto(bad, "a"), *folder[1:]]
    with pytest.raises(UsageError, match="'a' has 7"):
        transfer(small, gone, folds=8)
    with pytest.raises(ImageRefused):
        transfer(small, [LabelledPhoto(bad, "a"), LabelledPhoto(bad, "b")] * 2, folds=2)


def test_what_cannot_be_meant(small, folder, monkeypatch):
    for options in (
        {"pool": "median"},
        {"pool": "grid:0"},
        {"pool": "mean:2"},
        {"folds": 1},
        {"classifier": "tree"},
        {"cost": -1.0},
        {"cost": math.nan},
        {"per_class": -1},
    ):
        with pytest.raises(UsageError):
            transfer(small, folder, **options)
    monkeypatch.setattr("inspector.studies.transfer.extraction.MOST_DIMENSIONS", 119)
    with pytest.raises(UsageError, match="120 dimensions"):
        transfer(small, folder, layers=("r1",), pool="flat")
    monkeypatch.setattr("inspector.studies.transfer.extraction.MOST_VALUES", 4 * 27 - 1)
    with pytest.raises(UsageError, match="27 photos of 4 dimensions"):
        transfer(small, folder, layers=("r1",))
    monkeypatch.setitem(__import__("sys").modules, "sklearn.model_selection", None)
    with pytest.raises(MissingExtra):
        transfer(small, folder)


def test_what_is_warned_of(folder, monkeypatch, tmp_path):
    model = inspector.load(SAMPLES / "zfnet.onnx")
    monkeypatch.setattr(classification, "_ITERATIONS", 1)
    found = transfer(model, PHOTOS, folds=2, cost=0.1, layers=("4",))
    assert any("10 of 10 classes are the model's own" in text for text in found.warnings)
    assert any("2 of 2 classifiers did not converge (layer(s) 1)" in t for t in found.warnings)
    other = transfer(model, folder, folds=2, cost=0.1, layers=("4",), classifier="svm")
    assert not any("own" in text for text in other.warnings)
    assert any("did not converge" in text for text in other.warnings)
    found.save(tmp_path)
    saved = json.loads((tmp_path / "transfer.json").read_text())
    assert saved["result"]["models"][0]["layers"][0]["unconverged"] == 2


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "layer", "first"),
    [
        ("winml_squeezenet_fp16_opset7", "fire9/concat_1", "conv1_2"),
        ("tf2onnx_resnet50thin_nhwc", "Relu_48:0", None),
        ("mobilenetv2_qdq_int8_244", "onnx::GlobalAveragePool_1547", None),
    ],
)
def test_third_party_models(shared, name, layer, first):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    chosen, _ = chosen_layers(model, ())
    assert chosen[-1].tensor == layer
    assert len(chosen) == 8
    assert first in {None, chosen[0].tensor}
    photos = [p for p in PHOTOS if p.label in {"cat", "ship"}]
    found = transfer(model, photos, folds=2, cost=0.01)
    rows = found.numbers["models"][0]["layers"]
    assert [row["layer"] for row in rows] == [x.tensor for x in chosen]
    tensors = [
        model.preprocessing.preprocess.apply(inspector.load_photo(p.path))[0] for p in photos
    ]
    journal = Journal()
    extract(
        model,
        chosen,
        Pool("mean"),
        [p.path for p in photos],
        refused=[],
        name="0",
        progress=None,
        journal=journal,
    )
    features = extract(
        model,
        chosen,
        Pool("mean"),
        [p.path for p in photos],
        refused=[],
        name="0",
        progress=None,
        journal=journal,
    )
    for at in (0, 7):
        for row, tensor in enumerate(tensors):
            values = model.forward(tensor[None], [chosen[at].tensor])[chosen[at].tensor]
            slow = [one.astype(float).sum() / one.size for one in values[0]]
            np.testing.assert_allclose(features.of(at)[row], slow, rtol=2e-2, atol=2e-2)

"""The study of units along a training, against the definitions written out."""

import math
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper, numpy_helper

import inspector
from converters import onnx_file
from inspector.errors import ImageRefused, MethodRefused, UnknownLayer, UsageError
from inspector.passes.journal import Journal
from inspector.studies.evolution import evolution
from inspector.studies.evolution.grid import Row, cosine, settled_at
from inspector.studies.evolution.snapshots import epochs_in, snapshot_files, training
from inspector.studies.evolution.summary import Evolved, depth_correlation

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
TRAINED = SAMPLES / "zfnet_snapshots"
PHOTOS = sorted((SAMPLES / "images").glob("*.png"))[:8]


def network(path, seed, *, names=("r1", "r2"), filters=4, size=3, activation="Relu", spoilt=False):
    """Conv 3x3, Relu, MaxPool 2x2, Conv 3x3, Relu, mean; other weights for every seed."""
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(3, 3, 3, 3)), rng.normal(size=(filters, 3, size, size))]
    if spoilt:
        weights[0][:] = np.nan
    one, two = names
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], [f"c{one}"], **pads),
        helper.make_node(activation, [f"c{one}"], [one]),
        helper.make_node("MaxPool", [one], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], [f"c{two}"], pads=[size // 2] * 4),
        helper.make_node(activation, [f"c{two}"], [two]),
        helper.make_node("GlobalAveragePool", [two], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    onnx.save(
        onnx_model(
            nodes,
            {"x": ["n", 3, 8, 8]},
            {"y": ["n", filters]},
            {f"w{i}": np.float32(w) for i, w in enumerate(weights, 1)},
        ),
        path,
    )
    return path


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A final network, and a folder of three earlier states."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "run").mkdir()
    for seed, epoch in enumerate((2, 10, 1)):
        network(folder / "run" / f"net_epoch_{epoch}.onnx", seed)
    return inspector.load(network(folder / "net.onnx", 9), preprocess="unit"), folder / "run"


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(6)]


# -- the slow way ---------------------------------------------------------------------------------


def convolve(image, weights):
    """3x3, padded by 1, place by place."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    _, height, width = image.shape
    return np.array(
        [
            [
                [(one * padded[:, y : y + 3, x : x + 3]).sum() for x in range(width)]
                for y in range(height)
            ]
            for one in weights
        ]
    )


def spread(signal, weights):
    """The transposed convolution: each place adds its filter, times the signal."""
    _, height, width = signal.shape
    found = np.zeros((weights.shape[1], height + 2, width + 2))
    for k, y, x in np.argwhere(signal):
        found[:, y : y + 3, x : x + 3] += signal[k, y, x] * weights[k]
    return found[:, 1:-1, 1:-1]


def slow_peak(path, photos, unit):
    """Strongest activation of a unit of the second layer, its photo and place, its projection."""
    stored = onnx_file.read(path).model.graph.initializer
    w1, w2 = (numpy_helper.to_array(tensor).astype(np.float64) for tensor in stored)
    best = (0.0, None)
    for place, photo in enumerate(photos):
        lit = np.maximum(convolve(photo.transpose(2, 0, 1) / 255, w1), 0)
        second = convolve(lit.reshape(3, 4, 2, 4, 2).max((2, 4)), w2)[unit]
        for y in range(4):
            for x in range(4):
                if second[y, x] > best[0]:
                    best = (second[y, x], (place, y, x, lit))
    value, found = best
    if found is None:
        return None
    place, y, x, lit = found
    kept = np.zeros((len(w2), 4, 4))
    kept[unit, y, x] = value
    down, unpooled = spread(kept, w2), np.zeros_like(lit)
    for c in range(3):
        for i in range(4):
            for j in range(4):
                window = lit[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                dy, dx = np.unravel_index(window.argmax(), (2, 2))
                unpooled[c, 2 * i + dy, 2 * j + dx] = down[c, i, j]
    # In a frame with room for every field: 1 + 2 * (1 + ...) pixels beyond each border.
    framed = np.full((3, 8 + 12, 8 + 12), np.nan)
    framed[:, 6:14, 6:14] = spread(np.maximum(unpooled, 0), w1)
    top, left = 2 * y - 3 + 6, 2 * x - 3 + 6  # the field is 8 pixels: 3 + 2 * 2 + 1
    return value, place, (y, x), framed[:, top : top + 8, left : left + 8]


def slow_cosine(one, two):
    """Over the pixels of the field that neither has beyond the border."""
    dot = norm1 = norm2 = 0.0
    for a, b in zip(one.ravel(), two.ravel(), strict=True):
        if not (math.isnan(a) or math.isnan(b)):
            dot, norm1, norm2 = dot + a * b, norm1 + a * a, norm2 + b * b
    return dot / math.sqrt(norm1 * norm2) if norm1 * norm2 > 0 else None


# -- the study ------------------------------------------------------------------------------------


def test_every_number_equals_the_papers_steps(course, pictures):
    model, folder = course
    found = evolution(model, pictures, snapshots=(str(folder),), layers="r2", units="0-3")
    files = [folder / f"net_epoch_{epoch}.onnx" for epoch in (1, 2, 10)] + [model.path]
    assert [one["label"] for one in found.numbers["snapshots"]] == ["1", "2", "10", "final"]
    seen = 0
    for entry in found.numbers["units"]:
        slow = [slow_peak(path, pictures, entry["unit"]) for path in files]
        for place, (told, peak) in enumerate(zip(entry["snapshots"], slow, strict=True)):
            if peak is None:
                assert told["state"] == "never active"
                continue
            value, photo, at, field = peak
            assert told["activation"] == pytest.approx(value, rel=1e-5)
            assert (told["image"]["place"], told["at"]["y"], told["at"]["x"]) == (photo, *at)
            assert told["largest_in_projection"] == pytest.approx(
                np.nanmax(np.abs(field)), rel=1e-4
            )
            box = told["patch"]
            inside = ~np.isnan(field[0])
            assert inside.sum() == (box["bottom"] - box["top"]) * (box["right"] - box["left"])
            before = slow[place - 1] if place else None
            assert told["jump"] == (None if before is None else before[1] != photo)
            alike = slow_cosine(before[3], field) if before and before[1] == photo else None
            assert told["cosine_with_previous"] == pytest.approx(alike, abs=1e-5)
            alike = slow_cosine(slow[-1][3], field) if slow[-1] else None
            assert told["cosine_with_last"] == pytest.approx(alike, abs=1e-5)
            seen += 1
    assert seen >= 10


def test_cosine_lies_fields_on_one_another():
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(2, 6, 5))
    assert cosine(whole, 3 * whole, (0, 0), (0, 0)) == pytest.approx(1)
    assert cosine(whole, -whole, (0, 0), (0, 0)) == pytest.approx(-1)
    # Cut off at opposite borders, they are still the same where both are known.
    assert cosine(whole[:, 2:, :4], whole[:, :5, 1:], (2, 0), (0, 1)) == pytest.approx(1)
    assert abs(cosine(whole[:, 2:], whole[:, :4], (0, 0), (0, 0))) < 0.6
    assert cosine(whole[:, :2], whole[:, 3:], (0, 0), (3, 0)) is None
    assert cosine(whole, 0 * whole, (0, 0), (0, 0)) is None


def test_settled_from_the_last_lapse_on():
    assert settled_at([0.95, 0.2, 0.91, 0.9, 1], 0.9) == 2
    assert settled_at([0.95, 0.95, 1], 0.9) == 0
    assert settled_at([0.95, None, 0.95, 1], 0.9) == 2
    assert settled_at([0.95, 0.1, 1], 0.9) == 2  # nothing before the last
    assert settled_at([0.95, 0.95, None], 0.9) is None


def test_layers_converge_when_their_middle_unit_does(course, pictures):
    model, folder = course
    found = evolution(model, pictures, snapshots=(str(folder),), count=3, stable=0.3)
    for layer in found.numbers["layers"]:
        units = [u for u in found.numbers["units"] if u["layer"] == layer["layer"]]
        places = []
        for unit in units:
            likeness = [s.get("cosine_with_last") for s in unit["snapshots"]]
            if likeness[-1] is None:
                continue
            good = [i for i in range(4) if all((v or 0) >= 0.3 for v in likeness[i:])]
            places.append(min(good))
            assert unit["stable_from"] == ("1", "2", "10", "final")[min(good)]
        middle = sorted(places)[len(places) // 2]
        assert layer["settled_share"] == [
            sum(p <= place for p in places) / len(places) for place in range(4)
        ]
        assert layer["converged_by"] == (None if middle == 3 else ("1", "2", "10")[middle])
        jumps = [s["jump"] for u in units for s in u["snapshots"] if s.get("jump") is not None]
        assert (layer["jumps"], layer["steps"]) == (sum(jumps), len(jumps))


def test_depth_is_held_against_settling_by_ranks():
    def units(*pairs):
        return [Evolved(Row(slot, 0), [], [], settled) for slot, settled in pairs]

    pairs = [(0, 1), (0, 2), (1, 2), (1, 5), (2, 3), (2, 5), (2, 5)]
    ranks = [
        [sum(b < a for b in column) + sum(b == a for b in column) / 2 for a in column]
        for column in zip(*pairs, strict=True)
    ]
    expected = np.corrcoef(ranks)[0, 1]
    assert depth_correlation(units(*pairs, (1, None))) == pytest.approx(expected)
    assert depth_correlation(units((0, 1), (1, 4), (2, 9))) == pytest.approx(1)
    assert depth_correlation(units((0, 4), (1, 4))) is None
    assert depth_correlation(units((0, 4), (0, 5))) is None
    assert depth_correlation(units((0, None))) is None


def test_first_layer_projections_are_the_filters(course, pictures):
    """The field of the first layer holds one place: its projection is the filter, photo or no."""
    model, folder = course
    found = evolution(model, pictures, snapshots=(str(folder),), layers="r1", units="0-2")
    weights = [
        numpy_helper.to_array(onnx_file.read(path).model.graph.initializer[0]).astype(np.float64)
        for path in (*(folder / f"net_epoch_{e}.onnx" for e in (1, 2, 10)), model.path)
    ]
    for entry in found.numbers["units"]:
        for told, one in zip(entry["snapshots"], weights, strict=True):
            box = told["patch"]
            if (box["bottom"] - box["top"], box["right"] - box["left"]) != (3, 3):
                continue
            last = entry["snapshots"][-1]["patch"]
            if (last["bottom"] - last["top"], last["right"] - last["left"]) == (3, 3):
                a, b = one[entry["unit"]].ravel(), weights[-1][entry["unit"]].ravel()
                expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                assert told["cosine_with_last"] == pytest.approx(expected, abs=1e-5)


def test_resumed_run_gives_the_same_numbers(course, pictures, tmp_path):
    model, folder = course
    options = {"snapshots": (str(folder),), "count": 3}
    journal = Journal(tmp_path / "whole.jsonl", "id")
    whole = evolution(model, pictures, **options, journal=journal)
    journal.close()
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 4 * len(pictures)
    for kept in (1, 4, 9, 17, len(lines)):
        (tmp_path / "part.jsonl").write_bytes(b"".join(lines[:kept]) + b'["cut o')
        part = Journal(tmp_path / "part.jsonl", "id")
        assert part.found == kept - 1
        again = evolution(model, pictures, **options, journal=part)
        part.close()
        assert again.numbers == whole.numbers
        assert again.images == whole.images
        assert part.kept == 4 * len(pictures)


def test_seed_draws_the_units(course, pictures):
    model, folder = course
    drawn = {
        seed: [
            layer["units"]
            for layer in evolution(
                model, pictures[:1], snapshots=(str(folder),), count=2, seed=seed
            ).numbers["layers"]
        ]
        for seed in (0, 1, 2, 3)
    }
    again = evolution(model, pictures[:1], snapshots=(str(folder),), count=2, seed=3)
    assert [layer["units"] for layer in again.numbers["layers"]] == drawn[3]
    assert len({str(units) for units in drawn.values()}) > 1
    alone = evolution(model, pictures[:1], snapshots=(str(folder),), layers="r2", count=2, seed=3)
    assert alone.numbers["layers"][0]["units"] == drawn[3][1]
    lists = evolution(model, pictures[:1], snapshots=(str(folder),), units="2,0/1-3").numbers
    assert [layer["units"] for layer in lists["layers"]] == [[2, 0], [1, 2, 3]]


def test_a_diverged_snapshot_is_blank(course, pictures, tmp_path):
    model, _ = course
    network(tmp_path / "a_1.onnx", 5)
    network(tmp_path / "a_2.onnx", 6, spoilt=True)
    found = evolution(model, pictures, snapshots=(str(tmp_path),), layers="r2", units="2")
    states = [s["state"] for s in found.numbers["units"][0]["snapshots"]]
    assert states[1] == "not finite"
    assert any(text.startswith("no finite activation: 1 cell") for text in found.sentences)
    found.save(tmp_path / "out")
    black = [np.zeros((8, 8, 3), np.uint8)]
    found = evolution(model, black, snapshots=(str(tmp_path / "a_1.onnx"),), layers="r2", count=2)
    assert any(text.startswith("never active: 4 cell") for text in found.sentences)
    assert found.numbers["layers"][0]["converged_by"] is None


# -- which snapshots ------------------------------------------------------------------------------


def test_epochs_in_names():
    assert epochs_in(["net_epoch_2", "net_epoch_10"]) == (2, 10)
    assert epochs_in(["r20_epoch_2_acc71", "r20_epoch_10_acc88"]) == (2, 10)
    assert epochs_in(["vgg16-005", "vgg16-040"]) == (5, 40)
    assert epochs_in(["checkpoint-ep07"]) == (7,)
    assert epochs_in(["step1000", "step20000"]) == (1000, 20000)
    assert epochs_in(["early", "late"]) is None
    assert epochs_in(["a_1", "b_1"]) is None
    assert epochs_in(["x1_acc70", "x2_acc80"]) is None  # which of the two?
    assert epochs_in(["run1_epoch_3", "run2_epoch_3"]) is None


def test_files_in_natural_order(tmp_path):
    for name in ("e10.onnx", "e2.onnx", "e1.onnx", "notes.txt"):
        (tmp_path / name).touch()
    names = [path.name for path in snapshot_files([tmp_path, tmp_path / "e1.onnx"])]
    assert names == ["e1.onnx", "e2.onnx", "e10.onnx"]
    with pytest.raises(UsageError, match="no snapshots"):
        snapshot_files([])
    with pytest.raises(UsageError, match="no such file"):
        snapshot_files([tmp_path / "gone.onnx"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.onnx files"):
        snapshot_files([tmp_path / "empty"])


def test_the_model_takes_the_place_of_its_rounded_self():
    model = inspector.load(SAMPLES / "zfnet.onnx")
    found = training(model, [TRAINED], model.layers[:1])
    assert [one.epoch for one in found.snapshots] == [1, 2, 5, 10, 20, 30, 40, 64]
    assert [one.final for one in found.snapshots] == [False] * 7 + [True]
    assert any("rounded to float16" in note for note in found.notes)
    early = training(model, [TRAINED / f"zfnet_epoch_{e:03d}.onnx" for e in (40, 1)], [])
    assert [one.label for one in early.snapshots] == ["1", "40", "final"]
    middle = inspector.load(TRAINED / "zfnet_epoch_005.onnx")
    same = training(middle, [TRAINED], [])
    assert [one.epoch for one in same.snapshots if one.final] == [5]
    assert any("is not the last snapshot" in note for note in same.notes)
    with pytest.raises(UsageError, match="one snapshot is not a training"):
        training(model, [SAMPLES / "zfnet.onnx"], [])


def test_names_without_epochs_are_counted(course, tmp_path):
    model, folder = course
    for name in ("early", "late"):
        shutil.copy(
            folder / f"net_epoch_{1 if name == 'early' else 2}.onnx", tmp_path / f"{name}.onnx"
        )
    found = training(model, [tmp_path], [])
    assert found.word == "snapshot"
    assert [one.label for one in found.snapshots] == ["1", "2", "final"]
    shutil.copy(tmp_path / "early.onnx", tmp_path / "twice.onnx")
    assert any("same file" in note for note in training(model, [tmp_path], []).notes)


def test_other_names_of_tensors_are_matched_by_place(course, pictures, tmp_path):
    model, folder = course
    path = network(tmp_path / "other_epoch_2.onnx", 0, names=("501", "502"))
    ours = evolution(model, pictures, snapshots=(str(folder / "net_epoch_2.onnx"),), layers="r2")
    found = evolution(model, pictures, snapshots=(str(path),), layers="r2")
    assert any("matched by their place" in text for text in found.warnings)
    for one, two in zip(ours.numbers["units"], found.numbers["units"], strict=True):
        assert one["snapshots"] == two["snapshots"]


def test_other_networks_are_named(course, pictures, tmp_path):
    model, _ = course
    network(tmp_path / "n_1.onnx", 1, filters=5)
    network(tmp_path / "n_2.onnx", 1, size=5)
    network(tmp_path / "n_3.onnx", 1, activation="Softplus")
    network(tmp_path / "n_4.onnx", 1)
    with pytest.raises(UsageError) as error:
        evolution(model, pictures, snapshots=(str(tmp_path),))
    text = str(error.value)
    assert "n_1.onnx: layer 1 (r2) is 1x5x4x4, the model's 1x4x4x4" in text
    assert "n_2.onnx: a unit of 'r2' sees 12x12 pixels" in text
    assert "n_3.onnx: layer 0 (r1) is Conv+Softplus, the model's Conv+Relu" in text
    assert "n_4" not in text
    sample = inspector.load(SAMPLES / "zfnet.onnx")
    with pytest.raises(UsageError, match=r"resnet20.onnx: 19 layers|resnet20.onnx: \d+ layers"):
        evolution(sample, PHOTOS, snapshots=(str(SAMPLES / "resnet20.onnx"),))
    with pytest.raises(UsageError, match=r"zfnet.onnx: its input 'input' is NCHW 3x32x32"):
        evolution(model, PHOTOS, snapshots=(str(SAMPLES / "zfnet.onnx"),))


# -- what cannot be meant, and what cannot be read ------------------------------------------------


def test_what_cannot_be_meant(course, pictures):
    model, folder = course
    snapshots = (str(folder),)
    for options, message in (
        ({"snapshots": ()}, "no snapshots"),
        ({"layers": "r1", "units": "9"}, "no unit 9"),
        ({"units": "0/1/2"}, "3 lists of units for 2 layers"),
        ({"count": 0}, "0 units a layer"),
        ({"seed": -1}, "seed = -1"),
        ({"shown": 0}, "0 units of a layer in the figure"),
        ({"stable": 0.0}, "not a cosine to reach"),
        ({"projection": "cam"}, "no projection"),
    ):
        with pytest.raises(UsageError, match=message):
            evolution(model, pictures, **{"snapshots": snapshots, **options})
    with pytest.raises(UnknownLayer):
        evolution(model, pictures, snapshots=snapshots, layers="r1,9")
    with pytest.raises(UsageError, match="no photos"):
        evolution(model, [], snapshots=snapshots)


def test_bad_photos_are_counted_once(course, pictures, tmp_path):
    model, folder = course
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = evolution(model, [pictures[0], bad, pictures[1]], snapshots=(str(folder),))
    assert (found.images, len(found.refused)) == (2, 1)
    places = {
        s["image"]["place"]
        for u in found.numbers["units"]
        for s in u["snapshots"]
        if s["state"] == "active"
    }
    assert places <= {0, 2}
    with pytest.raises(ImageRefused):
        evolution(model, [bad], snapshots=(str(folder),))


def test_a_photo_that_changes_meanwhile_is_refused(course, tmp_path):
    model, folder = course
    photo = tmp_path / "photo.png"
    shutil.copy(PHOTOS[0], photo)
    passes = []

    def change(what, done, total):
        passes.append((what, done, total))
        shutil.copy(PHOTOS[len(passes) % 4], photo)

    with pytest.raises(ImageRefused, match="changed meanwhile"):
        evolution(model, [photo], snapshots=(str(folder),), progress=change)
    assert passes[0] == ("photos, epoch final", 1, 4)


def test_smooth_activations_are_refused_before_photos_are_read(pictures, tmp_path):
    final, early = (network(tmp_path / f"s_{e}.onnx", e, activation="Softplus") for e in (1, 2))
    model = inspector.load(final, preprocess="unit")

    def read(*_):
        pytest.fail("photos were read")

    with pytest.raises(MethodRefused):
        evolution(model, iter(pictures), snapshots=(str(early),), progress=read)


def test_sample_training(tmp_path):
    model = inspector.load(SAMPLES / "zfnet.onnx")
    found = evolution(model, PHOTOS, snapshots=(str(TRAINED),), layers="0,4", units="3,8")
    first, late = found.numbers["layers"]
    assert first["converged_by"] is not None
    assert first["median_cosine_with_last"][5] > 0.95
    assert late["median_cosine_with_last"][1] < 0.3
    assert first["receptive_field"]["size"] == (5, 5)
    names = [path.name for path in found.save(tmp_path)]
    assert names == ["evolution.png", "evolution.csv", "evolution.json"]


SLOW = pytest.mark.conformance  # two certificates each


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("winml_squeezenet_fp16_opset7", "0,8"),
        pytest.param("tf2onnx_resnet50thin_nhwc", "3", marks=SLOW),
        pytest.param("mobilenetv2_qdq_int8_244", "1", marks=SLOW),
    ],
)
def test_third_party_models(shared, tmp_path, name, layers):
    """An earlier state is made up: the weights of one layer, shuffled."""
    path = shared / "zoo" / f"{name}.onnx"
    proto = onnx_file.read(path).model
    tensor = max((t for t in proto.graph.initializer if len(t.dims) == 4), key=lambda t: t.dims[0])
    value = numpy_helper.to_array(tensor)
    rng = np.random.default_rng(0)
    value = rng.permutation(value.ravel()).reshape(value.shape).astype(value.dtype)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(proto, tmp_path / "epoch_1.onnx")
    photos = [shared / "photos" / "cat.jpg", shared / "photos" / "horses.jpg"]
    found = evolution(
        inspector.load(path),
        photos,
        snapshots=(str(tmp_path / "epoch_1.onnx"),),
        layers=layers,
        count=2,
    )
    cells = [s for unit in found.numbers["units"] for s in unit["snapshots"]]
    assert len(cells) == 2 * 2 * len(layers.split(","))
    active = [cell for cell in cells if cell["state"] == "active"]
    assert active
    assert all(cell["largest_in_projection"] > 0 for cell in active)
    found.save(tmp_path / "out")

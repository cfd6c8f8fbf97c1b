"""The study of networks with pooling and without, against the definitions written out."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper

import inspector
from inspector.errors import ImageRefused, MethodRefused, UnknownLayer, UsageError
from inspector.measures import sharpness
from inspector.passes.journal import Journal
from inspector.photos.dataset import LabelledPhoto, labelled_photos
from inspector.projection.projector import Projector
from inspector.studies.pooling import comparison, pooling
from inspector.studies.pooling.networks import opened
from inspector.studies.pooling.structure import METHODS, spread_out

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = [
    LabelledPhoto(path, path.stem.partition("_")[0])
    for path in sorted((SAMPLES / "images").glob("*.png"))
]
RNG = np.random.default_rng(2)


def net(path, *, pool, classes=3):
    """Conv, Relu, halving, Conv, Relu, 1x1 Conv: class maps, and their mean."""
    weights = {
        "w1": RNG.normal(size=(6, 3, 3, 3)),
        "w2": RNG.normal(size=(5, 6, 3, 3)),
        "w3": RNG.normal(size=(classes, 5, 1, 1)),
    }
    pads = {"pads": [1, 1, 1, 1]}
    first = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
    ]
    halved = "r1"
    if pool:
        first.append(
            helper.make_node("MaxPool", ["r1"], ["p"], kernel_shape=[2, 2], strides=[2, 2])
        )
        halved = "p"
    strides = {} if pool else {"strides": [2, 2]}
    nodes = [
        *first,
        helper.make_node("Conv", [halved, "w2"], ["c2"], **pads, **strides),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    onnx.save(
        onnx_model(
            nodes,
            {"x": ["n", 3, 16, 16]},
            {"y": ["n", classes]},
            {n: np.float32(w) for n, w in weights.items()},
        ),
        path,
    )
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two random networks and 21 photos in folders named 0, 1 and 2."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pooling")
    for place in range(21):
        where = folder / "photos" / str(place % 3)
        where.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(place).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
        image.save(where / f"{place:02d}.png")
    paths = net(folder / "pool.onnx", pool=True), net(folder / "stride.onnx", pool=False)
    return folder, *paths


def load(path):
    return inspector.load(path, preprocess="unit")


def test_accuracies_and_measures_equal_the_definitions():
    """Photo by photo, with nothing of the study's own."""
    main = inspector.load(SAMPLES / "base_c.onnx")
    photos = PHOTOS[:18]
    against = (str(SAMPLES / "strided_cnn_c.onnx"),)
    found = pooling(main, photos, against=against, reconstructed=2)
    places = [4, 13]
    assert spread_out(18, 2) == places
    layer = "relu_4"
    for entry, name in zip(found.numbers["networks"], ("base_c", "strided_cnn_c"), strict=True):
        model = inspector.load(SAMPLES / f"{name}.onnx")
        assert entry["layer"] == layer
        tensors = [
            model.preprocessing.preprocess.apply(inspector.load_photo(photo.path))[0]
            for photo in photos
        ]
        names = model.class_labels.names
        right = 0
        for photo, tensor in zip(photos, tensors, strict=True):
            scores = model.forward(tensor[None], [model.scores.tensor])[model.scores.tensor]
            right += names[int(scores[0].argmax())] == photo.label
        assert (entry["accuracy"]["right"], entry["accuracy"]["photos"]) == (right, 18)

        edges = [
            sharpness.edges_of(model.preprocessing.preprocess.decode(tensor), 1)
            for tensor in tensors
        ]
        from inspector.network.receptive_fields.receptive_field import receptive_field

        shapes = model.shapes(model.preprocessing.preprocess.size)
        field = receptive_field(model.graph, layer, model.input.name, shapes)
        means = {method: np.zeros(3) for method in METHODS}
        for place in places:
            maps = model.forward(tensors[place][None], [layer])[layer][0]
            unit = tuple(int(i) for i in np.unravel_index(maps.argmax(), maps.shape))
            strangers = [at for at in spread_out(18, 17) if at != place][:16]
            y0, x0, y1, x1 = field.pixels(*unit[1:])
            for method in METHODS:
                signal = Projector(model, layer, method)(tensors[place][None], [unit])[0]
                sizes = sharpness.magnitude(signal)
                lines = sharpness.strokes(sizes, 1)[y0:y1, x0:x1].ravel()
                own, *others = (
                    np.corrcoef(lines, edges[at][y0:y1, x0:x1].ravel())[0, 1]
                    for at in (place, *strangers)
                )
                means[method] += (
                    np.array(
                        [
                            own - np.mean(others),
                            sharpness.concentration(sizes[y0:y1, x0:x1]),
                            sharpness.coherence(signal[:, y0:y1, x0:x1], 1),
                        ]
                    )
                    / 2
                )
        for method in METHODS:
            numbers = entry["measures"][method]
            np.testing.assert_allclose(
                [numbers[name]["mean"] for name in sharpness.MEASURES], means[method], atol=2e-4
            )
    assert found.numbers["choices"]["photos_of_the_chance_level"] == 16


def test_facts_are_read_off_the_graphs():
    main = inspector.load(SAMPLES / "base_c.onnx")
    names = ("strided_cnn_c", "conv_pool_cnn_c", "all_cnn_c", "resnet20", "zfnet")
    found = opened(main, [str(SAMPLES / f"{name}.onnx") for name in names], (), "refuse")
    facts = [(one.max_poolings, one.strided, one.parameters, one.layer) for one in found]
    # Parameters as sample_models/README.md has them, but for the folded normalisation of ResNet.
    assert facts == [
        (2, 0, 954_730, "relu_4"),
        (0, 2, 954_730, "relu_4"),
        (2, 0, 1_369_738, "relu_6"),
        (0, 2, 1_369_738, "relu_6"),
        (0, 4, 271_690, "relu_18"),
        (3, 0, 396_490, "relu_4"),
    ]
    assert [one.proof.free for one in found] == [False, True, False, True, True, False]


def test_the_papers_finding_holds_on_the_sample_models():
    """Of the photos in `images`, which is few: the intervals are wide, the verdicts are not."""
    main = inspector.load(SAMPLES / "base_c.onnx")
    against = (str(SAMPLES / "all_cnn_c.onnx"),)
    found = pooling(main, PHOTOS, against=against, reconstructed=8)
    pooled, strided = found.numbers["networks"]
    assert (pooled["deconvnet"], strided["deconvnet"]) == ("works", "fails")
    assert found.numbers["paper"]["finding"] == "holds"
    assert strided["guided_minus_deconvnet"]["edge agreement"]["low"] > 0.2
    assert strided["guided_minus_deconvnet"]["concentration"]["low"] > 0.1
    assert not strided["deconvnet_depends_on_the_image"]
    assert pooled["deconvnet_depends_on_the_image"]


def fake(agreements):
    """Entries of one network from (D, G) of each photo."""
    other = {"concentration": 0.5, "coherence": 0.5}
    return {
        place: {
            "measures": {
                "deconvnet": {"edge agreement": d, **other},
                "guided-backprop": {"edge agreement": g, **other},
                "gradient": {"edge agreement": 0.0, **other},
            }
        }
        for place, (d, g) in enumerate(agreements)
    }


def noisy(d, g, scale=0.05):
    return np.array([d, g]) + RNG.normal(scale=scale, size=(40, 2))


def test_verdicts():
    made = [fake(noisy(*pair)) for pair in ((0.4, 0.5), (0.02, 0.5), (0.25, 0.5), (0.0, 0.0))]
    found = comparison.Measured.of(made, seed=1)
    verdicts = [found.verdict(place) for place in range(4)]
    assert verdicts == ["works", "fails", "undecided", "undecided"]
    d, g = (
        np.mean([one["measures"][m]["edge agreement"] for one in made[0].values()])
        for m in ("deconvnet", "guided-backprop")
    )
    numbers = found.numbers(0)
    assert numbers["deconvnet_minus_half_of_guided"]["mean"] == pytest.approx(d - g / 2)
    assert numbers["guided_minus_deconvnet"]["edge agreement"]["mean"] == pytest.approx(g - d)


class Named:
    def __init__(self, pools):
        self.max_poolings = pools


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (("works", "fails"), "holds"),
        (("works", "works"), "holds in part"),
        (("fails", "works"), "does not hold"),
        (("undecided", "undecided"), "undecided"),
        (("fails", "fails"), "holds in part"),
    ],
)
def test_the_finding_is_not_forced(verdicts, whole):
    levels = {"works": (0.4, 0.5), "fails": (0.02, 0.5), "undecided": (0.25, 0.5)}
    found = comparison.Measured.of([fake(noisy(*levels[v])) for v in verdicts], seed=1)
    assert comparison.finding([Named(2), Named(0)], found)["finding"] == whole
    alone = comparison.finding([Named(0), Named(0)], found)
    assert (alone["with_max_pooling"], alone["finding"]) == (None, "not tested")


def test_bootstrap_draws_photos():
    """The matrix of counts gives the means that drawing photo by photo gives."""
    made = fake(noisy(0.3, 0.5, 0.3))
    found = comparison.Measured.of([made], seed=7)
    values = np.array([one["measures"]["deconvnet"]["edge agreement"] for one in made.values()])
    rng = np.random.default_rng(7)
    chosen = rng.integers(0, 40, (2000, 40))
    means = [np.mean([values[at] for at in row]) for row in chosen]
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.low[0, 0, 0] == pytest.approx(low)
    assert found.high[0, 0, 0] == pytest.approx(high)


def test_only_photos_with_all_measures_count():
    first, second = fake(noisy(0.3, 0.5)), fake(noisy(0.3, 0.5))
    first[4], second[9]["measures"]["gradient"]["coherence"] = None, None
    found = comparison.Measured.of([first, second], seed=0)
    assert set(range(40)) - set(found.places) == {4, 9}
    assert comparison.Measured.of([{0: None}], seed=0) is None


def test_pairs_count_photos(small):
    _, a, b = small
    networks = opened(load(a), [str(b)], (), "refuse")
    right = np.array([[1, 1, 0, 0, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0, 1, 1]], bool)
    (pair,) = comparison.pairs(networks, right, 0)
    assert (pair["only_first_right"], pair["only_second_right"]) == (3, 1)
    assert pair["difference"] == 0.25
    assert pair["mcnemar_p"] == pytest.approx(0.625)
    assert pair["low"] < 0.25 < pair["high"]
    differences = right[0].astype(int) - right[1]
    drawn = np.random.default_rng(3).choice(differences, (4000, 8)).mean(1)
    np.testing.assert_allclose(
        [pair["low"], pair["high"]], np.quantile(drawn, [0.025, 0.975]), atol=0.126
    )


@pytest.mark.conformance
def test_a_resumed_run_gives_the_same_numbers(small, tmp_path):
    folder, a, b = small
    photos = labelled_photos([folder / "photos"])
    journal = Journal(tmp_path / "whole", "id")
    found = pooling(load(a), photos, against=(str(b),), reconstructed=19, journal=journal)
    journal.close()
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * (21 + 19)
    for kept in (5, 47, 56, 80):
        (tmp_path / "part").write_bytes(b"".join(lines[: kept + 1]))
        journal = Journal(tmp_path / "part", "id")
        assert journal.found == kept
        again = pooling(load(a), photos, against=(str(b),), reconstructed=19, journal=journal)
        journal.close()
        assert again.numbers == found.numbers
        assert again.table == found.table
        assert again.figure.tobytes() == found.figure.tobytes()


def test_what_cannot_be_meant(small, tmp_path):
    folder, a, b = small
    photos = labelled_photos([folder / "photos"])
    wrong = [LabelledPhoto(photos[0].path, "cat"), LabelledPhoto(photos[1].path, "7"), photos[2]]
    with pytest.raises(UsageError) as error:
        pooling(load(a), wrong, against=(str(b),))
    assert "no class of pool.onnx: 7, cat; of stride.onnx: 7, cat" in str(error.value)
    with pytest.raises(UsageError, match="3 layers for 2 networks"):
        pooling(load(a), photos, against=(str(b),), layer=("r1", "r2", "r2"))
    with pytest.raises(UnknownLayer):
        pooling(load(a), photos, against=(str(b),), layer=("nothing",))
    with pytest.raises(UsageError, match="0 photos"):
        pooling(load(a), photos, reconstructed=0)
    with pytest.raises(UsageError, match="no photos"):
        pooling(load(a), [])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ImageRefused):
        pooling(load(a), [LabelledPhoto(bad, "0")])
    one = net(tmp_path / "one.onnx", pool=True, classes=1)
    with pytest.raises(MethodRefused, match="no accuracy without classes"):
        pooling(load(a), photos, against=(str(one),))


def test_a_photo_that_cannot_be_read_is_counted_once(small, tmp_path):
    folder, a, b = small
    shutil.copytree(folder / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "0" / "bad.png").write_bytes(b"no picture")
    photos = labelled_photos([tmp_path / "photos"])
    found = pooling(load(a), photos, against=(str(b),), layer=("r1", "r2"), reconstructed=5)
    assert (found.images, len(found.refused)) == (21, 1)
    assert [entry["layer"] for entry in found.numbers["networks"]] == ["r1", "r2"]
    assert not any(entry["deconvnet_depends_on_the_image"] for entry in found.numbers["networks"])
    assert any("5 photos are few" in text for text in found.warnings)
    written = found.save(tmp_path / "out")
    assert [path.name for path in written] == ["pooling.png", "pooling.csv", "pooling.json"]
    report = json.loads(written[-1].read_text())
    assert report["result"]["paper"]["finding"] in {
        "holds",
        "holds in part",
        "does not hold",
        "undecided",
    }
    assert (tmp_path / "out" / "pooling.csv").read_text().count("\n") == 1 + 2 * 21


def test_files_of_one_name_are_told_apart(small, tmp_path):
    folder, a, _ = small
    same = shutil.copy(a, tmp_path / a.name)
    photos = labelled_photos([folder / "photos"])
    found = pooling(load(a), photos, against=(str(same),), reconstructed=2)
    first, second = found.numbers["networks"]
    assert (first["name"], second["name"]) == ("pool.onnx", "pool.onnx (2)")
    assert first["accuracy"] == second["accuracy"]
    assert found.numbers["pairs"][0]["mcnemar_p"] == 1


@pytest.mark.conformance
def test_third_party_models_on_two_photos(shared):
    """Float16 beside channels last; both have classes 0 and 1."""
    zoo, photos = shared / "zoo", shared / "photos"
    found = pooling(
        inspector.load(zoo / "winml_squeezenet_fp16_opset7.onnx"),
        [LabelledPhoto(photos / "cat.jpg", "0"), LabelledPhoto(photos / "horses.jpg", "1")],
        against=(str(zoo / "tf2onnx_resnet50thin_nhwc.onnx"),),
        reconstructed=2,
    )
    networks = found.numbers["networks"]
    assert [one["max_poolings"] for one in networks] == [3, 1]
    for one in networks:
        assert one["accuracy"]["photos"] == 2
        assert one["deconvnet_depends_on_the_image"]
        assert "0 unknown" in one["coverage"]["deconvnet"]
        assert all(0 < one["measures"][m]["concentration"]["mean"] < 1 for m in METHODS)
    assert len(found.table) == 2 * 2


@pytest.mark.conformance
def test_third_party_models(shared, tmp_path):
    """ImageNet: float16 with max-pooling against quantised without."""
    main = inspector.load(shared / "zoo" / "winml_squeezenet_fp16_opset7.onnx")
    table = shared / "photos" / "classified" / "labels.csv"
    photos = labelled_photos([table.parent], table)[::4]
    against = (str(shared / "zoo" / "mobilenetv2_qdq_int8_244.onnx"),)
    found = pooling(main, photos, against=against, reconstructed=16)
    pooled, strided = found.numbers["networks"]
    assert (pooled["max_poolings"], strided["max_poolings"]) == (3, 0)
    assert strided["accuracy"]["share"] > 0.7
    assert (pooled["deconvnet"], strided["deconvnet"]) == ("works", "fails")
    found.save(tmp_path)

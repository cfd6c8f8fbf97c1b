"""The study of a class's units, against the definitions written out."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import inspector
from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.passes.journal import Journal
from inspector.studies.units import contributions, units
from inspector.studies.units.unit_weights import class_units

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = sorted((SAMPLES / "images").glob("*.png"))
RNG = np.random.default_rng(11)
K, CLASSES = 5, 3
SIGNS = np.array([[1, -1, 1, 1, -1], [-1, 1, 1, -1, 1], [1, 1, -1, -1, 1]])
WEIGHTS = {
    "w1": RNG.normal(size=(K, 3, 3, 3)),
    "b1": RNG.normal(size=K) * 0.1,
    "fc": SIGNS * (0.3 + RNG.random((CLASSES, K))),
    "fb": RNG.normal(size=CLASSES),
    "cw": SIGNS[:, :, None, None] * (0.3 + RNG.random((CLASSES, K, 1, 1))),
    "cb": RNG.normal(size=CLASSES),
    "shift": np.full(K, 0.25),
    "s": np.array([0.5, -2.0, 1.5]),
    "t": RNG.normal(size=CLASSES),
    "m": RNG.normal(size=CLASSES),
    "v": np.array([0.5, 1.0, 2.0]),
}
FRONT = "c = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1, b1) a = Relu(c) "
LINEAR = FRONT + "p = GlobalAveragePool(a) f = Flatten(p) y = Gemm<transB = 1>(f, fc, fb)"
LAST = (
    FRONT + "h = Transpose<perm = [0, 2, 3, 1]>(a) n = Sub(h, shift) "
    "f = ReduceMean<axes = [1, 2], keepdims = 0>(n) y = Gemm<transB = 1>(f, fc, fb)"
)
SUMMED = (
    FRONT + "k = Constant<value = int64[2] {2, 3}>() p = ReduceSum(a, k) f = Flatten(p) "
    "y = Gemm<transB = 1>(f, fc, fb)"
)
MAPS = (
    FRONT
    + "d = Dropout(a) m1 = Conv(d, cw, cb) r = Relu(m1) p = GlobalAveragePool(r) y = Flatten(p)"
)
OPEN = (
    FRONT + "m1 = Conv(a, cw, cb) r = BatchNormalization(m1, s, t, m, v) "
    "p = GlobalAveragePool(r) y = Flatten(p)"
)
TWICE = (
    "m1 = Conv(a, cw, cb) r = Relu(m1) u = BatchNormalization(r, s, t, m, v) q = Relu(u) "
    "p = GlobalAveragePool(q) y = Flatten(p)"
)
JOINED = (
    "m1 = Conv(a, cw, cb) m2 = Conv(a, cw) r = Add(m1, m2) p = GlobalAveragePool(r) y = Flatten(p)"
)
NETWORKS = {"linear": LINEAR, "last": LAST, "summed": SUMMED, "maps": MAPS, "open": OPEN}


def opened(folder, body):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[n,3,8,8] x) => (float[n,3] y) '
        f"{{ {body} }}"
    )
    used = {name for node in model.graph.node for name in node.input}
    for name, value in WEIGHTS.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    path = folder / "small.onnx"
    onnx.save(model, path)
    return inspector.load(path, preprocess="unit")


@pytest.fixture(params=NETWORKS)
def small(request, tmp_path):
    return request.param, opened(tmp_path, NETWORKS[request.param])


def photographs(count=6, seed=3):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(count)]


def float32(name):
    return WEIGHTS[name].astype(np.float32).astype(np.float64)


def unit_maps(photo):
    """The units' activations (K, 4, 4), place by place."""
    padded = np.pad(photo.transpose(2, 0, 1) / 255, ((0, 0), (1, 1), (1, 1)))
    found = np.zeros((K, 4, 4))
    for k in range(K):
        for y in range(4):
            for x in range(4):
                window = padded[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                found[k, y, x] = max((window * float32("w1")[k]).sum() + float32("b1")[k], 0)
    return found


def slow_account(kind, photo, c):
    """Each unit's part of the score, the bias's, and the scores of all classes."""
    maps = unit_maps(photo) - (0.25 if kind == "last" else 0)
    parts, bias, scores = np.zeros(K), 0.0, np.zeros(CLASSES)
    if kind in {"linear", "last", "summed"}:
        for k in range(K):
            total = maps[k].sum() / (1 if kind == "summed" else 16)
            parts[k] = float32("fc")[c, k] * total
            scores += float32("fc")[:, k] * total
        return parts, float32("fb")[c], scores + float32("fb"), maps
    for index in range(CLASSES):
        for y in range(4):
            for x in range(4):
                weight, inner = float32("cw")[index, :, 0, 0], float32("cb")[index]
                if kind == "open":
                    factor = float32("s")[index] / np.sqrt(float32("v")[index] + 1e-5)
                    weight = weight * factor
                    inner = (inner - float32("m")[index]) * factor + float32("t")[index]
                value = (weight * maps[:, y, x]).sum() + inner
                passes = value > 0 or kind == "open"
                scores[index] += value / 16 if passes else 0
                if index == c and passes:
                    parts += weight * maps[:, y, x] / 16
                    bias += inner / 16
    return parts, bias, scores, maps


def slow_upsample(values, size):
    """Bilinear with half-pixel centres, pixel by pixel."""
    height, width = values.shape
    found = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = values[y0, x0] * (1 - x + x0) + values[y0, x1] * (x - x0)
            low = values[y1, x0] * (1 - x + x0) + values[y1, x1] * (x - x0)
            found[i, j] = top * (1 - y + y0) + low * (y - y0)
    return found


def test_weights_and_contributions_equal_the_definition(small):
    kind, model = small
    photos = photographs()
    for c in range(CLASSES):
        found = units(model, photos, target=str(c), sign="both", count=K, photos=2)
        slow = [slow_account(kind, photo, c) for photo in photos]
        for parts, bias, scores, _ in slow:
            assert parts.sum() + bias == pytest.approx(scores[c], abs=1e-9)
        everywhere = np.mean([parts for parts, *_ in slow], axis=0)
        own = [parts for parts, _, scores, _ in slow if scores.argmax() == c]
        account = found.numbers["account"]
        assert account["photos_called_the_class"] == len(own)
        assert account["mean_score"] == pytest.approx(
            np.mean([s[c] for *_, s, _ in slow]), rel=1e-5
        )
        assert account["mean_bias"] == pytest.approx(np.mean([b for _, b, *_ in slow]), rel=1e-5)
        assert account["largest_residual"] < 1e-5
        ranked = np.mean(own, axis=0) if own else everywhere
        assert len(found.table) == K
        for row in found.table:
            unit = row["unit"]
            assert row["contribution"] == pytest.approx(everywhere[unit], rel=1e-4, abs=1e-6)
            if own:
                assert row["contribution_on_own"] == pytest.approx(ranked[unit], rel=1e-4, abs=1e-6)
            assert row["rank_by_contribution"] == 1 + sum(ranked > ranked[unit])
        weights = [row["weight"] for row in found.table]
        assert weights == sorted(weights, reverse=True)
        shown = [entry["weight"] for entry in found.numbers["units"]]
        assert shown == [w for w in weights if w > 0] + [w for w in weights[::-1] if w < 0]
        assert [entry["rank_by_weight"] for entry in found.numbers["units"]] == [
            1 + weights.index(weight) for weight in shown
        ]


@pytest.mark.parametrize("rule", ["maximum:0.4", "peak:0.7", "quantile:0.1"])
def test_winners_and_segments_equal_the_definition(small, rule):
    kind, model = small
    photos = photographs(5)
    found = units(model, photos, target="1", count=2, photos=3, threshold=rule)
    maps = [slow_account(kind, photo, 1)[-1] for photo in photos]
    level = float(rule.partition(":")[2])
    seen = 0
    for entry in found.numbers["units"]:
        unit = entry["unit"]
        peaks = [m[unit].max() for m in maps]
        order = [p for p in sorted(range(5), key=lambda p: -peaks[p]) if peaks[p] > 0][:3]
        assert [w["image"]["place"] for w in entry["winners"]] == order
        for winner, place in zip(entry["winners"], order, strict=True):
            assert winner["activation"] == pytest.approx(peaks[place], rel=1e-5)
            limit = level * (max(peaks) if rule.startswith("max") else peaks[place])
            if rule.startswith("quantile"):
                every = np.sort(np.concatenate([m[unit].ravel() for m in maps]))[::-1]
                assert (every > every[8]).sum() <= 8 == int(0.1 * len(every))
                limit = max(every[8], 0)
            assert winner["segment"]["threshold"] == pytest.approx(limit, rel=1e-5)
            mask = slow_upsample(maps[place][unit], (8, 8)) > limit
            assert winner["segment"]["share_of_input"] == pytest.approx(mask.mean(), abs=1.01 / 64)
            y, x = np.unravel_index(maps[place][unit].argmax(), (4, 4))
            box = winner["patch"]
            assert (box["top"], box["left"]) == (max(2 * y - 1, 0), max(2 * x - 1, 0))
            assert (box["bottom"], box["right"]) == (min(2 * y + 2, 8), min(2 * x + 2, 8))
            seen += 1
    assert seen >= 4


def test_pictures_are_the_photos_pixels(tmp_path, monkeypatch):
    model = opened(tmp_path, LINEAR)
    photos, kept = photographs(3), []

    def keep(pixels, mask, box):
        kept.append((pixels, mask, box))
        return object()

    monkeypatch.setattr("inspector.studies.units.figure.segment_panel", keep)
    monkeypatch.setattr("inspector.studies.units.figure.unit_sheet", lambda *_, **__: None)
    found = units(model, photos, target="0", count=1, photos=3)
    winners = sorted(found.numbers["units"][0]["winners"], key=lambda w: w["image"]["place"])
    unit = found.numbers["units"][0]["unit"]
    assert len(kept) == len(winners) > 0
    for (pixels, mask, _), winner in zip(kept, winners, strict=True):
        photo = photos[winner["image"]["place"]]
        np.testing.assert_array_equal(pixels, photo)
        slow = slow_upsample(unit_maps(photo)[unit], (8, 8))
        np.testing.assert_array_equal(mask, slow > winner["segment"]["threshold"])


def test_a_resumed_run_gives_the_same_numbers(small, tmp_path, monkeypatch):
    _, model = small
    monkeypatch.setattr(contributions, "CHECKPOINT", 1)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    photos = photographs(30)
    photos[5:5] = [bad]
    options = {"threshold": "quantile:0.02", "count": 3, "sign": "both", "photos": 4}
    whole_path = tmp_path / "whole.jsonl"
    journal = Journal(whole_path, "id")
    whole = units(model, photos, **options, journal=journal)
    journal.close()
    lines = whole_path.read_bytes().splitlines(keepends=True)
    assert sum(b'"account"' in line for line in lines) == 4
    for cut in (1, 9, 33, 35, 40, len(lines) - 1):
        part = tmp_path / f"{cut}.jsonl"
        part.write_bytes(b"".join(lines[:cut]) + lines[cut][:7])
        journal = Journal(part, "id")
        assert journal.found > 0 or cut == 1
        again = units(model, photos, **options, journal=journal)
        journal.close()
        assert again.numbers == whole.numbers
        assert again.table == whole.table
        assert (again.images, len(again.refused)) == (whole.images, len(whole.refused)) == (30, 1)


def test_sums_begin_anew_only_behind_whole_batches(tmp_path, monkeypatch):
    """Photos that an interrupted run has counted are not opened again."""
    model = opened(tmp_path, LINEAR)
    monkeypatch.setattr(contributions, "CHECKPOINT", 2)
    path, photos = tmp_path / "part.jsonl", photographs(30)
    journal = Journal(path, "id")
    units(model, photos, target="0", journal=journal)
    journal.close()
    head, first, *_ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(head + first)
    passes = []
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda images, names: passes.append((len(images), names)) or forward(images, names),
    )
    journal = Journal(path, "id")
    units(model, photos, target="0", journal=journal)
    journal.close()
    counted = [n for n, names in passes if "y" in names]
    assert counted == [8, 6]


def test_the_class_is_the_one_predicted_most_often():
    model = inspector.load(SAMPLES / "resnet20.onnx")
    found = units(model, PHOTOS, count=1, photos=1)
    votes = []
    for path in PHOTOS:
        tensors, _ = model.preprocessing.preprocess.apply(inspector.load_photo(path))
        votes.append(int(model.forward(tensors[None], [model.scores.tensor])["logits"].argmax()))
    counts = np.bincount(votes)
    assert found.numbers["class"]["index"] == counts.argmax()
    assert found.numbers["class"]["chosen"].startswith(f"predicted on {counts.max()} of 20 photos")
    named = units(model, PHOTOS, target="frog", count=1, photos=1)
    assert (named.numbers["class"]["index"], named.numbers["class"]["label"]) == (6, "frog")
    for name in ("all_cnn_c", "resnet20"):
        assert class_units(inspector.load(SAMPLES / f"{name}.onnx"), 3).weights.any()


def test_what_cannot_be_meant(tmp_path):
    model = opened(tmp_path, LINEAR)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    photos = photographs(2)
    for text in ("maximum", "maximum:1", "peak:0", "median:0.5", "quantile:x", "quantile:nan"):
        with pytest.raises(UsageError, match="not a threshold"):
            units(model, photos, threshold=text)
    with pytest.raises(UsageError, match="less than one"):
        units(model, photos, target="0", threshold="quantile:0.005")
    with pytest.raises(UsageError, match="no sign"):
        units(model, photos, sign="plus")
    for options in ({"count": 0}, {"photos": 33}):
        with pytest.raises(UsageError, match="1 to 32"):
            units(model, photos, **options)
    for target in ("3", "0,1", "a[0,0,0]", "cat"):
        with pytest.raises(UsageError):
            units(model, photos, target=target)
    with pytest.raises(UsageError, match="no photos"):
        units(model, [])
    with pytest.raises(ImageRefused):
        units(model, [bad])
    with pytest.raises(ImageRefused):
        units(model, [bad], target="0")
    with pytest.raises(MethodRefused, match=r"node_relu_6.*top-activations"):
        units(inspector.load(SAMPLES / "zfnet.onnx"), PHOTOS[:1])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "m1 = Conv(a, cw, cb) r = LeakyRelu(m1) p = GlobalAveragePool(r) y = Flatten(p)",
            "LeakyRelu",
        ),
        (
            "m1 = Conv<strides = [2, 2]>(a, cw, cb) p = GlobalAveragePool(m1) y = Flatten(p)",
            "skips",
        ),
        (TWICE, "Relu"),
        (JOINED, "two computed"),
    ],
)
def test_class_maps_that_are_not_made_of_units(tmp_path, body, reason):
    with pytest.raises(MethodRefused, match=reason):
        units(opened(tmp_path, FRONT + body), photographs(1), target="0")


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "tensor", "count", "tolerance"),
    [
        ("winml_squeezenet_fp16_opset7", "fire9/concat_1", 512, 2e-3),
        ("tf2onnx_resnet50thin_nhwc", "Relu_48:0", 1024, 1e-5),
        ("mobilenetv2_qdq_int8_244", "onnx::GlobalAveragePool_1547", 1280, 2e-2),
    ],
)
def test_third_party_models(shared, tmp_path, name, tensor, count, tolerance):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    photos = [shared / "photos" / "cat.jpg", shared / "photos" / "horses.jpg"]
    found = units(model, photos, count=2, photos=2)
    assert found.numbers["head"]["units_of"] == tensor
    assert len(found.table) == count
    # Weights, features and score are read in three ways; a wrong one would break the sum.
    assert found.numbers["account"]["largest_residual"] < tolerance
    assert any("head is quantised" in text for text in found.warnings) == ("qdq" in name)
    found.save(tmp_path)
    saved = json.loads((tmp_path / "units.json").read_text())
    assert saved["images"]["used"] == 2

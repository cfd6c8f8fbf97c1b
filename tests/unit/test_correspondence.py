"""The study of correspondence, against the paper's sum written out, and hostile files of boxes."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import helper
from PIL import Image

import inspector
from inspector.errors import ImageRefused, MethodRefused, UsageError
from inspector.evidence import local_forward
from inspector.evidence.local_forward import LocalForward
from inspector.network.receptive_fields import local_stages
from inspector.passes.journal import Journal
from inspector.photos.geometry import Geometry
from inspector.studies.correspondence import correspondence
from inspector.studies.correspondence.annotations import read_parts
from inspector.studies.correspondence.photos import Marked, _laid, overlap, random_boxes
from inspector.studies.correspondence.signs import ROUNDING, agreement, signs_of
from inspector.studies.correspondence.summary import Row, adjusted

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PARTS = SAMPLES / "images" / "parts.json"
RNG = np.random.default_rng(3)
W1, W2, W3 = RNG.normal(size=(4, 3, 3, 3)), RNG.normal(size=(6, 64)), RNG.normal(size=(5, 6))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Conv 3x3, Relu, MaxPool, Gemm, Relu, Gemm on an RGB image of 8x8."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w3"], ["y"], transB=1),
    ]
    weights = ((W1, "w1"), (W2, "w2"), (W3, "w3"))
    onnx.save(
        onnx_model(
            nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]}, {n: np.float32(w) for w, n in weights}
        ),
        path,
    )
    return inspector.load(path, preprocess="unit")


@pytest.fixture
def undrawn(monkeypatch):
    """No figure: it takes longer than the numbers."""
    name = "inspector.studies.correspondence.figure.correspondence_sheet"
    monkeypatch.setattr(name, lambda *_, **__: None)


@pytest.fixture
def folder(tmp_path):
    """Four photos of 8x8 with an eye each, two of them with a nose."""
    entries, chance = [], np.random.default_rng(9)
    for at in range(4):
        pixels = chance.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{at}.png")
        parts = {"eye": [at, 1, at + 2, 4]} | ({"nose": [3, 4, 6, 7]} if at > 1 else {})
        entries.append(
            {"image": f"{at}.png", "parts": parts} | ({"object": [0, 0, 7, 8]} if at else {})
        )
    (tmp_path / "parts.json").write_text(json.dumps({"photos": entries}))
    return tmp_path


def slow_features(image):
    """The two layers of the small network, place by place."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    first = np.array(
        [
            [
                [max(0, (w * padded[:, y : y + 3, x : x + 3]).sum()) for x in range(8)]
                for y in range(8)
            ]
            for w in W1.astype(np.float32)
        ]
    )
    pooled = first.reshape(4, 4, 2, 4, 2).max((2, 4)).ravel()
    return first.ravel(), np.maximum(W2.astype(np.float32) @ pooled, 0)


def slow_delta(images, boxes, layer):
    """Delta of table 1, summed as it is written, and over pairs and elements."""
    signs = []
    for image, (top, left, bottom, right) in zip(images, boxes, strict=True):
        hidden = image.copy()
        hidden[:, top:bottom, left:right] = 0.5
        x, occluded = slow_features(image)[layer], slow_features(hidden)[layer]
        change = x - occluded
        change[np.abs(change) <= ROUNDING * np.abs(x).max()] = 0
        signs.append([0 if e == 0 else int(math.copysign(1, e)) for e in change])
    total, n = 0, len(signs)
    for i in range(n):
        for j in range(n):
            if i != j:
                total += sum(a != b for a, b in zip(signs[i], signs[j], strict=True))
    return total, total / (n * (n - 1) * len(signs[0])), signs


@pytest.mark.usefixtures("undrawn")
def test_delta_equals_the_papers_sum(small, folder):
    found = correspondence(small, parts=str(folder / "parts.json"), draws=5, seed=7)
    images = [
        (np.asarray(Image.open(folder / f"{at}.png")).transpose(2, 0, 1) / 255).astype(np.float32)
        for at in range(4)
    ]
    rows = {(row["layer"], row["part"]): row for row in found.numbers["rows"]}
    assert set(rows) == {("r", "eye"), ("r", "nose"), ("a", "eye"), ("a", "nose")}
    given = {"eye": [(1, at, 4, at + 2) for at in range(4)], "nose": [(4, 3, 7, 6)] * 2}
    shas = [photo["image"]["sha256"] for photo in found.numbers["photos"]]
    for (layer, part), row in rows.items():
        which = [0, 1, 2, 3] if part == "eye" else [2, 3]
        mine, at = [images[i] for i in which], ("r", "a").index(layer)
        total, delta, signs = slow_delta(mine, given[part], at)
        assert row["delta_sum"] == total
        assert row["delta"] == pytest.approx(delta)
        assert row["changed"] == pytest.approx(np.mean(np.abs(signs)))
        pairs = [(signs[i], signs[j]) for i in range(len(signs)) for j in range(i)]
        both = sum(a * b != 0 for one, two in pairs for a, b in zip(one, two, strict=True))
        opposite = sum(a * b < 0 for one, two in pairs for a, b in zip(one, two, strict=True))
        assert row["opposite"] == pytest.approx(opposite / both)
        marked = [
            Marked(i, "", shas[i], images[i], {part: box}, (0, 0, 8, 7 if i else 8), bool(i), ())
            for i, box in zip(which, given[part], strict=True)
        ]
        drawn = [random_boxes(photo, part, 5, 7) for photo in marked]
        random = [slow_delta(mine, boxes, at)[1] for boxes in zip(*drawn, strict=True)]
        np.testing.assert_allclose(row["random_deltas"], random)
        assert row["random_delta_deviation"] == pytest.approx(np.std(random, ddof=1))
        assert row["p"] == (1 + sum(r <= delta for r in random)) / 6
    assert len({row["random_delta"] for row in rows.values()}) > 1


@pytest.mark.usefixtures("undrawn")
def test_covers_on_crops_give_the_same_numbers(small, folder, monkeypatch):
    for name in ("PER_SESSION", "PER_WEIGHT", "PER_NODE", "COPIED"):
        monkeypatch.setattr(local_stages, name, 0)
    monkeypatch.setattr(local_forward, "LARGEST", 1)
    local = []
    plain = LocalForward.__call__
    monkeypatch.setattr(
        LocalForward,
        "__call__",
        lambda self, *given: [local.append(self.local), plain(self, *given)][1],
    )
    how = {"parts": str(folder / "parts.json"), "draws": 70, "layers": ("a",)}
    found = correspondence(small, **how).numbers["rows"]
    assert any(local)
    monkeypatch.setattr(local_forward, "FEWEST", 10_000)
    assert correspondence(small, **how).numbers["rows"] == found


def test_signs_of_many_elements():
    """Bits agree with signs, also where the number of elements is not a multiple of 8."""
    start = RNG.normal(size=1003).astype(np.float32)
    rows = np.stack(
        [start + RNG.choice([-0.5, 0, 0.5, 1e-7], 1003).astype(np.float32) for _ in range(6)]
    )
    plain = np.where(np.abs(start - rows) > 1e-3, np.sign(start - rows), 0)
    found = agreement(signs_of(start, rows))
    differ = [int((plain[i] != plain[j]).sum()) for i in range(6) for j in range(i + 1, 6)]
    assert list(found.pairs) == differ
    assert found.total == 2 * sum(differ)
    assert found.delta == pytest.approx(np.mean(differ) / 1003)
    assert found.deviation == pytest.approx(np.std(np.array(differ) / 1003, ddof=1))
    assert found.changed == pytest.approx((plain != 0).mean())


def test_alike_and_opposite():
    start = np.zeros(16, np.float32) + 1
    up, down = start + 1, start - 1
    same = agreement([*signs_of(start, up[None]), *signs_of(start, up[None])])
    assert (same.delta, same.contradiction, same.deviation) == (0, 0, None)
    against = agreement([*signs_of(start, up[None]), *signs_of(start, down[None])])
    assert (against.delta, against.contradiction) == (1, 1)
    nothing = agreement(signs_of(start, np.stack([start, start])))
    assert (nothing.delta, nothing.contradiction, nothing.changed) == (0, None, 0)


def row_with(delta, random):
    def made(share):
        return agreement(
            signs_of(
                np.ones(100), np.stack([np.ones(100), np.where(np.arange(100) < share, 2.0, 1.0)])
            )
        )

    return Row("a", "p", ("1", "2"), made(delta), [made(share) for share in random])


def test_significance():
    low, high = row_with(10, range(11, 30)), row_with(20, range(11, 30))
    assert (low.p, low.below) == (1 / 20, 0)
    assert (high.p, high.below) == (11 / 20, 10)
    assert adjusted([high, low, low]) == pytest.approx([11 / 20, 3 / 20, 3 / 20])
    assert adjusted([high, high]) == [1, 1]
    sentence = next(iter(low.sentences()))
    assert "no correspondence shown" in sentence  # not corrected yet: p is 1


def test_random_places_are_all_alike():
    photo = Marked(
        2, "", "00ff00ff" * 8, np.zeros((3, 9, 12)), {"eye": (1, 2, 4, 7)}, (2, 1, 7, 9), True, ()
    )
    boxes = random_boxes(photo, "eye", 4000, 1)
    assert {(y1 - y0, x1 - x0) for y0, x0, y1, x1 in boxes} == {(3, 5)}
    places, counts = np.unique([box[:2] for box in boxes], axis=0, return_counts=True)
    assert places.tolist() == [[y, x] for y in range(2, 5) for x in range(1, 5)]
    assert 250 < counts.min() <= counts.max() < 420
    assert random_boxes(photo, "eye", 10, 1) == boxes[:10]
    assert random_boxes(photo, "eye", 10, 2) != boxes[:10]
    tight = Marked(
        2, "", "0" * 64, np.zeros((3, 9, 12)), {"eye": (1, 2, 4, 7)}, (2, 1, 4, 9), True, ()
    )
    assert {box[0] for box in random_boxes(tight, "eye", 500, 1)} == set(range(7))


def test_boxes_lie_where_the_network_sees_them():
    crop = Geometry(photo=(100, 200), input=(50, 50), scale=(0.5, 0.5), shift=(0.0, -25.0))
    assert _laid((60, 10, 80, 31), crop) == (5, 5, 16, 15)
    assert _laid((60, 10, 60.4, 10.2), crop) == (5, 5, 6, 6)  # never empty
    for at, box in enumerate(_laid((x, 0, x + 2, 2), crop) for x in range(50, 150, 2)):
        assert box == (0, at, 1, at + 1)


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_run_gives_the_same(small, folder, tmp_path):
    path = tmp_path / "kept.jsonl"
    options = {"parts": str(folder / "parts.json"), "draws": 40}
    journal = Journal(path, "id")
    whole = correspondence(small, **options, journal=journal)
    journal.close()
    assert journal.kept == 2 * 3  # fifteen covers at a time
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:30])
    journal = Journal(path, "id")
    assert journal.found == 3
    again = correspondence(small, **options, journal=journal)
    journal.close()
    assert json.dumps(again.to_dict()) == json.dumps(whole.to_dict())
    other = correspondence(small, **options, seed=1)
    assert other.numbers["rows"][0]["delta"] == whole.numbers["rows"][0]["delta"]
    assert other.numbers["rows"][0]["random_deltas"] != whole.numbers["rows"][0]["random_deltas"]


@pytest.mark.usefixtures("undrawn")
def test_parts_that_the_crop_cuts_off(small, tmp_path):
    entries = []
    for at in range(3):
        pixels = RNG.integers(0, 256, (16, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{at}.png")
        entries.append(
            {
                "image": f"{at}.png",
                "object": [0, 0, 32, 16],
                "parts": {
                    "eye": [10, 2, 14, 6],
                    "ear": [4 + 6 * (at > 0), 2, 14, 6],
                    "tail": [0, 0, 4, 4],
                },
            }
        )
    (tmp_path / "parts.json").write_text(json.dumps({"photos": entries}))
    found = correspondence(small, parts=str(tmp_path / "parts.json"), draws=3, layers=("r",))
    assert {row["part"]: row["photos"] for row in found.numbers["rows"]} == {
        "eye": ["0.png", "1.png", "2.png"],
        "ear": ["1.png", "2.png"],
    }
    assert "0.png: the network does not see all of 'ear'; left out for it" in found.warnings
    assert "'tail' is left out: 0 photo(s) show it whole" in found.warnings
    photo = found.numbers["photos"][0]
    assert photo["parts"]["eye"] == {"top": 1, "left": 1, "bottom": 3, "right": 3}
    assert photo["random_places_in"] == {"top": 0, "left": 0, "bottom": 8, "right": 8}
    for entry in entries:
        entry["parts"] = {"tail": [0, 0, 4, 4]}
    (tmp_path / "parts.json").write_text(json.dumps({"photos": entries}))
    with pytest.raises(MethodRefused, match="no part is seen whole on two photos"):
        correspondence(small, parts=str(tmp_path / "parts.json"))


@pytest.mark.usefixtures("undrawn")
def test_photos_are_found(small, folder, tmp_path):
    parts = folder / "elsewhere" / "parts.json"
    parts.parent.mkdir()
    (folder / "parts.json").rename(parts)
    photos = sorted(folder.glob("*.png"))
    found = correspondence(small, [*photos, PARTS], parts=str(parts), draws=2, layers=("r,a",))
    assert (found.images, len(found.numbers["layers"])) == (4, 2)
    assert any("1 photo(s) were given that the parts do not name" in w for w in found.warnings)
    assert any("1 photo(s) have no object box" in w for w in found.warnings)
    assert any("2 draws cannot show anything" in w for w in found.warnings)
    with pytest.raises(UsageError, match=r"3\.png is not among the photos given"):
        correspondence(small, photos[:3], parts=str(parts))
    with pytest.raises(UsageError, match=r"0\.png are 2 of the photos given"):
        correspondence(small, [*photos, photos[0]], parts=str(parts))
    memory = [inspector.load_photo(path) for path in photos]
    again = correspondence(small, memory, parts=str(parts), draws=2, layers=("r,a",))
    assert again.numbers["rows"] == found.numbers["rows"]
    with pytest.raises(ImageRefused, match="no such file"):
        correspondence(small, parts=str(parts))
    photos[3].write_bytes(b"no picture")
    found = correspondence(small, photos, parts=str(parts), draws=2)
    assert (found.images, len(found.refused)) == (3, 1)
    assert {row["part"] for row in found.numbers["rows"]} == {"eye"}


@pytest.mark.usefixtures("undrawn")
def test_a_planted_part_is_found(tmp_path):
    """Red patches at other places of each photo, and features that see colours anywhere."""
    colours = np.float32([[1, -0.2, 0], [0, 1, 0.1], [-0.1, 0, 1], [1, -1, -1]])
    weights = np.repeat(np.repeat(colours[:, :, None, None], 3, axis=2), 3, axis=3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    model = onnx_model(
        nodes,
        {"x": ["n", 3, 16, 16]},
        {"y": ["n", 2]},
        {"w": weights, "v": np.ones((2, 4), np.float32)},
    )
    onnx.save(model, tmp_path / "m.onnx")
    entries, chance = [], np.random.default_rng(1)
    for at in range(9):
        pixels = chance.integers(90, 166, (16, 16, 3)).astype(np.uint8)
        y, x = (int(v) for v in chance.integers(1, 10, 2))
        pixels[y : y + 3, x : x + 3] = (255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / f"{at}.png")
        parts = {"patch": [x, y, x + 3, y + 3], "nothing": [13, 13, 16, 16]}
        entries.append({"image": f"{at}.png", "parts": parts})
    (tmp_path / "parts.json").write_text(json.dumps({"photos": entries}))
    net = inspector.load(tmp_path / "m.onnx", preprocess="unit")
    found = correspondence(net, parts=str(tmp_path / "parts.json"), draws=99, layers=("f",))
    rows = {row["part"]: row for row in found.numbers["rows"]}
    assert rows["patch"]["delta"] == 0 < rows["patch"]["random_delta"]
    assert rows["patch"]["p_holm"] <= 0.05 < rows["nothing"]["p_holm"]
    assert "patch at f: correspondence (Delta 0.000" in found.sentences[0]
    assert "nothing at f: no correspondence shown" in " ".join(found.sentences)


def test_overlap():
    found = overlap((0, 0, 4, 4), [(0, 0, 4, 4), (2, 2, 6, 6), (4, 0, 8, 4), (9, 9, 9, 9)])
    assert found == pytest.approx((1 + 1 / 4) / 4)


# -- a stranger's file ----------------------------------------------------------------------------


GOOD = {"image": "a.png", "parts": {"eye": [0, 0, 1, 1]}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "no list of photos"),
        ({"photos": {}}, "no list of photos"),
        ({"photos": []}, "no list of photos"),
        ({"photos": [GOOD] * 65}, "65 photos"),
        ({"photos": [GOOD, GOOD]}, "more than once"),
        ({"photos": [GOOD, 7]}, "photo 2 is not an object"),
        ({"photos": [GOOD], "other": 1}, "unknown key 'other'"),
        ({"photos": [GOOD]}, "one photo only"),
        ({"photos": [{**GOOD, "box": 1}]}, r"photo 1 \(a\.png\): unknown key 'box'"),
        ({"photos": [{"image": "a.png", "parts": []}]}, "parts is not an object"),
        ({"photos": [{"image": "a.png", "parts": {" ": [0, 0, 1, 1]}}]}, "without a name"),
        ({"photos": [{**GOOD, "object": [1, 1, 0, 0]}]}, "object: no four numbers"),
        ({"photos": [{**GOOD, "object": None}]}, "object: no four numbers"),
        *[
            (
                {"photos": [{"image": "a.png", "parts": {"eye": box}}]},
                r"\(a\.png\), eye: no four numbers",
            )
            for box in (
                [0, 0, 1],
                [0, 0, 1, "1"],
                [0, 0, 0, 1],
                [0, 1, 1, 0],
                [0, 0, True, 1],
                "0011",
                [0, 0, 1e300, 1],
                [0, 0, [1], 1],
            )
        ],
        *[
            ({"photos": [{**GOOD, "image": name}]}, "plain name")
            for name in (
                "../a.png",
                "/etc/passwd",
                "x/../../a.png",
                "",
                "a\0.png",
                5,
                None,
                ".",
                "C:\\a.png",
                "..\\a.png",
                "\\\\host\\share\\a.png",
                "a" * 2000,
            )
        ],
    ],
)
def test_hostile_parts(tmp_path, document, message):
    path = tmp_path / "parts.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match=message) as caught:
        read_parts(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (
            b'{"photos": [{"image": "a.png", "parts": {"eye": [0, 0, NaN, 1]}}]}',
            "NaN is not a number",
        ),
        (b'{"photos": [{"image": "a.png", "parts": {"e": [0,0,1,1], "e": [1,1,2,2]}}]}', "twice"),
        (b"[" * 200_000, "not JSON"),
        (b'{"photos": [' + b"9" * 6000 + b"]}", "not JSON"),
        (b" " * (5 << 20), "more than 4 MiB"),
    ],
)
def test_what_is_no_json(tmp_path, data, message):
    path = tmp_path / "parts.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_parts(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_parts(tmp_path / "none.json")
    with pytest.raises(UsageError):
        read_parts(tmp_path)


def test_all_findings_stand_in_one_error(tmp_path):
    path = tmp_path / "parts.json"
    wrong = {"image": "../b.png", "parts": {"eye": [0], "nose": [3, 3, 1, 1]}}
    path.write_text(json.dumps({"photos": [GOOD, wrong]}))
    with pytest.raises(UsageError) as caught:
        read_parts(path)
    said = caught.value.what
    assert "photo 2 (../b.png): image is not" in said
    assert "photo 2 (../b.png), eye" in said
    assert "photo 2 (../b.png), nose" in said


def test_boxes_beyond_their_photo(small, folder):
    path = folder / "parts.json"
    document = json.loads(path.read_text())
    document["photos"][1]["parts"]["eye"] = [2, 1, 9, 4]
    document["photos"][3]["object"] = [-1, 0, 7, 8]
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError) as caught:
        correspondence(small, parts=str(path))
    assert "1.png, eye: the box reaches beyond the photo of 8x8 pixels" in caught.value.what
    assert "3.png, object: the box reaches beyond" in caught.value.what


def test_what_cannot_be_meant(small, folder):
    parts = str(folder / "parts.json")
    with pytest.raises(UsageError, match="no parts"):
        correspondence(small)
    with pytest.raises(UsageError, match="draws"):
        correspondence(small, parts=parts, draws=0)
    with pytest.raises(UsageError, match="seed"):
        correspondence(small, parts=parts, seed=-1)
    with pytest.raises(UsageError, match=r"^fill is"):
        correspondence(small, parts=parts, fill="red")
    with pytest.raises(UsageError, match="without a name"):
        correspondence(small, parts=parts, layers=("r,,a",))
    with pytest.raises(UsageError, match="no layer 'b'"):
        correspondence(small, parts=parts, layers=("b",))


# -- models ---------------------------------------------------------------------------------------


def test_on_the_sample_models(tmp_path):
    model = inspector.load(SAMPLES / "zfnet.onnx")
    found = correspondence(model, parts=str(PARTS), draws=19)
    assert [row["layer"] for row in found.numbers["rows"]] == [
        "relu_4",
        "relu_4",
        "relu_6",
        "relu_6",
    ]
    assert all(0 < row["delta"] < 1 for row in found.numbers["rows"])
    names = [path.name for path in found.save(tmp_path)]
    assert names == ["correspondence.png", "correspondence.csv", "correspondence.json"]
    every = inspector.load(SAMPLES / "all_cnn_c.onnx")
    found = correspondence(every, parts=str(PARTS), draws=2)
    assert len(found.numbers["layers"]) == 1
    assert any("no hidden layer follows" in text for text in found.warnings)


@pytest.mark.conformance
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "name",
    [
        "winml_squeezenet_fp16_opset7",
        "tf2onnx_resnet50thin_nhwc",
        "mobilenetv2_qdq_int8_244",
    ],
)
def test_third_party_models(shared, tmp_path, name):
    model = inspector.load(shared / "zoo" / f"{name}.onnx")
    entries = [
        {"image": photo, "parts": {"middle": [90, 90, 140, 130]}}
        for photo in ("cat.jpg", "both.png")
    ]
    (tmp_path / "parts.json").write_text(json.dumps({"photos": entries}))
    photos = [shared / "photos" / entry["image"] for entry in entries]
    found = correspondence(model, photos, parts=str(tmp_path / "parts.json"), draws=3)
    for row in found.numbers["rows"]:
        assert 0 < row["delta"] < 1
        assert 0 < row["changed"] <= 1
        assert 0 < row["random_delta"] < 1

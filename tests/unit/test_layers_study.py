"""The sheet from first layer to last, against the definitions written out."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from PIL import Image

import inspector
from inspector.errors import ImageRefused, MethodRefused, ModelRefused, UnknownLayer, UsageError
from inspector.passes.journal import Journal
from inspector.studies.layers import layers, measurements
from inspector.studies.layers.choice import chosen_units
from inspector.studies.layers.hierarchy import hierarchy
from inspector.studies.layers.measurements import Units

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
PHOTOS = sorted((SAMPLES / "images").glob("*.png"))
RNG = np.random.default_rng(17)
W1, W2 = (RNG.normal(size=shape).astype(np.float32) for shape in ((5, 3, 3, 3), (4, 5, 3, 3)))
W1[3] = -np.abs(W1[3])  # never active: pixels are not negative, and there is no bias
RELU = "r1 = Relu(c1)"
BODY = (
    "c1 = Conv<pads = [1, 1, 1, 1]>(x, w1) {first} p = MaxPool<kernel_shape = [2, 2], "
    "strides = [2, 2]>(r1) c2 = Conv<pads = [1, 1, 1, 1]>(p, w2) r2 = Relu(c2) "
    "g = GlobalAveragePool(r2) y = Flatten(g)"
)


def opened(folder, first=RELU, body=BODY):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 3, 8, 8] x) => (float[N, 4] y) {'
        + body.format(first=first)
        + "}"
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(w, n) for w, n in ((W1, "w1"), (W2, "w2"))
    )
    path = folder / "small.onnx"
    onnx.save(model, path)
    return inspector.load(path, preprocess="unit")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Conv 3x3, Relu, MaxPool 2x2, Conv 3x3, Relu on an RGB image of 8x8."""
    return opened(tmp_path_factory.mktemp("small"))


def photographs(count, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(count)]


# -- the definitions, step by step ----------------------------------------------------------------


def convolve(image, weights):
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    _, height, width = image.shape
    return np.array(
        [
            [
                [(one * padded[:, y : y + 3, x : x + 3]).sum() for x in range(width)]
                for y in range(height)
            ]
            for one in weights.astype(float)
        ]
    )


def slow_maps(photo):
    """Maps of both layers for one photo."""
    first = np.maximum(convolve(photo.transpose(2, 0, 1) / 255, W1), 0)
    pooled = first.reshape(5, 4, 2, 4, 2).max((2, 4))
    return {"r1": first, "r2": np.maximum(convolve(pooled, W2), 0)}


def spread(signal, weights):
    """The transposed convolution: each place adds its filter, times the signal."""
    count, height, width = signal.shape
    found = np.zeros((weights.shape[1], height + 2, width + 2))
    for k in range(count):
        for y in range(height):
            for x in range(width):
                found[:, y : y + 3, x : x + 3] += signal[k, y, x] * weights[k].astype(float)
    return found[:, 1:-1, 1:-1]


def slow_projection(photo, layer, unit, y, x):
    """One activation's way down to the pixels, by the deconvnet's rule."""
    maps = slow_maps(photo)
    kept = np.zeros_like(maps[layer])
    kept[unit, y, x] = maps[layer][unit, y, x]
    if layer == "r1":
        return spread(kept, W1)
    down, unpooled = spread(kept, W2), np.zeros_like(maps["r1"])
    for c in range(5):
        for i in range(4):
            for j in range(4):
                window = maps["r1"][c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                dy, dx = np.unravel_index(window.argmax(), (2, 2))
                unpooled[c, 2 * i + dy, 2 * j + dx] = down[c, i, j]
    return spread(np.maximum(unpooled, 0), W1)


def slow_choice(peaks, selectivity, photo, count):
    """The stated rule, one unit after the other."""
    alive = [unit for unit in range(len(peaks)) if peaks[unit] > 0]
    middle = np.median([peaks[unit] for unit in alive]) if alive else 0
    strong = [unit for unit in alive if peaks[unit] >= middle]
    weak = [unit for unit in alive if peaks[unit] < middle]
    chosen, taken = [], set()
    for unit in sorted(strong, key=lambda u: (-selectivity[u], u)):
        if photo[unit] not in taken:
            chosen.append(unit)
        taken.add(photo[unit])
    others = [unit for unit in strong if unit not in chosen]
    for rest in (others, weak):
        chosen += sorted(rest, key=lambda u: (-selectivity[u], u))
    return sorted(chosen[:count], key=lambda u: (-selectivity[u], u))


# -- numbers and pictures -------------------------------------------------------------------------


def test_numbers_equal_a_full_table(small):
    photos = photographs(11)
    found = layers(small, photos, units=3)
    maps = [slow_maps(photo) for photo in photos]
    assert [row["layer"] for row in found.numbers["layers"]] == ["r1", "r2"]
    for row in found.numbers["layers"]:
        every = np.stack([one[row["layer"]] for one in maps])
        flat = every.reshape(len(photos), every.shape[1], -1)
        best = flat.max(2)
        peaks, photo = best.max(0), best.argmax(0)
        with np.errstate(invalid="ignore"):
            selectivity = peaks / best.mean(0)
        alive = peaks > 0
        assert row["never_active"] == (~alive).sum()
        assert row["never_active_share"] == (~alive).mean()
        quartiles = np.quantile(selectivity[alive], (0.25, 0.5, 0.75))
        told = row["selectivity"]
        np.testing.assert_allclose(
            (told.lower_quartile, told.median, told.upper_quartile), quartiles, rtol=1e-5
        )
        chosen = slow_choice(peaks, selectivity, photo, 3)
        assert [unit["unit"] for unit in row["units"]] == chosen
        for unit in row["units"]:
            k = unit["unit"]
            place = np.unravel_index(flat[photo[k], k].argmax(), every.shape[2:])
            assert unit["image"]["place"] == photo[k]
            assert (unit["at"]["y"], unit["at"]["x"]) == place
            assert unit["activation"] == pytest.approx(peaks[k], rel=1e-5)
            assert unit["selectivity"] == pytest.approx(selectivity[k], rel=1e-5)
            assert unit["active_photos"] == (best[:, k] > 0).sum()


def test_the_facts_of_each_layer(small):
    found = layers(small, photographs(4))
    first, second = found.numbers["layers"]
    assert (first["index"], first["operator"], first["channels"], first["map"]) == (
        0,
        "Conv+Relu",
        5,
        (8, 8),
    )
    assert (second["channels"], second["map"], second["stride"]) == (4, (4, 4), (2.0, 2.0))
    assert first["receptive_field"]["size"] == (3, 3)
    assert second["receptive_field"]["size"] == (8, 8)  # 3 + 2 - 1 + 2 * 2
    assert first["never_active"] == 1
    assert "1 of 9 units are never active on these photos; most: 1 of 5 (20%) of layer 0" in (
        found.sentences
    )
    assert found.numbers["most_possible_selectivity"] == 4
    assert any("4 photo(s) tell little" in text for text in found.warnings)
    columns = {"layer", "module", "operator", "median_selectivity", "unit", "image", "top"}
    assert columns <= set(found.table[0])
    assert len(found.table) == 8


def test_every_pixel_of_patches_and_projections(small, monkeypatch):
    photos, kept = photographs(6), {}
    monkeypatch.setattr(
        "inspector.studies.layers.figure.hierarchy_sheet", lambda rows, **_: kept.update(rows=rows)
    )
    found = layers(small, photos, units=4)
    found.draw()
    seen = 0
    for row, entry in zip(kept["rows"], found.numbers["layers"], strict=True):
        for cell, unit in zip(row.cells, entry["units"], strict=True):
            photo, at, box = photos[unit["image"]["place"]], unit["at"], unit["patch"]
            slow = slow_projection(photo, entry["layer"], unit["unit"], at["y"], at["x"])
            inside = slice(box["top"], box["bottom"]), slice(box["left"], box["right"])
            np.testing.assert_array_equal(cell.patch, photo[inside])
            crop = slow[:, inside[0], inside[1]]
            np.testing.assert_allclose(cell.signal, crop, atol=1e-4 * np.abs(crop).max())
            assert unit["largest_in_projection"] == pytest.approx(np.abs(crop).max(), rel=1e-4)
            slow[:, inside[0], inside[1]] = 0
            assert not slow.any()  # nothing leaves the receptive field
            seen += 1
    assert seen == 8


@pytest.mark.parametrize("seed", range(40))
def test_units_are_chosen_by_the_stated_rule(seed):
    rng = np.random.default_rng(seed)
    size, photos = int(rng.integers(1, 14)), int(rng.integers(1, 6))
    peaks = rng.integers(0, 4, size).astype(float)  # ties, and units that are never active
    places = np.where(peaks > 0, rng.integers(0, photos, size), -1)
    means = np.where(peaks > 0, peaks / rng.integers(1, photos + 1, size), 0)
    selectivity = [p / m if m else np.nan for p, m in zip(peaks, means, strict=True)]
    units = Units(peaks, places, places, places, means, (peaks > 0).astype(int))
    for count in (1, 3, 12):
        assert list(chosen_units(units, count)) == slow_choice(peaks, selectivity, places, count)


def test_layers_are_thinned_out_evenly():
    model = inspector.load(SAMPLES / "resnet20.onnx")
    every = hierarchy(model, "", 64).shown
    for most in (2, 3, 5, 7):
        shown = hierarchy(model, "", most)
        wanted = [every[round(i * (len(every) - 1) / (most - 1))].tensor for i in range(most)]
        assert [level.tensor for level in shown.shown] == wanted
        assert f"{most} of {len(every)}" in shown.why
    assert hierarchy(model, "", len(every)).why.endswith("1x1")
    named = hierarchy(model, f"3, {every[0].tensor},3", 2).shown
    assert [level.tensor for level in named] == [every[3].tensor, every[0].tensor]


def test_a_field_covers_what_a_unit_sees():
    """Pixels outside the patch do not move the activation; inside, one does."""
    model = inspector.load(SAMPLES / "zfnet.onnx")
    found = layers(model, PHOTOS[:6], units=2, layers="0,1,2")
    by_name = {path.name: path for path in PHOTOS}
    moved = 0
    for row in found.numbers["layers"]:
        for unit in row["units"]:
            photo = inspector.load_photo(by_name[unit["image"]["name"]])
            tensor, _ = model.preprocessing.preprocess.apply(photo)
            at, box = unit["at"], unit["patch"]

            def value(image, layer=row["layer"], k=unit["unit"], at=at):
                found = model.forward(image[None].astype(np.float32), [layer])[layer]
                return float(found[0, k, at["y"], at["x"]])

            inside = slice(box["top"], box["bottom"]), slice(box["left"], box["right"])
            outer = RNG.normal(size=tensor.shape)
            outer[:, inside[0], inside[1]] = tensor[:, inside[0], inside[1]]
            assert value(tensor) == pytest.approx(unit["activation"], rel=1e-5)
            assert value(outer) == pytest.approx(unit["activation"], rel=1e-5)
            inner = tensor.copy()
            inner[:, inside[0], inside[1]] = 0
            moved += value(inner) != pytest.approx(unit["activation"], rel=1e-3)
    assert moved == 6


# -- long runs ------------------------------------------------------------------------------------


def test_a_resumed_run_gives_the_same_numbers(small, tmp_path, monkeypatch):
    monkeypatch.setattr(measurements, "CHUNK", 3)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    photos = [*photographs(4), bad, *photographs(7, 9)]
    path = tmp_path / "whole.jsonl"
    journal = Journal(path, "id")
    whole = layers(small, photos, journal=journal)
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5  # the head and four chunks
    forwards = []
    forward = small.forward
    monkeypatch.setattr(
        small,
        "forward",
        lambda images, names: forwards.append(len(images)) or forward(images, names),
    )
    for cut in range(1, 5):
        part = tmp_path / f"{cut}.jsonl"
        part.write_bytes(b"".join(lines[:cut]) + lines[cut][:9])
        forwards.clear()
        journal = Journal(part, "id")
        again = layers(small, photos, journal=journal)
        journal.close()
        assert again.to_dict() == whole.to_dict()
        rest = [3, 2, 3, 3][cut - 1 :]  # the unreadable one is in the second chunk
        assert forwards[: len(rest)] == rest  # behind them come the winners' projections
    assert (whole.images, len(whole.refused)) == (11, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_chunks_change_nothing(small, monkeypatch, count):
    photos = photographs(count)
    whole = layers(small, photos)
    monkeypatch.setattr(measurements, "CHUNK", 2)
    told = []
    again = layers(small, iter(photos), progress=lambda *step: told.append(step))
    assert again.to_dict() == whole.to_dict()
    assert ("photos", count, 0) in told
    assert [done for what, done, _ in told if what == "photos"] == list(range(1, count + 1))


def test_photos_that_change_meanwhile(small, tmp_path, monkeypatch):
    path = tmp_path / "photo.png"
    Image.fromarray(photographs(1)[0]).save(path)
    journal = Journal()
    layers(small, [path], journal=journal)
    Image.fromarray(photographs(2)[1]).save(path)
    with pytest.raises(ImageRefused, match="changed meanwhile"):
        layers(small, [path], journal=journal)


# -- what cannot be shown -------------------------------------------------------------------------


def test_refused_projections_leave_the_patches(tmp_path):
    model = opened(tmp_path, "s = Sigmoid(c1) r1 = Mul(c1, s)")
    found = layers(model, photographs(5))
    first, second = found.numbers["layers"]
    assert first["units"]
    assert second["units"]
    for row in (first, second):
        assert row["projections_refused"]
        assert all(unit["largest_in_projection"] is None for unit in row["units"])
    assert any(text.startswith("no projections for layer 0, layer 1:") for text in found.warnings)
    found = layers(model, photographs(5), extension="signal-first")
    assert all(row["projections_refused"] is None for row in found.numbers["layers"])
    assert not any("no projections" in text for text in found.warnings)


def test_silent_layers(small, tmp_path):
    found = layers(small, [np.zeros((8, 8, 3), np.uint8)] * 2)
    for row in found.numbers["layers"]:
        assert (row["units"], row["never_active_share"]) == ([], 1)
        assert row["selectivity"].median is None
    assert [row["layer"] for row in found.table] == ["r1", "r2"]
    assert all("unit" not in row for row in found.table)
    assert [path.name for path in found.save(tmp_path)] == [
        "layers.png",
        "layers.csv",
        "layers.json",
    ]


def test_what_cannot_be_meant(small, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    for options, words in (
        ({"most": 1}, "1 layers"),
        ({"most": 65}, "65 layers"),
        ({"units": 0}, "0 units"),
        ({"units": 13}, "13 units"),
        ({"projection": "cam"}, "no projection"),
        ({"extension": "maybe"}, "maybe"),
        ({"layers": ","}, "without a name"),
        ({"layers": "x"}, "image itself"),
    ):
        with pytest.raises(UsageError, match=words):
            layers(small, photographs(1), **options)
    with pytest.raises(UnknownLayer):
        layers(small, photographs(1), layers="0,7")
    with pytest.raises(ImageRefused):
        layers(small, [bad])
    with pytest.raises(UsageError, match="no photos"):
        layers(small, [])


def test_a_network_without_maps(tmp_path):
    body = (
        "g = GlobalAveragePool(x) c = Conv<pads = [1, 1, 1, 1]>(g, w1) "
        "h = Conv<pads = [1, 1, 1, 1]>(c, w2) y = Flatten(h)"
    )
    with pytest.raises(ModelRefused, match="larger than 1x1"):
        layers(opened(tmp_path, body=body), photographs(1))


def test_values_that_are_not_finite(tmp_path):
    model = opened(tmp_path, "l = Log(c1) r1 = Neg(l)")
    with pytest.raises(MethodRefused, match="not finite on"):
        layers(model, [np.zeros((8, 8, 3), np.uint8)], layers="r1")


# -- models of others -----------------------------------------------------------------------------


@pytest.mark.conformance
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
    photos = [shared / "photos" / "cat.jpg", shared / "photos" / "horses.jpg"]
    found = layers(model, photos, most=4, units=2)
    assert [row["index"] for row in found.numbers["layers"]] == sorted(
        row["index"] for row in found.numbers["layers"]
    )
    tensors = np.stack(
        [model.preprocessing.preprocess.apply(inspector.load_photo(photo))[0] for photo in photos]
    )
    for row in found.numbers["layers"]:
        from inspector.passes.activations import activations

        maps = np.concatenate(
            [activations(model, tensors[i : i + 1], [row["layer"]])[row["layer"]] for i in (0, 1)]
        ).astype(float)
        if "nhwc" in name and maps.shape[1] != row["channels"]:
            maps = np.moveaxis(maps, 3, 1)
        assert maps.shape[1:] == (row["channels"], *row["map"])
        for unit in row["units"]:
            mine = maps[:, unit["unit"]]
            best = np.maximum(mine.max((1, 2)), 0)
            at = mine[unit["image"]["place"], unit["at"]["y"], unit["at"]["x"]]
            assert unit["activation"] == pytest.approx(mine.max(), rel=2e-3)
            assert at == pytest.approx(mine.max(), rel=2e-3)
            assert unit["selectivity"] == pytest.approx(best.max() / best.mean(), rel=2e-3)
        if row["projections_refused"] is None:
            assert all(unit["largest_in_projection"] > 0 for unit in row["units"])
    found.save(tmp_path)
    assert json.loads((tmp_path / "layers.json").read_text())["images"]["used"] == 2

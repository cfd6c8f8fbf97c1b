"""Values that nobody means, wherever a user or a stranger may write one: always a sentence."""

import json
import os

import click
import numpy as np
import pytest
from networks import onnx_model
from onnx import helper

import inspector
from converters.graph import Graph
from inspector.cli.options import Number, WholeNumber, shapes
from inspector.errors import ImageRefused, InspectorError, UsageError, nearest
from inspector.methods import parse_request
from inspector.network.outputs.labels import labels_from_metadata, read_labels
from inspector.photos.dataset import labelled_photos, read_boxes
from inspector.photos.photo import load_photo
from inspector.photos.preprocess_choice import resolve
from inspector.studies import parse_units
from inspector.studies.correspondence.annotations import read_parts
from inspector.studies.occlusion.sweep import _feature
from inspector.studies.transfer.extraction import Pool

DIGITS = "9" * 5000
BIG = "9" * 400
LONG = "x" * 200_000
DEEP = "[" * 5000


def _sentence(error):
    text = str(error)
    assert text.isprintable(), text[:200]
    assert len(text) < 3000, len(text)
    assert "set_int_max_str_digits" not in text


def _model(nodes):
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    return onnx_model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4]}, weights)


@pytest.fixture
def explainer(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(_model(nodes).SerializeToString())
    return inspector.load(path, preprocess="unit")


@pytest.mark.parametrize(
    "text",
    [
        f"scale={BIG}",
        f"scale={DIGITS}",
        f"scale=0x{'f' * 20_000}",
        f"mean={DEEP}",
        f"mean={'[' * 50}{']' * 50}",
        "size=1e999",
        "size=nan,nan",
        f"size={BIG}",
        f"resize={LONG}",
        f"{LONG}=1",
        LONG,
        "channels=[[[1]]]",
        "scale=2020-01-01",
        "mean={a=1}",
        "mean=" + ",".join(["1"] * 5000),
    ],
    ids=lambda text: text[:16],
)
def test_single_settings(text):
    with pytest.raises(UsageError) as caught:
        resolve(None, [text])
    _sentence(caught.value)


FILES = {
    "big.toml": f"scale = {BIG}",
    "digits.toml": f"scale = {DIGITS}",
    "deep.toml": f"mean = {DEEP}",
    "dotted.toml": "a." * 5000 + "b = 1",
    "infinite.toml": "size = [1e999, 1]",
    "preset.toml": "preset = [[1]]",
    "nul.toml": "\0",
    "long.toml": f"resize = '{LONG}'",
    "deep.json": DEEP,
    "big.json": '{"size": ' + BIG + "}",
    "infinite.json": '{"size": 1e999}',
    "nan.json": '{"scale": NaN}',
    "mapping.json": '{"preset": {"a": 1}}',
    "no-size.json": '{"image_mean": 5, "size": {"shortest_edge": []}}',
    "zero.json": '{"do_rescale": true, "image_mean": [1, 2, 3], "rescale_factor": 0}',
    "filter.json": '{"image_mean": [1, 1, 1], "image_std": [1, 1, 1], "resample": 99}',
    "timm.json": '{"input_size": 5, "mean": 5}',
}


@pytest.mark.parametrize("name", FILES)
def test_settings_in_files(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name])
    with pytest.raises(UsageError) as caught:
        resolve(path)
    _sentence(caught.value)
    # Beside a stranger's model the same file is put aside, with a warning.
    beside = tmp_path / (
        "m.preprocess.toml" if name.endswith("toml") else "preprocessor_config.json"
    )
    path.rename(beside)
    found = resolve(None, model_path=tmp_path / "m.onnx")
    assert found.guessed
    assert any("ignored" in text for text in found.warnings)


@pytest.mark.parametrize(
    "size", ["[1e999, 1e999]", "1e999", "{'a': 1}", DEEP, f"[{DIGITS}, 1]", "[1j, 2]", f"[{LONG}"]
)
def test_sizes_in_metadata(size):
    found = resolve(None, metadata={"author": "Ultralytics", "imgsz": size})
    assert found.preprocess.size[0] <= 640


@pytest.mark.parametrize(
    "names",
    [
        DEEP,
        "{0: " * 500,
        '{"names": ' * 900 + "[]" + "}" * 900,
        f"{{{DIGITS}: 'a'}}",
        '{"' + BIG + '": "a"}',
        '{"\u00b2": "a"}',
        "[" + "-" * 50_000 + "1]",
        "{0: " + "'a' + " * 5000 + "'a'}",
        "[1e999]",
        " , ",
        "a," * 100_001,
        "[" + '"a",' * 100_001 + '"a"]',
    ],
    ids=lambda text: text[:12],
)
def test_names_in_metadata(explainer, names):
    found = labels_from_metadata({"names": names}, explainer.model.graph)
    assert found.names == ()
    assert len(found.warnings) == 1
    _sentence(found.warnings[0])


@pytest.mark.parametrize("labels", [[" "] * 4, ["a"] * 100_001, [b"\x1b[2J".decode()]])
def test_names_in_nodes(labels):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
        helper.make_node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", classlabels_strings=labels),
        helper.make_node("ArrayFeatureExtractor", [], ["u"], domain="ai.onnx.ml"),
    ]
    found = labels_from_metadata({}, Graph(_model(nodes)))
    for text in (*found.names, *found.warnings):
        _sentence(text)
    assert bool(found.names) != bool(found.warnings)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("x" * 200_000, True),
        ('0,"' + LONG, True),
        ('"open quote\nb\n' + "c\n" * 90_000, True),
        (f"{DIGITS},a\n", True),
        ("\u0660,a\n\u0661,b\n", True),
        (DEEP, False),
        ('{"names": ' * 900 + "[]" + "}" * 900, False),
        (f'{{"{DIGITS}": "a"}}', False),
        (f'{{"a": {BIG}}}', False),
        ("[NaN]", False),
        ("a\n" * 100_001, False),
        (" \n", False),
    ],
    ids=lambda value: str(value)[:12],
)
def test_names_in_files(tmp_path, text, good):
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8")
    if good:
        assert all(len(name) <= 200 for name in read_labels(path))
        return
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    _sentence(caught.value)


TABLES = {
    "letters": "image,label\n" + "x" * 6000 + ",cat\n",
    "folders": "image,label\n" + "a/" * 3000 + "b.png,cat\n",
    "heading": "x" * 6000 + ",label\na,b\n",
    "quote": 'image,label\n"' + LONG,
    "nul": "image,label\na\0,b\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    table = tmp_path / "t.csv"
    table.write_text(TABLES[name])
    try:
        (found,) = labelled_photos([], table)
    except UsageError as error:
        _sentence(error)
    else:
        with pytest.raises(ImageRefused):
            load_photo(found.path)
    table.write_text(TABLES[name].replace(",cat", ",cat,1,1,5,5"))
    try:
        read_boxes(table)
    except UsageError as error:
        _sentence(error)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"photos": [{"image": "a.png", "parts": {"eye": [' + BIG + ", 1, 2, 3]}}]}",
        '{"photos": [{"image": "a.png", "parts": {"eye": [1e999, 1, 2, 3]}}]}',
        f"[{DIGITS}]",
    ],
    ids=lambda text: text[:12],
)
def test_lists_of_parts(tmp_path, text):
    (tmp_path / "parts.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_parts(tmp_path / "parts.json")
    _sentence(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        f"-{DIGITS}",
        "--5",
        "\u00b2",
        "\u0663",
        "x" * 100_000,
        f"y[{DIGITS}]",
        f"top{DIGITS}",
    ],
)
def test_layers_and_targets(explainer, text):
    for wrong in ({"layer": text}, {"target": text}):
        with pytest.raises(InspectorError):
            explainer.explain(np.zeros((8, 8, 3), np.uint8), "cam", **wrong)


@pytest.mark.parametrize(
    "text",
    [
        f"occlusion:window={DIGITS}",
        "occlusion:window=nan",
        "occlusion:window=\u00b2",
        f"occlusion:{LONG}=1",
        LONG,
    ],
    ids=lambda text: text[:20],
)
def test_options_of_methods(text):
    with pytest.raises(UsageError) as caught:
        parse_request(text)
    _sentence(caught.value)


@pytest.mark.parametrize("text", [DIGITS, "\u00b2", f"0-{DIGITS}", "-1", "3-", "1e3"])
def test_units_and_cells(text):
    with pytest.raises(UsageError):
        parse_units(text, 8)
    with pytest.raises(UsageError):
        _feature(text, 8)
    with pytest.raises(UsageError):
        Pool.read(f"grid:{text}")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e300", "1e10", "-1", "x", DIGITS])
def test_numbers_of_options(text):
    with pytest.raises(click.BadParameter):
        Number(0, 2.0**20).convert(text, None, None)


@pytest.mark.parametrize("text", [DIGITS, str(2**63), "1.5", "\u00b2", "", "-1"])
def test_whole_numbers_of_options(text):
    with pytest.raises(click.BadParameter):
        WholeNumber(0).convert(text, None, None)


@pytest.mark.parametrize("text", [f"1,{DIGITS}", "1,\u00b2,3,4", "1,3,99999999999,5", "1,-3", ""])
def test_shapes(text):
    with pytest.raises(click.UsageError):
        shapes([text])


def test_nothing_is_near_a_long_name():
    assert nearest(LONG, ["imagenet"]) == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_are_named_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (
        read_labels,
        read_boxes,
        read_parts,
        resolve,
        lambda path: labelled_photos([], path),
    ):
        with pytest.raises(UsageError, match="not a regular file"):
            read(pipe)
    with pytest.raises(ImageRefused, match="not a regular file"):
        load_photo(pipe)
    for name in ("m.preprocess.toml", "preprocessor_config.json", "config.json"):
        os.mkfifo(tmp_path / name)
    assert resolve(None, model_path=tmp_path / "m.onnx").guessed


def test_a_side_file_that_links_out_is_put_aside(tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"scale": 1.0}))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "preprocessor_config.json").symlink_to(secret)
    found = resolve(None, model_path=folder / "m.onnx")
    assert found.guessed
    assert any("link out of its folder" in text for text in found.warnings)

"""Class names from files and from models, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from networks import onnx_model
from onnx import TensorProto, helper

import inspector
from converters.graph import Graph
from inspector.errors import UsageError
from inspector.network.outputs.labels import (
    Labels,
    count_warning,
    labels_from_metadata,
    labels_of_file,
    names_beside,
    read_labels,
)
from inspector.printable import clean_text

THREE = ("tench, Tinca tinca", "goldfish", "great white shark")

FILES = {
    "lines.txt": "tench, Tinca tinca\ngoldfish\ngreat white shark\n\n",
    "bom.txt": "\ufefftench, Tinca tinca\r\ngoldfish\r\ngreat white shark\r\n",
    "synset.txt": "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01484850 great white shark",
    "list.json": json.dumps(THREE),
    "index.json": json.dumps({"2": THREE[2], "0": THREE[0], "1": THREE[1]}),
    "name.json": json.dumps({name: i for i, name in enumerate(THREE)}),
    "keras.json": json.dumps({str(i): [f"n0144076{i}", name] for i, name in enumerate(THREE)}),
    "config.json": json.dumps(
        {"id2label": dict(enumerate(THREE)), "label2id": {"x": 0}, "model_type": "resnet"}
    ),
    "index.csv": 'index,label\n1,goldfish\n0,"tench, Tinca tinca"\n2,great white shark\n',
    "metadata.yaml": "task: classify\nnames:\n  0: tench, Tinca tinca\n  1: goldfish\n"
    "  2: great white shark\n",
    "data.yml": "nc: 3\nnames: ['tench, Tinca tinca', goldfish, great white shark]\n",
    "bare.csv": "0,tench, Tinca tinca\n1,goldfish\n2,great white shark\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_layout_gives_the_same_names(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name].encode())
    assert read_labels(tmp_path / name) == THREE


@pytest.mark.parametrize(
    "text",
    [
        "0 tabby cat\n1 dog\n2 fox\n",  # Teachable Machine
        "0: tabby cat\n1: dog\n2: fox\n",
        "1\ttabby cat\n2\tdog\n3\tfox\n",
    ],
)
def test_a_number_that_is_the_line_s_own_is_no_part_of_the_name(text, tmp_path):
    (tmp_path / "labels.txt").write_text(text)
    assert read_labels(tmp_path / "labels.txt") == ("tabby cat", "dog", "fox")


@pytest.mark.parametrize("text", ["0\n1\n2\n", "2 cars\n1 car\n0 cars\n", "0 a\n1 b\nc\n"])
def test_other_numbers_belong_to_the_names(text, tmp_path):
    (tmp_path / "labels.txt").write_text(text)
    assert read_labels(tmp_path / "labels.txt") == tuple(text.splitlines())


class TestNamesBesideTheModel:
    """One name per class, in the model's folder, or above the folder ``onnx``."""

    def test_text_and_id2label(self, tmp_path):
        model = tmp_path / "onnx" / "model.onnx"
        model.parent.mkdir()
        assert names_beside(model, 3) == Labels()
        (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}}))
        found = names_beside(model, 2)
        assert (found.names, found.source) == (("a", "b"), "config.json above the model")
        assert names_beside(model, 3) == Labels()  # those of another model
        assert names_beside(model, None) == Labels()
        (model.parent / "labelmap.txt").write_text("0 x\n1 y\n")
        assert names_beside(model, 2).names == ("x", "y")
        (model.parent / "labels.txt").write_text("one\ntwo\nthree\n")
        found = names_beside(model, 2)
        assert found.names == ("x", "y")
        assert "labels.txt beside the model is not used: 3 class names" in found.warnings[0]

    @pytest.mark.parametrize(
        "name", ["synset.txt", "classes.txt", "class_indices.json", "metadata.yaml", "labels.txt"]
    )
    @pytest.mark.parametrize("inner", ["weights", "net"])
    def test_the_names_that_frameworks_write(self, name, inner, tmp_path):
        text = {"class_indices.json": '{"b": 1, "a": 0}', "metadata.yaml": "names: {0: a, 1: b}"}
        (tmp_path / inner).mkdir()
        (tmp_path / name).write_text(text.get(name, "n01440764 a\nn01443537 b\n"))
        found = names_beside(tmp_path / inner / "model.onnx", 2)
        assert found.names == (("a", "b") if inner == "weights" else ())  # else: of another model
        assert names_beside(tmp_path / "model.onnx", 2).source == f"{name} beside the model"
        (tmp_path / inner / "saved_model.pb").write_bytes(b"")
        assert names_beside(tmp_path / inner, 2).source == f"{name} above the model"

    def test_yaml_about_something_else_is_passed_over(self, tmp_path):
        for text in ("a: 1", "names: 3", "[: bad", "&a [*a]", "", "names: {0: x}"):
            (tmp_path / "data.yaml").write_text(text)
            assert names_beside(tmp_path / "m.onnx", 2) == Labels()

    def test_no_link_out_of_the_folder_is_followed(self, tmp_path):
        (tmp_path / "secret").write_text("a\nb\n")
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "labels.txt").symlink_to(tmp_path / "secret")
        found = names_beside(folder / "m.onnx", 2)
        assert found.names == ()
        assert "labels.txt" in found.warnings[0]

    def test_a_folder_of_the_hub_opens(self, tmp_path):
        (tmp_path / "onnx").mkdir()
        for name in ("model.onnx", "model_quantized.onnx"):
            onnx.save(
                onnx_model(
                    [
                        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
                        helper.make_node("Flatten", ["p"], ["logits"]),
                    ],
                    {"x": (1, 3, 32, 32)},
                    {"logits": (1, 3)},
                ),
                tmp_path / "onnx" / name,
            )
        (tmp_path / "config.json").write_text(
            json.dumps({"id2label": {"0": "r", "1": "g", "2": "b"}})
        )
        processor = {
            "do_resize": True,
            "size": {"height": 32, "width": 32},
            "image_mean": [0.5] * 3,
        }
        processor |= {"image_std": [0.5] * 3, "do_normalize": True, "resample": 3}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        opened = inspector.load(tmp_path)
        assert opened.path == tmp_path / "onnx" / "model.onnx"
        assert opened.class_labels.names == ("r", "g", "b")
        assert opened.preprocessing.preprocess.interpolation == "bicubic"
        assert "above the model" in opened.preprocessing.evidence["mean"]


BAD = {
    "empty.txt": (b"", "no class names"),
    "hole.txt": (b"a\n\nb\n", "line 2 is empty"),
    "gap.json": (b'{"0": "a", "2": "b"}', "do not run from 0"),
    "one.csv": (b"1,a\n2,b\n", "lowest: 1"),
    "cut.json": (b'{"0": "a"', "not valid JSON"),
    "deep.json": (b"[" * 100_000, "not valid JSON"),
    "number.json": (b"3", "neither a list"),
    "nested.json": (b'{"0": {"x": 1}}', "neither a name nor a label"),
    "picture.png": (b"\x89PNG\r\n\x1a\n\xff\xfe", "UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_what_is_wrong(name, tmp_path):
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        read_labels(tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.hint


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="cannot be read"):
        read_labels(tmp_path)


def _graph(*nodes, initialisers=()):
    outputs = [helper.make_tensor_value_info("s", TensorProto.FLOAT, [1, 3])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["s"]), *nodes], "g", inputs, outputs, initialisers
    )
    return Graph(helper.make_model(graph))


METADATA = {
    "ultralytics": {"names": "{0: 'cat', 1: 'dog', 2: \"bird's\"}"},
    "json": {"labels": '["cat", "dog", "bird\'s"]'},
    "commas": {"classes": "cat, dog, bird's"},
    "lines": {"Labels": "cat\ndog\nbird's\n"},
    "hugging face": {"id2label": '{"0": "cat", "1": "dog", "2": "bird\'s"}'},
    "own first": {"names": "a,b,c", "inspector.labels": '["cat", "dog", "bird\'s"]'},
}


@pytest.mark.parametrize("kind", METADATA)
def test_metadata(kind):
    found = labels_from_metadata(METADATA[kind], _graph())
    assert found.names == ("cat", "dog", "bird's")
    assert found.source.startswith("metadata")
    assert not found.warnings


@pytest.mark.parametrize(
    "text", ["{0: __import__('os').system('touch pwned')}", "{0: 'a', 5: 'b'}", "[" * 50_000, "{"]
)
def test_metadata_that_is_no_list_of_names_is_warned_about_and_never_run(
    text, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found = labels_from_metadata({"names": text}, _graph())
    assert found.names == ()
    assert len(found.warnings) == 1
    assert "'names'" in found.warnings[0]
    assert not list(tmp_path.iterdir())


def test_zipmap_names_stand_in_the_order_of_the_scores():
    strings = helper.make_node(
        "ZipMap", ["s"], ["m"], domain="ai.onnx.ml", classlabels_strings=["b", "a", "c"]
    )
    assert labels_from_metadata({}, _graph(strings)).names == ("b", "a", "c")
    integers = helper.make_node(
        "ZipMap", ["s"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[7, 3, 5]
    )
    found = labels_from_metadata({}, _graph(integers))
    assert found.names == ("7", "3", "5")
    assert "ZipMap" in found.source
    table = onnx.numpy_helper.from_array(np.array(["x", "y", "z"], dtype=object), "table")
    extractor = helper.make_node(
        "ArrayFeatureExtractor", ["table", "s"], ["best"], domain="ai.onnx.ml"
    )
    assert labels_from_metadata({}, _graph(extractor, initialisers=[table])).names == (
        "x",
        "y",
        "z",
    )


def test_the_shared_zip_map_models(shared):
    model = onnx.load(shared / "zoo" / "customvision_computer_mltools.onnx")  # noqa: TID251 - a test
    found = labels_from_metadata({}, Graph(model))
    assert found.names == ("controller", "keyboard", "laptop", "monitor", "mouse")


def test_untrusted_text_becomes_one_short_printable_line():
    assert clean_text("a\x1b[2Jb\r\nc\u202ed\u200be\x00") == "a [2Jb c d e"
    assert len(clean_text("x" * 10_000_000)) == 200
    assert clean_text("x\x07" * 300, limit=None) == " ".join("x" * 300)
    found = labels_from_metadata(
        {"names": json.dumps(["\x1b]0;owned\x07cat", "d" * 1000])}, _graph()
    )
    assert found.names[0] == "]0;owned cat"
    assert len(found.names[1]) == 200


def test_count_warning():
    assert count_warning(THREE, 3) == ""
    assert count_warning((), 3) == ""
    assert count_warning(THREE, None) == ""
    assert count_warning(("no", "yes"), 1) == ""
    assert "3 class names for 5 classes" in count_warning(THREE, 5)
    assert "background" in count_warning(THREE, 4)
    assert "background" in count_warning(THREE, 2)


@pytest.mark.parametrize("name", ["synset.txt", "keras.json"])
def test_wordnet_ids_in_front_of_names_are_kept(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    found = labels_of_file(tmp_path / name)
    assert found.names == read_labels(tmp_path / name)
    assert found.ids[0] in {"n01440764", "n01440760"}
    (tmp_path / "plain.txt").write_text("tench\ngoldfish\n")
    assert labels_of_file(tmp_path / "plain.txt").ids == ()

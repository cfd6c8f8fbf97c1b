"""Which task outputs are read as, by their shapes, names and values alone."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from networks import node, onnx_model
from planted_tasks import load

from converters.graph import Graph
from inspector.errors import UsageError
from inspector.network.classifier.scores import find_scores, is_doubtful
from inspector.network.outputs.embedding import normalised_outputs
from inspector.network.outputs.score_tensors import ends_as_features
from inspector.photos.geometry import Geometry
from inspector.tasks import Outputs, Sample, find_reading


def _graph(*nodes, **outputs):
    constants = {"w": np.ones((12, 3, 4, 4), np.float32), "scale": np.float32(64)}
    proto = onnx_model(list(nodes), {"x": [1, 3, 16, 16]}, outputs, constants, opset=17)
    return Graph(proto)


def test_a_vector_of_any_fixed_length_is_an_embedding():
    """Unit vectors that are scaled by a number (64 in NormFace and ArcFace)."""
    graph = _graph(
        node("Conv", "x w", "c"),
        node("GlobalAveragePool", "c", "m"),
        node("Flatten", "m", "f"),
        node("LpNormalization", "f", "unit", axis=1, p=2),
        node("Mul", "scale unit", "out"),
        out=[1, 12],
    )
    assert normalised_outputs(graph) == ("out",)
    assert "an embedding, not scores" in find_scores(graph).why


def test_the_unit_vector_of_one_image_is_an_embedding_without_an_axis_of_samples():
    nodes = [
        node("Conv", "x w", "c"),
        node("ReduceMean", "c", "f", axes=[2, 3], keepdims=0),
        node("LpNormalization", "f", "unit", axis=1, p=2),
        node("Gather", "unit first", "out", axis=0),
    ]
    constants = {"w": np.ones((12, 3, 4, 4), np.float32), "first": np.array(0)}
    proto = onnx_model(nodes, {"x": [1, 3, 16, 16]}, {"out": [12]}, constants, opset=17)
    scores = find_scores(Graph(proto))
    assert not scores.classifier
    assert normalised_outputs(scores.graph) == ("out",)


def test_the_numbers_of_the_best_classes_of_a_reader_are_no_scores():
    scores = find_scores(
        _graph(
            node("Conv", "x w", "c"),
            node("ReduceMax", "c", "rows", axes=[2], keepdims=0),
            node("Transpose", "rows", "steps", perm=[2, 0, 1]),
            node("ArgMax", "steps", "best", axis=2, keepdims=0),
            node("Transpose", "best", "ids", perm=[1, 0]),
            ids=[1, 13],
        )
    )
    assert not scores.classifier


@pytest.mark.parametrize("ending", ["z", "p"])
def test_scores_of_one_image_need_no_axis_of_samples(ending):
    nodes = [
        node("Conv", "x w", "c"),
        node("ReduceMean", "c", "z", axes=[0, 2, 3], keepdims=0),
        node("Softmax", "z", "p", axis=0),
    ]
    scores = find_scores(_graph(*nodes, **{ending: [12]}))
    assert (scores.classifier, scores.tensor, scores.classes, scores.axis) == (True, "z", 12, 1)


@pytest.mark.parametrize("declared", [[], [1, "k"], [1, 12]], ids=["nothing", "free", "whole"])
def test_an_output_of_which_the_file_says_too_little_is_measured(tmp_path, declared):
    """Paddle's exporter declares outputs without any axes."""
    nodes = [
        node("Conv", "x w", "c"),
        node("GlobalAveragePool", "c", "m"),
        node("Shape", "x", "sizes"),
        node("Slice", "sizes start stop", "n"),
        node("Concat", "n rest", "to", axis=0),
        node("Reshape", "m to", "z"),
        node("Softmax", "z", "p", axis=-1),
    ]
    constants = {
        "w": np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32),
        "start": np.array([0]),
        "stop": np.array([1]),
        "rest": np.array([-1]),
    }
    proto = onnx_model(nodes, {"x": [1, 3, 16, 16]}, {"p": declared}, constants, opset=17)
    assert is_doubtful(find_scores(Graph(proto)), 1) == (declared != [1, 12])
    path = tmp_path / "paddle.onnx"
    onnx.save(proto, path)
    scores = load(path).scores
    assert (scores.classifier, scores.classes, scores.activation) == (True, 12, "softmax")


def test_numbers_beside_as_many_boxes_are_no_classes():
    nodes = [
        node("Conv", "x w", "c"),
        node("ReduceMean", "c", "z", axes=[0, 2, 3], keepdims=0),
        node("Sigmoid", "z", "scores"),
        node("Reshape", "c four", "r"),
        node("Slice", "r start stop", "boxes"),
    ]
    constants = {
        "w": np.ones((12, 3, 4, 4), np.float32),
        "four": np.array([12, -1]),
        "start": np.array([0, 0]),
        "stop": np.array([12, 4]),
    }
    outputs = {"scores": [12], "boxes": [12, 4]}
    proto = onnx_model(nodes, {"x": [1, 3, 16, 16]}, outputs, constants, opset=17)
    scores = find_scores(Graph(proto))
    assert not scores.classifier
    assert "one score for each of the 12 rows of 'boxes'" in scores.why


def _read(values, size=(32, 256), labels=(), wanted=None):
    scores = SimpleNamespace(
        outputs=[SimpleNamespace(name=name, shape=(1, *v.shape)) for name, v in values.items()],
        measure=lambda names: {name: values[name][None] for name in names},
        graph=None,
        classifier=False,
        classifies=False,
        why="planted",
    )
    return find_reading(Outputs(scores, tuple(labels), {}, size), wanted)


def _noise(*shape):
    return np.random.default_rng(0).normal(size=shape)


def test_a_table_is_no_plane():
    """A reader's logits (T, K), without names, are of another shape than the image."""
    assert _read({"out": _noise(32, 12)}) is None
    assert _read({"out": _noise(4, 32)}).task == "dense"
    assert _read({"out": _noise(55, 74)}, size=(228, 304)).task == "dense"


@pytest.mark.parametrize("shape", [(256, 14, 14), (64, 56, 56), (1024, 8, 8)])
def test_a_map_without_a_word_that_has_the_channels_of_a_layer_is_asked_about(shape):
    side = 16 * shape[1]
    with pytest.raises(UsageError, match=f"as features, {shape[0]} channels") as caught:
        _read({"out": _noise(*shape)}, size=(side, side))
    assert "--task segmenter" in caught.value.hint
    assert "out[i,j,k]" in caught.value.hint
    for own in (
        _read({"out": _noise(*shape)}, size=(side, side), wanted="segmenter"),
        _read({"logits": _noise(*shape)}, size=(side, side)),
        _read({"out": _noise(*shape)}, size=(side, side), labels=["a"] * shape[0]),
    ):
        assert (own.task, own.classes) == ("segmenter", shape[0])
    assert _read({"out": _noise(19, *shape[1:])}, size=(side, side)).task == "segmenter"


@pytest.mark.parametrize(
    ("nodes", "features"),
    [
        ([node("Conv", "x w", "out")], False),
        ([node("Conv", "x w", "c"), node("Relu", "c", "out")], True),
        ([node("Conv", "x w", "c"), node("Sigmoid", "c", "g"), node("Mul", "c g", "out")], True),
        ([node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Identity", "r", "out")], True),
        ([node("Conv", "x w", "c"), node("Softmax", "c", "out", axis=1)], False),
    ],
    ids=["scores", "relu", "silu", "relu and identity", "softmax"],
)
def test_what_ends_in_an_activation_is_a_map_of_features(nodes, features):
    assert ends_as_features(_graph(*nodes, out=[1, 12, 13, 13]), "out") == features


def test_places_that_lie_on_one_axis_are_a_map_and_no_text():
    shares = np.exp(_noise(5, 16 * 24))
    shares /= shares.sum(axis=0)
    for values in ({"out": shares}, {"out": shares.T}):
        assert _read(values, size=(32, 48)) is None  # nothing says that these are classes
        found = _read(values, size=(32, 48), labels=["a", "b", "c", "d", "e"])
        assert (found.task, found.classes, found.grid) == ("segmenter", 5, (16, 24))
        sample = Sample(values, Geometry.identity((32, 48)))
        best = shares.argmax(axis=0)
        for item in found.items(sample):
            want = values["out"][:, item.index] if found.channel else values["out"][item.index]
            own = item.target.of({"out": values["out"][None]})
            assert own == pytest.approx(want[best == item.index].sum())
    assert _read({"out": shares.T[:24]}, size=(32, 48)).task == "sequence"
    assert _read({"out": shares.T[:40]}, size=(32, 48)) is None  # no step per some columns


def test_of_several_planes_the_first_of_the_largest_is_taken_and_it_is_said():
    values = {"d1": _noise(1, 16, 24), "d0": _noise(1, 32, 48), "d2": _noise(1, 32, 48)}
    found = _read(values, size=(32, 48))
    assert (found.task, found.output) == ("dense", "d0")
    assert "'d1' and 1 more left aside, --task dense:d1 takes it" in found.why
    assert _read(values, size=(32, 48), wanted="dense:d2").output == "d2"
    with pytest.raises(UsageError, match="not a task and an output") as caught:
        _read(values, size=(32, 48), wanted="dense:d3")
    assert "dense:d0" in caught.value.hint


def test_an_output_that_cannot_be_read_is_not_replaced_by_another():
    values = {"embedding": _noise(12), "words": np.array(["cat", "dog"])}
    assert _read(values).output == "embedding"
    with pytest.raises(UsageError, match="do not fit the task 'embedding'"):
        _read(values, wanted="embedding:words")


def test_the_score_beside_a_map_of_anomalies_is_left_aside():
    values = {"pred_score": _noise(1), "anomaly_map": _noise(1, 32, 48)}
    assert _read(values, size=(32, 48)).output == "anomaly_map"


def test_vectors_at_each_pixel_are_no_classes():
    assert _read({"flow": _noise(2, 32, 48)}, size=(32, 48)) is None
    assert _read({"out": _noise(2, 32, 48)}, size=(32, 48)).task == "segmenter"

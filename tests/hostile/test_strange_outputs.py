"""What a hostile network gives for a photo, and what is fed to one: refused, never a crash."""

import io
import signal
import struct
import time
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file
from converters.numpy_file import read_npz
from inspector.cli import check
from inspector.errors import ImageRefused, UnknownTarget, UsageError
from inspector.methods import methods
from inspector.network.inputs.choice import read_feeds
from inspector.photos.bands import Bands, open_photo
from inspector.photos.preprocess import Preprocess
from inspector.tasks import Item, Outputs, Sample, find_reading, tasks
from inspector.tasks import detector as detecting
from inspector.tasks.detector.rows import Layout, Rows
from inspector.tasks.embedding import Embedding
from inspector.tasks.items import ItemSpec
from inspector.tasks.words import read_words
from inspector.verdicts import LONGEST, MOST_WEIGHTED, method_verdicts, verdicts

SIDE = 8
SAMPLE = Sample({}, SimpleNamespace(input=(SIDE, SIDE)), "photo.png")


def sums(value, outputs=()):
    """A network that adds up an input ``ids`` beside its picture."""
    nodes = [helper.make_node("Identity", ["ids"], ["y"]), helper.make_node("Relu", ["x"], ["r"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE)), value],
        [*outputs, helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    return onnx_file.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9)).graph


def npy(header, version=(1, 0)):
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + bytes(64)


HEADERS = [
    b"{'a': (\n",
    b"{'descr': '<f4L', 'shape': (1L,\n  \t)) '''\n",
    b"  1\n    2\n 3 {\n",
    b"(" * 9000,
    b"-" * 9000 + b"1",
    b"{'descr': [[[['a', '<f4']]]], 'fortran_order': False, 'shape': (1, 4)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e9, 4)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4)}",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 4)}" % 2**70,
    b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,)}",
    b"{'descr': '<U500000000', 'fortran_order': False, 'shape': (4, 4000)}",
    b"\xff\xfe{",
]


@pytest.mark.parametrize("header", HEADERS)
def test_the_header_of_an_array_is_not_believed(header, tmp_path):
    path = tmp_path / "ids.npy"
    graph = sums(helper.make_tensor_value_info("ids", TensorProto.FLOAT, (1, 4)))
    for version in ((1, 0), (2, 0), (3, 0)):
        data = npy(header, version)
        path.write_bytes(data)
        with pytest.raises(UsageError, match=r"cannot be fed: 'ids' .* the inputs"):
            read_feeds({"ids": path}, graph)
        with pytest.raises(ImageRefused, match=r"ids\.npy: not a NumPy array"):
            open_photo(path, Bands(Preprocess((SIDE, SIDE)), 2))


def archive(kind):
    """A ``.npz`` of one array: packed in a way that nobody reads, locked, damaged or too large."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.npy", b"" if kind == "empty" else bytes(5000))
    data = bytearray(stream.getvalue())
    central = data.index(b"PK\x01\x02")
    if kind == "method":
        data[8:10] = data[central + 10 : central + 12] = b"\x63\0"
    elif kind == "locked":
        data[6] |= 1
        data[central + 8] |= 1
    elif kind == "damaged":
        data[36:40] = b"\xff\xff\xff\xff"
    elif kind == "cut":
        data = data[:50]
    return bytes(data)


@pytest.mark.parametrize("kind", ["method", "locked", "damaged", "cut", "empty", "plain"])
def test_an_archive_that_cannot_be_unpacked_is_no_array(kind):
    with pytest.raises(ValueError, match=r"\w"):
        read_npz(archive(kind), 1000 if kind == "plain" else 10_000)


def test_one_number_does_not_fill_gigabytes():
    shape = (100_000, 100_000)
    graph = sums(helper.make_tensor_value_info("ids", TensorProto.FLOAT, shape))
    with pytest.raises(UsageError, match=r"takes 10,000,000,000 numbers, more than 64 MiB"):
        read_feeds({"ids": 1}, graph)


@pytest.mark.parametrize("text", ["a@{},1", "a@1,-{}", "box:0,0,{},1", "box:-{},0,1,1"])
def test_numbers_outside_of_any_photo_are_no_place(text):
    for digits in ("9" * 20, "9" * 400):
        with pytest.raises(UnknownTarget, match="outside of any photo"):
            read_words(text.format(digits))


# -- what a reading makes of a photo --------------------------------------------------------------


def item(score=0.9, box=(0.0, 0.0, 4.0, 4.0)):
    return Item("cat#1", SimpleNamespace(tensor="y"), score, 0, box)


def spec(every, chosen=None):
    """Items as a reading gives them; a function stands for what it raises."""

    def given(value):
        return value() if callable(value) else value

    reading = SimpleNamespace(
        items=lambda _: given(every),
        select=lambda _text, items, _sample: items if chosen is None else given(chosen),
    )
    return ItemSpec(reading, ("all",))


def stumble():
    return np.zeros(3)[7]


@pytest.mark.parametrize("made", [spec(stumble), spec([item()], stumble)])
def test_outputs_that_do_not_fit_one_another_refuse_the_photo(made):
    with pytest.raises(ImageRefused, match=r"photo\.png: .* laid out otherwise .*IndexError"):
        made.resolve(SAMPLE)


@pytest.mark.parametrize("bad", [item(score=np.nan), item(box=(0.0, np.inf, 1.0, 1.0))])
def test_items_that_are_not_finite_are_none(bad):
    found, every = spec([bad, item()]).resolve(SAMPLE)
    assert [one.score for one in found] == [one.score for one in every] == [0.9]
    with pytest.raises(ImageRefused, match="not finite"):
        spec([bad]).resolve(SAMPLE)
    assert spec([item(score=None, box=None)]).resolve(SAMPLE)[0][0].score is None


@pytest.mark.parametrize("vector", [np.zeros(5), np.full(5, np.nan), np.full(5, np.inf)])
@pytest.mark.parametrize("side", ["photo", "reference"])
def test_a_vector_without_a_direction_is_like_nothing(vector, side):
    own, other = (vector, np.ones(5)) if side == "photo" else (np.ones(5), vector)
    reading = Embedding(SimpleNamespace(references={"v": other}), "v", 5, "test")
    with pytest.raises(ImageRefused, match="no direction"):
        reading.items(Sample({"v": own}, SAMPLE.geometry, "photo.png"))


def test_hundreds_of_thousands_of_boxes_are_compared_a_hundred_times_at_most(monkeypatch):
    count = 300_000
    boxes = np.tile([0.0, 0.0, 4.0, 4.0], (count, 1))
    rows = Rows(boxes, np.full(count, 0.9), np.zeros(count, int))
    layout = Layout("test", "boxes", ("y",), 1, False, lambda _: rows, lambda row, _: ("y", (row,)))
    asked = []
    measure = detecting.overlaps
    monkeypatch.setattr(detecting, "overlaps", lambda *two: asked.append(1) or measure(*two))
    reading = detecting.Detector(SimpleNamespace(labels=(), scores=None), layout)
    assert reading._kept(rows) == [0]
    assert len(asked) == 1
    apart = replace(rows, boxes=boxes + 8.0 * np.arange(count)[:, None])
    assert reading._kept(apart) == list(range(detecting.MOST))
    assert len(asked) <= 1 + detecting.MOST


def test_a_task_that_stumbles_over_outputs_is_not_theirs(monkeypatch):
    scores = SimpleNamespace(classifier=False, outputs=(), measure=None, why="no scores")
    outputs = Outputs(scores, (), {}, (SIDE, SIDE))
    for one in tasks().values():
        broken = SimpleNamespace(**vars(one) | {"recognise": lambda *_: stumble()})
        monkeypatch.setitem(tasks(), one.name, broken)
    assert find_reading(outputs) is None
    with pytest.raises(UsageError, match="do not fit the task 'detector'"):
        find_reading(outputs, "detector")


def test_outputs_of_text_are_not_read():
    values = {"y": np.ones((1, 4)), "text": np.array(["a"], object), "map": [{1: 2.0}], "n": 3.0}
    scores = SimpleNamespace(outputs=(), measure=lambda _: values)
    assert list(Outputs(scores, (), {}, (SIDE, SIDE)).probe("y", "text", "map", "n")) == ["y"]


# -- long networks --------------------------------------------------------------------------------


def chain(nodes, convolutions, path):
    """A network of so many ReLU, and convolutions of one channel among them."""
    made, name = [helper.make_node("Conv", ["x", "first"], ["t"])], "t"
    for number in range(nodes):
        inputs = [name, "w"] if number < convolutions else [name]
        name = f"t{number}"
        made.append(helper.make_node("Conv" if len(inputs) > 1 else "Relu", inputs, [name]))
    made.append(helper.make_node("GlobalAveragePool", [name], ["p"]))
    made.append(helper.make_node("Flatten", ["p"], ["y"]))
    ones = {"first": (2, 3, 1, 1), "w": (2, 2, 1, 1)}
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2))],
        [numpy_helper.from_array(np.ones(s, np.float32) / 2, n) for n, s in ones.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return inspector.load(path, device="cpu", preprocess="unit")


@pytest.mark.parametrize(
    ("nodes", "convolutions", "said"),
    [(LONGEST, 0, "10,003 nodes"), (3100, MOST_WEIGHTED, "2,001 nodes with weights")],
)
def test_networks_that_nobody_trains_are_not_tried(nodes, convolutions, said, tmp_path):
    found = method_verdicts(chain(nodes, convolutions, tmp_path / "long.onnx"))
    assert set(found) == set(methods())
    assert all(text.startswith(f"not tried: {said}") for text in found.values())


def test_of_a_long_network_what_needs_no_gradient_is_tried_first(tmp_path, monkeypatch):
    tried = []

    def try_(_explainer, names):
        tried.append(list(names))
        return dict.fromkeys(names, "works")

    monkeypatch.setattr("inspector.verdicts._tried", try_)
    long = chain(3100, 0, tmp_path / "long.onnx")
    assert set(dict(verdicts(long))) == set(methods())
    first, *last = tried
    assert not any(methods()[name].differentiates for name in first)
    assert all(methods()[name].differentiates for names in last for name in names)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer to end a trial with")
def test_check_keeps_what_it_knows_when_time_is_up(monkeypatch):
    names = list(methods())

    def slow(_):
        yield names[0], "works"
        time.sleep(60)
        yield names[1], "works"

    monkeypatch.setattr("inspector.verdicts.verdicts", slow)
    begin = time.monotonic()
    found = check._methods(None, 0.4)
    assert time.monotonic() - begin < 30
    assert list(found) == names
    assert found.pop(names[0]) == "works"
    assert set(found.values()) == {check._NOT_TRIED}

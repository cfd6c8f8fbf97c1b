"""Covers on crops: where they are used, what is checked, and networks of other kinds."""

import numpy as np
import onnx
import pytest
from networks import node, onnx_model

import inspector
from inspector.engines.local_stages import LocalStages
from inspector.evidence import local_forward
from inspector.evidence.local_forward import LocalForward
from inspector.network.receptive_fields import local_stages
from inspector.network.receptive_fields.local_stages import Grid
from inspector.photos.occluder import windows_of
from inspector.photos.preprocess import Preprocess

SIZE = (33, 38)
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_fixed_costs(monkeypatch):
    """Loading costs more than the passes of a small network; here crops shall be used."""
    for name in ("PER_SESSION", "PER_WEIGHT", "PER_NODE", "COPIED"):
        monkeypatch.setattr(local_stages, name, 0)
    monkeypatch.setattr(local_stages, "GAIN", 0.95)


def weights(*shape):
    return (RNG.standard_normal(shape) * 0.4).astype(np.float32)


def conv(source, made, out, channels, *, stride=1, size=3, **more):
    name = f"w_{out}"
    CONSTANTS[name] = weights(made, channels, size, size)
    pads = [size // 2] * 4
    return node("Conv", f"{source} {name}", out, pads=pads, strides=[stride] * 2, **more)


CONSTANTS = {}


def body(source="x"):
    """Three convolutions, one with a stride, and a pooling with a linear layer."""
    CONSTANTS["w_y"] = weights(8, 5)
    return [
        conv(source, 6, "a", 3),
        node("Relu", "a", "b"),
        conv("b", 8, "c", 6, stride=2),
        node("Relu", "c", "d"),
        conv("d", 8, "e", 8),
        node("Relu", "e", "f"),
        node("GlobalAveragePool", "f", "g"),
    ]


def head(flatten=None):
    last = flatten or node("Flatten", "g", "h")
    return [last, node("Gemm", "h w_y", "y")]


def opened(tmp_path, nodes, shape, *, opset=16, out=None, size=SIZE, **options):
    path = tmp_path / "network.onnx"
    model = onnx_model(nodes, {"x": shape}, out or {"y": None}, CONSTANTS, opset=opset)
    used = {name for one in nodes for name in one.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, path)
    return inspector.load(
        path, device="cpu", preprocess=Preprocess(size=size, scale=255.0), **options
    )


def compare(model, *, local, fetch=("y",), window=6, stride=4, size=SIZE):
    """Covers on crops against whole passes."""
    network = model.model
    sizes = network.input.sizes(size)
    image = RNG.standard_normal((network.input.channels, *size)).astype(np.float32)
    boxes = list(windows_of(sizes, window, stride))
    assert len(boxes) >= local_forward.FEWEST
    found = LocalForward(network, image, boxes, np.full(len(image), 0.3, np.float32), fetch)
    assert found.local == local
    seen = []
    for batch in found.batches(32):
        some = [boxes[number] for number in batch]
        values, wanted = found(some, fetch), found.whole(some, fetch)
        for name in fetch:
            scale = np.abs(wanted[name]).max()
            np.testing.assert_allclose(values[name], wanted[name], atol=1e-5 * scale)
        seen += batch
    assert sorted(seen) == list(range(len(boxes)))


@pytest.mark.parametrize(
    ("shape", "flatten"),
    [
        (["N", 3, *SIZE], None),
        (["N", 3, "H", "W"], None),
        ([1, 3, *SIZE], None),
        ([1, 3, *SIZE], "fixed"),
        (["N", 3, *SIZE], "fixed"),
    ],
)
def test_free_and_fixed_batches(tmp_path, shape, flatten):
    CONSTANTS["one"] = np.array([1, 8], np.int64)
    last = node("Reshape", "g one", "h") if flatten else None
    compare(opened(tmp_path, [*body(), *head(last)], shape), local=True)


def test_channels_last(tmp_path):
    first = node("Transpose", "x", "n", perm=[0, 3, 1, 2])
    nodes = [first, *body("n"), *head()]
    compare(opened(tmp_path, nodes, ["N", *SIZE, 3]), local=True)


def test_a_resize_in_the_graph_runs_whole(tmp_path):
    CONSTANTS["scales"] = np.array([1, 1, 0.5, 0.5], np.float32)
    first = node("Resize", "x  scales", "r", mode="linear")
    first.input.insert(1, "")
    nodes = [first, *body("r"), *head()]
    compare(opened(tmp_path, nodes, ["N", 3, *SIZE]), local=False)


def test_a_gate_over_the_whole_map_ends_the_local_part(tmp_path):
    gate = [
        node("GlobalAveragePool", "b", "p"),
        node("Sigmoid", "p", "q"),
        node("Mul", "b q", "gated"),
    ]
    plain = body()
    nodes = [*plain[:2], *gate, conv("gated", 8, "c", 6, stride=2), *plain[3:], *head()]
    model = opened(tmp_path, nodes, ["N", 3, *SIZE])
    compare(model, local=True)
    (stages,) = model.model.runtime.parts.values()
    assert [cut.tensor for cut in stages.plan.cuts] == ["x", "b"]


def test_a_constant_that_knows_places_ends_the_local_part(tmp_path):
    CONSTANTS["places"] = weights(1, 3, *SIZE)
    nodes = [node("Add", "x places", "s"), *body("s"), *head()]
    compare(opened(tmp_path, nodes, ["N", 3, *SIZE]), local=False)


def test_several_outputs_as_of_a_detector(tmp_path):
    nodes = [*body()[:-1], conv("d", 4, "coarse", 8, stride=2), conv("f", 4, "fine", 8)]
    model = opened(tmp_path, nodes, ["N", 3, *SIZE], out={"coarse": None, "fine": None})
    compare(model, local=True, fetch=("coarse", "fine"))


def test_levels_come_out_exactly(tmp_path):
    CONSTANTS["s"], CONSTANTS["z"] = np.float32(0.02), np.int8(-3)
    nodes = []
    for one in body():
        nodes.append(one)
        if one.op_type in {"Relu", "GlobalAveragePool"}:
            name = one.output[0]
            one.output[0] = f"{name}_real"
            nodes += [
                node("QuantizeLinear", f"{name}_real s z", f"{name}_level"),
                node("DequantizeLinear", f"{name}_level s z", name),
            ]
    compare(opened(tmp_path, [*nodes, *head()], ["N", 3, *SIZE]), local=True)


@pytest.mark.parametrize("space", [1, 3])
def test_signals_and_volumes_run_whole(tmp_path, space):
    sizes = {1: (150,), 3: (8, 12, 10)}[space]
    CONSTANTS["w_s"] = weights(4, 1, *[3] * space)
    CONSTANTS["w_y"] = weights(4, 5)
    nodes = [
        node("Conv", "x w_s", "a", pads=[1] * (2 * space)),
        node("Relu", "a", "f"),
        node("GlobalAveragePool", "f", "g"),
        *head(),
    ]
    size = (1, 150) if space == 1 else (96, 10)
    model = opened(tmp_path, nodes, ["N", 1, *sizes], size=size)
    compare(model, local=False, window=2, stride=2, size=size)


# -- in a method ----------------------------------------------------------------------------------


def explained(model, **options):
    pixels = np.random.default_rng(3).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return model.explain(pixels, "occlusion:window=6,stride=4", target="1", **options)


def test_a_map_is_that_of_whole_passes(tmp_path, monkeypatch):
    model = opened(tmp_path, [*body(), *head()], ["N", 3, *SIZE])
    found = explained(model)
    assert 0 <= found.explanation.facts["occlusion"]["local_difference"] <= 1e-5
    monkeypatch.setattr(local_forward, "FEWEST", 10_000)
    wanted = explained(model)
    assert "local_difference" not in wanted.explanation.facts["occlusion"]
    scale = abs(wanted.explanation.attribution.score)
    np.testing.assert_allclose(found.attribution, wanted.attribution, rtol=0, atol=1e-5 * scale)


def test_stages_that_give_something_else_are_found_out(tmp_path, monkeypatch):
    model = opened(tmp_path, [*body(), *head()], ["N", 3, *SIZE])
    right = LocalStages.run

    def wrong(self, *arguments):
        return {name: value * 1.001 for name, value in right(self, *arguments).items()}

    monkeypatch.setattr(LocalStages, "run", wrong)
    found = explained(model)
    assert any("all of them were run whole" in text for text in found.explanation.warnings)
    monkeypatch.setattr(local_forward, "FEWEST", 10_000)
    np.testing.assert_array_equal(found.attribution, explained(model).attribution)


def test_stages_that_do_not_run_are_made_for_one_photo_alone(tmp_path):
    nodes = [
        *body(),
        node("Flatten", "g", "v"),
        node("Shape", "x", "shape"),
        node("Cast", "shape", "lengths", to=1),
    ]
    nodes += [
        node("ReduceMax", "lengths", "most", keepdims=0),
        node("Div", "v most", "h"),
        head()[1],
    ]
    model = opened(tmp_path, nodes, ["N", 3, *SIZE])
    compare(model, local=False)
    assert list(model.model.runtime.parts.values()) == [None]


def test_few_covers_run_whole(tmp_path):
    model = opened(tmp_path, [*body(), *head()], ["N", 3, *SIZE])
    image = np.zeros((3, *SIZE), np.float32)
    found = LocalForward(model.model, image, [(0, 0, 4, 4)] * 63, np.ones(3, np.float32), ["y"])
    assert not found.local


def test_loading_the_stages_must_pay(tmp_path, monkeypatch):
    monkeypatch.setattr(local_stages, "PER_SESSION", 2e8)
    model = opened(tmp_path, [*body(), *head()], ["N", 3, *SIZE])
    compare(model, local=False)


# -- places that pixels reach ---------------------------------------------------------------------


@pytest.mark.parametrize("grid", [Grid(9, 2, -3, 3), Grid(7, 3, 0, 1), Grid(20, 1, -2, 0)])
def test_places_that_depend_on_pixels(grid):
    for first in range(20):
        for stop in range(first + 1, 20):
            depending = [
                y
                for y in range(grid.length)
                if grid.stride * y + grid.high >= first and grid.stride * y + grid.low < stop
            ]
            start, end = grid.reached(first, stop)
            assert list(range(start, end)) == depending


# -- patches of their own -------------------------------------------------------------------------


@pytest.mark.parametrize("last", [False, True])
def test_boxes_that_hold_patches_of_their_own(tmp_path, last):
    first = [node("Transpose", "x", "n", perm=[0, 3, 1, 2])] if last else []
    shape = ["N", *SIZE, 3] if last else ["N", 3, *SIZE]
    model = opened(tmp_path, [*first, *body("n" if last else "x"), *head()], shape)
    image = RNG.standard_normal((3, *SIZE)).astype(np.float32)
    boxes = list(windows_of(SIZE, 6, 4))
    patches = {
        box: RNG.standard_normal((3, box[2] - box[0], box[3] - box[1])).astype(np.float32)
        for box in boxes
    }
    found = LocalForward(model.model, image, boxes, patches, ["y"])
    assert found.local
    for number, box in enumerate(boxes[::7]):
        copy = image.copy()
        copy[:, box[0] : box[2], box[1] : box[3]] = patches[box]
        wanted = model.model.forward(copy[None], ["y"])["y"]
        np.testing.assert_allclose(found([box], ["y"])["y"], wanted, atol=1e-5, err_msg=number)


def test_images_in_turn_share_what_is_loaded(tmp_path):
    model = opened(tmp_path, [*body(), *head()], ["N", 3, *SIZE])
    image, boxes = np.zeros((3, *SIZE), np.float32), list(windows_of(SIZE, 8, 8))
    assert len(boxes) < local_forward.FEWEST
    for images, local in ((1, False), (8, True)):
        found = LocalForward(
            model.model, image, boxes, np.ones(3, np.float32), ["y"], images=images
        )
        assert found.local == local

"""Where the cells of a layer lie on the input: each kind of graph that moves space."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import inspector
from converters.graph import Graph
from inspector.errors import MethodRefused
from inspector.heatmap import Attribution, Heatmap, lay_on_input, sample_placed, upsample
from inspector.network.coordinates.placement import Grid, Line, Placement, Tracer
from inspector.photos.geometry import Geometry

SIZE = 64
SQUARE = (8, 24, 38, 54)  # rows, columns
END = 1 << 40


def weights():
    """A filter for "redder than green", and a class that grows with it."""
    filters = np.zeros((2, 3, 3, 3), np.float32)
    filters[0, 0], filters[0, 1] = 1 / 9, -1 / 9
    filters[1] = -0.01
    linear = np.array([[0.02, 20.0], [0.01, 0.03]], np.float32)
    return {"w": filters, "b": np.array([-0.05, 0], np.float32), "l": linear}


def made(body, shape=(1, 3, SIZE, SIZE), output="r", **constants):
    dims = ",".join(map(str, shape))
    last = "float[1,2] logits" if output == "logits" else f"float {output}"
    text = f"g (float[{dims}] x) => ({last}) {{ {body} }}"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    if output == "r":
        model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, value in {**weights(), **constants}.items():
        if f"{name})" in body or f"{name}," in body:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def placed(body, *, shape=(1, 3, SIZE, SIZE), folded=False, **constants):
    graph = Graph(made(body, shape, **constants))
    return Tracer(graph, "x", shape[2:], dict).placement("r", folded=folded)


CONV = " c = Conv<pads=[1,1,1,1]>(t, w, b) r = Relu(c)"
FLIP = {"s": [-1], "e": [-END], "a": [3], "p": [-1]}
MOVES = {
    "mirrored": ("t = Slice(x, s, e, a, p)", FLIP, (0, 1), (63, -1), False),
    "upside down": ("t = Slice(x, s, e, a, p)", {**FLIP, "a": [2]}, (63, -1), (0, 1), False),
    "transposed": ("t = Transpose<perm=[0,1,3,2]>(x)", {}, (0, 1), (0, 1), True),
    "turned": (
        "u = Transpose<perm=[0,1,3,2]>(x) t = Slice(u, s, e, a, p)",
        FLIP,
        (63, -1),
        (0, 1),
        True,
    ),
    "transposed by letters": ('t = Einsum<equation="bchw->bcwh">(x)', {}, (0, 1), (0, 1), True),
    "mirrored by a matrix": (
        "t = MatMul(x, m)",
        {"m": np.eye(SIZE, dtype=np.float32)[::-1]},
        (0, 1),
        (63, -1),
        False,
    ),
    "upside down by a matrix": (
        "t = MatMul(m, x)",
        {"m": np.eye(SIZE, dtype=np.float32)[::-1]},
        (63, -1),
        (0, 1),
        False,
    ),
    "cropped": (
        "t = Slice(x, s, e, a)",
        {"s": [0, 20], "e": [40, 60], "a": [2, 3]},
        (0, 1),
        (20, 1),
        False,
    ),
    "border on one side": (
        "t = Pad(x, q)",
        {"q": [0, 0, 0, 20, 0, 0, 0, 0]},
        (0, 1),
        (-20, 1),
        False,
    ),
}


@pytest.mark.parametrize("kind", MOVES)
def test_a_grid_that_was_moved_lies_where_it_looked(kind):
    body, constants, rows, columns, swapped = MOVES[kind]
    found = placed(body + CONV, **{k: np.array(v) for k, v in constants.items()})
    (grid,) = found.grids
    assert (grid.rows.offset, grid.rows.stride) == rows
    assert (grid.columns.offset, grid.columns.stride) == columns
    assert grid.swapped is swapped
    assert found.count is None


def test_convolutions_without_padding_leave_a_border():
    body = "c = Conv(x, v) d = Conv(c, v) r = Conv<dilations=[2,2]>(d, v)"
    (grid,) = placed(body, v=np.ones((3, 3, 5, 5), np.float32)).grids
    assert grid.rows == grid.columns == Line(8.0, 1.0, 0, 48)


ORDINARY = {
    "padded and strided": "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) "
    "r = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(c)",
    "pooled without padding": "c = Conv<pads=[1,1,1,1]>(x, w) "
    "r = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)",
    "squeeze and excite": "c = Conv<pads=[1,1,1,1]>(x, w, b) g = GlobalAveragePool(c) "
    "h = Sigmoid(g) r = Mul(c, h)",
    "instance normalisation": "c = Conv<pads=[1,1,1,1]>(x, w, b) "
    "r = InstanceNormalization(c, b, b)",
    "neighbours": "c = Conv<pads=[1,1,1,1]>(x, w, b) r = LRN<size=2>(c)",
    "group normalisation": "c = Conv<pads=[1,1,1,1]>(x, w, b) u = Reshape(c, q) "
    "v = InstanceNormalization(u, b, b) r = Reshape(v, k)",
    "up a pyramid": "c = Conv<pads=[1,1,1,1], strides=[4,4]>(x, w, b) u = Resize(c, , z) "
    "d = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) r = Add(u, d)",
    "border, then a window": "t = Pad(x, o) c = Conv(t, w, b) r = Relu(c)",
    "tokens and back": "c = Conv<pads=[1,1,1,1]>(x, w, b) f = Reshape(c, n) "
    'u = Transpose<perm=[0,2,1]>(f) v = Einsum<equation="bij->bij">(u) y = Add(u, v) '
    "back = Transpose<perm=[0,2,1]>(y) r = Reshape(back, k)",
    "channel shuffle": "c = Conv<pads=[1,1,1,1]>(x, w, b) u = Reshape(c, j) "
    "v = Transpose<perm=[0,2,1,3,4]>(u) r = Reshape(v, k)",
    "unknown, but upright": "c = Conv<pads=[1,1,1,1]>(x, w, b) "
    'r = Einsum<equation="bchw->bchw">(c)',
    "resampled by a matrix": "t = MatMul(x, half) r = Conv<pads=[1,1,1,1]>(t, w, b)",
    "constants written": "u = ScatterElements<axis=3>(x, first, zeros) "
    "r = Conv<pads=[1,1,1,1]>(u, w, b)",
    "depth to space": "u = SpaceToDepth<blocksize=2>(x) c = DepthToSpace<blocksize=2>(u) "
    "r = Conv<pads=[1,1,1,1]>(c, w, b)",
}
SHAPES = {
    "q": np.array([0, 2, -1]),
    "k": np.array([1, 2, SIZE, SIZE]),
    "n": np.array([1, 2, -1]),
    "j": np.array([1, 1, 2, SIZE, SIZE]),
    "z": np.array([1, 1, 2, 2], np.float32),
    "o": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "half": np.kron(np.eye(SIZE // 2), np.full((2, 1), 0.5)).astype(np.float32),
    "first": np.zeros((1, 3, SIZE, 1), np.int64),
    "zeros": np.zeros((1, 3, SIZE, 1), np.float32),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_an_ordinary_grid_is_stretched_as_usual(kind):
    assert placed(ORDINARY[kind], **SHAPES) is None


FLIPPED = "m = Slice(x, s, e, a, p) {out} = Conv<pads=[1,1,1,1]>(m, w, b)"
UPRIGHT = "{out} = Conv<pads=[1,1,1,1]>(x, w, b)"


def branched(first, second, condition="h = ReduceMean<keepdims=0>(x) i = Less(h, one)"):
    """An If whose branches read the image by name, and say so by no input."""
    ways = [
        f"f{k} () => (float y{k}) {{ {t.format(out=f'y{k}')} }}"
        for k, t in enumerate((first, second))
    ]
    return f"{condition} r = If(i)<then_branch = {ways[0]}, else_branch = {ways[1]}>"


ONE = {"one": np.float32(1), "w": weights()["w"], "b": weights()["b"]}


def placed_behind(body, **constants):
    model = made(body, **constants)
    for value in (v for n in model.graph.node for a in n.attribute for v in a.g.output):
        value.type.tensor_type.ClearField("shape")
    known = {t.name for t in model.graph.initializer}
    for name, value in constants.items():
        if name not in known:  # read in a body alone
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return Tracer(Graph(model), "x", (SIZE, SIZE), dict).placement("r")


def flip_constants():
    return {name: np.array(value) for name, value in FLIP.items()}


def test_branches_that_mirror_the_image_are_laid_mirrored():
    found = placed_behind(branched(FLIPPED, FLIPPED), **ONE, **flip_constants())
    (grid,) = found.grids
    assert (grid.columns.offset, grid.columns.stride) == (63, -1)
    assert (grid.rows.offset, grid.rows.stride) == (0, 1)


def test_branches_that_leave_the_image_upright_are_stretched_as_usual():
    assert placed_behind(branched(UPRIGHT, UPRIGHT), **ONE) is None


def test_branches_that_look_elsewhere_are_refused_with_the_node():
    with pytest.raises(MethodRefused, match=r"If node .*different places"):
        placed_behind(branched(UPRIGHT, FLIPPED), **ONE, **flip_constants())


@pytest.mark.parametrize("chosen", [True, False])
def test_a_constant_condition_chooses_the_branch(chosen):
    body = branched(FLIPPED, UPRIGHT, "i = Identity(yes)")
    found = placed_behind(body, yes=np.array(chosen), **ONE, **flip_constants())
    assert (found is not None) is chosen


ROUND = (
    "r = Loop(rounds, yes, x)"
    "<body = f (int64 k, bool go, float[1,3,64,64] c) => (bool on, float d) "
    "{{ on = Identity(go) {step} }}>"
)
LOOPED = {"rounds": np.array(3), "yes": np.array(True)}


def test_a_loop_that_keeps_places_is_stretched_as_usual():
    same = "d = Conv<pads=[1,1,1,1]>(c, square)"
    square = np.ones((3, 3, 3, 3), np.float32)
    assert placed_behind(ROUND.format(step=same), square=square, **LOOPED) is None


def test_a_loop_that_moves_places_is_refused_with_the_node():
    body = ROUND.format(step="d = Slice(c, s, e, a, p)")
    with pytest.raises(MethodRefused, match="Loop node"):
        placed_behind(body, **LOOPED, **flip_constants())


def test_tiles_in_the_batch_are_one_grid_each():
    body = "u = Reshape(x, q) v = Transpose<perm=[0,2,4,1,3,5]>(u) t = Reshape(v, k)" + CONV
    shapes = {"q": np.array([1, 3, 2, 32, 2, 32]), "k": np.array([4, 3, 32, 32])}
    found = placed(body, folded=True, **shapes)
    assert found.count == 4
    assert [(g.rows.offset, g.columns.offset) for g in found.grids] == [
        (0, 0),
        (0, 32),
        (32, 0),
        (32, 32),
    ]
    assert {(g.rows.stride, g.columns.stride, g.swapped) for g in found.grids} == {(1, 1, False)}


def test_crops_and_flips_in_the_batch_are_one_grid_each():
    body = "u = Slice(x, s, e, a, p) v = Identity(x) t = Concat<axis=0>(v, u)" + CONV
    found = placed(body, folded=True, **{k: np.array(v) for k, v in FLIP.items()})
    first, second = found.grids
    assert (first.columns.offset, first.columns.stride) == (0, 1)
    assert (second.columns.offset, second.columns.stride) == (63, -1)
    assert (first.index, second.index) == (0, 1)


def test_a_rolled_map_is_laid_in_pieces():
    body = "u, v = Split<axis=3>(x, k) t = Concat<axis=3>(v, u)" + CONV
    found = placed(body, k=np.array([24, 40]))
    left, right = found.grids
    assert left.columns == Line(24.0, 1.0, 0, 40)
    assert right.columns.hull == (-0.5, 23.5)
    assert right.columns.start == 40


def shift(rows, columns, *, noise=0.0, length=33):
    """A filter per channel with its weight at one tap, (3, 1, length, length)."""
    middle = length // 2
    filters = np.full((3, 1, length, length), noise, np.float32)
    filters[:, :, middle + rows, middle + columns] = 1
    return filters


SHIFTED = {
    "a filter per channel": ("t = Conv<pads=[16,16,16,16], group=3>(x, f)", shift(-16, 10)),
    "all channels at once": (
        "t = Conv<pads=[16,16,16,16]>(x, f)",
        np.eye(3, dtype=np.float32)[:, :, None, None] * shift(-16, 10),
    ),
    "nearly one tap": (
        "t = Conv<pads=[16,16,16,16], group=3>(x, f)",
        shift(-16, 10, noise=1e-6),
    ),
    "holes between the taps": (
        "t = Conv<pads=[16,10,16,10], dilations=[16,10], group=3>(x, f)",
        shift(-1, 1, length=3),
    ),
    "transposed": ("t = ConvTranspose<pads=[16,16,16,16], group=3>(x, f)", shift(16, -10)),
    "8-bit weights": (
        "f = DequantizeLinear(g, scale, zero) t = Conv<pads=[16,16,16,16], group=3>(x, f)",
        shift(-16, 10),
    ),
    "8-bit operator": (
        (
            "q = QuantizeLinear(x, scale, zero) "
            "y = QLinearConv<pads=[16,16,16,16], group=3>"
            "(q, scale, zero, g, scale, zero, scale, zero) "
            "t = DequantizeLinear(y, scale, zero)"
        ),
        shift(-16, 10),
    ),
}


@pytest.mark.parametrize("kind", SHIFTED)
def test_a_convolution_that_shifts_its_map_is_laid_where_it_looks(kind):
    body, filters = SHIFTED[kind]
    levels = {"scale": np.float32(1 / 64), "zero": np.uint8(128)}
    levels["g"] = (filters * 64 + 128).astype(np.uint8)
    given = {"f": filters} if "f = " not in body else {}
    (grid,) = placed(body + CONV, **levels, **given).grids
    assert (grid.rows.offset, grid.rows.stride) == pytest.approx((-16, 1), abs=0.05)
    assert (grid.columns.offset, grid.columns.stride) == pytest.approx((10, 1), abs=0.05)


def test_a_convolution_that_shifts_points_at_the_planted_square():
    """The map of the mirror case's network, shifted by 16 rows: the square is where it was."""
    found = placed("t = Conv<pads=[16,16,16,16], group=3>(x, f)" + CONV, f=shift(-16, 10))
    cells = np.zeros((1, SIZE, SIZE), np.float32)
    top, bottom, left, right = SQUARE
    cells[0, top + 16 : bottom + 16, left - 10 : right - 10] = 1
    seen = lay_on_input(cells[0], found, (SIZE, SIZE))
    assert seen[top + 1 : bottom - 1, left + 1 : right - 1].min() == 1
    assert np.isclose(seen.sum(), cells.sum(), rtol=0.01)


BALANCED = {
    "ordinary weights": np.random.default_rng(0).normal(size=(3, 1, 7, 7)),
    "filters that look a cell aside": np.concatenate(
        [shift(0, 1, length=7), shift(0, -1, length=7), shift(0, 0, length=7)]
    )[::3],
    "zeros at the border": np.pad(np.ones((3, 1, 5, 5)), [(0, 0), (0, 0), (1, 1), (1, 1)]),
    "nothing": np.zeros((3, 1, 7, 7)),
}


@pytest.mark.parametrize("kind", BALANCED)
def test_a_balanced_kernel_is_stretched_as_usual(kind):
    body = "t = Conv<pads=[3,3,3,3], group=3>(x, f)" + CONV
    assert placed(body, f=BALANCED[kind].astype(np.float32)) is None


def test_filters_that_look_far_apart_and_are_mixed_are_refused():
    filters = np.concatenate([shift(0, 16)[:1], shift(0, -16)[:1], shift(0, 0)[:1]])
    with pytest.raises(MethodRefused) as refused:
        placed("t = Conv<pads=[16,16,16,16], group=3>(x, f)" + CONV, f=filters)
    assert refused.value.where.startswith("Conv node")
    with pytest.raises(MethodRefused, match="channels look at places that lie apart"):
        placed("t = Conv<pads=[16,16,16,16], group=3>(x, f) r = Relu(t)", f=filters)


DENSE = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32)
MIXED = {
    "columns by a matrix": ("t = MatMul(x, m)" + CONV, {"m": DENSE}, "MatMul", "columns"),
    "rows by a matrix": ("t = MatMul(m, x)" + CONV, {"m": DENSE}, "MatMul", "rows"),
    "rows as channels of a convolution": (
        "u = Transpose<perm=[0,2,1,3]>(x) v = Conv(u, k) t = Transpose<perm=[0,2,1,3]>(v)" + CONV,
        {"k": DENSE[:, :, None, None]},
        "Conv",
        "rows",
    ),
    "a linear layer laid out as a map": (
        (
            "c = Conv<pads=[1,1,1,1], strides=[8,8]>(x, w, b) u = Flatten(c) v = Gemm(u, n) "
            "r = Reshape(v, o)"
        ),
        {"n": DENSE.repeat(2, 0), "o": np.array([1, 1, 8, 8])},
        "Gemm",
        "rows",
    ),
}


@pytest.mark.parametrize("kind", MIXED)
def test_cells_that_all_read_everything_are_refused_with_the_node(kind):
    body, constants, node, axis = MIXED[kind]
    with pytest.raises(MethodRefused, match=f"all {axis} of the image") as refused:
        placed(body, **constants)
    assert refused.value.where.startswith(f"{node} node")


def test_a_map_that_a_mixed_one_is_added_to_keeps_its_places():
    body = "c = Conv<pads=[1,1,1,1]>(x, w, b) u = MatMul(c, m) r = Add(c, u)"
    assert placed(body, m=DENSE) is None


REFUSED = {
    "places in channels": (
        (
            "u = Reshape(x, q) v = Transpose<perm=[0,2,4,1,3,5]>(u) t = Reshape(v, k) "
            "r = Conv<pads=[1,1,1,1]>(t, y)"
        ),
        {
            "q": np.array([1, 3, 2, 32, 2, 32]),
            "k": np.array([1, 12, 32, 32]),
            "y": np.ones((2, 12, 3, 3), np.float32),
        },
        "Conv node",
    ),
    "a map and its mirror image": (
        "u = Slice(x, s, e, a, p) t = Add(x, u)" + CONV,
        {k: np.array(v) for k, v in FLIP.items()},
        "Add node",
    ),
    "a sampled grid": (
        "t = GridSample(x, y)" + CONV,
        {"y": np.zeros((1, SIZE, SIZE, 2), np.float32)},
        "GridSample node",
    ),
    "rows as columns of places": (
        "u = Reshape(x, q) t = Reshape(u, k)" + CONV,
        {"q": np.array([1, 3, SIZE * SIZE]), "k": np.array([1, 3, 32, 128])},
        "Reshape node",
    ),
    "unknown behind a mirror": (
        "u = Slice(x, s, e, a, p) t = Mystery(u)" + CONV,
        {k: np.array(v) for k, v in FLIP.items()},
        "Slice node",
    ),
    "letters that are not written out": (
        't = Einsum<equation="...hw->...wh">(x)' + CONV,
        {},
        "Einsum node",
    ),
    "sorted along the rows": ("t, i = TopK<axis=3>(x, n)" + CONV, {"n": [64]}, "TopK node"),
    "written elsewhere": (
        "t = ScatterElements<axis=3>(x, i, x)" + CONV,
        {"i": np.broadcast_to((np.arange(SIZE) + 20) % SIZE, (1, 3, SIZE, SIZE)).copy()},
        "ScatterElements node",
    ),
    "a sequence": (
        "q = SplitToSequence<axis=3>(x, n) t = SequenceAt(q, o)" + CONV,
        {"n": np.array([32, 32]), "o": np.array(1)},
        "SplitToSequence node",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_place_is_refused_with_the_node(kind):
    body, constants, node = REFUSED[kind]
    for _ in range(2):  # the second time from memory
        with pytest.raises(MethodRefused) as refused:
            placed(body, **constants)
        assert refused.value.where.startswith(node)


def test_shapes_are_measured_only_where_the_file_does_not_tell_them():
    measured = []

    def measure():
        measured.append(True)
        return {"x": (1, 3, SIZE, SIZE), "k": (4,), "t": (1, 3, 32, SIZE)}

    plain = Tracer(Graph(made("t = Identity(x)" + CONV)), "x", (SIZE, SIZE), measure)
    assert plain.placement("r") is None
    assert not measured
    body = "n = Size(x) d = Unsqueeze(n, a) k = Div(d, q) t = Slice(x, a, k, h)" + CONV
    constants = {"a": np.array([0]), "q": np.array([384]), "h": np.array([2])}
    cut = Tracer(Graph(made(body, **constants)), "x", (SIZE, SIZE), measure)
    (grid,) = cut.placement("r").grids
    assert grid.rows.hull == (-0.5, 31.5)
    assert measured


def line(offset, stride, cells, start=0):
    return Line(offset, stride, start, start + cells)


def test_cells_are_laid_at_their_centres_and_other_pixels_are_unseen():
    placement = Placement((Grid(0, line(2.5, 2, 2), line(7.5, -2, 3)),))
    values = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    found, seen = sample_placed(values, placement, np.arange(10), np.arange(10))
    assert seen[2:6, 3:9].all()
    assert seen.sum() == 4 * 6
    assert np.isnan(found[~seen]).all()
    laid = np.array([[3, 2, 1], [6, 5, 4]], np.float32)
    np.testing.assert_allclose(found[2:6, 3:9], upsample(laid, (4, 6)))
    inside = lay_on_input(values, placement, (10, 10))
    assert inside[0, 0] == 0
    np.testing.assert_array_equal(inside[seen], found[seen])


def test_a_strip_that_no_cell_covers_is_said_and_measured():
    """The network sees the whole photo; the layer's cells begin at a quarter of it."""
    values = np.ones((4, 3), np.float32)
    kinds = {"layer": "c", "method": "cam", "space": "layer"}
    photo = Geometry((20, 40), (20, 40), (1.0, 1.0), (0.0, 0.0))
    shifted = Placement((Grid(0, line(2, 5, 4), line(15, 10, 3)),))
    found = Heatmap.of(Attribution(values, placement=shifted, **kinds), photo)
    assert photo.seen_share == 1
    assert found.uncovered == pytest.approx(10 / 40)
    (note,) = found.notes
    assert note.startswith("no cell of the layer 'c' lies on 25.0% of the photo, which the network")
    whole = Heatmap.of(Attribution(values, **kinds), photo)
    assert (whole.uncovered, whole.notes) == (0, ())
    cropped = Geometry(
        (20, 80), (20, 40), (1.0, 1.0), (0.0, -20.0)
    )  # what is cut away is not a strip
    assert Heatmap.of(Attribution(values, **kinds), cropped).uncovered == 0


def test_swapped_axes_are_laid_transposed():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    placement = Placement((Grid(0, line(0, 1, 3), line(0, 1, 2), swapped=True),))
    found, seen = sample_placed(values, placement, np.arange(3), np.arange(2))
    assert seen.all()
    np.testing.assert_array_equal(found, values.T)


def test_grids_add_up_where_they_overlap_and_share_no_border():
    grids = (
        Grid(0, line(0, 1, 4), line(0, 1, 4)),
        Grid(1, line(0, 1, 4), line(2, 1, 4)),
        Grid(2, line(0, 1, 4), line(6, 1, 2)),
    )
    found, seen = sample_placed(
        np.ones((3, 4, 4), np.float32) * np.array([1, 10, 100])[:, None, None],
        Placement(grids, 3),
        np.arange(4),
        np.arange(-0.5, 8),
    )
    assert found[0, :8].tolist() == [1, 1, 11, 11, 10, 10, 100, 100]
    assert not seen[0, 8]


def test_a_heatmap_of_grids_keeps_them_as_they_are():
    placement = Placement(
        (Grid(0, line(0, 1, 2), line(0, 1, 2)), Grid(1, line(0, 1, 2), line(2, 1, 2))), 2
    )
    values = np.array([[[1, 0], [0, 0]], [[0, 0], [0, -2]]], np.float32)
    attribution = Attribution(values, "layer", "grad-cam", placement=placement)
    assert attribution.projection is None
    assert not attribution.empty
    heatmap = Heatmap.of(attribution, Geometry.identity((2, 5)))
    assert heatmap.values[:, :4].tolist() == [[1, 0, 0, 0], [0, 0, 0, -2]]
    assert not heatmap.seen[:, 4].any()
    with pytest.raises(ValueError, match="shape"):
        Attribution(values, "layer", "grad-cam")


# -- from photo to picture ------------------------------------------------------------------------

HEAD = CONV + " m = ReduceMean<axes=[2,3], keepdims=0>(r) logits = MatMul(m, l)"
FOLDED = CONV + (
    " m = ReduceMean<axes=[2,3], keepdims=0>(r) n = MatMul(m, l)"
    " logits = ReduceMean<axes=[0], keepdims=1>(n)"
)
SCENES = {
    "plain": ("t = Identity(x)" + HEAD, {}, (64, 64)),
    "mirrored": ("t = Slice(x, s, e, a, p)" + HEAD, FLIP, (64, 64)),
    "transposed": ("t = Transpose<perm=[0,1,3,2]>(x)" + HEAD, {}, (64, 64)),
    "cropped": (
        "t = Slice(x, s, e, a)" + HEAD,
        {"s": [0, 30], "e": [40, 60], "a": [2, 3]},
        (40, 30),
    ),
    "tiles": (
        "u = Reshape(x, q) v = Transpose<perm=[0,2,4,1,3,5]>(u) t = Reshape(v, k)" + FOLDED,
        {"q": [1, 3, 2, 32, 2, 32], "k": [4, 3, 32, 32]},
        (4, 32, 32),
    ),
    "flips": ("u = Slice(x, s, e, a, p) t = Concat<axis=0>(x, u)" + FOLDED, FLIP, (2, 64, 64)),
}


def photo():
    pixels = np.full((SIZE, SIZE, 3), 70, np.uint8)
    top, bottom, left, right = SQUARE
    pixels[top:bottom, left:right] = (220, 60, 60)
    return pixels


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "guided-grad-cam"])
@pytest.mark.parametrize("kind", SCENES)
def test_the_map_points_at_the_square(tmp_path, kind, method):
    body, constants, shape = SCENES[kind]
    model = made(body, output="logits", **{k: np.array(v) for k, v in constants.items()})
    onnx.save(model, tmp_path / "scene.onnx")
    settings = ["scale=0.00392156862745098", "mean=0", "std=1"]
    found = inspector.load(tmp_path / "scene.onnx", device="cpu", overrides=settings)
    report = found.explain(photo(), method, target=1, layer="r")
    (explanation,) = report.explanations
    if method != "guided-grad-cam":
        assert explanation.attribution.values.shape == shape
        placed_there = explanation.to_dict()["attribution"].get("placed")
        assert (placed_there is None) == (kind == "plain")
    top, bottom, left, right = SQUARE
    values = np.where(explanation.heatmap.seen, explanation.heatmap.values, 0)
    inside = values[top - 1 : bottom + 1, left - 1 : right + 1].sum()
    assert inside > 0.9 * values[values > 0].sum()
    if kind == "cropped" and method != "guided-grad-cam":
        assert not explanation.heatmap.seen[:, :30].any()
        assert not explanation.heatmap.seen[40:].any()

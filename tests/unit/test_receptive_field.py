import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from converters.graph import Graph
from inspector.errors import UsageError
from inspector.network.receptive_fields.receptive_field import (
    needed_shapes,
    receptive_field,
    receptive_fields,
)


def graph(body, *, inputs="float[1,2,32,32] x", infer=True, **constants):
    text = f'<ir_version: 8, opset_import: ["" : 18]> g ({inputs}) => (float y) {{ {body} }}'
    model = parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")  # the text form says "scalar"
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return Graph(onnx.shape_inference.infer_shapes(model) if infer else model)


def kernel(k, channels=2):
    return np.ones((channels, channels, k, k), np.float32)


@pytest.mark.parametrize(
    ("sequence", "size", "stride", "offset"),
    [
        # (kernel, stride, pad); figures from the recurrences r += (k - 1) j, j *= s.
        ([(3, 1, 1)], 3, 1, 0),
        ([(3, 1, 0), (3, 1, 0)], 5, 1, 2),
        ([(11, 4, 2), (3, 2, 0), (5, 1, 2)], 51, 8, 7),
        ([(7, 2, 3), (3, 2, 1), (3, 1, 1)], 19, 4, 0),
        ([(2, 2, 0), (2, 2, 0)], 4, 4, 1.5),
    ],
)
def test_size_stride_and_offset_of_textbook_stacks(sequence, size, stride, offset):
    body, name = "", "x"
    constants = {}
    for i, (k, s, p) in enumerate(sequence):
        body += f" t{i} = Conv<strides=[{s},{s}], pads=[{p},{p},{p},{p}]>({name}, w{i})"
        constants[f"w{i}"], name = kernel(k), f"t{i}"
    rf = receptive_field(graph(body + f" y = Relu({name})", **constants), "y")
    assert (rf.size, rf.stride, rf.offset) == ((size,) * 2, (stride,) * 2, (offset,) * 2)
    assert (rf.global_, rf.why, rf.local) == (False, "", None)


def test_a_box_is_clipped_to_pixels_only_where_asked():
    rf = receptive_field(graph("y = Conv<pads=[1,1,1,1]>(x, w)", w=kernel(3)), "y")
    assert rf.box(0, 31) == (-1, 30, 2, 33)
    assert rf.pixels(0, 31) == (0, 30, 2, 32)


def test_a_dilated_convolution_at_the_border_reads_past_the_gap():
    g = graph(
        "a = Conv<dilations=[2,2], pads=[1,1,1,1]>(x, w) y = Conv<strides=[4,4]>(a, v)",
        w=kernel(2),
        v=kernel(1),
    )
    rf = receptive_field(g, "y")
    assert rf.box(0, 0) == (-1, -1, 2, 2)
    assert rf.pixels(0, 0) == (1, 1, 2, 2)  # row -1 is padding, row 0 falls into the gap


def test_branches_with_different_fields_are_united():
    g = graph(
        "a = Conv<pads=[1,1,1,1]>(x, w) b = MaxPool<kernel_shape=[5,5], pads=[2,2,2,2]>(x)"
        " j = Concat<axis=1>(a, b) y = Relu(j)",
        w=kernel(3),
    )
    assert receptive_field(g, "y").size == (5, 5)


SQUEEZE = (
    "c = Conv<pads=[1,1,1,1]>(x, w) p = GlobalAveragePool(c) f = Conv(p, v) s = Sigmoid(f)"
    " m = Mul(c, s) y = Conv<pads=[1,1,1,1]>(m, w)"
)


def test_a_gate_makes_the_field_global_and_the_local_part_is_told():
    rf = receptive_field(graph(SQUEEZE, w=kernel(3), v=kernel(1)), "y")
    assert rf.global_
    assert "GlobalAveragePool" in rf.why
    assert rf.size == (32, 32)
    assert rf.box(0, 0) == rf.pixels(5, 5) == (0, 0, 32, 32)
    assert rf.local is not None
    assert (rf.local.size, rf.local.stride) == ((5, 5), (1, 1))
    assert rf.local.box(4, 4) == (2, 2, 7, 7)


def test_a_global_field_of_an_image_of_unknown_size_has_no_box():
    g = graph(SQUEEZE, inputs="float[N,2,H,W] x", w=kernel(3), v=kernel(1))
    rf = receptive_field(g, "y")
    assert rf.size == (0, 0)
    with pytest.raises(UsageError, match="whole image"):
        rf.box(0, 0)
    assert receptive_field(g, "y", "x", {"x": (1, 2, 20, 24)}).box(0, 0) == (0, 0, 20, 24)


@pytest.mark.parametrize(
    ("body", "node"),
    [
        ("y = ReduceMean<keepdims=1>(c, a)", "ReduceMean"),
        ("y = Softmax<axis=3>(c)", "Softmax"),
        ("y = InstanceNormalization(c, v, v)", "InstanceNormalization"),
        ("t = Transpose<perm=[0,1,3,2]>(c) y = MatMul(c, t)", "MatMul"),
        ("y = Unheard(c)", "Unheard"),
    ],
)
def test_what_reads_all_of_space_is_named(body, node):
    g = graph(
        "c = Conv(x, w) " + body,
        w=kernel(1),
        a=np.array([2, 3]),
        v=np.ones(2, np.float32),
        infer=node != "Unheard",
    )
    rf = receptive_field(g, "y")
    assert rf.global_
    assert node in rf.why


def test_a_fully_connected_head_is_global_by_its_flattening():
    g = graph(
        "c = Conv(x, w) f = Flatten(c) y = Gemm(f, v)",
        w=kernel(3),
        v=np.ones((1800, 3), np.float32),
    )
    rf = receptive_field(g, "y")
    assert rf.global_
    assert "Flatten" in rf.why
    assert rf.local is None


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax<axis=1>(c)",
        "y = LRN<size=3>(c)",
        "y = ReduceMax<keepdims=1>(c, a)",
        "t = Transpose<perm=[0,2,3,1]>(c) n = Softmax(t) y = Transpose<perm=[0,3,1,2]>(n)",
        "r = Reshape(c, s5) t = Transpose<perm=[0,2,1,3,4]>(r) y = Reshape(t, s4)",
    ],
)
def test_what_mixes_channels_only_stays_local(body):
    g = graph(
        "c = Conv(x, w) " + body,
        w=kernel(3),
        a=np.array([1]),
        v=np.ones(2, np.float32),
        s5=np.array([1, 2, 1, 30, 30]),
        s4=np.array([1, 2, 30, 30]),
    )
    rf = receptive_field(g, "y")
    assert (rf.global_, rf.size) == (False, (3, 3))


def test_an_instance_normalisation_keeps_the_unit_s_own_place():
    g = graph(
        "c = Conv<pads=[1,1,1,1]>(x, w) y = InstanceNormalization(c, v, v)",
        w=kernel(3),
        v=np.ones(2, np.float32),
    )
    rf = receptive_field(g, "y")
    assert rf.global_
    assert rf.local is not None
    assert rf.local.size == (3, 3)


def test_an_nhwc_image_is_measured_along_its_rows_and_columns():
    g = graph(
        "t = Transpose<perm=[0,3,1,2]>(x) y = Conv<strides=[2,3]>(t, w)",
        inputs="float[1,20,30,3] x",
        w=np.ones((2, 3, 3, 5), np.float32),
    )
    rf = receptive_field(g, "y")
    assert (rf.size, rf.stride) == ((3, 5), (2, 3))
    assert rf.pixels(1, 2) == (2, 6, 5, 11)


def test_unequal_fields_behind_up_sampling_give_the_largest():
    g = graph(
        'a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) y = Resize<mode="linear">(a, , f)',
        w=kernel(3),
        f=np.array([1, 1, 2, 2], np.float32),
    )
    rf = receptive_field(g, "y")
    assert rf.stride == (1, 1)
    widths = {rf.box(k, k)[2] - rf.box(k, k)[0] for k in range(8, 16)}
    assert rf.size == (max(widths),) * 2 == (5, 5)


def test_same_padding_needs_the_length_and_finds_it_in_the_shapes():
    body = 'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)'
    g = graph(body, inputs="float[N,2,H,W] x", w=kernel(3), infer=False)
    assert receptive_field(g, "y", None, {"x": (1, 2, 9, 9)}).box(0, 0)[0] == -1
    assert receptive_field(g, "y", None, {"x": (1, 2, 8, 8)}).box(0, 0)[0] == 0


def test_a_shuffle_to_computed_sizes_is_followed_once_shapes_are_measured():
    body = (
        "c = Conv(x, w) n = Shape(c) r = Reshape(c, s5) t = Transpose<perm=[0,2,1,3,4]>(r)"
        " q = Reshape(t, n) y = Conv(q, w)"
    )
    g = graph(body, w=kernel(3), s5=np.array([0, 2, 1, 30, -1]), infer=False)
    assert {"r", "q"} <= set(needed_shapes(g))
    measured = {
        "c": (1, 2, 30, 30),
        "r": (1, 2, 1, 30, 30),
        "t": (1, 1, 2, 30, 30),
        "q": (1, 2, 30, 30),
    }
    assert receptive_field(g, "y", None, measured).size == (5, 5)


def test_a_tensor_that_the_image_does_not_reach_is_refused():
    g = graph("y = Relu(x) z = Relu(b)", inputs="float[1,2,8,8] x, float[1,2,8,8] b")
    with pytest.raises(UsageError, match="does not depend"):
        receptive_field(g, "z", "x")


def test_several_fields_are_those_of_each_alone():
    g = graph("a = Conv(x, w) y = Conv(a, w)", w=kernel(3))
    assert receptive_fields(g, ["a", "y"]) == {n: receptive_field(g, n) for n in ("a", "y")}


@pytest.mark.parametrize(
    ("model", "tensor", "size", "stride"),
    [
        # ResNet-50 with its strides in the 1x1 convolutions: 483 (Araujo et al. 2019, table 1).
        ("tf2onnx_resnet50thin_nhwc", "Relu_48:0", 483, 32),
        ("mobilenetv2_qdq_int8_244", "onnx::GlobalAveragePool_1547", 491, 32),
        ("caffe2_zfnet512_constant_weights", "r13", 139, 16),
    ],
)
def test_published_fields_of_real_networks(shared, model, tensor, size, stride):
    g = Graph(onnx.load(str(shared / "zoo" / f"{model}.onnx")))  # noqa: TID251 - third-party data
    rf = receptive_field(g, tensor)
    assert (rf.size, rf.stride) == ((size,) * 2, (stride,) * 2)


def test_swapped_axes_are_told():
    turn = "Transpose<perm=[0,1,3,2]>"
    conv = "Conv<strides=[2,3], pads=[1,1,1,1]>"
    rf = receptive_field(graph(f"t = {turn}(x) y = {conv}(t, w)", w=kernel(3)), "y")
    assert rf.swapped
    assert rf.stride == (3, 2)
    assert rf.box(1, 0) == (-1, 1, 2, 4)
    back = graph(f"t = {turn}(x) u = {conv}(t, w) y = {turn}(u)", w=kernel(3))
    assert not receptive_field(back, "y").swapped
    assert receptive_field(back, "y").stride == (3, 2)

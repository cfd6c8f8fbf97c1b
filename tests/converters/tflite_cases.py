"""One-operator TFLite files of every operator that networks for images use.

Each is built from the values of its inputs; shapes of outputs, and their ranges where they are
quantised, are asked of TFLite's own interpreter.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from tflite_files import OperatorOf, TensorOf, tflite_file

GENERATOR = np.random.default_rng(20)
SAME, VALID = 0, 1
FUSED = {"relu": 1, "relu_n1_to_1": 2, "relu6": 3, "tanh": 4}


@dataclass(frozen=True)
class Case:
    """A file of one operator.

    Attributes:
        name: What it shows.
        op_type: The operator.
        values: Its inputs in order: an array is computed from the network's input, a ``Constant``
            is stored.
        options: Its options.
        outputs: How many.
        moves: Whether outputs have the quantisation of the first input.
        fixed: Scale and zero point of a quantised output, per type, where TFLite asks for one.
        dtype: Type of the outputs.
        dtypes: Type of each of them, where they differ.
        kinds: Types to be quantised to.
    """

    name: str
    op_type: str
    values: tuple
    options: dict = field(default_factory=dict)
    outputs: int = 1
    moves: bool = False
    fixed: dict = field(default_factory=dict)
    dtype: str = "float32"
    dtypes: tuple = ()
    kinds: tuple = ()
    custom: bytes = b""


@dataclass(frozen=True)
class Constant:
    """A stored input; ``channels`` is the axis along which its weights have steps of their own."""

    array: np.ndarray
    channels: int | None = None
    bias: bool = False


@dataclass(frozen=True)
class State:
    """An input that keeps its values, and begins with zeros."""

    shape: tuple


def maps(*shape):
    """Values around 0."""
    return GENERATOR.normal(0, 1, shape or (1, 7, 9, 4)).astype(np.float32)


def positive(*shape):
    """Values above 0."""
    return GENERATOR.uniform(0.2, 3, shape or (1, 7, 9, 4)).astype(np.float32)


def truths(*shape):
    """True and false."""
    return GENERATOR.integers(0, 2, shape or (1, 7, 9, 4)).astype(np.bool_)


def whole(*values):
    """A constant of int32."""
    return Constant(np.array(values, np.int32))


def matrix(rows):
    """A constant table of int32."""
    return Constant(np.array(rows, np.int32))


def weights(*shape, axis=0):
    """A constant of small floats."""
    return Constant(GENERATOR.normal(0, 0.4, shape).astype(np.float32), axis)


def bias(count):
    """A constant bias."""
    return Constant(GENERATOR.normal(0, 0.5, count).astype(np.float32), bias=True)


ALL = ("int8", "uint8", "int16")
EIGHT = ("int8", "uint8")
SIGMOID = {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)}
TANH = {"int8": (1 / 128, 0), "uint8": (1 / 128, 128), "int16": (1 / 32768, 0)}
LOG = {"int8": (16 / 256, 127), "uint8": (16 / 256, 255)}


def _convolutions():
    for name, extra in (
        ("same", {}),
        ("valid", {"padding": VALID}),
        ("stride", {"stride_h": 2, "stride_w": 2}),
        ("uneven", {"stride_h": 3, "stride_w": 2, "padding": SAME}),
        ("dilated", {"dilation_h_factor": 2, "dilation_w_factor": 3}),
        *((f, {"fused_activation_function": n}) for f, n in FUSED.items() if f != "tanh"),
    ):
        known = {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
        known |= {"padding": SAME, **extra}
        yield Case(
            f"conv {name}", "CONV_2D", (maps(), weights(6, 3, 3, 4), bias(6)), known, kinds=ALL
        )
        square = known if extra.get("stride_h") != 3 else {**known, "stride_h": 2}
        yield Case(
            f"depthwise {name}",
            "DEPTHWISE_CONV_2D",
            (maps(), weights(1, 3, 3, 4, axis=3), bias(4)),
            {**square, "depth_multiplier": 1},
            kinds=ALL,
        )
    known = {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
    yield Case("conv of groups", "CONV_2D", (maps(), weights(6, 3, 3, 2), bias(6)), known)
    yield Case(
        "depthwise twice",
        "DEPTHWISE_CONV_2D",
        (maps(), weights(1, 3, 3, 8, axis=3), bias(8)),
        {**known, "depth_multiplier": 2},
        kinds=ALL,
    )
    for padding, size in ((SAME, (14, 18)), (VALID, (15, 19)), (SAME, (13, 17))):
        yield Case(
            f"transposed conv {padding} {size}",
            "TRANSPOSE_CONV",
            (whole(1, *size, 5), weights(5, 3, 3, 4), maps(), bias(5)),
            {"stride_h": 2, "stride_w": 2, "padding": padding},
            kinds=("int8", "int16"),
        )
    yield Case(
        "transposed conv without bias",
        "TRANSPOSE_CONV",
        (whole(1, 14, 18, 5), weights(5, 2, 2, 4), maps()),
        {"stride_h": 2, "stride_w": 2, "padding": SAME},
        kinds=("int8",),
    )
    cube = {f"{n}_{axis}{end}": 1 for axis in "dhw" for n, end in (("stride", ""),)}
    cube |= {f"dilation_{axis}_factor": 1 for axis in "dhw"}
    yield Case("conv 3d", "CONV_3D", (maps(1, 4, 5, 6, 2), weights(2, 3, 3, 2, 3), bias(3)), cube)
    yield Case(
        "conv 3d transposed",
        "CONV_3D_TRANSPOSE",
        (whole(1, 8, 10, 12, 3), weights(2, 2, 2, 3, 2), maps(1, 4, 5, 6, 2), bias(3)),
        {**cube, "stride_d": 2, "stride_h": 2, "stride_w": 2},
    )
    for name, x, extra in (
        ("rows", maps(3, 8), {}),
        ("flattened", maps(1, 2, 2, 2), {}),
        ("kept axes", maps(1, 3, 8), {"keep_num_dims": True}),
        ("relu", maps(1, 8), {"fused_activation_function": 1}),
        ("relu6", maps(1, 8), {"fused_activation_function": 3}),
    ):
        yield Case(
            f"fully connected {name}",
            "FULLY_CONNECTED",
            (x, weights(5, 8), bias(5)),
            extra,
            kinds=ALL,
        )
    yield Case("fully connected without bias", "FULLY_CONNECTED", (maps(2, 8), weights(5, 8)))


def _pools():
    for op_type in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for name, extra in (
            ("same", {}),
            ("valid", {"padding": VALID}),
            ("relu", {"fused_activation_function": 1}),
            ("relu6", {"fused_activation_function": 3}),
            ("whole", {"filter_height": 7, "filter_width": 9, "padding": VALID}),
        ):
            known = {"stride_h": 2, "stride_w": 2, "filter_height": 3, "filter_width": 2, **extra}
            yield Case(f"{op_type} {name}", op_type, (maps(),), known, moves=True, kinds=ALL)
    known = {"stride_h": 2, "stride_w": 2, "filter_height": 3, "filter_width": 2}
    yield Case("l2 pool", "L2_POOL_2D", (maps(),), known)
    yield Case("l2 norm", "L2_NORMALIZATION", (maps(),), fixed=TANH, kinds=EIGHT)
    lrn = {"radius": 2, "bias": 1.0, "alpha": 0.3, "beta": 0.75}
    yield Case("lrn", "LOCAL_RESPONSE_NORMALIZATION", (maps(1, 4, 4, 8),), lrn)


def _pairs():
    for op_type in ("ADD", "SUB", "MUL", "DIV"):
        # The kernel of TFLite divides 0 wrongly: to -5.55 in the place of 0.
        divided = op_type == "DIV"
        x, other = (positive(), positive()) if divided else (maps(), maps())
        kinds = {"DIV": ("uint8",), "MUL": ALL}.get(op_type, ALL)
        yield Case(f"{op_type}", op_type, (x, other), kinds=kinds)
        for name, number in FUSED.items():
            if name != "tanh" and op_type != "DIV":
                known = {"fused_activation_function": number}
                yield Case(f"{op_type} {name}", op_type, (x, other), known, kinds=kinds)
        row = Constant(positive(4))
        yield Case(f"{op_type} of channels", op_type, (x, row), kinds=kinds)
        yield Case(f"{op_type} of places", op_type, (maps(), Constant(positive(1, 7, 9, 1))))
        yield Case(f"{op_type} of one", op_type, (maps(), Constant(np.float32(1.5))))
    for op_type in ("MAXIMUM", "MINIMUM"):
        yield Case(op_type, op_type, (maps(), maps()), moves=True, kinds=EIGHT)
    yield Case("POW", "POW", (positive(), positive()))
    yield Case("SQUARED_DIFFERENCE", "SQUARED_DIFFERENCE", (maps(), maps()), kinds=("int8",))
    yield Case("FLOOR_DIV", "FLOOR_DIV", (maps(), positive()))
    yield Case("FLOOR_MOD", "FLOOR_MOD", (maps(), positive()))
    for op_type in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"):
        yield Case(op_type, op_type, (maps(), maps()), dtype="bool", kinds=EIGHT)
    for op_type in ("LOGICAL_AND", "LOGICAL_OR"):
        yield Case(op_type, op_type, (truths(), truths()), dtype="bool")
    yield Case("LOGICAL_NOT", "LOGICAL_NOT", (truths(),), dtype="bool")


def _singles():
    for op_type, kinds in (
        ("ABS", ("int8", "int16")),
        ("NEG", ()),
        ("EXP", ("int8",)),
        ("SIN", ()),
        ("COS", ()),
        ("CEIL", ()),
        ("FLOOR", ()),
        ("ROUND", ()),
        ("ELU", ("int8",)),
        ("SIGN", ()),
        ("SQUARE", ()),
        ("HARD_SWISH", EIGHT),
        ("ZEROS_LIKE", ()),
    ):
        yield Case(op_type, op_type, (maps(),), kinds=kinds)
    for op_type in ("LOG", "SQRT", "RSQRT"):
        kinds = {"RSQRT": ("int8",), "LOG": ("int8",)}.get(op_type, ())
        yield Case(op_type, op_type, (positive(),), kinds=kinds)
    for op_type in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"):
        kinds = {"RELU": ALL, "RELU6": EIGHT}.get(op_type, ("int8",))
        yield Case(op_type, op_type, (maps(),), kinds=kinds)
    yield Case("LOGISTIC", "LOGISTIC", (maps(),), fixed=SIGMOID, kinds=ALL)
    yield Case("TANH", "TANH", (maps(),), fixed=TANH, kinds=ALL)
    yield Case("LEAKY_RELU", "LEAKY_RELU", (maps(),), {"alpha": 0.2}, kinds=ALL)
    slopes = Constant(GENERATOR.uniform(0, 0.5, (1, 1, 4)).astype(np.float32))
    yield Case("PRELU", "PRELU", (maps(), slopes), kinds=EIGHT)
    for exact in (False, True):
        yield Case(f"GELU {exact}", "GELU", (maps(),), {"approximate": exact}, kinds=("int8",))
    for beta in (1.0, 0.5):
        known = {"beta": beta}
        yield Case(f"SOFTMAX {beta}", "SOFTMAX", (maps(),), known, fixed=SIGMOID, kinds=ALL)
        yield Case(
            f"SOFTMAX rows {beta}", "SOFTMAX", (maps(2, 9),), known, fixed=SIGMOID, kinds=ALL
        )
    yield Case("LOG_SOFTMAX", "LOG_SOFTMAX", (maps(2, 9),), fixed=LOG, kinds=EIGHT)
    yield Case("ADD_N", "ADD_N", (maps(), maps(), maps()))
    yield Case("SELECT", "SELECT", (truths(), maps(), maps()))
    yield Case("SELECT_V2", "SELECT_V2", (truths(1, 1, 9, 1), maps(), maps()))
    numbers = GENERATOR.integers(-9, 9, (2, 5)).astype(np.int32)
    yield Case("CAST", "CAST", (numbers,), {"in_data_type": 2, "out_data_type": 0})
    back = {"in_data_type": 0, "out_data_type": 2}
    yield Case("CAST back", "CAST", (maps() * 5,), back, dtype="int32")


def _moves():
    known = {"moves": True, "kinds": EIGHT}
    yield Case("RESHAPE", "RESHAPE", (maps(), whole(1, 63, 4)), {"new_shape": [1, 63, 4]}, **known)
    yield Case("SQUEEZE", "SQUEEZE", (maps(1, 1, 5, 1),), {"squeeze_dims": [1, 3]}, **known)
    yield Case("EXPAND_DIMS", "EXPAND_DIMS", (maps(), whole(2)), **known)
    for order in ((0, 3, 1, 2), (0, 2, 3, 1), (0, 2, 1, 3), (3, 1, 0, 2)):
        yield Case(f"TRANSPOSE {order}", "TRANSPOSE", (maps(), whole(*order)), **known)
    for axis in (3, -1, 1):
        joined = {"axis": axis}
        yield Case(f"CONCATENATION {axis}", "CONCATENATION", (maps(), maps()), joined, **known)
    yield Case(
        "CONCATENATION scales", "CONCATENATION", (maps(), maps()), {"axis": 3}, kinds=("uint8",)
    )
    packed = {"values_count": 2, "axis": 1}
    yield Case("PACK", "PACK", (maps(2, 3), maps(2, 3)), packed, **known)
    yield Case("UNPACK", "UNPACK", (maps(2, 3, 4),), {"num": 3, "axis": 1}, outputs=3, **known)
    yield Case("SPLIT", "SPLIT", (whole(3), maps()), {"num_splits": 2}, outputs=2)
    parts = (maps(), whole(1, -1), whole(3))
    yield Case("SPLIT_V", "SPLIT_V", parts, {"num_splits": 2}, outputs=2)
    cut = (maps(), whole(0, 1, 2, 1), whole(1, -1, 3, 2))
    yield Case("SLICE", "SLICE", cut, **known)
    places = np.array([0, 1, 2, 1], np.int32)
    yield Case("SLICE at a computed place", "SLICE", (maps(), places, cut[2]), **known)
    for at in ((0, 1, 2, 1), (0, 6, -3, 1)):  # the second one would reach out of the tensor
        part = (maps(), maps(1, 3, 4, 2), np.array(at, np.int32))
        yield Case(f"DYNAMIC_UPDATE_SLICE {at}", "DYNAMIC_UPDATE_SLICE", part)
    for name, begin, end, step, masks in (
        ("inner", (0, 1, 2, 0), (1, 6, 9, 3), (1, 2, 3, 1), {}),
        ("masks", (0, 1, 2, 1), (0, 0, 0, 3), (1, 1, 2, 1), {"begin_mask": 1, "end_mask": 7}),
        ("index", (0, 2, 0, 0), (1, 3, 9, 4), (1, 1, 1, 1), {"shrink_axis_mask": 2}),
        ("negative", (0, -1, 0, 0), (1, -8, 9, 4), (1, -1, 1, 1), {}),
        ("last", (0, -1), (1, 0), (1, 1), {"shrink_axis_mask": 3}),
        ("ellipsis", (0, 0, 1), (1, 0, 3), (1, 1, 1), {"ellipsis_mask": 2}),
        ("new axis", (0, 0, 1), (1, 0, 3), (1, 1, 1), {"new_axis_mask": 2}),
        (
            "new and gone",
            (0, 0, 1),
            (1, 0, 3),
            (1, 1, 1),
            {"new_axis_mask": 2, "shrink_axis_mask": 1},
        ),
    ):
        values = (maps(), whole(*begin), whole(*end), whole(*step))
        yield Case(f"STRIDED_SLICE {name}", "STRIDED_SLICE", values, masks, **known)
    yield Case("GATHER", "GATHER", (maps(), whole(2, 0, 3)), {"axis": 3}, **known)
    yield Case("GATHER one", "GATHER", (maps(), Constant(np.int32(2))), {"axis": 1}, **known)
    rows = GENERATOR.integers(0, 7, (2, 5)).astype(np.int32)
    known = {"axis": 1, "batch_dims": 1}
    yield Case("GATHER of samples", "GATHER", (maps(2, 7, 4), Constant(rows)), known)
    known = {"moves": True, "kinds": EIGHT}
    yield Case("GATHER_ND", "GATHER_ND", (maps(), matrix([[0, 1], [0, 4]])), **known)
    pairs = (matrix([[0], [2]]), maps(2, 3), whole(4, 3))
    yield Case("SCATTER_ND", "SCATTER_ND", pairs)
    border = matrix([[0, 0], [1, 2], [3, 0], [0, 1]])
    yield Case("PAD", "PAD", (maps(), border), **known)
    yield Case("PADV2", "PADV2", (maps(), border, Constant(np.float32(1.5))))
    for mode in (0, 1):
        yield Case(f"MIRROR_PAD {mode}", "MIRROR_PAD", (maps(), border), {"mode": mode}, **known)
    yield Case("TILE", "TILE", (maps(), whole(1, 2, 1, 3)))
    yield Case("BROADCAST_TO", "BROADCAST_TO", (maps(1, 1, 4), whole(2, 3, 4)))
    yield Case("FILL", "FILL", (whole(2, 3), maps(1).reshape(())))
    yield Case("REVERSE_V2", "REVERSE_V2", (maps(), whole(2)))
    yield Case("DEPTH_TO_SPACE", "DEPTH_TO_SPACE", (maps(1, 3, 4, 8),), {"block_size": 2}, **known)
    yield Case("SPACE_TO_DEPTH", "SPACE_TO_DEPTH", (maps(1, 4, 6, 3),), {"block_size": 2}, **known)
    blocks = (maps(1, 5, 6, 3), whole(2, 3), matrix([[1, 2], [0, 3]]))
    yield Case("SPACE_TO_BATCH_ND", "SPACE_TO_BATCH_ND", blocks, moves=True, kinds=("int8",))
    blocks = (maps(6, 4, 3, 3), whole(2, 3), matrix([[1, 2], [0, 3]]))
    yield Case("BATCH_TO_SPACE_ND", "BATCH_TO_SPACE_ND", blocks, **known)
    places = GENERATOR.integers(0, 4, (2, 3)).astype(np.int32)
    hot = (places, Constant(np.int32(4)), Constant(np.float32(2)), Constant(np.float32(-1)))
    yield Case("ONE_HOT", "ONE_HOT", hot, {"axis": -1})


def _reductions():
    for op_type, kinds in (
        ("MEAN", ALL),
        ("SUM", EIGHT),
        ("REDUCE_MAX", ALL),
        ("REDUCE_MIN", EIGHT),
        ("REDUCE_PROD", ()),
    ):
        moves = op_type in {"REDUCE_MAX", "REDUCE_MIN"}
        for axes, keep in (((1, 2), False), ((1, 2), True), ((3,), True), ((-1,), False)):
            yield Case(
                f"{op_type} {axes} {keep}",
                op_type,
                (maps(), whole(*axes)),
                {"keep_dims": keep},
                moves=moves,
                kinds=kinds if axes == (1, 2) else (),
            )
    for op_type in ("REDUCE_ANY", "REDUCE_ALL"):
        yield Case(op_type, op_type, (truths(), whole(1, 2)), dtype="bool")
    for op_type in ("ARG_MAX", "ARG_MIN"):
        for axis in (3, 1):
            known = {"output_type": 2}
            values = (maps(), Constant(np.int32(axis)))
            yield Case(f"{op_type} {axis}", op_type, values, known, dtype="int32", kinds=EIGHT)
    values = (maps(2, 9), Constant(np.int32(3)))
    yield Case("TOPK_V2", "TOPK_V2", values, outputs=2, dtypes=("float32", "int32"))
    yield Case("CUMSUM", "CUMSUM", (maps(2, 9), Constant(np.int32(1))), {"exclusive": True})
    for x, y in ((False, False), (False, True), (True, False)):
        a, b = maps(2, 4, 3) if x else maps(2, 3, 4), maps(2, 5, 4) if y else maps(2, 4, 5)
        known = {"adj_x": x, "adj_y": y}
        yield Case(f"BATCH_MATMUL {x} {y}", "BATCH_MATMUL", (a, b), known, kinds=("int8",))


def _resizes():
    for op_type in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for size in ((14, 18), (10, 5), (3, 31)):
            for name, known in (
                ("plain", {}),
                ("corners", {"align_corners": True}),
                ("centres", {"half_pixel_centers": True}),
            ):
                values = (maps(), whole(*size))
                kinds = EIGHT if size == (14, 18) else ()
                yield Case(
                    f"{op_type} {size} {name}", op_type, values, known, moves=True, kinds=kinds
                )


def _detectors():
    from flatbuffers import flexbuffers

    plain = {f"{n}_scale": s for n, s in zip("yxhw", (10.0, 10.0, 5.0, 5.0), strict=True)}
    plain |= {"max_detections": 6, "max_classes_per_detection": 1, "detections_per_class": 3}
    plain |= {"num_classes": 4, "nms_iou_threshold": 0.5, "nms_score_threshold": 0.3}
    side = np.linspace(0.1, 0.9, 5)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    anchors = Constant(np.concatenate([grid, np.full((25, 2), 0.3)], 1).astype(np.float32))
    scores = GENERATOR.uniform(0, 1, (1, 25, 5)).astype(np.float32)
    for name, extra in (
        ("together", {"use_regular_nms": False}),
        ("per class", {"use_regular_nms": True}),
    ):
        options = bytes(flexbuffers.Dumps({**plain, **extra}))
        values = (maps(1, 25, 4), scores, anchors)
        op_type = "TFLite_Detection_PostProcess"
        yield Case(f"detections {name}", op_type, values, outputs=4, custom=options)
    corners = GENERATOR.uniform(0, 0.7, (30, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 0.3], 1)
    boxes[::3] = boxes[::3, [2, 1, 0, 3]]  # corners in another order
    boxes[7] = boxes[8]
    scores = GENERATOR.uniform(0, 1, 30).astype(np.float32)
    scores[4] = scores[5]
    for name, count, overlap, least in (
        ("filled up", 20, 0.3, 0.4),
        ("cut", 3, 0.5, 0.0),
        ("alone", 4, 0.0, 0.1),
    ):
        ends = (Constant(np.int32(count)), *(Constant(np.float32(n)) for n in (overlap, least)))
        yield Case(
            f"nms v4 {name}", "NON_MAX_SUPPRESSION_V4", (boxes, scores, *ends),
            outputs=2, dtype="int32",
        )  # fmt: skip
        yield Case(
            f"nms v5 {name}", "NON_MAX_SUPPRESSION_V5",
            (boxes, scores, *ends, Constant(np.float32(0))),
            outputs=3, dtypes=("int32", "float32", "int32"),
        )  # fmt: skip


def _recurrent():
    gates = [weights(6, 5) for _ in range(4)] + [weights(6, 6) for _ in range(4)]
    biases = [Constant(GENERATOR.normal(0, 1, 6).astype(np.float32)) for _ in range(4)]
    states = [State((2, 6)), State((2, 6))]
    for major in (False, True):
        x = maps(7, 2, 5) if major else maps(2, 7, 5)
        values = (x, *gates, *[None] * 3, *biases, None, None, *states, *[None] * 4)
        known = {"fused_activation_function": 4, "time_major": major}
        yield Case(f"lstm {major}", "UNIDIRECTIONAL_SEQUENCE_LSTM", values, known)


CASES = [
    *_detectors(),
    *_recurrent(),
    *_convolutions(),
    *_pools(),
    *_pairs(),
    *_singles(),
    *_moves(),
    *_reductions(),
    *_resizes(),
]


def quantised_steps(values, dtype):
    """Scale and zero point that cover values, as TFLite's converter chooses them."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    bounds = np.iinfo(dtype)
    if dtype == "int16":
        return max(-low, high, 1e-3) / 32767, 0
    scale = max(high - low, 1e-3) / 255
    return scale, int(np.clip(np.rint(bounds.min - low / scale), bounds.min, bounds.max))


def variants(case):
    """Types to be quantised to, and further options of ``built``."""
    stored = [v for v in case.values if isinstance(v, Constant) and v.array.dtype == np.float32]
    yield "", {}
    if stored:
        yield "", {"half": True}
    for kind in case.kinds:
        yield kind, {}
        if kind == "int8" and any(v.channels is not None for v in stored):
            yield kind, {"per_channel": False}


def built(case, kind, shapes, ranges, *, per_channel=True, half=False):
    """Bytes of a case's file, and its inputs.

    Args:
        case: The case.
        kind: Type to quantise to; empty for floats.
        shapes: Shapes of the outputs.
        ranges: Values of the outputs of the float file; None for that one.
        per_channel: Whether weights have steps per channel.
        half: Whether weights are stored in 16 bits behind a DEQUANTIZE.
    """
    tensors, operators, names, feeds = [], [], [], []
    first = None
    for index, value in enumerate(case.values):
        name = f"in{index}"
        names.append(-1 if value is None else name)
        if value is None or isinstance(value, State):
            tensors += [] if value is None else [TensorOf(name, value.shape, variable=True)]
            continue
        constant = isinstance(value, Constant)
        array = value.array if constant else value
        floats = array.dtype == np.float32
        if not constant:
            feeds.append((name, array))
        if constant and half and floats:
            tensors.append(
                TensorOf(f"{name}_half", array.shape, "float16", array.astype("float16"))
            )
            tensors.append(TensorOf(name, array.shape))
            operators.append(OperatorOf("DEQUANTIZE", [f"{name}_half"], [name]))
        elif not kind or not floats:
            data = array if constant else None
            tensors.append(TensorOf(name, array.shape, array.dtype.name, data))
        else:
            made = _quantised(case, value, array, kind, name, first, per_channel, tensors)
            first = first or made
            tensors.append(made)
    outs = []
    for index in range(case.outputs):
        dtype = case.dtypes[index] if case.dtypes else case.dtype
        made = TensorOf(f"out{index}", shapes[index], dtype)
        if kind and dtype == "float32":
            if case.moves:
                scale, zero = first.scale, first.zero
            elif case.fixed:
                scale, zero = ((n,) for n in case.fixed[kind])
            else:
                scale, zero = ((n,) for n in quantised_steps(ranges[index], kind))
            made = replace(made, dtype=kind, scale=scale, zero=zero)
        tensors.append(made)
        outs.append(made.name)
    operators.append(OperatorOf(case.op_type, names, outs, case.options, custom=case.custom))
    return tflite_file((tensors, operators), [n for n, _ in feeds], outs), feeds


def _quantised(case, value, array, kind, name, first, per_channel, tensors):
    """A quantised input: weights symmetric, a bias of the product's steps, or an activation."""
    if isinstance(value, Constant) and value.bias:
        x, kernel = (tensors[n] for n in ((2, 1) if case.op_type == "TRANSPOSE_CONV" else (0, 1)))
        scale = np.array(x.scale[0]) * np.array(kernel.scale)
        wide = "int64" if kind == "int16" else "int32"
        data = np.rint(array / scale).astype(wide)
        return TensorOf(name, array.shape, wide, data, tuple(scale))
    if isinstance(value, Constant) and value.channels is not None:
        if kind == "uint8":
            scale, zero = quantised_steps(array, kind)
            data = np.clip(np.rint(array / scale) + zero, 0, 255).astype("uint8")
            return TensorOf(name, array.shape, "uint8", data, (scale,), (zero,))
        axes = tuple(n for n in range(array.ndim) if n != value.channels)
        peak = np.abs(array).max(axes if per_channel else None, keepdims=True)
        scale = np.maximum(peak, 1e-6) / 127
        data = np.rint(array / scale).astype("int8")
        return TensorOf(name, array.shape, "int8", data, tuple(scale.ravel()), (0,), value.channels)
    scale, zero = quantised_steps(array, kind)
    if first is not None and (case.moves or case.op_type in SAME_STEPS):
        scale, zero = first.scale[0], first.zero[0]
    if not isinstance(value, Constant):
        return TensorOf(name, array.shape, kind, None, (scale,), (zero,))
    bounds = np.iinfo(kind)
    data = np.clip(np.rint(array / scale) + zero, bounds.min, bounds.max).astype(kind)
    return TensorOf(name, array.shape, kind, data, (scale,), (zero,))


SAME_STEPS = ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")

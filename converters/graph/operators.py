"""Facts per operator: what each of them does to values, one row per operator.

Whoever reasons about a graph (layers, shapes, receptive fields, quantised networks, the head)
asks this table instead of keeping a list of operator names of its own.

Adding an operator touches two places: its function in ``converters/to_torch/ops/`` and its row
here.  A row says what is *true* of the operator; write it with the constructor of its kind
(``_one`` for functions of one value, ``_move`` for what only moves values, ...) and name the
further facts.  A test holds that every operator of the twin has a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from converters.graph import Graph, Node

__all__ = [
    "OPERATORS",
    "Facts",
    "Quantised",
    "facts",
    "facts_of",
    "has_row",
    "mixes_samples",
]

MICROSOFT = "com.microsoft"
MICROSOFT_DOMAINS = (MICROSOFT, "com.microsoft.nchwc", "com.ms.internal.nhwc")
"""Domains of ONNX Runtime's own operators; the last two are those of optimised files."""

EVERY = tuple(range(600))
"""Positions of all inputs of a variadic operator."""


@dataclass(frozen=True)
class Quantised:
    """Inputs of an operator that quantises its result.

    Attributes:
        scale: Position of the scale of the result; the zero point is the next input.
        data: Positions of the tensors that the result is computed from.
    """

    scale: int
    data: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Facts:
    """What is true of one operator.

    Attributes:
        copies: Every value stays where it is; only its type may change.
        retypes: A copy of another type.
        rounds: A copy that passes between real numbers and levels: (de)quantisation.
        moves: Values of the first input are moved, repeated or left out, and none is computed.
        reshapes: Of what moves: the order in memory stays.
        joins: Several tensors are laid side by side.
        resizes: Places are resampled.
        pads: A border is added.
        elementwise: Each value is computed from what stands at its place: in the ``first`` input
            (the others are parameters), or in ``all`` inputs, which broadcast.
        logical: Truth values, integers or bits come out; elementwise, but not arithmetic.
        arithmetic: Addition, subtraction, multiplication, division.
        sums: The inputs are added up, as at the end of a residual block.
        nonlinear: Elementwise and not linear, but in no list of activation functions.
        activation: Kind of the activation function that it is, as in ``Activation.kind``.
        constant_slope: The slope is zero wherever it exists: rounding.
        convolves: A convolution.
        weights: Position of its weights, of a convolution or a matrix product; None for others.
        channels_last: Its maps are (N, h, w, C).
        pools: How it pools: by the ``max``, the ``average`` or a ``norm``.
        whole: Of what pools: over whole axes, not over windows.
        reduces: Axes are reduced, as its attributes or inputs say.
        normalises: What it divides by: ``constants`` (batch normalisation), ``statistics`` of the
            sample, its ``norm``, its ``sum`` (softmax), its ``neighbours`` (LRN).
        not_negative: Nothing below zero comes out, whatever comes in.
        keeps_sign: Nothing below zero comes out where the ``first`` input, or ``all``, have none.
        keeps_axes: Each axis of the result is the same axis of the first input; a map of features
            stays one.
        keeps_shape: The result has the shape of the first input.
        prepares: Pixels stay pixels: what the preparation of an image may consist of.
        linear_in: Positions of inputs that it is linear in jointly, the others being constant.
        factors: Positions of inputs that it multiplies: linear in one, the others being constant.
        quantised: Where it keeps the scale of its result; None where it does not quantise.
        levels: It computes with integer levels or makes them, by fixed or dynamic ranges.
        stochastic: It draws random numbers.
        bodies: Control flow: it runs subgraphs.
        sequences: It makes or takes a sequence or an optional value.
    """

    copies: bool = False
    retypes: bool = False
    rounds: bool = False
    moves: bool = False
    reshapes: bool = False
    joins: bool = False
    resizes: bool = False
    pads: bool = False
    elementwise: Literal["", "first", "all"] = ""
    logical: bool = False
    arithmetic: bool = False
    sums: bool = False
    nonlinear: bool = False
    activation: str = ""
    constant_slope: bool = False
    convolves: bool = False
    weights: int | None = None
    channels_last: bool = False
    pools: Literal["", "max", "average", "norm"] = ""
    whole: bool = False
    reduces: bool = False
    normalises: Literal["", "constants", "statistics", "norm", "sum", "neighbours"] = ""
    not_negative: bool = False
    keeps_sign: Literal["", "first", "all"] = ""
    keeps_axes: bool = False
    keeps_shape: bool = False
    prepares: bool = False
    linear_in: tuple[int, ...] = ()
    factors: tuple[int, ...] = ()
    quantised: Quantised | None = None
    levels: bool = False
    stochastic: bool = False
    bodies: bool = False
    sequences: bool = False

    @property
    def carries(self) -> bool:
        """Whether the values stay where they are, up to type and rounding."""
        return self.copies or self.rounds

    @property
    def weighted(self) -> bool:
        """Whether it learns weights that mix channels: a convolution or a matrix product."""
        return self.weights is not None

    @property
    def scores(self) -> bool:
        """Whether it makes weights or probabilities of what it acts on: softmax, sigmoid."""
        return self.softmax or self.activation in {"Sigmoid", "HardSigmoid"}

    @property
    def softmax(self) -> bool:
        """Whether it compares classes or places: softmax, log-softmax, hardmax."""
        return self.activation in {"Softmax", "LogSoftmax", "Hardmax"}


# -- kinds of operators ---------------------------------------------------------------------------

_FIRST = (0,)


def _copy(**more: Any) -> Facts:
    known = {"keeps_sign": "first", "keeps_axes": True, "keeps_shape": True, "prepares": True}
    return Facts(**{"copies": True, "linear_in": _FIRST, **known, **more})


def _rounding(**more: Any) -> Facts:
    return _copy(copies=False, rounds=True, **more)


def _move(**more: Any) -> Facts:
    known = {"keeps_sign": "first", "linear_in": _FIRST, "prepares": True}
    return Facts(**{"moves": True, **known, **more})


def _one(**more: Any) -> Facts:
    """A function of one value."""
    return Facts(**{"elementwise": "first", "keeps_axes": True, "keeps_shape": True, **more})


def _curved(**more: Any) -> Facts:
    return _one(nonlinear=True, **more)


def _activation(kind: str, **more: Any) -> Facts:
    return _one(activation=kind, **more)


def _share(kind: str, **more: Any) -> Facts:
    """Softmax and its kin: over one axis."""
    known = {"normalises": "sum", "keeps_shape": True}
    return Facts(**{"activation": kind, **known, **more})


def _all(**more: Any) -> Facts:
    """A function of the values of several tensors at one place."""
    return Facts(**{"elementwise": "all", "keeps_axes": True, **more})


def _logic(**more: Any) -> Facts:
    return Facts(**{"elementwise": "all", "logical": True, **more})


def _test(**more: Any) -> Facts:
    return Facts(**{"elementwise": "first", "logical": True, "keeps_shape": True, **more})


def _convolution(**more: Any) -> Facts:
    return Facts(**{"convolves": True, "weights": 1, **more})


def _pool(how: str, **more: Any) -> Facts:
    linear = _FIRST if how == "average" else ()
    known = {"keeps_sign": "first", "keeps_axes": True, "linear_in": linear}
    return Facts(**{"pools": how, **known, **more})


def _reduction(**more: Any) -> Facts:
    return Facts(**{"reduces": True, **more})


def _norm(by: str, **more: Any) -> Facts:
    return Facts(**{"normalises": by, "keeps_axes": True, **more})


def _quantised(scale: int, data: tuple[int, ...] = _FIRST, **more: Any) -> dict[str, Any]:
    """What is known besides of an operator that computes with levels."""
    return {"quantised": Quantised(scale, data), "levels": True, **more}


_NONE = Facts()
_BODY = Facts(bodies=True)
_SEQUENCE = Facts(sequences=True)
_RANDOM = Facts(stochastic=True)
_ARITHMETIC = {"arithmetic": True, "prepares": True}

_STANDARD: Mapping[str, Facts] = {
    # copies, and what only moves values
    "Identity": _copy(),
    "Cast": _copy(retypes=True),
    "CastLike": _copy(retypes=True),
    "Dropout": _copy(prepares=False),
    "QuantizeLinear": _rounding(**_quantised(1), constant_slope=True),
    "DequantizeLinear": _rounding(),
    "DynamicQuantizeLinear": Facts(levels=True, constant_slope=True),
    "Reshape": _move(reshapes=True),
    "Flatten": _move(reshapes=True),
    "Squeeze": _move(reshapes=True),
    "Unsqueeze": _move(reshapes=True),
    "Transpose": _move(),
    "Slice": _move(keeps_axes=True),
    "Split": _move(keeps_axes=True),
    "Gather": _move(),
    "GatherElements": _move(),
    "GatherND": _move(),
    "Expand": _move(),
    "Tile": _move(),
    "DepthToSpace": _move(keeps_axes=True),
    "SpaceToDepth": _move(keeps_axes=True),
    "Crop": _move(keeps_axes=True),
    "Compress": _move(),
    "ReverseSequence": _move(),
    "Trilu": Facts(keeps_sign="first", linear_in=_FIRST),
    "CenterCropPad": Facts(keeps_sign="first", keeps_axes=True, linear_in=_FIRST),
    "Pad": Facts(pads=True, keeps_axes=True, prepares=True, linear_in=_FIRST),
    "Concat": Facts(joins=True, keeps_sign="all", keeps_axes=True, prepares=True, linear_in=EVERY),
    "Resize": Facts(resizes=True, keeps_axes=True, prepares=True, linear_in=_FIRST),
    "Upsample": Facts(
        resizes=True, keeps_sign="first", keeps_axes=True, prepares=True, linear_in=_FIRST
    ),
    # arithmetic
    "Add": _all(**_ARITHMETIC, sums=True, keeps_sign="all", linear_in=EVERY),
    "Sub": _all(**_ARITHMETIC, linear_in=EVERY),
    "Mul": _all(**_ARITHMETIC, keeps_sign="all", factors=(0, 1)),
    "Div": _all(**_ARITHMETIC, keeps_sign="all", linear_in=_FIRST),
    "Sum": _all(sums=True, keeps_sign="all", linear_in=EVERY),
    "Mean": _all(keeps_sign="all", linear_in=EVERY),
    "Max": _all(nonlinear=True, prepares=True),
    "Min": _all(nonlinear=True, prepares=True, keeps_sign="all"),
    "Mod": _all(nonlinear=True),
    "Pow": _all(nonlinear=True),
    "Where": _all(nonlinear=True, keeps_sign="all"),
    "Neg": _one(linear_in=_FIRST),
    "Affine": _one(),
    "ImageScaler": Facts(keeps_axes=True, keeps_shape=True),  # one bias per channel
    "Abs": _curved(not_negative=True),
    "Acos": _curved(),
    "Acosh": _curved(),
    "Asin": _curved(),
    "Asinh": _curved(),
    "Atan": _curved(),
    "Atanh": _curved(),
    "Ceil": _curved(constant_slope=True),
    "Cos": _curved(),
    "Cosh": _curved(),
    "Erf": _curved(),
    "Exp": _curved(not_negative=True),
    "Floor": _curved(constant_slope=True),
    "Log": _curved(),
    "Reciprocal": _curved(),
    "Round": _curved(constant_slope=True),
    "Sign": _curved(constant_slope=True),
    "Sin": _curved(),
    "Sinh": _curved(),
    "Sqrt": _curved(not_negative=True),
    "Tan": _curved(),
    # activation functions
    "Celu": _activation("Celu"),
    "Clip": _activation("Clip"),
    "Elu": _activation("Elu"),
    "Gelu": _activation("Gelu"),
    "HardSigmoid": _activation("HardSigmoid", not_negative=True),
    "HardSwish": _activation("HardSwish"),
    "LeakyRelu": _activation("LeakyRelu", keeps_sign="first"),
    "Mish": _activation("Mish"),
    "PRelu": _activation("PRelu", elementwise="all", keeps_sign="first"),
    "ParametricSoftplus": _one(),
    "Relu": _activation("Relu", not_negative=True),
    "ScaledTanh": _one(),
    "Selu": _activation("Selu"),
    "Shrink": _activation("Shrink"),
    "Sigmoid": _activation("Sigmoid", not_negative=True),
    "Softplus": _activation("Softplus", not_negative=True),
    "Softsign": _activation("Softsign"),
    "Swish": _activation("Silu"),
    "Tanh": _activation("Tanh"),
    "ThresholdedRelu": _activation("ThresholdedRelu", not_negative=True),
    "Softmax": _share("Softmax", not_negative=True),
    "LogSoftmax": _share("LogSoftmax"),
    "Hardmax": _share("Hardmax", not_negative=True, normalises=""),
    # truth values, integers and bits
    "And": _logic(),
    "BitCast": _test(),
    "BitShift": _logic(nonlinear=True),
    "BitwiseAnd": _logic(),
    "BitwiseNot": _test(),
    "BitwiseOr": _logic(),
    "BitwiseXor": _logic(),
    "Equal": _logic(),
    "Greater": _logic(),
    "GreaterOrEqual": _logic(),
    "IsInf": _test(),
    "IsNaN": _test(),
    "Less": _logic(),
    "LessOrEqual": _logic(),
    "Not": _test(),
    "Or": _logic(),
    "Xor": _logic(),
    # convolutions and matrix products
    "Conv": _convolution(linear_in=_FIRST),
    "ConvTranspose": _convolution(linear_in=_FIRST),
    "ConvInteger": _convolution(levels=True),
    "DeformConv": _convolution(),
    "QLinearConv": _convolution(weights=3, linear_in=_FIRST, **_quantised(6)),
    "Gemm": Facts(weights=1, factors=(0, 1)),
    "MatMul": Facts(weights=1, factors=(0, 1)),
    "MatMulInteger": Facts(weights=1, levels=True),
    "QLinearMatMul": Facts(weights=3, factors=(0, 3), **_quantised(6, (0, 3))),
    "Attention": _NONE,
    "Det": _NONE,
    "Einsum": _NONE,
    "GRU": _NONE,
    "LSTM": _NONE,
    "RNN": _NONE,
    "RotaryEmbedding": _NONE,
    # poolings and reductions
    "AveragePool": _pool("average"),
    "MaxPool": _pool("max"),
    "LpPool": _pool("norm", not_negative=True),
    "GlobalAveragePool": _pool("average", whole=True),
    "GlobalMaxPool": _pool("max", whole=True),
    "GlobalLpPool": _pool("norm", whole=True, not_negative=True),
    "MaxRoiPool": Facts(keeps_sign="first"),
    "MaxUnpool": Facts(keeps_sign="first"),
    "RoiAlign": _NONE,
    "ReduceMean": _reduction(pools="average", whole=True, keeps_sign="first", linear_in=_FIRST),
    "ReduceSum": _reduction(keeps_sign="first", linear_in=_FIRST),
    "ReduceMax": _reduction(pools="max", whole=True, keeps_sign="first"),
    "ReduceMin": _reduction(keeps_sign="first"),
    "ReduceProd": _reduction(keeps_sign="first"),
    "ReduceL1": _reduction(not_negative=True),
    "ReduceL2": _reduction(not_negative=True),
    "ReduceLogSum": _reduction(),
    "ReduceLogSumExp": _reduction(),
    "ReduceSumSquare": _reduction(not_negative=True),
    "ArgMax": _reduction(),
    "ArgMin": _reduction(),
    "TopK": _NONE,
    "CumProd": _NONE,
    "CumSum": _NONE,
    # normalisations
    "BatchNormalization": _norm("constants", keeps_shape=True, prepares=True, linear_in=_FIRST),
    "InstanceNormalization": _norm("statistics", keeps_shape=True),
    "GroupNormalization": _norm("statistics", keeps_shape=True),
    "LayerNormalization": _norm("statistics", keeps_shape=True),
    "RMSNormalization": _norm("statistics", keeps_shape=True),
    "SimplifiedLayerNormalization": _norm("statistics", keeps_shape=True),
    "MeanVarianceNormalization": _norm("statistics", keeps_shape=True),
    "LpNormalization": _norm("norm", keeps_shape=True),
    "LRN": _norm("neighbours", keeps_shape=True, keeps_sign="first"),
    # places and indices
    "AffineGrid": _NONE,
    "Col2Im": _NONE,
    "GridSample": _NONE,
    "NonMaxSuppression": _NONE,
    "NonZero": _NONE,
    "OneHot": _NONE,
    "Scatter": _NONE,
    "ScatterElements": _NONE,
    "ScatterND": _NONE,
    "TensorScatter": _NONE,
    "Unique": _NONE,
    # signals
    "DFT": _NONE,
    "STFT": _NONE,
    "BlackmanWindow": _NONE,
    "HammingWindow": _NONE,
    "HannWindow": _NONE,
    "MelWeightMatrix": _NONE,
    # constants and shapes
    "Constant": _NONE,
    "ConstantOfShape": _NONE,
    "EyeLike": _NONE,
    "Range": _NONE,
    "Shape": _NONE,
    "Size": _NONE,
    "NegativeLogLikelihoodLoss": _NONE,
    # random numbers
    "Bernoulli": _RANDOM,
    "Multinomial": _RANDOM,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    # control flow and sequences
    "If": _BODY,
    "Loop": _BODY,
    "Scan": _BODY,
    "SequenceMap": Facts(bodies=True, sequences=True),
    "ConcatFromSequence": _SEQUENCE,
    "Optional": _SEQUENCE,
    "OptionalGetElement": _SEQUENCE,
    "OptionalHasElement": _SEQUENCE,
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SplitToSequence": _SEQUENCE,
}

_JOINED = tuple(range(2, 600, 3))

_MICROSOFT: Mapping[str, Facts] = {
    "BiasGelu": _activation("Gelu"),
    "DequantizeLinear": _STANDARD["DequantizeLinear"],
    "FastGelu": _activation("Gelu"),
    "FusedConv": _convolution(),
    "FusedGemm": Facts(weights=1),
    "FusedMatMul": Facts(weights=1),
    "Gelu": _activation("Gelu"),
    "GroupNorm": _norm("statistics"),
    "NhwcConv": _convolution(channels_last=True),
    "NhwcFusedConv": _convolution(channels_last=True),
    "NhwcMaxPool": _pool("max", channels_last=True),
    "QGemm": Facts(weights=3, factors=_FIRST, **_quantised(7, (0, 3))),
    "QLinearAdd": _all(
        sums=True, keeps_sign="all", prepares=True, linear_in=(0, 3), **_quantised(6, (0, 3))
    ),
    "QLinearAveragePool": _pool("average", **_quantised(3)),
    "QLinearConcat": Facts(
        joins=True,
        keeps_sign="all",
        keeps_axes=True,
        prepares=True,
        linear_in=_JOINED,
        **_quantised(0, _JOINED),
    ),
    "QLinearConv": _STANDARD["QLinearConv"],
    "QLinearConvTranspose": _convolution(weights=3, **_quantised(6)),
    "QLinearGlobalAveragePool": _pool("average", whole=True, **_quantised(3)),
    "QLinearLeakyRelu": _activation("LeakyRelu", keeps_sign="first", **_quantised(3)),
    "QLinearMul": _all(keeps_sign="all", prepares=True, factors=(0, 3), **_quantised(6, (0, 3))),
    "QLinearReduceMean": _reduction(
        pools="average", whole=True, keeps_sign="first", linear_in=_FIRST, **_quantised(3)
    ),
    "QLinearSigmoid": _activation("Sigmoid", not_negative=True, **_quantised(3)),
    "QLinearSoftmax": _share("Softmax", not_negative=True, **_quantised(3)),
    "QuantizeLinear": _STANDARD["QuantizeLinear"],
    "QuickGelu": _activation("Gelu"),
    "SkipLayerNormalization": _norm("statistics"),
    "SkipSimplifiedLayerNormalization": _norm("statistics"),
}

OPERATORS: Mapping[tuple[str, str], Facts] = MappingProxyType(
    {
        **{("", op_type): row for op_type, row in _STANDARD.items()},
        **{(MICROSOFT, op_type): row for op_type, row in _MICROSOFT.items()},
    }
)
"""Facts by domain (empty for the standard) and operator type."""


# Asked many times of every node; bounded, for the names are a stranger's.
@lru_cache(maxsize=4096)
def facts_of(domain: str, op_type: str) -> Facts:
    """Facts of an operator; all false for one that has no row.

    Args:
        domain: As the file spells it; that of an optimised file counts as ONNX Runtime's.
        op_type: Its type.
    """
    domain = "" if domain == "ai.onnx" else domain
    found = OPERATORS.get((MICROSOFT if domain in MICROSOFT_DOMAINS else domain, op_type))
    return _NONE if found is None else found


def facts(node: Node) -> Facts:
    """Facts of a node's operator; all false for one that has no row."""
    return facts_of(node.domain, node.op_type)


def has_row(node: Node) -> bool:
    """Whether facts of a node's operator stand here."""
    return facts(node) is not _NONE


# -- facts that attributes decide -----------------------------------------------------------------

_AXIS = {
    "ArgMax": 0,
    "ArgMin": 0,
    "CumProd": None,
    "CumSum": None,
    "LayerNormalization": -1,
    "LpNormalization": -1,
    "RMSNormalization": -1,
    "SimplifiedLayerNormalization": -1,
    "TopK": -1,
}
"""Default of ``axis`` of operators that work along it; None where an input names it."""


def mixes_samples(graph: Graph, node: Node, rank: int | None = None) -> bool:
    """Whether a node says of itself that it mixes the samples of axis 0.

    Normalisation by the statistics of the batch, a range taken over the whole tensor, and
    reductions, softmax, sorting and sums along axis 0.  What becomes of samples when a tensor is
    reshaped is not asked here.

    Args:
        graph: The network, for axes that are constants.
        node: The node.
        rank: Axes of its first input, so that negative axes can be counted; None if not known.

    Returns:
        True also where the axes are computed, and so not known.
    """
    if node.is_op("DynamicQuantizeLinear"):
        return True
    if node.is_op("BatchNormalization"):
        training = len([name for name in node.outputs if name]) > 1
        return bool(node.attributes.get("training_mode", 0)) or (graph.opset() >= 7 and training)
    axes = _worked_axes(graph, node)
    if axes is None:
        return True
    return any(axis == 0 or (axis < 0 and rank is not None and axis + rank == 0) for axis in axes)


def _worked_axes(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """Axes that a node works along; None where they are computed."""
    known, attributes = facts(node), node.attributes
    if node.is_op("MeanVarianceNormalization"):
        return tuple(attributes.get("axes", (0, 2, 3)))
    if known.softmax and not node.domain:
        old = graph.opset() < 13
        return (attributes.get("axis", 1 if old else -1),)
    if node.op_type in _AXIS and not node.domain:
        default = _AXIS[node.op_type]
        if default is not None:
            return (attributes.get("axis", default),)
        axis = graph.constant(node.inputs[1])
        return None if axis is None else (int(np.ravel(axis)[0]),)
    return _reduced_axes(graph, node) if known.reduces else ()


def _reduced_axes(graph: Graph, node: Node) -> tuple[int, ...] | None:
    axes = node.attributes.get("axes")
    if axes is None and not node.domain and len(node.inputs) > 1 and node.inputs[1]:
        given = graph.constant(node.inputs[1])
        if given is None:
            return None
        axes = np.ravel(given).tolist()
    if axes:
        return tuple(int(axis) for axis in axes)
    return () if node.attributes.get("noop_with_empty_axes", 0) else (0,)

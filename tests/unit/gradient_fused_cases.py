"""Cases of fused, scattering, sampling and attending operators; see ``gradient_cases``."""

import numpy as np

from tests.unit.gradient_cases import Case

MICROSOFT = "com.microsoft"

_RNG = np.random.default_rng(10)


def _w(*shape):
    return _RNG.normal(size=shape).astype(np.float32)


def _ints(*values):
    return np.array(values, np.int64)


def _fused():
    weights = (_w(4, 3, 3, 3), _w(4))
    for kind in ("", "Relu", "Sigmoid", "Tanh", "LeakyRelu"):
        parameters = {"activation_params": [0.1]} if kind == "LeakyRelu" else {}
        attributes = {"pads": [1, 1, 1, 1], "activation": kind} | parameters
        yield Case("FusedConv", constants=weights, attributes=attributes, domain=MICROSOFT)
    clipped = {"activation": "Clip", "activation_params": [0.0, 1.0]}
    yield Case("FusedConv", constants=weights, attributes=clipped, domain=MICROSOFT)
    added = (_w(1, 3, 6, 7), _w(3, 3, 1, 1), None)
    added_to = {"attributes": {"activation": "Relu"}, "domain": MICROSOFT, "place": 3}
    yield Case("FusedConv", (1, 3, 6, 7), added, **added_to)
    for kind in ("Relu", "Softplus", "Softsign"):
        attributes = {"activation": kind, "transB": 1, "alpha": 0.5}
        yield Case("FusedGemm", (2, 5), (_w(4, 5), _w(4)), attributes, domain=MICROSOFT)
    for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1)):
        attributes = {"transA": ta, "transB": tb, "alpha": 0.5}
        a, c = ((1, 5, 3) if ta else (1, 3, 5)), ((4, 5) if tb else (5, 4))
        if not (ta and tb):  # ONNX Runtime's own kernel fails there
            yield Case("FusedMatMul", a, (_w(*c),), attributes, domain=MICROSOFT)
        wide = (1, 4, 5) if tb else (1, 5, 4)
        yield Case("FusedMatMul", wide, (_w(*a),), attributes, place=1, domain=MICROSOFT)
    yield Case("BiasGelu", constants=(_w(7),), domain=MICROSOFT)
    yield Case("FastGelu", constants=(_w(7),), domain=MICROSOFT)
    yield Case("FastGelu", domain=MICROSOFT)
    yield Case("QuickGelu", attributes={"alpha": 1.3}, domain=MICROSOFT)
    yield Case("SimplifiedLayerNormalization", constants=(_w(7),))
    skip = (_w(1, 3, 7), _w(7), _w(7), _w(7))
    yield Case("SkipLayerNormalization", (1, 3, 7), skip, domain=MICROSOFT)
    yield Case("SkipLayerNormalization", (1, 3, 7), skip[:3], place=1, domain=MICROSOFT)
    plain = (_w(1, 3, 7), _w(7), _w(7))
    yield Case("SkipSimplifiedLayerNormalization", (1, 3, 7), plain, domain=MICROSOFT)
    yield Case("ScaledTanh", attributes={"alpha": 1.7, "beta": 0.6}, opset=7)
    yield Case("ParametricSoftplus", attributes={"alpha": 1.7, "beta": 0.6}, opset=7)


def _indices():
    for opset in (7, 10, 11):
        count = {"k": 2} if opset < 10 else {}
        given = () if opset < 10 else (_ints(2),)
        for axis in (1, -1):
            attributes = {"axis": axis} | count
            yield Case("TopK", (2, 5, 4), given, attributes, opset=opset, outputs=2)
    smallest = {"axis": 1, "largest": 0}
    yield Case("TopK", (2, 5, 4), (_ints(3),), smallest, opset=18, outputs=2)
    one = (1, 3, 6, 7)
    rows = _RNG.integers(-3, 3, (1, 4, 6, 7))
    for opset in (11, 16):
        yield Case("GatherElements", one, (rows,), {"axis": 1}, opset=opset)
    places = np.argsort(_RNG.random(one), axis=2)[:, :, :2]
    updates = _w(*places.shape)
    for kind, opset in (("Scatter", 9), ("ScatterElements", 11), ("ScatterElements", 18)):
        attributes = {"axis": 2}
        yield Case(kind, one, (places, updates), attributes, opset=opset)
        yield Case(kind, places.shape, (_w(*one), places), attributes, opset=opset, place=2)
    adding = {"axis": 2, "reduction": "add"}
    yield Case("ScatterElements", one, (places, updates), adding, opset=18)
    tuples = np.stack([_ints(0, 0, 0), _ints(2, 0, 1), _ints(5, 1, 0)], axis=1)
    yield Case("ScatterND", one, (tuples, _w(3, 7)))
    yield Case("ScatterND", one, (tuples, _w(3, 7)), {"reduction": "add"}, opset=16)
    yield Case("ScatterND", (1, 3, 7), (_w(1, 3, 6, 7), tuples[None]), place=2)
    yield Case("GatherND", one, (tuples,))
    own = _ints(2, 0).reshape(1, 2, 1)
    yield Case("GatherND", one, (own,), {"batch_dims": 1})
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    found = (np.arange(12) * 4).reshape(1, 3, 2, 2)
    yield Case("MaxUnpool", (1, 3, 2, 2), (found,), pool, opset=11)
    keep = np.array([True, False, True, True, False, False])
    yield Case("Compress", constants=(keep,), attributes={"axis": 2})
    yield Case("Compress", constants=(np.zeros(6, bool),), attributes={"axis": 2})
    for options in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
        yield Case("CumSum", constants=(np.int64(2),), attributes=options, opset=14)
    lengths = {"batch_axis": 0, "time_axis": 1}
    yield Case("ReverseSequence", one, (_ints(2),), lengths)


def _moves():
    yield Case("CastLike", constants=(np.float32(1),))
    yield Case("CenterCropPad", constants=(_ints(9, 4),), attributes={"axes": [2, 3]})
    yield Case("CenterCropPad", constants=(_ints(3, 12),), attributes={"axes": [2, 3]})
    block = {"pads": [0, 1, 0, 1], "strides": [1, 2]}
    yield Case("Col2Im", (2, 12, 16), (_ints(5, 6), _ints(2, 2)), block)
    yield Case("LpPool", attributes={"kernel_shape": [3, 2], "strides": [2, 1], "p": 3}, low=0.1)
    yield Case("LpPool", attributes={"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, opset=11)
    apart = {"kernel_shape": [3, 2], "dilations": [2, 1], "pads": [1, 1, 1, 1]}
    yield Case("AveragePool", attributes=apart | {"strides": [1, 2]}, opset=19)
    angle = _RNG.uniform(0, 3, (1, 4, 3))
    turned = (np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32))
    for interleaved in (0, 1):
        options = {"interleaved": interleaved}
        yield Case("RotaryEmbedding", (1, 2, 4, 6), turned, options, opset=23)
    yield Case("RotaryEmbedding", (1, 4, 12), turned, {"num_heads": 2}, opset=23)


def _samples():
    grid, one = _RNG.uniform(-1.4, 1.4, (1, 4, 5, 2)).astype(np.float32), (1, 3, 6, 7)
    for align in (0, 1):
        for padding in ("zeros", "border", "reflection"):
            options = {"align_corners": align, "padding_mode": padding}
            yield Case("GridSample", one, (grid,), options)
            positions = ((1, 4, 5, 2), (_w(*one),), options)
            yield Case("GridSample", *positions, place=1, low=-1.4, high=1.4)
    yield Case("GridSample", one, (grid,), {"mode": "nearest"})
    yield Case("GridSample", one, (grid,), {"mode": "bilinear"}, opset=16)
    for size, theta in ((_ints(1, 3, 4, 5), (1, 2, 3)), (_ints(1, 3, 2, 4, 5), (1, 3, 4))):
        for align in (0, 1):
            yield Case("AffineGrid", theta, (size,), {"align_corners": align})


def _deformed():
    x, weights = (1, 4, 6, 7), _w(6, 2, 3, 2)
    plain = {"group": 2, "offset_group": 2, "pads": [1, 0, 1, 0]}
    strided = {"group": 2, "strides": [2, 1], "dilations": [1, 2], "pads": [2, 1, 1, 0]}
    for options, groups, out in ((plain, 2, (6, 6)), (strided, 1, (4, 6))):
        shifts = (1, groups * 12, *out)
        offset = _RNG.uniform(-1.8, 1.8, shifts).astype(np.float32)
        mask = _RNG.uniform(0, 1, (1, groups * 6, *out)).astype(np.float32)
        for opset in (19, 22):
            yield Case("DeformConv", x, (weights, offset), options, opset)
            yield Case("DeformConv", x, (weights, offset, _w(6), mask), options, opset)
        yield Case("DeformConv", shifts, (_w(*x), weights), options, place=2)
        yield Case("DeformConv", shifts, (_w(*x), weights, _w(6), mask), options, place=2)
        yield Case("DeformConv", mask.shape, (_w(*x), weights, offset, None), options, place=4)


def _attentions():
    heads = (_w(1, 4, 3, 5), _w(1, 4, 3, 6))
    yield Case("Attention", (1, 4, 7, 5), heads, opset=23)
    grouped = (_w(1, 2, 3, 5), _w(1, 2, 3, 6))
    yield Case("Attention", (1, 4, 7, 5), grouped, {"scale": 0.3}, opset=23)
    yield Case("Attention", (1, 2, 3, 5), (_w(1, 4, 7, 5), grouped[1]), opset=23, place=1)
    yield Case("Attention", (1, 2, 3, 6), (_w(1, 4, 7, 5), grouped[0]), opset=23, place=2)
    flat = {"q_num_heads": 2, "kv_num_heads": 2}
    yield Case("Attention", (1, 7, 10), (_w(1, 3, 10), _w(1, 3, 8)), flat, opset=23)
    yield Case("Attention", (1, 3, 8), (_w(1, 7, 10), _w(1, 3, 10)), flat, opset=23, place=2)
    yield Case("Attention", (1, 4, 3, 5), heads, {"is_causal": 1}, opset=24)
    yield Case("Attention", (1, 4, 7, 5), heads, {"softcap": 1.5}, opset=23)
    yield Case("Attention", (1, 4, 7, 5), (*heads, _w(7, 3)), opset=23)
    seen = _RNG.random((7, 3)) > 0.4
    seen[1] = False
    yield Case("Attention", (1, 4, 7, 5), (*heads, seen), opset=23)


FUSED_CASES = [*_fused(), *_indices(), *_moves(), *_samples(), *_deformed(), *_attentions()]

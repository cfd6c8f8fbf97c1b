"""Relevance (LRP): the rules for transformers as literal NumPy, and what a file's spelling changes.

The oracle passes relevance itself down a small transformer, formula by formula of the paper; the
engine carries relevance by value instead.  Convolutional networks have theirs in `oracles`.
"""

import numpy as np
import onnx
import pytest
import torch
import vision_transformers as vits
from networks import node, onnx_model
from onnx import helper, numpy_helper
from scipy.special import erf

import inspector
from inspector.engines.rules import Rule
from inspector.errors import MethodRefused, UsageError
from inspector.evidence.conservation import conservation
from inspector.photos.preprocess_choice import Preprocess

HEADS = 2
CONSERVED = 1e-4


def photo(seed=0, size=vits.SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def opened(tmp_path):
    def open_(content, size=vits.SIZE):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        data = content if isinstance(content, bytes) else content.SerializeToString()
        path.write_bytes(data)
        recipe = Preprocess(size=size)
        return inspector.load(path, device="cpu", preprocess=recipe, unverified=True)

    return open_


def explained(model, method, pixels=None, **asked):
    return model.explain(photo() if pixels is None else pixels, method, **asked).explanation


def near(found, wanted, tolerance=1e-4):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


# -- the paper, literally --------------------------------------------------------------------------


class Literal:
    """Relevance through `vision_transformers.ViT`, in NumPy and float64, one image.

    Each step keeps what its way back needs; the ways back are run in the opposite order.
    """

    def __init__(self, module):
        self.module = module
        self.p = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}

    @staticmethod
    def linear(x, w, b, r):
        """Equation 8: R_i = sum_j w_ji x_i R_j / (sum_i w_ji x_i + b_j)."""
        y = x @ w.T + b
        out = np.zeros_like(x)
        for row in range(len(x)):
            for j in range(len(w)):
                out[row] += w[j] * x[row] * r[row, j] / y[row, j]
        return out

    @staticmethod
    def product(a, b, r):
        """Proposition 3.3: half of what a_ji b_ip contributes to each of the two."""
        y = a @ b
        left, right = np.zeros_like(a), np.zeros_like(b)
        for j, i in np.ndindex(*a.shape):
            for p in range(b.shape[1]):
                part = a[j, i] * b[i, p] * r[j, p] / (2 * y[j, p])
                left[j, i] += part
                right[i, p] += part
        return left, right

    @staticmethod
    def softmax(x, r):
        """Proposition 3.1: R_i = x_i (R_i - s_i sum_j R_j)."""
        s = np.exp(x - x.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        return x * (r - s * r.sum(-1, keepdims=True))

    @staticmethod
    def norm(x, w, b, r):
        """Proposition 3.4 for 1 / deviation, and the epsilon rule for what is linear beside it."""
        count = x.shape[1]
        deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        y = (x - x.mean(axis=1, keepdims=True)) / deviation * w + b
        out = np.zeros_like(x)
        centre = np.eye(count) - 1 / count  # (x - mean) = centre x
        for row in range(len(x)):
            for j in range(count):
                out[row] += centre[j] * x[row] * w[j] / deviation[row] * r[row, j] / y[row, j]
        return out

    @staticmethod
    def added(a, b, r):
        return a / (a + b) * r, b / (a + b) * r

    def values(self, name):
        return self.p[f"{name}.weight"], self.p[f"{name}.bias"]

    def run(self, x, target):
        """Relevance of a class at the input (3, H, W), and the score."""
        p, module = self.p, self.module
        size, (h, w) = vits.PATCH, vits.GRID
        patches = x.reshape(3, h, size, w, size).transpose(1, 3, 0, 2, 4).reshape(h * w, -1)
        kernel, shift = p["patch.weight"].reshape(len(p["patch.bias"]), -1), p["patch.bias"]
        embedded = np.concatenate([p["first"][0], patches @ kernel.T + shift])
        tokens = [embedded + p["position"][0]]
        for i in range(2):
            middle, after = self.forward(tokens[-1], i)
            tokens += [middle, after]
        w_head, b_head = self.values("head")
        last = self.normalised(tokens[-1], "norm")
        score = (last[0] @ w_head.T + b_head)[target]
        r = np.zeros_like(last)
        start = np.zeros((1, len(w_head)))
        start[0, target] = score
        r[:1] = self.linear(last[:1], w_head, b_head, start)
        r = self.norm(tokens[-1], *self.values("norm"), r)
        for i in (1, 0):
            r = self.down(tokens[2 * i], tokens[2 * i + 1], i, r)
        r, _ = self.added(embedded, p["position"][0], r)
        r = self.linear(patches, kernel, shift, r[module.extra :])
        image = r.reshape(h, w, 3, size, size).transpose(2, 0, 3, 1, 4).reshape(x.shape)
        return image, score

    def normalised(self, x, name):
        w, b = self.values(name)
        mean, var = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * w + b

    def projected(self, x, i):
        w, b = self.values(f"blocks.{i}.qkv")
        return self.normalised(x, f"blocks.{i}.norm1") @ w.T + b

    def attention(self, qkv):
        count, width = len(qkv), qkv.shape[1] // 3
        q, k, v = qkv.reshape(count, 3, HEADS, width // HEADS).transpose(1, 2, 0, 3)
        raw = np.stack([q[n] @ k[n].T for n in range(HEADS)])
        scaled = raw * (width // HEADS) ** -0.5
        s = np.exp(scaled - scaled.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        mixed = np.stack([s[n] @ v[n] for n in range(HEADS)])
        return q, k, v, scaled, s, mixed.transpose(1, 0, 2).reshape(count, width)

    def forward(self, x, i):
        w, b = self.values(f"blocks.{i}.proj")
        middle = x + self.attention(self.projected(x, i))[-1] @ w.T + b
        hidden = self.hidden(middle, i)
        w, b = self.values(f"blocks.{i}.fc2")
        return middle, middle + self.gelu(hidden) @ w.T + b

    def hidden(self, x, i):
        w, b = self.values(f"blocks.{i}.fc1")
        return self.normalised(x, f"blocks.{i}.norm2") @ w.T + b

    @staticmethod
    def gelu(x):
        return x * 0.5 * (1 + erf(x / np.sqrt(2)))

    def down(self, before, middle, i, r):
        """One block: from the relevance of its output to that of its input."""
        hidden = self.hidden(middle, i)
        w, b = self.values(f"blocks.{i}.fc2")
        r, branch = self.added(middle, self.gelu(hidden) @ w.T + b, r)
        branch = self.linear(self.gelu(hidden), w, b, branch)  # GELU: equation 9, as it is
        normed = self.normalised(middle, f"blocks.{i}.norm2")
        branch = self.linear(normed, *self.values(f"blocks.{i}.fc1"), branch)
        r = r + self.norm(middle, *self.values(f"blocks.{i}.norm2"), branch)
        qkv = self.projected(before, i)
        q, k, v, scaled, s, mixed = self.attention(qkv)
        w, b = self.values(f"blocks.{i}.proj")
        r, branch = self.added(before, mixed @ w.T + b, r)
        branch = self.linear(mixed, w, b, branch)
        count, width = mixed.shape
        heads = branch.reshape(count, HEADS, width // HEADS).transpose(1, 0, 2)
        at = np.zeros((3, HEADS, count, width // HEADS))
        for n in range(HEADS):
            at_weights, at[2, n] = self.product(s[n], v[n], heads[n])
            at_scores = self.softmax(scaled[n], at_weights)
            at[0, n], keys = self.product(q[n], k[n].T, at_scores)
            at[1, n] = keys.T
        branch = at.transpose(2, 0, 1, 3).reshape(count, -1)
        normed = self.normalised(before, f"blocks.{i}.norm1")
        branch = self.linear(normed, *self.values(f"blocks.{i}.qkv"), branch)
        return r + self.norm(before, *self.values(f"blocks.{i}.norm1"), branch)


def transformer(**settings):
    torch.manual_seed(5)
    module = vits.ViT(**settings).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return module


@pytest.fixture(scope="module")
def wanted():
    """Module, relevance of class 2 at the photo, and its score."""
    module = transformer()
    x = photo().transpose(2, 0, 1) / 255
    return module, *Literal(module).run(x, 2)


@pytest.mark.parametrize(
    "how",
    [
        {"opset": 17},
        {"opset": 14},  # layer normalisations and GELU spelled out
        pytest.param({"opset": 18, "dynamo": True}, marks=pytest.mark.conformance),
    ],
)
def test_attention_as_the_paper_has_it(opened, wanted, how):
    module, relevance, score = wanted
    found = explained(opened(vits.exported(module, **how)), "attn-lrp", target="2")
    near(found.attribution.values, relevance, 1e-3)
    assert found.attribution.score == pytest.approx(score, rel=1e-4)
    assert found.facts["conservation_error"] < CONSERVED
    assert found.facts["relevance"]["pixels"] == pytest.approx(relevance.sum(), rel=1e-3)
    assert "0 unknown" in found.facts["coverage"]
    assert not found.warnings


@pytest.mark.conformance
def test_attention_in_one_operator_of_an_export(opened, wanted):
    """The same network with scaled_dot_product_attention, which opset 23 keeps whole."""
    module, relevance, _ = wanted
    fused = transformer(fused=True)
    fused.load_state_dict(module.state_dict())
    content = vits.exported(fused, dynamo=True, opset=23)
    kinds = {one.op_type for one in onnx.load_from_string(content).graph.node}
    assert "Attention" in kinds
    found = explained(opened(content), "attn-lrp", target="2")
    near(found.attribution.values, relevance, 1e-3)
    assert found.facts["conservation_error"] < CONSERVED
    assert "(Attention)" in found.facts["coverage"]


@pytest.mark.parametrize("options", ["gamma=0.2", "epsilon=0.1", "gamma=0.2,epsilon=0.1"])
def test_relevance_adds_up_with_options(opened, options):
    found = explained(opened(vits.exported(transformer())), f"attn-lrp:{options}")
    assert found.facts["conservation_error"] < CONSERVED
    assert found.facts["relevance"]["stabilisers"] != 0
    assert not any("add up" in text or "cancel" in text for text in found.warnings)


def test_photos_of_a_batch_do_not_share_a_ledger(opened):
    model = opened(vits.exported(transformer()))
    alone = [explained(model, "attn-lrp", photo(seed), target="1") for seed in (1, 2)]
    together = list(model.explain_each([photo(1), photo(2)], "attn-lrp", target="1"))
    for one, report in zip(alone, together, strict=True):
        near(report.explanations[0].attribution.values, one.attribution.values, 1e-4)
        assert report.explanations[0].facts["conservation_error"] < CONSERVED


def test_windows_and_merging(opened):
    """Swin in small: moves, rolls and windows carry relevance as it is."""
    torch.manual_seed(1)
    found = explained(opened(vits.exported(vits.Windows().eval())), "attn-lrp")
    assert found.facts["conservation_error"] < CONSERVED
    assert not found.warnings


# -- one network, several spellings ----------------------------------------------------------------

SIZE = (9, 8)


def convolutional(spelling):
    """Conv, a normalisation in one of several spellings, Relu, mean, linear: one function."""
    rng = np.random.default_rng(7)
    w, b = rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)
    scale, shift, mean = rng.standard_normal((3, 4))
    var = rng.uniform(0.5, 2, 4)
    gain = scale / np.sqrt(var + 1e-5)
    column = {"gain": gain, "rest": shift - mean * gain}
    if spelling == "folded":
        w = w * gain[:, None, None, None]
        b = b * gain + column["rest"]
    constants = {
        "w": w,
        "b": b,
        "head": rng.standard_normal((3, 4)),
        "bias": rng.standard_normal(3),
    }
    nodes = [node("Conv", "x w b", "c", pads=[1, 1, 1, 1])]
    last = "c"
    if spelling == "normalisation":
        nodes.append(node("BatchNormalization", "c scale shift mean var", "n"))
        constants |= {"scale": scale, "shift": shift, "mean": mean, "var": var}
        last = "n"
    elif spelling == "scale and shift":
        nodes += [node("Mul", "gain c", "m"), node("Add", "m rest", "n")]
        constants |= {name: value[:, None, None] for name, value in column.items()}
        last = "n"
    elif spelling == "quotient and difference":
        nodes += [node("Div", "c inverse", "m"), node("Sub", "m minus", "n")]
        constants |= {"inverse": 1 / gain[:, None, None], "minus": -column["rest"][:, None, None]}
        last = "n"
    nodes += [
        node("Relu", last, "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f head bias", "y", transB=1),
    ]
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    return onnx_model(nodes, {"x": ["n", 3, *SIZE]}, {"y": ["n", 3]}, constants, opset=17)


SPELLINGS = ("normalisation", "scale and shift", "quotient and difference")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("method", ["lrp-epsilon-plus", "attn-lrp:gamma=0.5", "attn-lrp"])
def test_a_normalisation_is_part_of_the_convolution(opened, method, spelling):
    pixels = photo(3, SIZE)
    wanted = explained(opened(convolutional("folded"), SIZE), method, pixels, target="1")
    found = explained(opened(convolutional(spelling), SIZE), method, pixels, target="1")
    near(found.attribution.values, wanted.attribution.values, 1e-4)
    for one in (found, wanted):
        assert one.facts["conservation_error"] < CONSERVED
        assert one.facts["relevance"]["constants"] != 0


def test_a_normalisation_of_its_own_is_a_linear_layer(opened):
    """Before any convolution there is none to be part of: its shift keeps its share."""
    nodes = [
        node("BatchNormalization", "x scale shift mean var", "n"),
        node("Conv", "n w", "c"),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "y"),
    ]
    rng = np.random.default_rng(2)
    constants = {
        name: rng.standard_normal(3).astype(np.float32) for name in ("scale", "shift", "mean")
    }
    constants |= {"var": np.ones(3, np.float32)}
    constants |= {"w": rng.standard_normal((2, 3, 3, 3)).astype(np.float32)}
    proto = onnx_model(nodes, {"x": ["n", 3, *SIZE]}, {"y": ["n", 2]}, constants, opset=17)
    found = explained(opened(proto, SIZE), "attn-lrp", photo(3, SIZE), target="0")
    assert found.facts["conservation_error"] < CONSERVED
    # All is linear: relevance is x times the slope.
    plain = explained(opened(proto, SIZE), "input-x-gradient", photo(3, SIZE), target="0")
    near(found.attribution.values, plain.attribution.values)


def gated(gate):
    """A convolution whose channels are weighed by a squeeze-excite gate."""
    rng = np.random.default_rng(4)
    constants = {"w": rng.standard_normal((4, 3, 3, 3)), "s": rng.standard_normal((4, 4, 1, 1))}
    constants |= {"head": rng.standard_normal((4, 3))}
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "m"),
        node("Conv", "m s", "e"),
        node(gate, "e", "g"),
        node("Mul", "r g", "z"),
        node("GlobalAveragePool", "z", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f head", "y"),
    ]
    constants = {name: np.asarray(value, np.float32) for name, value in constants.items()}
    return onnx_model(nodes, {"x": ["n", 3, *SIZE]}, {"y": ["n", 3]}, constants, opset=17)


@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_a_gate_takes_none(opened, gate):
    found = explained(opened(gated(gate), SIZE), "lrp-epsilon-plus", photo(5, SIZE))
    assert found.facts["conservation_error"] < CONSERVED
    assert "1 gates or divisors take none" in found.facts["coverage"]
    assert "Sigmoid" not in found.facts["coverage"].partition(";")[0]
    halves = explained(opened(gated(gate), SIZE), "attn-lrp", photo(5, SIZE))
    assert "1 halves (Mul)" in halves.facts["coverage"]
    assert halves.facts["conservation_error"] < CONSERVED


# -- what other operators do -----------------------------------------------------------------------


def behind(nodes, constants=(), *, channels=4, opset=18):
    """A network of one convolution, some nodes from "c" to "z", the mean over places, linear."""
    rng = np.random.default_rng(8)
    kept = {"w": rng.standard_normal((4, 3, 3, 3)), "b": rng.standard_normal(4)}
    kept |= {"head": rng.standard_normal((channels, 3)), **dict(constants)}
    kept = {
        k: v if np.asarray(v).dtype.kind == "i" else np.asarray(v, np.float32)
        for k, v in kept.items()
    }
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        *nodes,
        node("GlobalAveragePool", "z", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f head", "y"),
    ]
    return onnx_model(nodes, {"x": ["n", 3, *SIZE]}, {"y": ["n", 3]}, kept, opset=opset)


NETWORKS = {
    "clip": behind([node("Clip", "c low high", "z")], {"low": 0.0, "high": 1.0}),
    "sigmoid": behind([node("Sigmoid", "c", "z")]),
    "silu": behind([node("Sigmoid", "c", "s"), node("Mul", "c s", "z")]),
    "softplus": behind([node("Softplus", "c", "z")]),
    "prelu": behind([node("PRelu", "c a", "z")], {"a": np.full((4, 1, 1), 0.2)}),
    "exponential": behind([node("Exp", "c", "z")]),
    "power": behind([node("Pow", "c three", "z")], {"three": 3.0}),
    "square": behind([node("Mul", "c c", "z")]),
    "root of squares": behind(
        [node("Pow", "c two", "q"), node("Add", "q one", "a"), node("Sqrt", "a", "z")],
        {"two": 2.0, "one": 1.0},
    ),
    "instance norm": behind(
        [node("InstanceNormalization", "c g h", "n"), node("Relu", "n", "z")],
        {"g": np.ones(4), "h": np.full(4, 0.3)},
    ),
    "group norm": behind(
        [node("GroupNormalization", "c g h", "n", num_groups=2), node("Relu", "n", "z")],
        {"g": np.ones(4), "h": np.full(4, 0.3)},
        opset=21,
    ),
    "local response": behind([node("LRN", "c", "z", size=3, alpha=0.5)]),
    "l2 norm": behind([node("LpNormalization", "c", "z", axis=1, p=2)]),
    "l2 norm spelled out": behind(
        [node("ReduceL2", "c axis", "n", keepdims=1), node("Div", "c n", "z")],
        {"axis": np.array([1])},
    ),
    "rms by reciprocal": behind(
        [
            node("Mul", "c c", "q"),
            node("ReduceMean", "q axis", "m", keepdims=1),
            node("Sqrt", "m", "s"),
            node("Reciprocal", "s", "i"),
            node("Mul", "c i", "z"),
        ],
        {"axis": np.array([1])},
    ),
    "maximum": behind([node("Max", "c k", "z")], {"k": np.full((4, 1, 1), 0.1)}),
    "selection": behind(
        [node("Greater", "c k", "t"), node("Where", "t c k", "z")], {"k": np.float32(0.2)}
    ),
    "join": behind([node("Relu", "c", "r"), node("Concat", "c r", "z", axis=1)], channels=8),
    "pooling": behind(
        [
            node("AveragePool", "c", "a", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
            node("MaxPool", "a", "z", kernel_shape=[3, 3]),
        ]
    ),
    "resize": behind(
        [helper.make_node("Resize", ["c", "", "s"], ["z"], mode="linear")],
        {"s": np.array([1, 1, 2, 2.0])},
    ),
    "transposed": behind([node("ConvTranspose", "c u", "z")], {"u": np.full((4, 4, 2, 2), 0.3)}),
}


def test_attention_in_one_operator(opened):
    """The operator that opset 23 keeps whole, and its parts."""
    whole = behind([node("Attention", "c c c", "z", scale=0.3)], opset=23)
    parts = behind(
        [
            node("Transpose", "c", "k", perm=[0, 1, 3, 2]),
            node("MatMul", "c k", "m"),
            node("Mul", "m scale", "s"),
            node("Softmax", "s", "a", axis=-1),
            node("MatMul", "a c", "z"),
        ],
        {"scale": 0.3},
        opset=23,
    )
    one, other = (
        explained(opened(proto, SIZE), "attn-lrp", photo(6, SIZE)) for proto in (whole, parts)
    )
    near(one.attribution.values, other.attribution.values)
    assert one.facts["relevance"]["softmax"] != 0
    assert one.facts["relevance"] == pytest.approx(other.facts["relevance"], rel=1e-4)
    assert one.facts["conservation_error"] < CONSERVED


@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_adds_up(opened, name):
    found = explained(opened(NETWORKS[name], SIZE), "attn-lrp", photo(6, SIZE))
    assert found.facts["conservation_error"] < 1e-3, found.facts
    assert np.abs(found.attribution.values).max() > 0
    assert not found.warnings


REFUSED = {
    "Softmax": ([node("Softmax", "c", "z", axis=1)], {}),
    "MatMul": ([node("Transpose", "c", "t", perm=[0, 1, 3, 2]), node("MatMul", "c t", "z")], {}),
    "LayerNormalization": (
        [node("LayerNormalization", "c g", "z")],
        {"g": np.arange(8.0)},
    ),
    "Mul": ([node("Relu", "c", "r"), node("Mul", "c r", "z")], {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_plus_composite_has_no_rule_for(opened, name):
    nodes, constants = REFUSED[name]
    model = opened(behind(nodes, constants), SIZE)
    with pytest.raises(MethodRefused, match=f"has no rule for 1 {name}") as caught:
        explained(model, "lrp-epsilon-plus", photo(6, SIZE))
    assert "attn-lrp" in caught.value.hint
    assert explained(model, "attn-lrp", photo(6, SIZE)).facts["conservation_error"] < 1e-3


@pytest.mark.parametrize("method", ["attn-lrp", "lrp-epsilon-plus"])
def test_operators_without_a_rule_are_named(opened, method):
    nodes = [node("Hardmax", "c", "h", axis=1), node("LogSoftmax", "c", "l", axis=1)]
    nodes += [node("Add", "h l", "z")]
    with pytest.raises(MethodRefused, match="LogSoftmax") as caught:
        explained(opened(behind(nodes), SIZE), method, photo(6, SIZE))
    assert "node" in caught.value.where


def test_a_convolution_with_weights_from_the_image(opened):
    nodes = [
        node("GlobalAveragePool", "c", "m"),
        node("Transpose", "m", "t", perm=[1, 0, 2, 3]),
        node("Conv", "c t", "z", group=4),
    ]
    model = opened(behind(nodes), SIZE)
    with pytest.raises(MethodRefused, match="weights depend on the image"):
        explained(model, "attn-lrp", photo(6, SIZE))


def test_a_score_that_is_no_sum_of_outputs(opened):
    model = opened(vits.exported(transformer()))
    engine = model.model.twin_engine

    class Squared:
        tensors = ("logits",)

        @staticmethod
        def of(values):
            return values["logits"][:, 0] ** 2

    x = np.random.default_rng(0).random((1, 3, *vits.SIZE), np.float32)
    with pytest.raises(MethodRefused, match="a sum of outputs"):
        engine.signals({model.model.input.name: x}, {}, [Squared()], Rule("attn-lrp"))


@pytest.mark.parametrize("method", ["attn-lrp", "lrp-epsilon-plus"])
def test_rounding_to_levels_keeps_its_part(opened, method):
    """A quantised network: the Relu is the quantiser's clamp at its zero point."""
    nodes = [
        node("QuantizeLinear", "c scale zero", "q"),
        node("DequantizeLinear", "q scale zero", "z"),
    ]
    proto = behind(nodes, {"scale": 0.05})
    proto.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    found = explained(opened(proto, SIZE), method, photo(6, SIZE))
    assert found.facts["relevance"]["rounding"] != 0
    assert found.facts["conservation_error"] < CONSERVED
    assert not found.warnings


def test_what_does_not_add_up_is_said():
    scores = np.array([2.0, 1.0])
    for pixels, kept, peak, words in (
        (2.0, 1.0, 2.0, ""),
        (2.0, 0.9, 2.0, "does not add up: 3%"),
        (-500.0, 503.0, 2.0, "parts of the relevance are 1e+02 times the scores"),
        (-500.0, 503.0, 20.0, ""),  # a small score of a network with large ones
        (float("nan"), 1.0, 2.0, "does not add up"),
    ):
        found, said = conservation(scores, np.array([pixels]), {"constants": kept}, peak)
        assert found["relevance"]["score"] == 3.0
        assert words in said
        assert bool(words) == bool(said)


@pytest.mark.parametrize(
    "request_", ["attn-lrp:gamma=-1", "attn-lrp:epsilon=-0.1", "lrp-epsilon-plus:epsilon=-1"]
)
def test_options_out_of_range(opened, request_):
    with pytest.raises(UsageError, match="0 or more"):
        explained(opened(convolutional("folded"), SIZE), request_, photo(6, SIZE))

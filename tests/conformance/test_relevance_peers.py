"""Relevance against zennit (convolutional networks) and LXT (a vision transformer).

zennit is in the `test` extra.  LXT (PyPI: lxt) asks for accelerate, bitsandbytes and open_clip,
which none of its rules needs here; where it is not installed its test is skipped.  To run it:

    pip install --no-deps lxt
"""

import copy
import warnings

import numpy as np
import pytest
import torch
import torchvision_networks as networks
from references import Pair, evidence_of
from torch import nn
from torchvision_loader import load_torchvision

from inspector.engines.rules import Rule
from inspector.engines.twin import TwinEngine
from inspector.explain import load

pytestmark = pytest.mark.conformance

CLASSES = 10


def opened(pair):
    """The file of a pair, its twin in float64."""
    model = load(pair.path, device="cpu")
    model.model.twin_engine = TwinEngine(model.graph, dtype=torch.float64)
    return model


def found(pair, rule, target):
    """Relevance of one class at the input, (1, 3, H, W), and the figures of the report."""
    evidence = evidence_of(opened(pair), pair.input.numpy(), target)
    relevance = evidence.relevance(rule)
    assert not evidence.notes
    return relevance, evidence.facts


def near(one, other):
    """Equal up to the stabilisers, which each library adds at places of its own."""
    worst = float(np.abs(one - other).max() / np.abs(other).max())
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    assert worst < 3e-4, worst
    assert correlation > 1 - 1e-7, correlation


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


# -- zennit ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zennit():
    load_torchvision()
    return pytest.importorskip("zennit", reason="zennit is not installed")


def by_zennit(network, x, target, composite):
    from zennit.attribution import Gradient

    picked = torch.zeros(CLASSES, dtype=x.dtype)
    picked[target] = 1
    with Gradient(model=network, composite=composite) as attributor:
        score, relevance = quietly(lambda: attributor(x.detach(), lambda out: out * picked))
    return float(score.detach()[0, target]), relevance.detach().numpy()


def without_epsilon(network):
    """The same function, with the epsilon of each normalisation in its variance.

    zennit's canoniser leaves the epsilon in place behind the merged layers: each output is then a
    little too small, by 3e-4 behind the 53 normalisations of ResNet-50.
    """
    network = copy.deepcopy(network).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var += module.eps
            module.eps = 0.0
    return network


@pytest.fixture
def vgg_with_normalisation(exports):
    """VGG-11 with batch normalisations, which stay in the file."""
    family = networks.Family("vgg11_bn", 64)
    network = networks.build(family)
    path = exports / "vgg11_bn.onnx"
    if not path.exists():
        networks.export(network, family, path)
    return Pair("vgg11_bn", network, path, networks.noise(family))


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "resnet18", "resnet50"])
def test_epsilon_plus_of_zennit(zennit, family, request, name):
    """The composite EpsilonPlus with the canonisers that zennit has for these networks.

    ResNet-18 comes with its normalisations folded by the exporter, the others with nodes of their
    own; average pooling, residual additions and max-pooling under zennit's rules for them.
    """
    from zennit.composites import EpsilonPlus
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    pair = request.getfixturevalue("vgg_with_normalisation") if "bn" in name else family(name)
    canoniser = ResNetCanonizer if "resnet" in name else VGGCanonizer
    network, x = without_epsilon(pair.network), pair.input.double()
    with torch.no_grad():
        target = int(network(x)[0].argmax())
    score, wanted = by_zennit(network, x, target, EpsilonPlus(canonizers=[canoniser()]))
    relevance, facts = found(pair, Rule("lrp-epsilon-plus", epsilon=1e-6), target)
    assert facts["relevance"]["score"] == pytest.approx(score, rel=1e-5)
    near(relevance, wanted)
    assert facts["conservation_error"] < 1e-6


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_gamma_of_zennit(zennit, family, gamma):
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import Gamma
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Linear

    pair = family("resnet18")
    network, x = without_epsilon(pair.network), pair.input.double()
    with torch.no_grad():
        target = int(network(x)[0].argmax())
    rules = [*layer_map_base(), (Linear, Gamma(gamma=gamma))]
    composite = LayerMapComposite(rules, canonizers=[ResNetCanonizer()])
    _, wanted = by_zennit(network, x, target, composite)
    relevance, facts = found(pair, Rule("attn-lrp", gamma=gamma), target)
    near(relevance, wanted)
    assert facts["conservation_error"] < 1e-6


# -- LXT -------------------------------------------------------------------------------------------


def by_lxt(network, x, target):
    """Relevance of a torchvision ViT, written with the explicit functions of LXT."""
    import lxt.explicit.functional as lf
    from lxt.explicit.rules import epsilon_lrp, identity

    def linear(x, layer):
        return lf.linear_epsilon(x, layer.weight, layer.bias, epsilon=1e-9)

    def norm(x, layer):
        return lf.layer_norm(x, layer.weight, layer.bias, layer.eps)

    def attend(x, layer):
        n, t, c = x.shape
        heads = layer.num_heads
        qkv = lf.linear_epsilon(x, layer.in_proj_weight, layer.in_proj_bias, epsilon=1e-9)
        q, k, v = (p.reshape(n, t, heads, c // heads).transpose(1, 2) for p in qkv.chunk(3, -1))
        q = lf.mul2(q, torch.tensor((c // heads) ** -0.5, dtype=x.dtype))
        weights = lf.softmax(lf.matmul(q, k.transpose(2, 3), epsilon=1e-9), -1)
        mixed = lf.matmul(weights, v, epsilon=1e-9).transpose(1, 2).reshape(n, t, c)
        return linear(mixed, layer.out_proj)

    network.requires_grad_(requires_grad=False)
    x = x.detach().clone().requires_grad_()
    tokens = epsilon_lrp(network.conv_proj, 1e-9, x).flatten(2).transpose(1, 2)
    tokens = torch.cat([network.class_token.detach().expand(len(x), -1, -1), tokens], 1)
    tokens = lf.add2(tokens, network.encoder.pos_embedding.detach())
    for block in network.encoder.layers:
        tokens = lf.add2(tokens, attend(norm(tokens, block.ln_1), block.self_attention))
        hidden = identity(nn.functional.gelu, linear(norm(tokens, block.ln_2), block.mlp[0]))
        tokens = lf.add2(tokens, linear(hidden, block.mlp[3]))
    scores = linear(norm(tokens, network.encoder.ln)[:, 0], network.heads.head)
    score = scores[0, target]
    (relevance,) = torch.autograd.grad(score, x, score.detach())
    return float(score.detach()), relevance.numpy()


@pytest.fixture
def transformer(exports):
    """A small torchvision ViT, random weights."""
    torchvision = load_torchvision()
    torch.manual_seed(3)
    network = torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=48,
        mlp_dim=96,
        num_classes=CLASSES,
    )
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    nn.init.normal_(network.heads.head.weight, std=0.3)
    path = exports / "lxt_vit.onnx"
    family = networks.Family("lxt_vit", 32)
    networks.export(network.eval(), family, path)
    return Pair("lxt_vit", network, path, networks.noise(family))


def test_attention_of_lxt(transformer):
    """AttnLRP, with every rule of the paper, on another implementation in relevance itself."""
    pytest.importorskip("lxt", reason="LXT is not installed: pip install --no-deps lxt")
    network = transformer.network.double()
    x = transformer.input.double()
    with torch.no_grad():
        target = int(network(x)[0].argmax())
    score, wanted = by_lxt(network, x, target)
    relevance, facts = found(transformer, Rule("attn-lrp", epsilon=1e-9), target)
    assert facts["relevance"]["score"] == pytest.approx(score, rel=1e-5)
    near(relevance, wanted)
    assert facts["conservation_error"] < 1e-6

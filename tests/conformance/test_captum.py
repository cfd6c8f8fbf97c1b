"""Gradient methods against captum, and against a literal oracle, on the native torch network.

The oracle intercepts every call of a torch function in the native network (so functional, re-used
and in-place activations are seen) and writes the rules down once more, element by element.  Gates
flip under float32 rounding, so both sides compute in float64; ``test_in_float32`` says what
single precision makes of it.
"""

import warnings

import captum.attr
import numpy as np
import pytest
import torch
import torchvision_networks as networks
from references import evidence_of
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from inspector.engines.twin import TwinEngine
from inspector.errors import MethodRefused
from inspector.explain import load
from inspector.methods import grad_cam, grad_cam_plus_plus, methods
from inspector.network.layer_choice import default_layer
from inspector.photos.preprocess_choice import Preprocess

pytestmark = pytest.mark.conformance

TOLERANCE = 1e-4
"""Of the map's maximum."""

NAMES = [f.name for f in networks.FAMILIES]
SMOOTH = {f.name for f in networks.FAMILIES if f.smooth}
# Every activation is an nn.ReLU module of its own, or one that captum's hooks still see.
CAPTUM_RIGHT = ("alexnet", "vgg11", "vgg16", "squeezenet1_1", "resnet18", "resnet50")
SAMPLES = (
    "all_cnn_c",
    "conv_pool_cnn_c",
    "base_c",
    "strided_cnn_c",
    "resnet20",
    "zfnet",
    "zfnet_coarse",
)


# -- the oracle ------------------------------------------------------------------------------------


class _Literal(torch.autograd.Function):
    """An activation whose backward pass is the table of the papers."""

    @staticmethod
    def forward(ctx, x, f, rule):
        ctx.f, ctx.rule = f, rule
        ctx.save_for_backward(x)
        return f(x)

    @staticmethod
    def backward(ctx, signal):
        (x,) = ctx.saved_tensors
        if ctx.rule == "deconvnet":
            return signal.clamp(min=0), None, None
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.f(leaf).sum(), leaf)
        return slope * signal.clamp(min=0), None, None


_ACTIVATIONS = {
    functional.relu: lambda x, *_, **__: torch.relu(x),
    torch.relu: torch.relu,
    functional.relu6: lambda x, *_, **__: x.clamp(0, 6),
    functional.hardtanh: lambda x, min_val=-1.0, max_val=1.0, *_, **__: x.clamp(min_val, max_val),
    functional.silu: lambda x, *_, **__: x * torch.sigmoid(x),
    functional.hardswish: lambda x, *_, **__: x * (x + 3).clamp(0, 6) / 6,
    functional.gelu: lambda x, *_, **__: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
}


class RulesEverywhere(TorchFunctionMode):
    """Replace the backward pass of every activation function that is called, gates excepted."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.count = rule, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in _ACTIVATIONS:
            return function(*args, **kwargs)
        self.count += 1
        x, *rest = args
        formula = _ACTIVATIONS[function]
        with torch._C.DisableTorchFunctionSubclass():
            return _Literal.apply(x, lambda v: formula(v, *rest, **kwargs), self.rule)


class Recorder(TorchFunctionMode):
    """Keep every tensor that a torch function returns and that a gradient can reach."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.grad_fn is not None:
            self.found.append(result)
        return result


def native_layer(network, x, target, values):
    """Native tensor that holds a layer's values, with the score's gradient: (A, g), float64."""
    with Recorder() as recorder:
        scores = network(x)
    wanted = torch.from_numpy(values).double()
    for tensor in recorder.found:
        if tensor.shape == wanted.shape and (tensor - wanted).abs().max() < (
            TOLERANCE * wanted.abs().max()
        ):
            (gradient,) = torch.autograd.grad(scores[0, target], tensor, allow_unused=True)
            if gradient is not None:
                return tensor.detach(), gradient
    pytest.fail("no tensor of the native network holds the layer's values")


def native_module(network, x, values):
    """Module whose output is the layer; None when a function makes it."""
    wanted, found = torch.from_numpy(values).double(), []

    def keep(module, _, output):
        if isinstance(output, torch.Tensor) and output.shape == wanted.shape:
            # Modules that add in place would change what is compared.
            difference = (output - wanted).abs().max()
            if difference < TOLERANCE * wanted.abs().max():
                found.append(module)

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    network(x)
    for handle in handles:
        handle.remove()
    return found[0] if found else None


def in_place_off(network):
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return network


# -- what is compared ------------------------------------------------------------------------------


def opened(pair, dtype=torch.float64):
    model = load(pair.path, device="cpu", preprocess=Preprocess(size=tuple(pair.input.shape[2:])))
    model.model.engine, model.model.twin_engine = "twin", TwinEngine(model.graph, dtype=dtype)
    return model


def close(found, wanted, tolerance=TOLERANCE):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    peak = np.abs(wanted).max()
    assert peak > 0
    worst = np.abs(found - wanted).max() / peak
    assert worst <= tolerance, f"differs by {worst:.2e} of the maximum"


def double(pair):
    """Native network and input in float64; the target is the best class."""
    network = in_place_off(pair.network).double()
    x = pair.input.double().requires_grad_()
    return network, x, int(network(x)[0].argmax())


def literal(network, x, target, rule):
    with RulesEverywhere(rule) as mode:
        score = network(x)[0, target]
    assert mode.count
    with torch.no_grad():  # a rule changes the backward pass alone
        assert score.item() == pytest.approx(network(x)[0, target].item(), rel=1e-9)
    (signal,) = torch.autograd.grad(score, x)
    return signal.numpy()


def check_gradient(pair):
    network, x, target = double(pair)
    evidence = evidence_of(opened(pair), pair.input.numpy(), target)
    found = evidence.input_gradient("gradient")
    wanted = captum.attr.Saliency(network).attribute(x, target=target, abs=False)
    close(found, wanted.detach().numpy())
    # The twin is in float64 here, ONNX Runtime in float32: that is its rounding.
    assert evidence.facts["twin_difference"] < 2 * TOLERANCE
    assert not evidence.notes


def check_rule(pair, rule, *, smooth=False, with_captum=False):
    network, x, target = double(pair)
    evidence = evidence_of(opened(pair), pair.input.numpy(), target)
    if smooth:
        with pytest.raises(MethodRefused, match="defined for rectifiers"):
            evidence.input_gradient(rule)
    extension = "signal-first" if smooth else "refuse"
    found = evidence.input_gradient(rule, extension)
    close(found, literal(network, x, target, rule))
    assert "; 0 unknown" in evidence.facts["coverage"]
    if with_captum:
        kind = {"guided": "GuidedBackprop", "deconvnet": "Deconvolution"}[rule]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # captum announces its hooks
            wanted = getattr(captum.attr, kind)(network).attribute(x, target=target)
        close(found, wanted.detach().numpy())


def check_layer(pair):
    """Grad-CAM against captum, or the formula; Grad-CAM++ by its weights."""
    network, x, target = double(pair)
    model = opened(pair)
    layer, _ = default_layer(model.layers, model.shapes(tuple(pair.input.shape[2:])))
    evidence = evidence_of(model, pair.input.numpy(), target, layer=layer.tensor)
    A, g = native_layer(network, x, target, evidence.activation)
    close(evidence.gradient, g.numpy())
    found = grad_cam.grad_cam(evidence)
    alpha = g.mean(dim=(2, 3))
    combined = (alpha[:, :, None, None] * A).sum(dim=1)
    # Measured against the signed sum: an all-negative one leaves an empty map on both sides.
    worst = np.abs(found - combined.clamp(min=0).numpy()).max() / combined.abs().max()
    assert worst <= TOLERANCE
    module = native_module(network, x, evidence.activation)
    if module is not None and combined.max() > 0:
        wanted = captum.attr.LayerGradCam(network, module).attribute(
            x, target=target, relu_attributions=True
        )
        close(found, wanted.detach()[:, 0].numpy())
    positive = g.clamp(min=0)
    total = A.sum(dim=(2, 3), keepdim=True)
    alpha = torch.where(g > 0, g**2 / (2 * g**2 + total * g**3), 0)
    wanted = (alpha * positive).sum(dim=(2, 3)).numpy()
    if not grad_cam_plus_plus.unsafe(A.numpy(), g.numpy()):
        close(grad_cam_plus_plus.weights(evidence.activation, evidence.gradient), wanted)
        close(grad_cam_plus_plus.weights(A.numpy(), g.numpy()), wanted, 1e-6)
    return layer, module


# -- torchvision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_gradient(family, name):
    check_gradient(family(name))


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", NAMES)
def test_rules(family, name, rule):
    check_rule(family(name), rule, smooth=name in SMOOTH, with_captum=name in CAPTUM_RIGHT)


@pytest.mark.parametrize("name", NAMES)
def test_layer_methods(family, name):
    check_layer(family(name))


def test_captum_is_consulted_for_layers(family):
    """The comparison above must not pass because no module was ever found."""
    assert check_layer(family("resnet18"))[1] is not None
    assert check_layer(family("squeezenet1_1"))[1] is not None


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2", "vgg11"])
def test_in_float32(family, name):
    """The twin as it is used: gates that flip cost less than 1e-2 of the maximum."""
    pair = family(name)
    network, x, target = double(pair)
    evidence = evidence_of(opened(pair, torch.float32), pair.input.numpy(), target)
    wanted = captum.attr.Saliency(network).attribute(x, target=target, abs=False)
    close(evidence.input_gradient("gradient"), wanted.detach().numpy(), 1e-2)
    close(evidence.input_gradient("guided"), literal(network, x, target, "guided"), 1e-2)


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_occlusion_where_captum_s_conventions_coincide(family, name):
    """Windows side by side, all channels at once, the baseline a colour: the same numbers."""
    pair = family(name)
    network, x, target = double(pair)
    recipe = Preprocess(size=tuple(x.shape[2:]), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    window = 16
    evidence = evidence_of(opened(pair), pair.input.numpy(), target, preprocess=recipe)
    found = methods()["occlusion"](evidence, window=window, stride=window, fill="grey")
    colour = [(0.5 - m) / s for m, s in zip(recipe.mean, recipe.std, strict=True)]
    baseline = torch.tensor(colour).double()[None, :, None, None].expand_as(x)
    with torch.no_grad():
        wanted = captum.attr.Occlusion(network).attribute(
            x.detach(), (3, window, window), (3, window, window), baseline, target
        )
    close(found[:, 0], wanted.numpy().mean(axis=1))


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_occlusion_with_overlapping_windows_by_brute_force(family, name):
    pair = family(name)
    network, x, target = double(pair)
    recipe = Preprocess(size=tuple(x.shape[2:]), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    evidence = evidence_of(opened(pair), pair.input.numpy(), target, preprocess=recipe)
    window, stride = 24, 14  # 64 = 24 + 3 * 14 - 2: the outer windows are cut by one pixel
    found = methods()["occlusion"](evidence, window=window, stride=stride)
    total, count = np.zeros((64, 64)), np.zeros((64, 64))
    with torch.no_grad():
        before = network(x)[0, target].item()
        for top in range(-1, 63 - window + stride, stride):
            for left in range(-1, 63 - window + stride, stride):
                box = np.s_[max(top, 0) : top + window, max(left, 0) : left + window]
                hidden = x.detach().clone()
                hidden[0, :, box[0], box[1]] = 0  # the mean that the recipe subtracts
                total[box] += before - network(hidden)[0, target].item()
                count[box] += 1
    assert count.min() == 1
    assert count.max() == 4
    close(found[0, 0], total / count)


# -- trained networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_models(sample, name):
    pair = sample(name)
    check_gradient(pair)
    for rule in ("guided", "deconvnet"):
        check_rule(pair, rule, with_captum=name != "resnet20")  # its ReLUs are functions
    check_layer(pair)


def test_efficientnet_lite0(lite0):
    check_gradient(lite0)
    for rule in ("guided", "deconvnet"):
        check_rule(lite0, rule)
    check_layer(lite0)


def test_the_oracle_sees_what_hooks_do_not():
    """A functional and a re-used activation; a network of plain torch functions."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.line = nn.Linear(4, 4)

        def forward(self, x):
            return functional.relu(self.line(self.act(self.line(self.act(x)))))

    torch.manual_seed(0)
    network = Twice().double()
    x = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    with RulesEverywhere("guided") as mode:
        network(x)
    assert mode.count == 3

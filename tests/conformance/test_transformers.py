"""Vision transformers of timm and transformers as they are exported, against the native networks.

Weights are random and networks small.  The reference is torch alone: the layer is taken off the
module by a hook and laid on the grid as is usual (extra tokens cut off, rows first), and attention
weights are what the network's own softmax returned.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision_loader import load_torchvision

import inspector
from inspector.errors import MethodRefused
from inspector.photos.preprocess_choice import Preprocess

pytestmark = pytest.mark.conformance

CLASSES = 10
TOLERANCE = 1e-4
"""Of a map's largest value."""


def of_timm(name, **settings):
    def make():
        load_torchvision()
        timm = pytest.importorskip("timm", reason="timm is not installed")
        network = timm.create_model(name, pretrained=False, num_classes=CLASSES, **settings)
        for module in network.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # in the reference; the exporters spell it out anyway
        return network

    return make


def of_transformers(kind, **settings):
    def make():
        load_torchvision()
        library = pytest.importorskip("transformers", reason="transformers is not installed")
        config = getattr(library, "CLIPVisionConfig" if "CLIP" in kind else "ViTConfig")(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            image_size=64,
            patch_size=16,
            attn_implementation="eager",
            **settings,
        )
        return getattr(library, kind)(config)

    return make


@dataclass(frozen=True)
class Case:
    """A network, and what is usual to do with it.

    Attributes:
        make: Builds it.
        layer: Path of the module whose output is explained through.
        size: Side of its input.
        extra: Tokens in front of those of the grid; None for maps.
        read: Tokens that its head reads; none for networks without attention among all tokens.
        free: Whether height and width are left free as well.
        meaning: The task that `check` names.
        channels_last: The layer is (N, h, w, C).
    """

    make: Callable[[], nn.Module]
    layer: str
    size: int = 64
    extra: int | None = 1
    read: tuple[int, ...] = (0,)
    free: bool = False
    meaning: str = "classifier"
    channels_last: bool = False


SMALL: dict[str, Any] = {"depth": 2, "embed_dim": 48, "num_heads": 3}
STAGES: dict[str, Any] = {"depths": (1, 1, 1, 2), "embed_dims": (16, 24, 32, 48)}
CASES = {
    "vit": Case(of_timm("vit_tiny_patch16_224", img_size=64, **SMALL), "blocks.1.norm1"),
    "deit-distilled": Case(
        of_timm("deit_tiny_distilled_patch16_224", img_size=64, **SMALL),
        "blocks.1.norm1",
        extra=2,
        read=(0, 1),
    ),
    "dinov2-registers": Case(
        of_timm("vit_small_patch14_reg4_dinov2", img_size=56, **SMALL),
        "blocks.1.norm1",
        size=56,
        extra=5,
    ),
    "swin": Case(
        of_timm(
            "swin_tiny_patch4_window7_224",
            img_size=32,
            window_size=2,
            depths=(1, 2),
            embed_dim=24,
            num_heads=(2, 2),
        ),
        "layers.1.blocks.1.norm1",
        size=32,
        extra=None,
        read=(),
        channels_last=True,
    ),
    "convnext": Case(
        of_timm("convnext_atto", depths=(1, 1, 1, 1), dims=(16, 24, 32, 48)),
        "stages.3.blocks.0",
        extra=None,
        read=(),
    ),
    "efficientformer": Case(
        of_timm("efficientformer_l1", **STAGES),
        "stages.3.blocks.2.norm1",
        size=224,
        extra=0,
        read=tuple(range(49)),
    ),
    "hf-vit": Case(
        of_transformers("ViTForImageClassification", num_labels=CLASSES),
        "vit.layers.1.layernorm_before",
        free=True,
    ),
    "hf-clip": Case(
        of_transformers("CLIPVisionModelWithProjection", projection_dim=32),
        "vision_model.encoder.layers.1.layer_norm1",
        free=True,
        meaning="embedding",
    ),
}


class Plain(nn.Module):
    """A network that takes pixels and gives one tensor."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        found = self.network(pixels)
        if isinstance(found, torch.Tensor):
            return found
        return found.image_embeds if hasattr(found, "image_embeds") else found.logits


class Weights(TorchFunctionMode):
    """Keeps what softmax returned: attention weights."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in {torch.softmax, torch.Tensor.softmax, nn.functional.softmax}:
            self.found.append(result)
        return result


@pytest.fixture(scope="module")
def network():
    """Network of a case; each is built once."""
    kept = {}

    def get(name):
        if name not in kept:
            torch.manual_seed(7)
            module = Plain(CASES[name].make()).eval()
            with torch.no_grad():
                for parameter in module.parameters():
                    if parameter.dim() == 1:  # normalisations, biases and layer scales
                        parameter.add_(0.1 * torch.randn_like(parameter))
                    elif parameter.dim() == 2:
                        parameter.mul_(2)
            kept[name] = module
        return kept[name]

    return get


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def export(module, case, path, *, dynamo):
    x = torch.randn(2, 3, case.size, case.size)
    out = "image_embeds" if case.meaning == "embedding" else "logits"
    names = {"input_names": ["pixel_values"], "output_names": [out]}
    if dynamo:
        free = ({0: torch.export.Dim("n", min=1, max=64)},)
        torch.onnx.export(
            module,
            (x,),
            str(path),
            dynamo=True,
            dynamic_shapes=free,
            external_data=False,
            verbose=False,
            **names,
        )
        return
    axes = {0: "n", 1: "channels", 2: "height", 3: "width"} if case.free else {0: "n"}
    torch.onnx.export(
        module,
        (x,),
        str(path),
        dynamo=False,
        opset_version=17,
        dynamic_axes={"pixel_values": axes, out: {0: "n"}},
        **names,
    )


def photos(size):
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(2)]


def pixels(photo):
    return torch.from_numpy(photo.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))


class Native:
    """What torch alone says of a photo."""

    def __init__(self, module, case, photo, other, target):
        self.case = case
        kept = {}
        layer = module.network.get_submodule(case.layer)
        handle = layer.register_forward_hook(lambda _m, _i, out: kept.update(out=out))
        with Weights() as weights:
            found = module(pixels(photo))
        handle.remove()
        if case.meaning == "embedding":
            with torch.no_grad():
                reference = module(pixels(other))
            score = nn.functional.cosine_similarity(found, reference)[0]
        else:
            score = found[0, target]
        self.score = float(score.detach())
        held = [kept["out"], *(weights.found if case.read else [])]
        grads = torch.autograd.grad(score, held)
        numbers = [v.detach().double().numpy() for v in (*held, *grads)]
        values, slopes = numbers[: len(held)], numbers[len(held) :]
        self.A, self.g = self.as_map(values[0]), self.as_map(slopes[0])
        self.attention = list(zip(values[1:], slopes[1:], strict=True))

    def as_map(self, value):
        """(1, T, C), (1, h, w, C) or (1, C, h, w) as (C, h, w)."""
        value = value[0]
        if self.case.extra is None:
            return value.transpose(2, 0, 1) if self.case.channels_last else value
        return self.on_grid(value)

    def on_grid(self, tokens):
        tokens = tokens[self.case.extra :].T
        side = round(tokens.shape[-1] ** 0.5)
        return tokens.reshape(*tokens.shape[:-1], side, side)

    def grad_cam(self):
        """Before the ReLU."""
        return (self.g.mean(axis=(1, 2))[:, None, None] * self.A).sum(axis=0)

    def hires_cam(self):
        """Before the ReLU."""
        return (self.g * self.A).sum(axis=0)

    def flow(self, mixing):
        total = None
        for weights, slope in self.attention:
            one = mixing(weights[0], slope[0])
            total = one if total is None else one @ total
        return total

    def rollout(self):
        total = self.flow(lambda a, _: 0.5 * a.mean(axis=0) + 0.5 * np.eye(a.shape[-1]))
        return self.on_grid(total[list(self.case.read)].mean(axis=0))

    def chefer(self):
        def mixing(a, g):
            return np.eye(a.shape[-1]) + np.maximum(a * g, 0).mean(axis=0)

        total = self.flow(mixing)
        total -= np.eye(len(total))
        return self.on_grid(total[list(self.case.read)].mean(axis=0))


def near(found, wanted, peak=None):
    """Equal up to rounding, relative to the largest value, or to a given one."""
    assert found.shape == wanted.shape
    worst = float(np.abs(found - wanted).max() / (peak or np.abs(wanted).max()))
    assert worst < TOLERANCE
    if wanted.max() > (peak or 0) / 10:
        assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 1 - 1e-5


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", CASES)
def test_an_export_is_explained_as_the_network(network, tmp_path, name, dynamo):
    case, module = CASES[name], network(name)
    path = tmp_path / f"{name}.onnx"
    with quiet():
        export(module, case, path, dynamo=dynamo)
    model = inspector.load(path, device="cpu", preprocess=Preprocess(size=(case.size, case.size)))
    assert case.meaning in model.meaning
    photo, other = photos(case.size)
    asked = {"similar_to": inspector.Photo.of(other)} if case.meaning == "embedding" else {}

    found = model.explain(photo, **asked).explanation  # no option says method, target or layer
    assert found.attribution.method == "grad-cam"
    index = found.attribution.index
    native = Native(module, case, photo, other, index)
    assert found.attribution.score == pytest.approx(native.score, rel=1e-4, abs=1e-5)
    # Measured against the signed sum: an all-negative one leaves an empty map on both sides.
    signed = native.grad_cam()
    near(found.attribution.values, np.maximum(signed, 0), np.abs(signed).max())
    filled = 0.0
    for target in range(CLASSES if case.meaning == "classifier" else 1):
        own = {"target": str(target)} if case.meaning == "classifier" else asked
        signed = Native(module, case, photo, other, target).hires_cam()
        hires = model.explain(photo, "hires-cam", **own).explanation.attribution.values
        near(hires, np.maximum(signed, 0), np.abs(signed).max())
        filled = max(filled, float(hires.max() / np.abs(signed).max()))
        if filled > 0.1:
            break
    assert filled > 0.1

    for method, wanted in (
        ("attention-rollout", native.rollout),
        ("attention-gradient", native.chefer),
    ):
        if case.read:
            near(model.explain(photo, method, **asked).explanation.attribution.values, wanted())
        else:
            with pytest.raises(MethodRefused):
                model.explain(photo, method, **asked)
    if case.meaning == "classifier":
        facts = model.explain(photo, "attn-lrp").explanation.facts
        assert facts["conservation_error"] < TOLERANCE

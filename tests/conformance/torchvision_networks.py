"""torchvision's classification families with random weights, and their ONNX exports.

Weights are drawn with a fixed seed and then scaled layer by layer on a batch of noise, so that
activations have unit variance and gradients neither vanish nor explode: otherwise a comparison of
gradients would compare rounding errors.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_loader import load_torchvision

CLASSES = 10


@dataclass(frozen=True)
class Family:
    """One architecture: how to build it, at which input size, and what its activations are."""

    name: str
    size: int
    dynamo: bool = False
    smooth: bool = False
    """SiLU, GELU or HardSwish among its activations: the papers' rules are not defined."""
    fold: bool = False
    """Whether the exporter may fold normalisations into convolutions.  That rounds the weights
    anew, and among a million activations some gate then sits on the other side of zero: the
    gradient is that of a slightly different network, by up to 3e-2 (measured)."""
    options: tuple[tuple[str, Any], ...] = ()


FAMILIES = (
    Family("alexnet", 96),
    Family("vgg11", 64),
    Family("vgg16", 64, dynamo=True),
    Family("resnet18", 64, dynamo=True, fold=True),
    Family("resnet50", 64),
    Family("densenet121", 64),
    Family("googlenet", 64, options=(("aux_logits", False), ("init_weights", False))),
    Family("inception_v3", 96, options=(("aux_logits", False), ("init_weights", False))),
    Family("squeezenet1_1", 64, dynamo=True),
    Family("shufflenet_v2_x1_0", 64),
    Family("mobilenet_v2", 64, dynamo=True),
    Family("mobilenet_v3_small", 64, dynamo=True, fold=True, smooth=True),
    Family("mnasnet1_0", 64),
    Family("efficientnet_b0", 96, dynamo=True, fold=True, smooth=True),
    Family("regnet_y_400mf", 64),
    Family("convnext_tiny", 64, smooth=True),
)


def build(family: Family) -> nn.Module:
    """The network, float32, in evaluation mode."""
    torchvision = load_torchvision()
    torch.manual_seed(sum(map(ord, family.name)))
    options = dict(family.options)
    if family.name == "mnasnet1_0":
        options["dropout"] = 0.0
    network = torchvision.models.get_model(
        family.name, weights=None, num_classes=CLASSES, **options
    )
    _cut_head(network)
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # captum's hooks and in-place operators exclude one another
        if hasattr(module, "layer_scale"):  # ConvNeXt starts as (almost) the identity
            module.layer_scale.data.fill_(0.5)
    _scale(network, noise(family, 32, seed=2))
    return network.eval()


def _cut_head(network: nn.Module) -> None:
    """Fit the first linear layer of AlexNet and VGG to the small input.

    Their heads expect the 6x6 or 7x7 map of a 224-pixel input; at 64 pixels the map is 2x2, and
    the layer's 100 million weights would prove nothing more.
    """
    if not isinstance(getattr(network, "avgpool", None), nn.AdaptiveAvgPool2d):
        return
    if network.avgpool.output_size in {(6, 6), (7, 7)}:
        network.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        position = next(i for i, m in enumerate(network.classifier) if isinstance(m, nn.Linear))
        channels = 256 if network.classifier[position].in_features == 9216 else 512
        network.classifier[position] = nn.Linear(channels * 4, 64)
        following = [m for m in network.classifier if isinstance(m, nn.Linear)][1]
        where = list(network.classifier).index(following)
        network.classifier[where] = nn.Linear(64, following.out_features)


def _scale(network: nn.Module, pictures: Tensor) -> None:
    """Give every layer unit variance on noise, and every normalisation its statistics."""

    def rescale(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        deviation = output.detach().std().clamp(min=1e-6)
        module.weight.data /= deviation
        if module.bias is not None:
            module.bias.data /= deviation
        return output / deviation

    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(rescale))
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    with torch.no_grad():
        network.train()(pictures)
        for handle in handles:
            handle.remove()
        # Random scales and shifts, so that a normalisation is not the identity and that gates
        # do not sit at zero.
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.7, 1.3)
                module.bias.uniform_(-0.3, 0.3)
        network(pictures)  # the statistics behind those


def noise(family: Family, count: int = 1, seed: int = 0) -> Tensor:
    """Smooth random pictures (N, 3, H, W): noise on three scales, unit variance."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(count, 3, family.size, family.size)
    for factor in (1, 4, 16):
        side = max(1, family.size // factor)
        grain = torch.randn(count, 3, side, side, generator=generator)
        picture += nn.functional.interpolate(grain, picture.shape[2:], mode="nearest")
    return picture / picture.std()


def export(network: nn.Module, family: Family, path: Path) -> Path:
    """Write the network as ONNX with a free batch dimension, by the exporter of the family."""
    example = noise(family, 2, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters speak of themselves, not of the network
        if family.dynamo:
            _quietly(
                lambda: torch.onnx.export(
                    network,
                    (example,),
                    str(path),
                    input_names=["image"],
                    output_names=["scores"],
                    dynamo=True,
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    external_data=False,
                    optimize=family.fold,
                    verbose=False,
                )
            )
        else:
            torch.onnx.export(
                network,
                (example,),
                str(path),
                input_names=["image"],
                output_names=["scores"],
                dynamo=False,
                dynamic_axes={"image": {0: "batch"}, "scores": {0: "batch"}},
                opset_version=17,
                training=torch.onnx.TrainingMode.EVAL
                if family.fold
                else torch.onnx.TrainingMode.PRESERVE,
            )
    return path


def _quietly(call: Callable[[], object]) -> None:
    """Run something that logs about its own internals."""
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        call()
    finally:
        logger.setLevel(level)

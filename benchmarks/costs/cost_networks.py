"""Networks of the cost table: of torchvision and timm with random weights, a trained YOLOv8n."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["NETWORKS", "SIDE", "Network", "made"]

SIDE = 224


@dataclass(frozen=True)
class Network:
    """One network as a PyTorch module and as a file.

    Attributes:
        name: As papers write it.
        path: The ONNX file.
        module: The PyTorch module; None where there is only the file.
        layer: Name of the submodule that peers take for the last layer of maps.
        tokens: Whether that layer gives tokens, the class's own first.
        side: Height and width of the image.
    """

    name: str
    path: Path
    module: Any = None
    layer: str = ""
    tokens: bool = False
    side: int = SIDE

    @property
    def last(self) -> Any:
        """The submodule that peers take for the last layer of maps."""
        return self.module.get_submodule(self.layer)


def _torchvision(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from converters.to_onnx.pytorch.module import declare_torchvision

        declare_torchvision()
        import torchvision

        return getattr(torchvision.models, name)(weights=None)

    return make


def _timm(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from converters.to_onnx.pytorch.module import declare_torchvision

        declare_torchvision()  # which timm imports
        import timm

        return timm.create_model(name, pretrained=False)

    return make


NETWORKS: dict[str, tuple[Callable[[], Any], str, bool]] = {
    "ResNet-50": (_torchvision("resnet50"), "layer4.2", False),
    "VGG-16": (_torchvision("vgg16"), "features.29", False),
    "MobileNetV2": (_torchvision("mobilenet_v2"), "features.18", False),
    "DenseNet-121": (_torchvision("densenet121"), "features.norm5", False),
    "EfficientNet-Lite0": (_timm("efficientnet_lite0"), "bn2", False),
    "ViT-S": (_timm("vit_small_patch16_224"), "blocks.11.norm1", True),
}
"""By name: what makes the module, the layer for peers, and whether that gives tokens."""


def made(name: str, folder: Path) -> Network | None:
    """One of the networks, its file written into a folder; None where a package is missing."""
    if name == "YOLOv8n":
        return _yolo()
    import torch

    from converters.to_onnx.pytorch.export import export_module

    torch.manual_seed(0)
    make, layer, tokens = NETWORKS[name]
    try:
        module = make().eval()
    except ImportError:
        return None
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False  # which the hooks of peers cannot bear
    path = folder / f"{name.lower()}.onnx"
    export_module(module, torch.zeros(1, 3, SIDE, SIDE), path)
    return Network(name, path, module, layer, tokens)


def _yolo() -> Network | None:
    """The file in the wheel of the package nudenet."""
    found = importlib.util.find_spec("nudenet")
    if found is None or found.origin is None:
        return None
    return Network("YOLOv8n", Path(found.origin).parent / "320n.onnx", side=320)

"""Networks of other tasks than classification from torchvision and transformers, random weights.

Normalisations are set to the statistics of noise, so that activations have unit variance; heads are
scaled so that scores differ.  torchvision's compiled operators need not be there: non-maximum
suppression is written anew, and RoIAlign is torchvision's own in Python, which has a gradient.
"""

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_loader import load_torchvision

SEED = 7

_ROI_ALIGN = (
    "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)


@dataclass(frozen=True)
class Native:
    """A network, an input, and what a layer and a target are in it.

    Attributes:
        name: What it is called.
        task: What ``check`` must say.
        network: Takes ``x`` and gives its outputs by name.
        x: (1, 3, H, W).
        outputs: Names of the outputs.
        ranked: Whether the file takes an image (3, H, W).
    """

    name: str
    task: str
    network: nn.Module
    x: Tensor
    outputs: tuple[str, ...]
    ranked: bool = False


def _nothing() -> None:
    return None


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    order, kept = scores.argsort(descending=True, stable=True).tolist(), []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while order:
        first, *order = order
        kept.append(first)
        if not order:
            break
        rest = torch.tensor(order)
        low = torch.maximum(boxes[rest, :2], boxes[first, :2])
        high = torch.minimum(boxes[rest, 2:], boxes[first, 2:])
        inner = (high - low).clamp(min=0).prod(1)
        same = inner / (areas[rest] + areas[first] - inner) > threshold
        order = rest[~same].tolist()
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(*arguments: Any) -> Tensor:
    compiled = sys.modules["torchvision.ops.roi_align"]._roi_align
    found: Tensor = inspect.unwrap(compiled)(*arguments)
    return found


def _declare() -> Any:
    """torchvision, with non-maximum suppression as an operator."""
    torchvision = load_torchvision()
    try:
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, AttributeError, NotImplementedError):
        torch.library.impl("torchvision::nms", "CPU", _nms)
        with contextlib.suppress(RuntimeError):  # it may be declared
            torch.library.define("torchvision::roi_align", _ROI_ALIGN)
        torch.library.impl("torchvision::roi_align", "CPU", _roi_align)
        poolers = torchvision.ops.poolers
        operator = poolers.roi_align

        def roi_align(features: Tensor, boxes: Tensor, output_size: Any, **more: Any) -> Tensor:
            if torch.onnx.is_in_onnx_export():
                found: Tensor = operator(features, boxes, output_size, **more)
                return found
            return _roi_align(
                features, boxes, more["spatial_scale"], *output_size, more["sampling_ratio"], False
            )

        poolers.roi_align = roi_align
    torchvision.extension._assert_has_ops = _nothing
    torchvision.ops.boxes._assert_has_ops = _nothing
    sys.modules["torchvision.ops.roi_align"]._assert_has_ops = _nothing
    sys.modules["torchvision.ops.roi_align"]._has_ops = lambda: True
    return torchvision


def settled(network: nn.Module, forward: Callable[[Tensor], Any], size: tuple[int, int]) -> None:
    """Set the statistics of normalisations to those of noise."""
    torch.manual_seed(SEED)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
    with torch.no_grad():
        for _ in range(4):
            forward(torch.rand(2, 3, *size))
    network.eval()


class Segments(nn.Module):
    """A segmenter of torchvision with one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]


def segmenter(name: str) -> Native:
    """LR-ASPP or DeepLab at 96 x 96, five classes."""
    torchvision = load_torchvision()
    torch.manual_seed(SEED)
    build = getattr(torchvision.models.segmentation, name)
    network = Segments(build(weights=None, weights_backbone=None, num_classes=5)).eval()
    settled(network, network, (96, 96))
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():  # every class wins somewhere
        out = network(x)
        last = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None][-1]
        last.bias -= out.mean((0, 2, 3))
    return Native(name, "segmenter", network, x, ("out",))


class Detects(nn.Module):
    """A detector of torchvision on one image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (found,) = self.network([image])
        return found["boxes"], found["labels"], found["scores"]


def detector(name: str) -> Native:
    """SSDLite, RetinaNet or Faster R-CNN of three classes at 96 x 96."""
    torchvision = _declare()
    torch.manual_seed(SEED)
    side = 96
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 4}
    if "ssd" not in name:
        options |= {"min_size": side, "max_size": side}
    build = getattr(torchvision.models.detection, name)
    inner = build(**options).eval()
    if "ssd" in name:
        inner.transform.fixed_size = (side, side)
    inner.transform.image_mean, inner.transform.image_std = [0.0] * 3, [1.0] * 3
    inner.detections_per_img = 8
    if hasattr(inner, "topk_candidates"):
        inner.topk_candidates = 20
    network = Detects(inner)
    settled(network, inner.backbone, (side, side))
    for part in inner.modules():  # scores that differ
        if type(part).__name__ == "RetinaNetClassificationHead":
            nn.init.normal_(part.cls_logits.weight, std=0.1)
            nn.init.zeros_(part.cls_logits.bias)
        if type(part).__name__ == "FastRCNNPredictor":
            nn.init.normal_(part.cls_score.weight, std=0.2)
    if hasattr(inner, "roi_heads"):
        inner.roi_heads.detections_per_img = 8
        inner.rpn._pre_nms_top_n = inner.rpn._post_nms_top_n = {"training": 20, "testing": 20}
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(SEED))
    return Native(name, "detector", network, x, ("boxes", "labels", "scores"), ranked=True)


class Queries(nn.Module):
    """DETR of transformers with its two outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.network(pixel_values=x)
        return found.logits, found.pred_boxes


def detr() -> Native:
    """A small DETR: ten queries, three classes."""
    import transformers

    torch.manual_seed(SEED)
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, layer_type="basic",
        out_features=["stage4"],
    )  # fmt: skip
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config=backbone, num_queries=10, d_model=32, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64,
        decoder_ffn_dim=64, num_labels=3, attn_implementation="eager",
    )  # fmt: skip
    network = Queries(transformers.DetrForObjectDetection(config)).eval()
    settled(network, network, (64, 64))
    with torch.no_grad():
        network.network.class_labels_classifier.weight.normal_(std=0.5)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(SEED))
    return Native("detr", "detector", network, x, ("logits", "pred_boxes"))


class Logits(nn.Module):
    """SegFormer of transformers with its one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(pixel_values=x).logits
        return found


def segformer() -> Native:
    """A small SegFormer at 64 x 64: four stages, five classes, scores on a quarter of the sides."""
    load_torchvision()  # transformers reads it
    import transformers

    torch.manual_seed(2)  # with which Grad-CAM's map of the largest region is not empty
    config = transformers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=32, num_labels=5,
    )  # fmt: skip
    network = Logits(transformers.SegformerForSemanticSegmentation(config)).eval()
    with torch.no_grad():  # weights start at .02, with which nothing of the photo arrives
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    settled(network, network, (64, 64))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():  # every class wins somewhere
        network.network.decode_head.classifier.bias -= network(x).mean((0, 2, 3))
    return Native("segformer", "segmenter", network, x, ("logits",))


class Reads(nn.Module):
    """A reader of text: convolutions that keep the width, an LSTM, a softmax over 12 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 24, 3, (2, 1), 1), nn.BatchNorm2d(24), nn.ReLU(),
        )  # fmt: skip
        self.rnn = nn.LSTM(24, 16, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.body(x).mean(2).transpose(1, 2)
        return torch.softmax(4 * self.head(self.rnn(steps)[0]), 2)


class Embeds(nn.Module):
    """MobileFaceNet's parts: depthwise blocks, PReLU, a global depthwise convolution, length 1."""

    def __init__(self) -> None:
        super().__init__()

        def block(inner: int, outer: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inner, inner * 2, 1, bias=False), nn.BatchNorm2d(inner * 2),
                nn.PReLU(inner * 2),
                nn.Conv2d(inner * 2, inner * 2, 3, stride, 1, groups=inner * 2, bias=False),
                nn.BatchNorm2d(inner * 2), nn.PReLU(inner * 2),
                nn.Conv2d(inner * 2, outer, 1, bias=False), nn.BatchNorm2d(outer),
            )  # fmt: skip

        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16),
            block(16, 16, 2), block(16, 24, 2), block(24, 24, 1),
        )  # fmt: skip
        self.pool = nn.Conv2d(24, 24, 7, groups=24, bias=False)
        self.head = nn.Linear(24, 32)

    def forward(self, x: Tensor) -> Tensor:
        found = self.head(self.pool(self.body(x)).flatten(1))
        return found / found.norm(dim=1, keepdim=True)


def reader() -> Native:
    """A CTC reader at 32 x 96."""
    torch.manual_seed(SEED)
    network = Reads().eval()
    settled(network, network, (32, 96))
    x = torch.rand(1, 3, 32, 96, generator=torch.Generator().manual_seed(SEED))
    return Native("reader", "sequence", network, x, ("probabilities",))


def embedding() -> Native:
    """Face embedding at 56 x 56."""
    torch.manual_seed(SEED)
    network = Embeds().eval()
    settled(network, network, (56, 56))
    x = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(SEED))
    return Native("mobile_face_net", "embedding", network, x, ("embedding",))


NETWORKS: dict[str, Callable[[], Native]] = {
    **{n: lambda n=n: segmenter(n) for n in ("lraspp_mobilenet_v3_large", "deeplabv3_resnet50")},
    **{
        n: lambda n=n: detector(n)
        for n in (
            "ssdlite320_mobilenet_v3_large",
            "retinanet_resnet50_fpn",
            "fasterrcnn_mobilenet_v3_large_fpn",
        )
    },
    "detr": detr,
    "segformer": segformer,
    "reader": reader,
    "mobile_face_net": embedding,
}


def export(native: Native, path: Path) -> Path:
    """The network as an ONNX file, by tracing."""
    lists = {name: {0: "detections"} for name in native.outputs} if native.ranked else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            native.network, (native.x[0] if native.ranked else native.x,), path, dynamo=False,
            opset_version=17, input_names=["image"], output_names=list(native.outputs),
            dynamic_axes=lists, do_constant_folding=False,
        )  # fmt: skip
    return path

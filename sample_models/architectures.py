"""The sample networks: small convolutional classifiers for 32x32 photos, K = 10 classes.

All take (N, 3, 32, 32) and return (N, 10) scores before the softmax.

* ``base_c``, ``strided_cnn_c``, ``conv_pool_cnn_c``, ``all_cnn_c``: Springenberg, Dosovitskiy, Brox
  and Riedmiller, *Striving for Simplicity: The All Convolutional Net*, ICLR workshop 2015, model C
  of Table 1 and its variants of Table 2.
* ``zfnet``, ``zfnet_coarse``: after Zeiler and Fergus, *Visualizing and Understanding
  Convolutional Networks*, ECCV 2014; cut down to 32x32 pixels.  The coarse one has the first layer
  that their figure 6 warns of.
* ``resnet20``: He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016,
  section 4.2, with 1x1 projections where the shape changes.
"""

from collections.abc import Callable
from types import MappingProxyType

import torch
from torch import nn

__all__ = [
    "CLASSES",
    "MEAN",
    "NETWORKS",
    "STD",
    "all_cnn_c",
    "base_c",
    "conv_pool_cnn_c",
    "resnet20",
    "strided_cnn_c",
    "zfnet",
    "zfnet_coarse",
]

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
MEAN = (0.4914, 0.4822, 0.4465)
"""Mean of the training images, RGB, pixels between 0 and 1."""
STD = (0.2470, 0.2435, 0.2616)
"""Standard deviation of the training images, RGB, pixels between 0 and 1."""


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int | None = None
) -> list[nn.Module]:
    """A convolution and its ReLU; without a padding given, stride 1 keeps the map's size."""
    padding = kernel // 2 if padding is None else padding
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU()]


def _pool() -> list[nn.Module]:
    """Overlapping max-pooling that halves the map."""
    return [nn.MaxPool2d(kernel_size=3, stride=2, padding=1)]


def _model_c(reduce: Callable[[int], list[nn.Module]], *, stride: int = 1) -> nn.Sequential:
    """Model C: two stages of 3x3 convolutions, each made smaller by ``reduce``, then 3x3, 1x1, 1x1.

    Args:
        reduce: Layers that end a stage, for its number of channels.
        stride: Of the last convolution of each stage.
    """
    layers: list[nn.Module] = [nn.Dropout(0.2)]
    channels = 3
    for width in (96, 192):
        layers += _convolution(channels, width, 3)
        layers += _convolution(width, width, 3, stride=stride)
        layers += [*reduce(width), nn.Dropout(0.5)]
        channels = width
    layers += _convolution(192, 192, 3, padding=0)
    layers += _convolution(192, 192, 1)
    layers += _convolution(192, len(CLASSES), 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def base_c() -> nn.Sequential:
    """Model C with max-pooling."""
    return _model_c(lambda _: _pool())


def strided_cnn_c() -> nn.Sequential:
    """Model C whose convolutions before the pooling have stride 2 in its place."""
    return _model_c(lambda _: [], stride=2)


def conv_pool_cnn_c() -> nn.Sequential:
    """Model C with one more convolution before each max-pooling: as deep as ``all_cnn_c``."""
    return _model_c(lambda width: [*_convolution(width, width, 3), *_pool()])


def all_cnn_c() -> nn.Sequential:
    """Model C with a convolution of stride 2 in place of each max-pooling: no pooling at all."""
    return _model_c(lambda width: _convolution(width, width, 3, stride=2))


def _zeiler_fergus(first: list[nn.Module], second_pool: list[nn.Module]) -> nn.Sequential:
    """Five convolutions and three linear layers; ``first`` gives 32 channels."""
    return nn.Sequential(
        *first,
        *_convolution(32, 64, 5),
        *second_pool,
        *_convolution(64, 96, 3),
        *_convolution(96, 96, 3),
        *_convolution(96, 64, 3),
        *_pool(),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, len(CLASSES)),
    )


def zfnet() -> nn.Sequential:
    """Five convolutions (the first 5x5, stride 1), three max-poolings, three linear layers."""
    return _zeiler_fergus([*_convolution(3, 32, 5), *_pool()], _pool())


def zfnet_coarse() -> nn.Sequential:
    """The same with a first layer of 11x11, stride 4, and only the last pooling."""
    return _zeiler_fergus(_convolution(3, 32, 11, stride=4, padding=5), [])


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to the block's own input.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution, and of the 1x1 projection that then stands on the
            shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.down = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class ResNet20(nn.Module):
    """Nine residual blocks in three stages of 16, 32 and 64 channels, mean, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        stages = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.blocks = nn.Sequential(
            *(
                block
                for inputs, width, stride in stages
                for block in (
                    ResidualBlock(inputs, width, stride),
                    ResidualBlock(width, width, 1),
                    ResidualBlock(width, width, 1),
                )
            )
        )
        self.fc = nn.Linear(64, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 32, 32) to (N, 10) scores: the mean over (h, w), then one linear layer."""
        scores: torch.Tensor = self.fc(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return scores


def resnet20() -> ResNet20:
    """Twenty layers; its head makes CAM exact."""
    return ResNet20()


NETWORKS: MappingProxyType[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "all_cnn_c": all_cnn_c,
        "base_c": base_c,
        "conv_pool_cnn_c": conv_pool_cnn_c,
        "resnet20": resnet20,
        "strided_cnn_c": strided_cnn_c,
        "zfnet": zfnet,
        "zfnet_coarse": zfnet_coarse,
    }
)
"""Every sample network by its name: what ``train.py`` trains and ``build.py`` converts."""

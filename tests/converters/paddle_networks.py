"""Build the sample ResNet-20 in PaddlePaddle, with its trained weights, and save it in every form.

python paddle_networks.py RESNET20.onnx FOLDER [old]

Run in the environment of Paddle.  The network is rebuilt node by node: the layers are Paddle's
own, only the numbers are ours.
"""

import sys
from pathlib import Path

import onnx
import onnx_layers
import paddle
from paddle.static import InputSpec


class ResNet20(paddle.nn.Layer):
    """A graph of Conv, Relu, Add, ReduceMean and Gemm."""

    def __init__(self, path):
        super().__init__()
        self.graph = onnx.load(path).graph  # noqa: TID251 - our own sample model
        self.built = {}
        for name, kernel, bias, strides, padding in onnx_layers.weighted(self.graph):
            if kernel.ndim == 4:
                layer = paddle.nn.Conv2D(
                    kernel.shape[1],
                    len(kernel),
                    kernel.shape[2:],
                    stride=list(strides),
                    padding=[*padding[0], *padding[1]],
                )
                own = kernel
            else:
                layer = paddle.nn.Linear(kernel.shape[1], len(kernel))
                own = kernel.T
            layer.weight.set_value(own)
            layer.bias.set_value(bias)
            self.built[name] = layer
            self.add_sublayer(f"layer{len(self.built)}", layer)

    def forward(self, image):
        return onnx_layers.forward(
            self.graph,
            image,
            self.built,
            paddle.nn.functional.relu,
            lambda x: x.mean(axis=[2, 3]),
        )


class Small(paddle.nn.Layer):
    """What differs between training and use is in it: a norm with averages, dropout."""

    def __init__(self):
        super().__init__()
        self.body = paddle.nn.Sequential(
            paddle.nn.Conv2D(3, 8, 3, padding=1),
            paddle.nn.BatchNorm2D(8),
            paddle.nn.Hardswish(),
            paddle.nn.MaxPool2D(2),
            paddle.nn.Conv2D(8, 16, 3, stride=2, padding=1, groups=2),
            paddle.nn.ReLU(),
            paddle.nn.AdaptiveAvgPool2D(1),
            paddle.nn.Flatten(),
            paddle.nn.Dropout(0.5),
            paddle.nn.Linear(16, 10),
        )

    def forward(self, image):
        return self.body(image)


class Untranslated(paddle.nn.Layer):
    """Holds an operator that paddle2onnx has no translation for."""

    def __init__(self):
        super().__init__()
        self.head = paddle.nn.Linear(3, 10)

    def forward(self, image):
        return self.head(paddle.lgamma(image.abs() + 1).mean(axis=[2, 3]))


def save(layer, place, shape):
    layer.eval()
    place.parent.mkdir(exist_ok=True)
    paddle.jit.save(layer, str(place), input_spec=[InputSpec(shape, "float32", "image")])


def main(source, folder):
    paddle.seed(0)
    save(ResNet20(source), folder / "resnet20", [None, 3, 32, 32])
    save(Small(), folder / "inference" / "inference", [None, 3, 16, 16])
    save(Small(), folder / "fixed", [2, 3, 16, 16])
    save(Untranslated(), folder / "lgamma", [None, 3, 16, 16])
    paddle.save(Small().state_dict(), str(folder / "weights.pdparams"))


def main_before_3(folder):
    """The format from before PaddlePaddle 3, which FLAGS_enable_pir_api=0 asks for."""
    paddle.seed(0)
    save(Small(), folder / "old", [None, 3, 16, 16])


if __name__ == "__main__":
    if sys.argv[3:] == ["old"]:
        main_before_3(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))

"""Build the sample ResNet-20 in PaddlePaddle, with its trained weights, and save it in every form.

python paddle_networks.py RESNET20.onnx FOLDER [old]

Run in the environment of Paddle.  The network is rebuilt node by node: the layers are Paddle's
own, only the numbers are ours.
"""

import sys
from pathlib import Path

import onnx
import paddle
from onnx import numpy_helper
from paddle.static import InputSpec


class ResNet20(paddle.nn.Layer):
    """A graph of Conv, Relu, Add, ReduceMean and Gemm."""

    def __init__(self, path):
        super().__init__()
        self.graph = onnx.load(path).graph  # noqa: TID251 - our own sample model
        weights = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        self.places = {}
        for node in self.graph.node:
            if node.op_type not in {"Conv", "Gemm"}:
                continue
            kernel, bias = (weights[name] for name in node.input[1:3])
            if node.op_type == "Conv":
                known = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                top, left, bottom, right = known.get("pads", [0] * 4)
                layer = paddle.nn.Conv2D(
                    kernel.shape[1], len(kernel), kernel.shape[2:],
                    stride=list(known.get("strides", (1, 1))), padding=[top, bottom, left, right],
                )  # fmt: skip
            else:
                layer = paddle.nn.Linear(kernel.shape[1], len(kernel))
                kernel = kernel.T
            layer.weight.set_value(kernel)
            layer.bias.set_value(bias)
            self.places[node.output[0]] = name = f"layer{len(self.places)}"
            self.add_sublayer(name, layer)

    def forward(self, image):
        values = {self.graph.input[0].name: image}
        for node in self.graph.node:
            x = values.get(node.input[0])
            if node.op_type in {"Conv", "Gemm"}:
                y = getattr(self, self.places[node.output[0]])(x)
            elif node.op_type == "Relu":
                y = paddle.nn.functional.relu(x)
            elif node.op_type == "Add":
                y = x + values[node.input[1]]
            elif node.op_type == "ReduceMean":
                y = x.mean(axis=[2, 3])
            else:
                y = x
            values[node.output[0]] = y
        return values[self.graph.output[0].name]


class Small(paddle.nn.Layer):
    """What differs between training and use is in it: a norm with averages, dropout."""

    def __init__(self):
        super().__init__()
        self.body = paddle.nn.Sequential(
            paddle.nn.Conv2D(3, 8, 3, padding=1), paddle.nn.BatchNorm2D(8), paddle.nn.Hardswish(),
            paddle.nn.MaxPool2D(2), paddle.nn.Conv2D(8, 16, 3, stride=2, padding=1, groups=2),
            paddle.nn.ReLU(), paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten(),
            paddle.nn.Dropout(0.5), paddle.nn.Linear(16, 10),
        )  # fmt: skip

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

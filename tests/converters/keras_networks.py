"""Build the sample ResNet-20 in Keras, with its trained weights, and save it in every form.

python keras_networks.py RESNET20.onnx CIFAR10_SAMPLE.npz FOLDER

The weights are read from the ONNX file; the network is rebuilt node by node in NHWC, so that it
is Keras' own, and only the numbers are the same.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import numpy_helper

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def network(path):
    """A Keras model of a graph of Conv, Relu, Add, ReduceMean and Gemm."""
    graph = onnx.load(path).graph  # noqa: TID251 - our own sample model
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    image = keras.Input((32, 32, 3), name="image")
    values = {graph.input[0].name: image}
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        x = values.get(node.input[0])
        if node.op_type == "Conv":
            kernel = weights[node.input[1]]
            top, left, bottom, right = attributes.get("pads", [0] * 4)
            if top or left or bottom or right:
                x = keras.layers.ZeroPadding2D(((top, bottom), (left, right)))(x)
            layer = keras.layers.Conv2D(
                len(kernel), kernel.shape[2:], strides=attributes.get("strides", [1, 1])
            )
            y = layer(x)
            layer.set_weights([kernel.transpose(2, 3, 1, 0), weights[node.input[2]]])
        elif node.op_type == "Relu":
            y = keras.layers.ReLU()(x)
        elif node.op_type == "Add":
            y = keras.layers.Add()([x, values[node.input[1]]])
        elif node.op_type == "ReduceMean":
            y = keras.layers.GlobalAveragePooling2D()(x)
        elif node.op_type == "Gemm":
            kernel = weights[node.input[1]]
            layer = keras.layers.Dense(len(kernel), name="logits")
            y = layer(x)
            layer.set_weights([kernel.T, weights[node.input[2]]])
        elif node.op_type in {"Identity", "Reshape", "Squeeze", "Flatten"}:
            y = x
        else:
            raise SystemExit(f"no Keras layer for {node.op_type}")
        values[node.output[0]] = y
    return keras.Model(image, values[graph.output[0].name])


def main(source, sample, folder):
    """Save the model as .keras, .h5, SavedModel, TFLite and int8 TFLite, and one with a Lambda."""
    model = network(source)
    with np.load(sample) as stored:
        images = ((stored["x"][:100] / 255 - MEAN) / STD).astype(np.float32)
    model.save(folder / "resnet20.keras")
    model.save(folder / "resnet20.h5")
    model.export(folder / "saved", verbose=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    (folder / "resnet20.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([images[i : i + 1]] for i in range(100))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "resnet20_int8.tflite").write_bytes(converter.convert())
    image = keras.Input((8, 8, 3))
    twice = keras.layers.Lambda(lambda x: x * 2.0, name="twice")(image)
    program = keras.Model(image, keras.layers.GlobalAveragePooling2D()(twice))
    program.save(folder / "program.keras")
    program.save(folder / "program.h5")
    model.save_weights(folder / "only.weights.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))

"""Quantise a Keras classifier to int8 by TFLite's own converter, calibrated on photos.

python quantised_classifier.py MODEL.h5 OUT.tflite PHOTO...
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image


def main(source, output, photos):
    """Write integers alone: int8 in, int8 out."""
    network = keras.saving.load_model(source, compile=False)
    _, height, width, _ = network.input_shape

    def samples():
        for photo in photos:
            image = Image.open(photo).convert("RGB").resize((width, height))
            yield [np.asarray(image, np.float32)[None] / 127.5 - 1]

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    Path(output).write_bytes(converter.convert())


if __name__ == "__main__":
    main(*sys.argv[1:3], sys.argv[3:])

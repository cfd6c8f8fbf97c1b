"""Build small TFLite files by TensorFlow, and a SavedModel of captured constants.

python tflite_networks.py FOLDER
"""

import sys
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

SIZE = 32


def weights(generator, *shape):
    """Weights that keep values near 1."""
    return tf.constant(generator.normal(0, 0.3, shape), tf.float32)


def save(path, call, *, quantised=None, output=None):
    """Write a function of an image (1, 32, 32, 3) as TFLite; ``quantised`` is its input's type."""
    image = tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32, name="image")
    function = tf.function(lambda image: {"out": call(image)}, input_signature=[image])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if quantised is not None:
        generator = np.random.default_rng(1)
        shape = (1, SIZE, SIZE, 3)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [generator.normal(0, 1, shape).astype(np.float32)] for _ in range(20)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = quantised
        if output is not None:
            converter.inference_output_type = output
    path.write_bytes(converter.convert())


def biased(folder, generator):
    """A pool, whose four axes a fully connected layer takes at once, and its bias."""
    kernel, matrix = weights(generator, 3, 3, 3, 8), weights(generator, 8, 4)

    def call(bias):
        def scores(image):
            x = tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME"))
            x = tf.nn.avg_pool2d(x, SIZE // 2, SIZE // 2, "VALID")
            return tf.matmul(tf.reshape(x, (1, 8)), matrix) + tf.constant(bias, tf.float32)

        return scores

    save(folder / "pool_dense.tflite", call([0.5, -1.0, 1.5, -0.5]))
    small = call([0.05, -0.05, 0.06, -0.06])
    save(folder / "pool_dense_int8.tflite", small, quantised=tf.int8, output=tf.int8)


def transposed(folder, generator):
    """A transposed convolution with a bias and a ReLU."""
    kernel, up = weights(generator, 3, 3, 3, 8), weights(generator, 2, 2, 4, 8)
    bias = weights(generator, 4)

    def call(image):
        x = tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME"))
        x = tf.nn.conv2d_transpose(x, up, (1, SIZE, SIZE, 4), 2, "SAME")
        return tf.nn.relu(tf.nn.bias_add(x, bias))

    save(folder / "upsampled.tflite", call)


def sharpened(folder, generator):
    """A softmax of beta 2, which the format has and TensorFlow's converter never writes."""
    kernel = weights(generator, 3, 3, 3, 5)
    path = folder / "softmax.tflite"
    save(path, lambda x: tf.nn.softmax(tf.reduce_mean(tf.nn.conv2d(x, kernel, 2, "SAME"), (1, 2))))
    model = flatbuffer_utils.read_model(str(path))
    options = [o.builtinOptions for o in model.subgraphs[0].operators]
    next(o for o in options if hasattr(o, "beta")).beta = 2.0
    flatbuffer_utils.write_model(model, str(path))


def segmented(folder, generator):
    """Class numbers of places, out of a quantised network."""
    kernel, head = weights(generator, 3, 3, 3, 16), weights(generator, 1, 1, 16, 21)

    def call(image):
        x = tf.nn.relu6(tf.nn.conv2d(image, kernel, 2, "SAME"))
        x = tf.image.resize(tf.nn.conv2d(x, head, 1, "SAME"), (SIZE, SIZE))
        return tf.argmax(x, -1)

    save(folder / "classes_uint8.tflite", call, quantised=tf.uint8)


def without_samples(folder, generator):
    """Networks that leave the axis of samples and come back: landmarks, a grid of boxes."""
    kernel, matrix = weights(generator, 3, 3, 3, 8), weights(generator, 8, 6)
    grid = weights(generator, 1, 256, 2)

    def points(image):
        x = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME")), (1, 2))
        pairs = tf.unstack(tf.reshape(tf.matmul(x, matrix), (1, 3, 2)), axis=0)[0]
        return tf.reshape(pairs[:, 0], (1, 3))

    def boxes(image):
        x = tf.reshape(tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME")), (1, 256, 8))
        parts = tf.split(x, [2, 6], axis=2)
        x = tf.concat([parts[0] + grid, parts[1]], 2)
        return tf.reshape(x, (1, 1, 256, 8))[0][None][:, 0]

    def joined(image):
        x = tf.reshape(tf.nn.relu(tf.nn.conv2d(image, kernel, 2, "SAME")), (1, 256, 8))
        return tf.concat([x[:, :, :2] + grid, x[:, :, 2:]], 2)

    save(folder / "points.tflite", points)
    save(folder / "boxes.tflite", boxes)
    save(folder / "joined.tflite", joined)


def tokens(folder, generator):
    """Dense layers over tokens of a batch left open: shapes are computed when the file runs."""
    kernel, matrix = weights(generator, 8, 8, 3, 6), weights(generator, 6, 5)

    @tf.function(input_signature=[tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32)])
    def network(image):
        found = tf.nn.conv2d(image, kernel, 8, "SAME")
        count = SIZE * SIZE // 64
        found = tf.tensordot(tf.reshape(found, (-1, count, 6)), matrix, 1)
        return tf.reduce_mean(tf.nn.gelu(found), 1)

    made = network.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([made])
    (folder / "tokens.tflite").write_bytes(converter.convert())


def described(folder):
    """A copy of a network with TFLite Metadata: its normalisation, and a file of class names."""
    model = flatbuffer_utils.read_model(str(folder / "pool_dense.tflite"))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(metadata(), np.uint8)
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    path = folder / "described.tflite"
    flatbuffer_utils.write_model(model, str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("names.txt", "cat\ndog\nfox\nowl\n")
        archive.writestr("licence.txt", "none")


def metadata():
    """A ModelMetadata: pixels are (x - 127.5) / 63.75, and output 0 has names.txt."""
    builder = flatbuffers.Builder(1024)
    name = builder.CreateString("names.txt")
    mean = builder.CreateNumpyVector(np.array([127.5], np.float32))
    std = builder.CreateNumpyVector(np.array([63.75], np.float32))

    def table(**fields):
        """A table of offsets (``o``) and bytes (``b``) by number of their field."""
        builder.StartObject(8)
        for field, value in fields.items():
            number = int(field[1:])
            if field[0] == "o":
                builder.PrependUOffsetTRelativeSlot(number, value, 0)
            else:
                builder.PrependUint8Slot(number, value, 0)
        return builder.EndObject()

    def one(item):
        builder.StartVector(4, 1, 4)
        builder.PrependUOffsetTRelative(item)
        return builder.EndVector()

    unit = table(b0=1, o1=table(o0=mean, o1=std))
    image = table(o4=one(unit))
    scores = table(o6=one(table(o0=name, b2=2)))
    graph = table(o2=one(image), o3=one(scores))
    builder.Finish(table(o3=one(graph)), file_identifier=b"M001")
    return bytes(builder.Output())


class Captured(tf.Module):
    """A module whose weights are constants that its serving function captures."""

    def __init__(self, generator):
        """Make the constants outside of the function."""
        super().__init__()
        self.kernel, self.matrix = weights(generator, 3, 3, 3, 4), weights(generator, 4, 5)

    @tf.function(input_signature=[tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32, name="input")])
    def __call__(self, input):  # noqa: A002 - the name that exporters give it
        """Scores of an image."""
        x = tf.nn.relu(tf.nn.conv2d(input, self.kernel, 1, "SAME"))
        return {"output": tf.reduce_mean(x, (1, 2)) @ self.matrix}


def main(folder):
    """Write them all."""
    generator = np.random.default_rng(0)
    for make in (biased, transposed, sharpened, segmented, without_samples, tokens):
        make(folder, generator)
    described(folder)
    captured = Captured(generator)
    signature = captured.__call__.get_concrete_function()
    tf.saved_model.save(captured, folder / "captured", signatures=signature)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

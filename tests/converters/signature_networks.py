"""Save a network of two functions as a SavedModel and as a TFLite file.

python signature_networks.py FOLDER
"""

import sys
from pathlib import Path

import tensorflow as tf


class Two(tf.Module):
    """A network whose first layer both functions use."""

    def __init__(self):
        """Draw its weights."""
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal((3, 3, 3, 8), (1, 2)))
        self.classes = tf.Variable(tf.random.stateless_normal((8, 5), (3, 4)))
        self.vector = tf.Variable(tf.random.stateless_normal((8, 7), (5, 6)))

    def _pooled(self, image):
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(image, self.kernel, 2, "SAME")), [1, 2])

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), name="photo")])
    def classify(self, photo):
        """Scores of classes."""
        return {"scores": self._pooled(photo) @ self.classes}

    @tf.function(input_signature=[tf.TensorSpec((1, 16, 16, 3), name="image")])
    def embed(self, image):
        """A feature vector."""
        return {"vector": self._pooled(image) @ self.vector}


def main(folder):
    """Save it."""
    network = Two()
    named = {"classify": network.classify, "embed": network.embed}
    tf.saved_model.save(network, folder / "two", signatures=named)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "two"), signature_keys=[*named]
    )
    (folder / "two.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

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

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="files")])
    def of_files(self, files):
        """Scores of pictures that are still encoded."""

        def decoded(file):
            return tf.image.resize(tf.io.decode_jpeg(file, 3), (32, 32))

        images = tf.map_fn(decoded, files, tf.TensorSpec((32, 32, 3)))
        return {"scores": self._pooled(images) @ self.classes}

    @tf.function(input_signature=[tf.TensorSpec(None, name="image")])
    def named(self, image):
        """Scores, and the name of the class as a text, of an image of no known shape."""
        scores = self._pooled(tf.reshape(image, (-1, 32, 32, 3))) @ self.classes
        names = tf.constant(["a", "b", "c", "d", "e"])
        return {"label": tf.gather(names, tf.argmax(scores, -1)), "scores": scores}

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), name="image")])
    def augmented(self, image):
        """Scores of an image that is turned by chance, as layers of augmentation do."""
        chance = tf.random.stateless_uniform((), tf.shape(image)[:2])
        return {"scores": self._pooled(image * chance) @ self.classes}

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), name="image")])
    def brain(self, image):
        """Scores that are computed in bfloat16."""
        kind = tf.bfloat16
        found = tf.nn.conv2d(tf.cast(image, kind), tf.cast(self.kernel, kind), 2, "SAME")
        return {"scores": tf.cast(tf.reduce_mean(found, [1, 2]), tf.float32) @ self.classes}

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), name="image")])
    def either(self, image):
        """Scores by one of two branches, of which one doubles what a convolution gives."""
        found = tf.nn.conv2d(image, self.kernel, 2, "SAME")
        found = tf.cond(tf.reduce_mean(image) > 0, lambda: found * 2, lambda: found - 1)
        return {"scores": tf.reduce_mean(tf.nn.relu(found), [1, 2]) @ self.classes}


def main(folder):
    """Save it."""
    network = Two()
    named = {"classify": network.classify, "embed": network.embed}
    tf.saved_model.save(network, folder / "two", signatures=named)
    others = {"serving_default": network.of_files, "pixels": network.named}
    others |= {"augmented": network.augmented, "brain": network.brain, "either": network.either}
    tf.saved_model.save(network, folder / "others", signatures=others)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder / "two"), signature_keys=[*named]
    )
    (folder / "two.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

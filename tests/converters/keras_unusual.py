"""Keras models with something unusual, and what Keras itself computes of some inputs (.npz).

python keras_unusual.py FOLDER
"""

import os
import sys
from pathlib import Path

import numpy as np

os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
from keras import layers

SHAPE = (16, 16, 3)


def scores(tensor):
    """Three probabilities of a map."""
    normal = layers.BatchNormalization(
        moving_mean_initializer="random_normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2.0),
    )
    pooled = layers.GlobalAveragePooling2D()(layers.ReLU()(normal(tensor)))
    return layers.Dense(3, activation="softmax", bias_initializer="random_normal")(pooled)


def of_policy(policy):
    """A network that computes in other types."""
    keras.mixed_precision.set_global_policy(policy)
    try:
        image = keras.Input(SHAPE)
        inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3, activation="relu")])
        return keras.Model(image, scores(inner(image)))
    finally:
        keras.mixed_precision.set_global_policy("float32")


def augmented():
    """Layers of augmentation before those that keep statistics."""
    image = keras.Input(SHAPE)
    flipped = layers.RandomRotation(0.2)(layers.RandomFlip()(image))
    return keras.Model(image, scores(layers.Conv2D(4, 3)(flipped)))


def two_inputs(kind):
    """A picture and numbers beside it, given in a list or under names."""
    image, numbers = keras.Input(SHAPE, name="view"), keras.Input((4,), name="about")
    pooled = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(image))
    result = layers.Dense(3)(layers.Concatenate()([pooled, layers.Dense(4)(numbers)]))
    given = [image, numbers]
    return keras.Model(kind(given), result)


def greatest():
    """A segmenter that ends in the number of the class, some of whose scores are equal."""
    image = keras.Input(SHAPE)
    places = layers.ReLU()(layers.Conv2D(3, 3)(image))
    return keras.Model(image, keras.ops.argmax(places, axis=-1))


def one_sample():
    """A batch of one that is written into the layers."""
    image = keras.Input(batch_shape=(1, *SHAPE))
    flat = keras.ops.reshape(layers.Conv2D(2, 3)(image), (1, -1))
    return keras.Model(image, layers.Dense(3)(flat))


def channels_first():
    """A network whose channels come first, which TensorFlow does not run without XLA."""
    image = keras.Input((3, 16, 16))
    scaled = layers.Rescaling(1 / 255)(image)
    found = layers.Conv2D(4, 3, activation="relu", data_format="channels_first")(scaled)
    pooled = layers.GlobalAveragePooling2D(data_format="channels_first")(found)
    return keras.Model(image, layers.Dense(3)(pooled))


def sizes_left_open():
    """A layer that TensorFlow cannot trace without a size."""
    image = keras.Input((None, None, 3))
    up = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(2, 3)(image))
    return keras.Model(image, up)


def text():
    """A network that reads words."""
    words = layers.TextVectorization(10, output_sequence_length=4, vocabulary=["cat", "dog"])
    line = keras.Input((1,), dtype="string")
    return keras.Model(line, layers.Dense(2)(layers.Embedding(12, 3)(words(line))[:, 0]))


def main(folder):
    """Save all of them."""
    models = {
        **{name: of_policy(name) for name in ("mixed_float16", "mixed_bfloat16", "float64")},
        "augmented": augmented(),
        "in_a_list": two_inputs(list),
        "under_names": two_inputs(lambda given: {tensor.name: tensor for tensor in given}),
        "greatest": greatest(),
        "one_sample": one_sample(),
        "channels_first": channels_first(),
        "sizes_left_open": sizes_left_open(),
        "text": text(),
    }
    generator = np.random.default_rng(0)
    for name, model in models.items():
        model.save(folder / f"{name}.keras")
        if name in ("channels_first", "sizes_left_open", "text"):
            continue
        count = 1 if name == "one_sample" else 2
        named = {
            tensor.name: generator.random((count, *tensor.shape[1:])).astype(np.float32)
            for tensor in model.inputs
        }
        arrays = [named[tensor.name] for tensor in model.inputs]
        given = named if name == "under_names" else arrays if len(arrays) > 1 else arrays[0]
        result = keras.ops.cast(model(given, training=False), "float32")
        np.savez(folder / f"{name}.npz", *arrays, result=np.asarray(result))


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    main(Path(sys.argv[1]))

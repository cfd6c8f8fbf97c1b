"""Small Keras models as people write them: sequences, sequences in sequences, augmentation.

python keras_sequences.py FOLDER             by Keras 3
python keras_sequences.py FOLDER tf_keras    by Keras 2
"""

import importlib
import os
import sys
from pathlib import Path

SHAPE = (28, 28, 1)


def body(layers):
    """A small classifier."""
    return [
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(5, activation="softmax", bias_initializer="random_normal"),
    ]


def third(folder, keras):
    """Models of Keras 3."""
    layers = keras.layers
    plain = keras.Sequential([keras.Input(SHAPE), *body(layers)])
    plain.save(folder / "input_layer.keras")
    plain.save(folder / "input_layer.h5")
    built = keras.Sequential(body(layers))
    built.build((None, *SHAPE))
    built.save(folder / "built.keras")
    base = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(8, 3, activation="relu"), layers.GlobalMaxPooling2D()]
    )
    keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.RandomFlip(),
            layers.RandomRotation(0.1),
            layers.Rescaling(1 / 255),
            base,
            layers.Dropout(0.5),
            layers.Dense(5, bias_initializer="random_normal"),
        ]
    ).save(folder / "nested_augmented.keras")
    image = keras.Input(SHAPE)
    places = layers.Conv2D(2, 3, activation="relu")(image)
    pooled = layers.GlobalAveragePooling2D()(places)
    named = {
        "scores": layers.Dense(4, bias_initializer="random_normal")(pooled),
        "places": places,
        "age": layers.Dense(1, bias_initializer="random_normal")(pooled),
    }
    keras.Model(image, named).save(folder / "named_outputs.keras")


def second(folder, keras):
    """A model as Teachable Machine writes it: Keras 2, sequences in a sequence."""
    layers = keras.layers
    base = keras.Sequential(
        [
            layers.Conv2D(8, 3, strides=2, activation="relu", input_shape=SHAPE),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.GlobalAveragePooling2D(),
        ]
    )
    head = keras.Sequential([layers.Dense(6, activation="relu", input_shape=(8,))])
    head.add(layers.Dense(3, activation="softmax", use_bias=False))
    keras.Sequential([base, head]).save(folder / "keras_model.h5")


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    name = sys.argv[2] if len(sys.argv) > 2 else "keras"
    library = importlib.import_module(name)
    library.utils.set_random_seed(0)
    (third if name == "keras" else second)(Path(sys.argv[1]), library)

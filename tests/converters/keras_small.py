"""Save one small Keras network as .keras, .h5 and SavedModel.

python keras_small.py FOLDER
"""

import sys
from pathlib import Path

import keras


def main(folder):
    """Save it."""
    network = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    network.save(folder / "m.keras")
    network.save(folder / "m.h5")
    network.export(folder / "saved", verbose=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The smallest file within two points: integers and fewer channels, chosen on held-out images.

`front.search` is what `kdtoolkit shrink` does. The data are generated: spots of light, which are in
the upper or the lower half, and left or right. The picture shows all files; named ones no other
beats.
"""

import sys

import keras
import numpy as np

from kdtoolkit import data, front
from kdtoolkit.report import pictures

draw = np.random.default_rng(0)
labels = draw.integers(0, 4, 900)
pixels = draw.integers(0, 90, (900, 16, 16, 1), np.uint8)
for image, label in zip(pixels, labels, strict=True):
    top, left = draw.integers(0, 5, 2) + 8 * np.array([label // 2, label % 2])
    image[top : top + 3, left : left + 3] += 100
spots = data.from_arrays(pixels, labels)

keras.utils.set_random_seed(0)
x = image = keras.Input((16, 16, 1))
for width in (8, 16):
    x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu")(x)
network = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(x)))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(keras.optimizers.Adam(3e-3), loss=loss)
network.fit(spots.preprocessing(spots.train.images), spots.train.labels, epochs=8, verbose=0)

found = front.search(
    network,
    spots,
    "smallest_file",
    objective="bytes",
    max_accuracy_drop=0.02,
    candidates=["quantize", "channels"],
    epochs=2,
)
print(found.verdict)

figure = pictures.front(
    found.rows, "bytes", "bytes", name="name", height="validation_accuracy", named="on_front"
)
figure.savefig(sys.argv[1] if sys.argv[1:] else "smallest_file.png", dpi=110)

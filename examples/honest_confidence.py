"""Is a network right as often as it is sure? A temperature from held-out images makes it so.

The picture shows accuracy against confidence in bins, before and after (Guo et al., ICML 2017), and
the expected calibration error, which is what thresholds of early exits depend on.
"""

import sys

import keras

from kdtoolkit import analysis, data, models
from kdtoolkit.analysis import pictures
from kdtoolkit.training import evaluation

digits = data.load("digits", train_examples=120)
keras.utils.set_random_seed(0)
network = models.build("resnet8", digits.info.image_shape, digits.info.classes)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(keras.optimizers.Adam(3e-3), loss=loss)
images = digits.preprocessing(digits.train.images)
network.fit(images, digits.train.labels, batch_size=32, epochs=60, verbose=0)

on_test = evaluation.predict(network, digits.test)
found = analysis.temperature_scaling(*on_test, *evaluation.predict(network, digits.validation))
print(f"temperature {found.temperature:.2f}")
print(f"expected calibration error {found.before.error:.3f}, then {found.after.error:.3f}")

figure = pictures.reliability({"resnet8": found})
figure.savefig(sys.argv[1] if sys.argv[1:] else "honest_confidence.png", dpi=110)

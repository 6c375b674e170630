"""Channels that are really taken out: a plain Keras network with less of everything.

`prune_channels` finds which channels belong together and removes those that matter least. The
picture shows accuracy against operations, before and after three epochs of training on.
"""

import sys

import keras

from kdtoolkit import compression, data, models
from kdtoolkit.report import pictures
from kdtoolkit.training import evaluation

digits = data.load("digits")
images, labels = digits.preprocessing(digits.train.images), digits.train.labels


def fit(network, epochs, rate):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(rate), loss=loss)
    network.fit(images, labels, batch_size=64, epochs=epochs, verbose=0)


def accuracy(network):
    return evaluation.figures(*evaluation.predict(network, digits.test)).accuracy


keras.utils.set_random_seed(0)
network = models.build("resnet8", digits.info.image_shape, digits.info.classes)
fit(network, 10, 3e-3)

whole = (1.0, accuracy(network))
curves = {"removed": [whole], "and trained on": [whole]}
for share in (0.25, 0.5, 0.75):
    small = compression.prune_channels(network, share)
    cost = models.macs(small) / models.macs(network)
    curves["removed"].append((cost, accuracy(small)))
    fit(small, 3, 1e-3)
    curves["and trained on"].append((cost, accuracy(small)))
    print(f"{share:.0%} of the channels: {cost:.2f} of the operations, {accuracy(small):.2%}")

figure = pictures.accuracy_against_cost(curves, cost_label="operations, whole network = 1")
figure.savefig(sys.argv[1] if sys.argv[1:] else "fewer_channels.png", dpi=110)

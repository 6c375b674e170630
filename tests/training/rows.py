"""Thirteen rows with labels and weights, and a network for them that is one matrix."""

import keras
import numpy as np

FEATURES, CLASSES = 4, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(13, FEATURES)).astype("float32")
Y = RNG.integers(0, CLASSES, 13)
W = RNG.random(13).astype("float32")


def linear(seed=0, **options):
    rng = np.random.default_rng(seed)
    network = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES, **options)])
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    return keras.Model(network.inputs, network.outputs)

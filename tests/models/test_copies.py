"""Copies of networks compute what the networks compute."""

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit.compression import mask_channels, shrink
from kdtoolkit.models.copies import copier

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (8, 4, 4, 3)).astype("float32")


def as_copied(network):
    return copier(network)()


def as_shrunk(network):
    return shrink(network, {})


def as_masked(network):
    return mask_channels(network, {})


each_copy = pytest.mark.parametrize("copy", [as_copied, as_shrunk, as_masked])


def adapted():
    """A network that normalises by what its layer has found in the images, in a model inside."""
    normalization = layers.Normalization()
    normalization.adapt(IMAGES)
    inner = keras.Sequential([keras.Input((4, 4, 3)), normalization])
    image = keras.Input((4, 4, 3))
    return keras.Model(image, layers.Conv2D(5, 1, name="conv")(inner(image)))


@each_copy
def test_an_adapted_normalization_stays_so(copy):
    network = adapted()
    kernel = network.get_layer("conv").kernel.numpy()[0, 0].astype("float64")
    pixels = IMAGES.astype("float64")
    deviations = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    np.testing.assert_allclose(copy(network)(IMAGES), deviations @ kernel, rtol=1e-4, atol=1e-4)

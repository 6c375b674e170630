"""Copies of networks compute what the networks compute."""

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit._checks import ArgumentError
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


def test_layers_of_the_network_keep_their_names():
    """Also those of models inside of it, which have others where the copy has both."""
    image, start = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    functional = keras.Model(start, layers.ReLU(name="relu")(start) + 1.0, name="functional")
    sequential = keras.Sequential([start, layers.Conv2D(3, 1, name="conv")], name="sequential")
    x = layers.ReLU(name="relu")(layers.Conv2D(3, 1, name="conv")(image))
    network = keras.Model(image, sequential(functional(x)))
    copy = copier(network)()
    assert [layer.name for layer in copy.layers if layer.name.endswith(("conv", "relu"))] == [
        "conv",
        "relu",
        "functional_relu",
        "sequential_conv",
    ]
    assert functional.layers[1].name == "relu" and sequential.layers[0].name == "conv"
    np.testing.assert_array_equal(copy(IMAGES), network(IMAGES))


class Times(layers.Layer):
    """Its configuration is Keras' automatic one, which leaves out the name."""

    def __init__(self, by, **options):
        super().__init__(**options)
        self.by = by

    def call(self, x):
        return x * self.by


def of_layer(layer):
    image = keras.Input((4, 4, 3))
    return keras.Model(image, layers.Conv2D(2, 1, name="after")(layer(image)), name="net")


@each_copy
def test_layers_of_ones_own_keep_their_names(copy):
    network = of_layer(Times(2.0, name="own"))
    assert "name" not in network.get_layer("own").get_config()
    copied = copy(network)
    assert [layer.name for layer in copied.layers][1:] == ["own", "after"]
    kernel = network.get_layer("after").kernel.numpy()[0, 0].astype("float64")
    np.testing.assert_allclose(copied(IMAGES), 2.0 * IMAGES @ kernel, rtol=1e-4, atol=1e-3)


def double(x):
    return 2 * x


@each_copy
@pytest.mark.parametrize(
    "layer, reason",
    [
        (layers.Lambda(lambda x: x, name="own"), "Lambda 'own', .*Python lambda"),
        (
            layers.Activation(double, name="own"),
            "Activation 'own', .* not locate function 'double'",
        ),
    ],
)
def test_what_keras_cannot_make_anew(copy, layer, reason):
    accepted = "^Argument `network` must be made of layers that can be copied. Received: "
    with pytest.raises(ArgumentError, match=f"{accepted}{reason}.*$"):
        copy(of_layer(layer))

"""Statistics made again, against NumPy."""

import keras
import numpy as np
import pytest

from kdtoolkit.compression import recalibrate
from tests.compression.test_channels import randomised

IMAGES = np.random.default_rng(5).normal(1, 2, (11, 6, 6, 3)).astype("float32")


@pytest.fixture
def network():
    image = keras.Input((6, 6, 3))
    x = keras.layers.BatchNormalization(epsilon=1e-3, name="first")(image)
    x = keras.layers.Conv2D(4, 1, use_bias=False, name="conv")(x)
    return randomised(keras.Model(image, keras.layers.BatchNormalization(name="second")(x)))


def test_statistics_are_the_means_over_the_batches(network):
    layers = {layer.name: layer for layer in network.layers}
    before = {v.path: v.numpy() for v in network.trainable_variables}
    momenta = [layers[name].momentum for name in ("first", "second")]
    gamma, beta = (layers["first"].weights[i].numpy().astype("float64") for i in (0, 1))
    kernel = layers["conv"].kernel.numpy().astype("float64")[0, 0]
    recalibrate(network, IMAGES, batch_size=5)  # the eleventh image is left over

    expected = {"first": [], "second": []}
    for batch in (IMAGES[:5].astype("float64"), IMAGES[5:10].astype("float64")):
        mean, variance = batch.mean((0, 1, 2)), batch.var((0, 1, 2))
        expected["first"].append((mean, variance))
        x = ((batch - mean) / np.sqrt(variance + 1e-3) * gamma + beta) @ kernel
        expected["second"].append((x.mean((0, 1, 2)), x.var((0, 1, 2))))
    for name, of_batches in expected.items():
        mean, variance = np.mean(of_batches, axis=0)
        np.testing.assert_allclose(layers[name].moving_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layers[name].moving_variance.numpy(), variance, rtol=1e-4)
    assert [layers[name].momentum for name in expected] == momenta
    for variable in network.trainable_variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])


def test_a_normalisation_that_is_called_twice():
    """Its statistics are the means over both places, as those of training come to be."""
    image = keras.Input((6, 6, 3))
    norm = keras.layers.BatchNormalization()
    network = keras.Model(image, [norm(image), norm(3 * image + 10)])
    recalibrate(network, IMAGES, batch_size=5)
    images = IMAGES[:10].astype("float64").reshape(2, -1, 3)
    for variable, expected in (
        (norm.moving_mean, (images.mean((0, 1)) + (3 * images + 10).mean((0, 1))) / 2),
        (norm.moving_variance, (1 + 9) / 2 * images.var(1).mean(0)),
    ):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-4)


class InInference(keras.layers.Layer):
    """Normalises by what it has, also in training."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def call(self, inputs):
        return self.norm(inputs, training=False)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_frozen_normalisation(trainable):
    """Its layer is, or it is called so; after that it is as it was."""
    image = keras.Input((6, 6, 3))
    norm = keras.layers.BatchNormalization(trainable=trainable, momentum=0.7)
    network = keras.Model(image, (InInference(norm) if trainable else norm)(image))
    recalibrate(network, IMAGES, batch_size=11)
    images = IMAGES.astype("float64")
    np.testing.assert_allclose(norm.moving_mean.numpy(), images.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance.numpy(), images.var((0, 1, 2)), rtol=1e-4)
    assert (norm.trainable, norm.gamma.trainable, norm.momentum) == (trainable, trainable, 0.7)
    before = norm.moving_mean.numpy()
    network(IMAGES + 1)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)


def test_too_few_images(network):
    with pytest.raises(ValueError, match=r"`images` must be at least a batch of 12.*11"):
        recalibrate(network, IMAGES, batch_size=12)

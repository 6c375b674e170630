"""Zeros that stay zero in what is trained after pruning."""

import keras
import numpy as np
import pytest

from kdtoolkit import compression, models
from kdtoolkit.training import Patriarch

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.normal(size=(12, 8, 8, 1)).astype("float32"), RNG.integers(0, 3, 12)


def pruned():
    network = models.build("resnet8", (8, 8, 1), 3)
    for layer in network.layers:
        if hasattr(layer, "kernel"):
            keep = RNG.random(layer.kernel.shape) < 0.5
            layer.kernel.assign(layer.kernel * keep)
    network.get_layer("stage2_block1_shortcut_conv").kernel.assign(
        np.zeros(network.get_layer("stage2_block1_shortcut_conv").kernel.shape)
    )
    return network


@pytest.mark.parametrize(
    "quantized, nested", [(False, False), (True, False), (False, True), (True, True)]
)
def test_zeros_stay_and_the_rest_moves(quantized, nested):
    network = pruned()
    before = {
        layer.name: layer.kernel.numpy() for layer in network.layers if hasattr(layer, "kernel")
    }
    trained = models.build("resnet8", (8, 8, 1), 3)
    trained.set_weights(network.get_weights())
    whole = network
    if nested:
        image = keras.Input((8, 8, 1))
        whole, trained = (keras.Model(image, inner(image)) for inner in (network, trained))
    if quantized:
        trained = compression.quantization_aware(whole, IMAGES)
    trainer = Patriarch(trained, "plain")
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    keep = compression.KeepZeros(whole)
    trainer.fit(IMAGES, LABELS, batch_size=6, epochs=2, verbose=0, callbacks=[keep])
    for name, kernel in before.items():
        after = models.flatten(trained).get_layer(name).kernel.numpy()
        zeros = after[kernel == 0]
        assert not zeros.any() and not np.signbit(zeros).any()  # -0.0 does not compress with 0.0
        if (kernel != 0).any():
            assert (after[kernel != 0] != kernel[kernel != 0]).any()


def test_network_of_other_layers():
    keep = compression.KeepZeros(pruned())
    small = models.build("resnet8x4", (8, 8, 1), 3)
    other = Patriarch(small, "plain")
    other.compile("sgd")
    with pytest.raises(ValueError, match=r"`pruned`.*stem_conv"):
        other.fit(IMAGES, LABELS, verbose=0, callbacks=[keep])


@pytest.fixture
def dense():
    """A compiled network of one kernel, half of whose weights are zero."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="dense")])
    kernel = RNG.normal(size=(6, 4))
    kernel[::2] = 0
    model.get_layer("dense").kernel.assign(kernel)
    return model


def test_zeros_stay_under_a_moving_average_of_weights(dense):
    """`fit` replaces the weights by it after the last step."""
    before = dense.get_layer("dense").kernel.numpy()
    dense.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    x, y = RNG.normal(size=(12, 6)), RNG.normal(size=(12, 4))
    dense.fit(x, y, batch_size=4, verbose=0, callbacks=[compression.KeepZeros(dense)])
    np.testing.assert_array_equal(dense.get_layer("dense").kernel.numpy() == 0, before == 0)


def test_several_steps_per_execution_are_refused(dense):
    dense.compile("sgd", "mse", steps_per_execution=4)
    with pytest.raises(ValueError, match=r"`steps_per_execution` must be 1.*_execution=4"):
        dense.fit(np.ones((8, 6)), np.ones((8, 4)), callbacks=[compression.KeepZeros(dense)])

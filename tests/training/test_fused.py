"""Fused batch normalisation computes and learns what Keras' own does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit.training.fused import fused

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 9, 9, 3)).astype("float32")


def network(**options):
    keras.utils.set_random_seed(0)
    image = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(4, 3, use_bias=False)(image)
    x = keras.layers.BatchNormalization(momentum=0.8, epsilon=1e-2, name="norm", **options)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    network = keras.Model(image, keras.layers.Dense(5)(x))
    for weight in network.get_layer("norm").weights:
        weight.assign(RNG.uniform(0.5, 1.5, weight.shape))
    return network


@pytest.mark.parametrize(
    "options", [{}, {"scale": False}, {"center": False}, {"scale": False, "center": False}]
)
def test_same_outputs_gradients_and_statistics(options):
    found = []
    net = network(**options)
    start = net.get_weights()
    for model in (net, fused(net)):
        net.set_weights(start)
        before = model(IMAGES, training=False)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(IMAGES, training=True) ** 2)
        gradients = tape.gradient(loss, net.trainable_variables)
        found.append([before, loss, *gradients, *net.get_weights(), model(IMAGES, training=False)])
    for keras_own, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=2e-5, atol=2e-5)


def test_nothing_is_copied_and_the_network_stays_plain(tmp_path):
    net = models.build("resnet8", (8, 8, 3), 5)
    view = fused(net)
    fused_layers = [layer for layer in view.layers if type(layer).__name__.startswith("_Fused")]
    assert len(fused_layers) == sum(
        isinstance(layer, keras.layers.BatchNormalization) for layer in net.layers
    )
    assert {id(v) for v in view.trainable_variables} <= {id(v) for v in net.trainable_variables}
    net.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert not any(type(layer).__name__.startswith("_Fused") for layer in loaded.layers)


def test_frozen_layers_stay_in_inference_mode():
    net = network()
    net.get_layer("norm").trainable = False
    before = net.get_weights()
    outputs = fused(net)(IMAGES, training=True)
    np.testing.assert_allclose(outputs, net(IMAGES, training=False), rtol=1e-5, atol=1e-5)
    for a, b in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("options", [{"synchronized": True}, {"dtype": "mixed_bfloat16"}])
def test_what_is_not_covered_is_used_as_it_is(options):
    net = network(**options)
    assert fused(net).get_layer("norm") is net.get_layer("norm")


def test_a_network_that_is_not_functional_is_returned():
    ensemble = models.Ensemble([network()])
    assert fused(ensemble) is ensemble

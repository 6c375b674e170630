"""Fused batch normalisation computes and learns what Keras' own does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit.training.fused import folded, fused

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


def test_bfloat16_is_normalised_in_float32():
    """One layer by itself, in NumPy: only its input and output are rounded to 8 bits."""
    image = keras.Input((9, 9, 3))
    layer = keras.layers.BatchNormalization(momentum=0.8, dtype="mixed_bfloat16")
    net = keras.Model(image, layer(image))
    view = fused(net)
    assert view.layers[-1] is not layer
    outputs = view(IMAGES, training=True)
    assert outputs.dtype == tf.bfloat16
    x = tf.cast(tf.cast(IMAGES, "bfloat16"), "float32").numpy().astype("float64")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + layer.epsilon)
    np.testing.assert_allclose(tf.cast(outputs, "float32"), expected, rtol=2**-8, atol=1e-3)
    assert {v.dtype for v in layer.variables} == {"float32"}
    np.testing.assert_allclose(layer.moving_mean, 0.2 * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(layer.moving_variance, 0.8 + 0.2 * variance, rtol=1e-5)
    again = (x - layer.moving_mean) / np.sqrt(layer.moving_variance + layer.epsilon)
    found = tf.cast(view(IMAGES, training=False), "float32")
    np.testing.assert_allclose(found, again, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [{"synchronized": True}, {"dtype": "mixed_float16"}, {"activity_regularizer": "l2"}],
)
def test_what_is_not_covered_is_used_as_it_is(options):
    net = network(**options)
    assert fused(net).get_layer("norm") is net.get_layer("norm")


def test_a_network_that_is_not_functional_is_returned():
    ensemble = models.Ensemble([network()])
    assert fused(ensemble) is ensemble


def random_network(seed=0, policy="float32"):
    """Convolutions before normalisations of every kind, one of them where both are looked at."""
    keras.config.set_dtype_policy(policy)
    try:
        image = keras.Input((9, 9, 3))
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="striding")(image)
        x = keras.layers.BatchNormalization(epsilon=1e-2, name="striding_bn")(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Conv2D(6, 3, padding="same", groups=2, use_bias=False, name="groups")(x)
        x = keras.layers.BatchNormalization(scale=False, name="groups_bn")(x)
        x = keras.layers.Conv2D(6, 2, dilation_rate=2, name="dilated")(x)
        x = keras.layers.BatchNormalization(center=False, name="dilated_bn")(x)
        x = keras.layers.Conv2D(6, 1, activation="relu", name="active")(x)
        x = keras.layers.BatchNormalization(name="active_bn")(x)
        seen = keras.layers.Conv2D(6, 1, name="seen")(x)
        x = seen + keras.layers.BatchNormalization(name="seen_bn")(seen)
        logits = keras.layers.Dense(5, dtype="float32")(keras.layers.GlobalAveragePooling2D()(x))
        network = keras.Model(image, logits)
    finally:
        keras.config.set_dtype_policy("float32")
    rng = np.random.default_rng(seed)
    network.set_weights([rng.uniform(0.2, 1, w.shape) for w in network.get_weights()])
    return network


def test_folded_convolutions_compute_the_network():
    network = random_network()
    view = folded(network)
    kept = {type(view.get_layer(name)).__name__ for name in ("active", "seen")}
    gone = {type(view.get_layer(name)).__name__ for name in ("striding", "groups", "dilated")}
    assert (kept, gone) == ({"Conv2D"}, {"_FoldedConvolution"})
    for seed in (0, 1):  # the second time with other variables
        network.set_weights(random_network(seed).get_weights())
        expected = network(IMAGES, training=False)
        np.testing.assert_allclose(view(IMAGES, training=False), expected, rtol=1e-5, atol=1e-5)
    # What is looked up by the name of a normalisation is its output.
    found, expected = (
        keras.Model(model.inputs, model.get_layer("groups_bn").output)(IMAGES, training=False)
        for model in (view, network)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_folded_bfloat16_is_as_close_as_the_network():
    expected = random_network()(IMAGES, training=False)
    network = random_network(policy="mixed_bfloat16")
    view = folded(network)
    assert view.get_layer("striding").output.dtype == "bfloat16"
    own, ours = (
        np.abs(model(IMAGES, training=False) - expected).max() for model in (network, view)
    )
    assert 0 < ours < 2 * own < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_variables_are_not_folded(dtype):
    image = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(3, 1, dtype=dtype, name="conv")(image)
    network = keras.Model(image, keras.layers.BatchNormalization(dtype=dtype)(x))
    view = folded(network)
    assert view.get_layer("conv") is network.get_layer("conv")
    np.testing.assert_array_equal(view(IMAGES, training=False), network(IMAGES, training=False))


def test_a_convolution_with_lora_is_not_folded():
    """Its kernel is the sum of a variable and of the product of two."""
    network = random_network()
    layer = network.get_layer("striding")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(RNG.normal(size=layer.lora_kernel_b.shape))
    view = folded(network)
    assert view.get_layer("striding") is layer
    assert type(view.get_layer("groups")).__name__ == "_FoldedConvolution"
    found, expected = view(IMAGES, training=False), network(IMAGES, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_called_twice_is_not_folded():
    image = keras.Input((9, 9, 3))
    layer, norm = keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()
    network = keras.Model(image, layer(norm(layer(image))))
    view = folded(network)
    assert view.get_layer(layer.name) is layer
    found, expected = view(IMAGES, training=False), network(IMAGES, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

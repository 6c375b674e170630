"""Mixed precision ends with training: what is judged and stored computes in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdtoolkit import models
from kdtoolkit.compression import quantization_aware
from kdtoolkit.data import Preprocessing, Split
from kdtoolkit.models.precision import in_float32, in_policy
from kdtoolkit.training import evaluation

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 8, 1), np.uint8)
SPLIT = Split(PIXELS, np.arange(6, dtype=np.int32), Preprocessing((8, 8, 1), [0.5], [0.25]))


def resnet8(policy):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        return models.build("resnet8", (8, 8, 1), 10)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("nested", [False, True])
def test_float32_for_as_long_as_asked(nested, tmp_path):
    twin, network = resnet8("float32"), resnet8("mixed_bfloat16")
    if nested:
        image = keras.Input((8, 8, 1))
        network = keras.Model(image, network(image))
    x = next(iter(SPLIT.batches(6)))[0]
    expected, rounded = twin.predict(x, verbose=0), network.predict(x, verbose=0)
    with in_float32(network):
        np.testing.assert_array_equal(network.predict(x, verbose=0), expected)
        network.save(tmp_path / "network.keras")
    np.testing.assert_array_equal(network.predict(x, verbose=0), rounded)
    assert np.abs(rounded - expected).max() > 1e-4
    stored = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(stored.predict(x, verbose=0), expected)


def test_figures_are_those_of_the_exported_network():
    logits, labels = evaluation.predict(resnet8("mixed_bfloat16"), SPLIT)
    expected, _ = evaluation.predict(resnet8("float32"), SPLIT)
    np.testing.assert_array_equal(logits, expected)
    np.testing.assert_array_equal(labels, SPLIT.labels)


def nested():
    image = keras.Input((8, 8, 3))
    body = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 1), layers.ReLU()])
    x = layers.GlobalAveragePooling2D()(body(image))
    return keras.Model(image, layers.Dense(5, dtype="float32")(x))


def ending_with_an_operation():
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1)(image))
    return keras.Model(image, layers.Dense(5, dtype="float32")(x) / 2.0)


def taking_pixels():
    image = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255, dtype="float32")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 1)(x))
    return keras.Model(image, layers.Dense(5, dtype="float32")(x))


def attentive():
    image = keras.Input((8, 8, 3))
    x = layers.Reshape((64, 3))(image)
    x = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(image, layers.Dense(5, dtype="float32")(x))


def striding_over_its_image():
    image = keras.Input((2, 2, 3))
    x = layers.Conv2D(3, 3, 2, padding="same", name="within")(image)
    x = layers.Conv2D(3, 3, 2, padding="same", dtype="float32", name="over")(x)
    x = layers.SeparableConv2D(3, 3, 3, padding="same", dtype="float32", name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5, dtype="float32")(x))


def registered(name):
    return lambda: models.build(name, (8, 8, 3), 5)


@pytest.mark.parametrize(
    "build",
    [
        *map(registered, ("resnet8", "vgg8-w4", "densenet-bc-10-4")),
        *(nested, ending_with_an_operation, taking_pixels, attentive),
    ],
)
def test_a_stored_network_computes_as_it_was_trained(build, tmp_path):
    x = RNG.normal(size=(2, 8, 8, 3)).astype("float32")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build()
        expected = network.predict(x, verbose=0)
        with in_float32(network):
            network.save(tmp_path / "network.keras")
        assert dtypes(keras.models.load_model(tmp_path / "network.keras")) == {"float32"}
        stored = in_policy(keras.models.load_model(tmp_path / "network.keras"))
    finally:
        keras.config.set_dtype_policy("float32")
    assert "bfloat16" in dtypes(stored)
    np.testing.assert_array_equal(stored.predict(x, verbose=0), expected)
    np.testing.assert_array_equal(network.predict(x, verbose=0), expected)


def test_convolutions_stride_over_their_image_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = in_policy(striding_over_its_image())
    finally:
        keras.config.set_dtype_policy("float32")
    named = {name: network.get_layer(name) for name in ("within", "over", "separable")}
    assert {name: layer.compute_dtype for name, layer in named.items()} == {
        "within": "bfloat16",
        "over": "float32",
        "separable": "float32",
    }


def test_gradients_of_weights_that_meet_padding_alone_are_zero():
    """On a CPU with bfloat16, where oneDNN leaves them as the memory was."""
    network = striding_over_its_image()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = in_policy(network)
    finally:
        keras.config.set_dtype_policy("float32")
    over, separable = network.get_layer("over"), network.get_layer("separable")
    kernels = [over.kernel, separable.depthwise_kernel]

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=True) ** 2)
        return tape.gradient(loss, [kernel.value for kernel in kernels])

    images = RNG.normal(size=(16, 2, 2, 3)).astype("float32")
    for _ in range(20):
        junk = [tf.fill(kernel.shape, 1e15) for kernel in kernels for _ in range(8)]
        del junk
        for gradient in gradients(images):
            outer = np.ones((3, 3), bool)
            outer[1, 1] = False
            assert np.all(gradient.numpy()[outer] == 0)
            assert np.any(gradient.numpy()[~outer] != 0)


def dtypes(network):
    """Of everything in a network that computes, layers inside of layers too."""
    containers = (keras.Model, layers.InputLayer)
    everything = network._flatten_layers()
    return {x.compute_dtype for x in everything if not isinstance(x, containers)}


@pytest.mark.parametrize("stored", ["mixed_bfloat16", "mixed_float16"])
def test_a_float32_policy_is_one_too(stored):
    assert dtypes(in_policy(resnet8(stored))) == {"float32"}


def test_a_quantised_network_keeps_its_grid():
    network = quantization_aware(resnet8("float32"), np.zeros((1, 8, 8, 1), "float32"))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert dtypes(in_policy(network)) == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")

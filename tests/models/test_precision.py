"""Mixed precision ends with training: what is judged and stored computes in float32."""

import keras
import numpy as np
import pytest

from kdtoolkit import models
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


@pytest.mark.parametrize("name", ["resnet8", "vgg8-w4", "densenet-bc-10-4"])
def test_a_stored_network_computes_as_it_was_trained(name, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = models.build(name, (32, 32, 1), 10)
        with in_float32(network):
            network.save(tmp_path / "network.keras")
        stored = in_policy(keras.models.load_model(tmp_path / "network.keras"))
    finally:
        keras.config.set_dtype_policy("float32")
    found = {layer.name: layer.compute_dtype for layer in stored.layers}
    expected = {layer.name: layer.compute_dtype for layer in network.layers}
    del found[stored.layers[0].name], expected[network.layers[0].name]  # it computes nothing
    assert found == expected
    x = RNG.normal(size=(2, 32, 32, 1)).astype("float32")
    np.testing.assert_array_equal(stored.predict(x, verbose=0), network.predict(x, verbose=0))


def test_a_float32_policy_changes_nothing():
    network = resnet8("mixed_bfloat16")
    assert in_policy(network).get_layer("stem_conv").compute_dtype == "bfloat16"

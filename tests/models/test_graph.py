"""Models within models, with their layers in sight: the same values from the same variables."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kdtoolkit import models
from kdtoolkit.methods import FitNet
from kdtoolkit.models.graph import output_of
from kdtoolkit.training import layer_pairs

IMAGES = np.random.default_rng(0).normal(1, 2, (4, 8, 8, 3)).astype("float32")


def backbone(kind="functional", name="backbone"):
    inside = [
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.Dropout(0.5),
    ]
    if kind == "sequential":
        return keras.Sequential([keras.Input((8, 8, 3)), *inside], name=name)
    x = image = keras.Input((8, 8, 3))
    for layer in inside:
        x = layer(x)
    return keras.Model(image, ops.relu(x) + 1.0, name=name)


def transfer(kind="functional", **arguments):
    """A network in a network in a network; a convolution of each has the same name."""
    inner = backbone(kind)
    x = start = keras.Input((8, 8, 3))
    x = layers.Conv2D(3, 1, name="conv")(inner(layers.Rescaling(2.0)(x), **arguments))
    middle = keras.Model(start, x, name="middle")
    image = keras.Input((8, 8, 3), name="image")
    x = middle(layers.Conv2D(3, 1, name="conv")(image))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5, name="logits")(x), name="whole")


@pytest.mark.parametrize("kind", ["functional", "sequential"])
@pytest.mark.parametrize("arguments", [{}, {"training": False}, {"training": True}])
@pytest.mark.parametrize("training", [None, False, True])
def test_computes_the_same(kind, arguments, training):
    """In the mode that the inner model was called in, and in that of the whole."""
    outputs, statistics = [], []
    for change in (lambda network: network, models.flatten):
        keras.utils.set_random_seed(0)
        network = change(transfer(kind, **arguments))
        outputs.append(ops.convert_to_numpy(network(IMAGES, training=training)))
        statistics.append([ops.convert_to_numpy(v) for v in network.non_trainable_variables])
    np.testing.assert_array_equal(*outputs)
    for nested, flat in zip(*statistics, strict=True):
        np.testing.assert_array_equal(nested, flat)


def test_shares_variables_in_their_order_and_keeps_names(tmp_path):
    network = transfer()
    flat = models.flatten(network)
    assert [v.path for v in flat.weights] == [v.path for v in network.weights]
    assert all(a is b for a, b in zip(flat.weights, network.weights, strict=True))
    names = [layer.name for layer in flat.layers if layer.weights]
    assert names == ["conv", "backbone_conv", "norm", "middle_conv", "logits"]
    assert models.flatten(flat) is flat
    flat.save(tmp_path / "flat.keras")
    loaded = keras.models.load_model(tmp_path / "flat.keras")
    np.testing.assert_array_equal(loaded(IMAGES), network(IMAGES))


def test_a_model_that_is_called_twice_and_bytes():
    """Its layers are called twice; a model turns what it is given to the numbers it expects."""
    inner = backbone()
    image = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Concatenate()([inner(image), inner(layers.Rescaling(0.5)(image))])
    network = keras.Model(image, {"maps": x})
    flat = models.flatten(network)
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), "uint8")
    np.testing.assert_array_equal(flat(images)["maps"], network(images)["maps"])
    assert [layer.name for layer in flat.layers].count("conv") == 1


def test_what_is_called_with_its_input_by_name():
    inner = backbone()
    image = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inputs=inner(inputs=layers.Rescaling(2.0)(inputs=image)))
    network = keras.Model(image, layers.Dense(5)(inputs=x))
    flat = models.flatten(network)
    assert inner not in flat.layers
    np.testing.assert_array_equal(flat(IMAGES), network(IMAGES))


class Own(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs) * 2.0


def test_what_a_model_with_a_call_of_its_own_does_is_kept():
    image = keras.Input((8, 8, 3))
    x = Own([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="hidden")], name="own")(image)
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(5, 3, name="seen")])
    network = keras.Model(image, layers.GlobalAveragePooling2D()(inner(x)))
    flat = models.flatten(network)
    assert [layer.name for layer in flat.layers if layer.weights] == ["own", "seen"]
    np.testing.assert_array_equal(flat(IMAGES), network(IMAGES))
    with pytest.raises(ValueError, match="'hidden', which is inside 'own'"):
        models.add_exits(keras.Model(image, layers.Dense(3)(flat(image))), ["hidden"])


def test_layers_of_a_network_that_another_one_was_made_of():
    """What a layer returned when it was first called is in neither of them."""
    network = models.flatten(transfer())
    tensor = output_of(network, "norm")
    assert keras.Model(network.input, tensor)(IMAGES).shape == (4, 6, 6, 4)
    assert network.get_layer("norm").output is not tensor
    student = models.flatten(transfer("sequential"))
    pairs = layer_pairs.attach([FitNet(layers=(("norm", "norm"),))], student, network)
    taught, teaching = (model(IMAGES)["features"] for model in (pairs.probe, pairs.teaching))
    assert taught[0].shape == teaching[0].shape

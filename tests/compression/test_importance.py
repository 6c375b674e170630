"""What channels are worth, against NumPy and finite differences."""

import keras
import numpy as np
import pytest
from scipy import special
from scipy.spatial import distance

from kdtoolkit import models
from kdtoolkit.compression import channel_groups, importance
from kdtoolkit.compression.channels import shrink
from kdtoolkit.compression.importance import BNScale, GroupNorm, Taylor, as_importance
from tests.compression.test_channels import SHAPE, conv_bn_relu, densenet, randomised

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def network():
    return randomised(models.build("resnet8", SHAPE, 5))


@pytest.fixture(scope="module")
def groups(network):
    return channel_groups(network)


def kernel(network, name):
    """The filters of a layer as rows, float64."""
    weights = network.get_layer(name).kernel.numpy().astype("float64")
    return weights.reshape(-1, weights.shape[-1]).T


BY_HAND = {
    "l1": lambda rows: np.abs(rows).sum(axis=1),
    "l2": lambda rows: (rows**2).sum(axis=1),
    "fpgm": lambda rows: distance.cdist(rows, rows).sum(axis=1),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_filters(name, network, groups):
    """Summed over the layers that are tied."""
    assert any(len(group.layers) > 1 for group in groups)
    for group, found in zip(groups, as_importance(name).scores(network, groups), strict=True):
        expected = sum(BY_HAND[name](kernel(network, layer)) for layer in group.layers)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("build", [lambda: models.build("resnet8", SHAPE, 5), densenet])
def test_group_norm_is_what_the_network_loses(build):
    """Without the channel, its squares are missing from the sum over all that multiplies."""
    network = randomised(build())

    def squares(model):
        arrays = [w.numpy() for w in model.weights if w.name in ("kernel", "gamma")]
        return sum(np.square(array.astype("float64")).sum() for array in arrays)

    groups = channel_groups(network)
    for group, found in zip(groups, GroupNorm().scores(network, groups), strict=True):
        for row in (0, group.size - 1):
            keep = {name: np.ones(_width(network, name), bool) for name in group.channels}
            for name, places in group.channels.items():
                keep[name][places[row]] = False
            lost = squares(network) - squares(shrink(network, keep))
            np.testing.assert_allclose(found[row], lost, rtol=1e-6)


def _width(network, name):
    return network.get_layer(name).kernel.shape[-1]


def test_lamp(network, groups):
    """The definition: of each, its squares over the sum of all squares not below them."""
    for group, found in zip(groups, as_importance("lamp").scores(network, groups), strict=True):
        squares = sum(BY_HAND["l2"](kernel(network, layer)) for layer in group.layers)
        expected = [s / sum(other for other in squares if other >= s) for s in squares]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert found.max() == 1


def test_lamp_of_equal_and_of_no_weights():
    image = keras.Input(SHAPE)
    x = keras.layers.Conv2D(3, 1, kernel_initializer="zeros", name="conv")(image)
    network = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    (found,) = as_importance("lamp").scores(network, channel_groups(network))
    np.testing.assert_array_equal(found, [1, 1, 1])


def test_scales(network, groups):
    for group, found in zip(groups, BNScale().scores(network, groups), strict=True):
        scales = [np.abs(network.get_layer(name).gamma.numpy()) for name in group.scales]
        np.testing.assert_allclose(found, np.sum(scales, axis=0, dtype="float64"), rtol=1e-6)


def test_random_is_of_its_seed(network, groups):
    first, again, other = (importance.Random(seed).scores(network, groups) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("normalised", [True, False])
def test_taylor(normalised):
    """Sums of weight times gradient are what the loss changes when a channel is scaled."""
    image = keras.Input((4, 4, 2))
    if normalised:
        x = conv_bn_relu(image, 5, "conv")
    else:
        x = keras.layers.Conv2D(5, 3, padding="same", use_bias=False, name="conv")(image)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = randomised(keras.Model(image, keras.layers.Dense(3, name="logits")(x)))
    images = RNG.normal(size=(7, 4, 4, 2)).astype("float32")
    labels = RNG.integers(0, 3, 7)
    groups = channel_groups(network)
    (found,) = Taylor(images, labels, batch_size=4).scores(network, groups)

    values = {v.path.rpartition("/")[2]: np.asarray(v, "float64") for v in network.weights}
    values["dense"] = np.asarray(network.get_layer("logits").kernel, "float64")
    values["offset"] = np.asarray(network.get_layer("logits").bias, "float64")
    values["kernel"] = np.asarray(network.get_layer("conv").kernel, "float64")

    def loss(batch, scale):
        """With what lets each channel through times `scale`, in float64."""
        padded = np.pad(images[batch].astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = sum(
            padded[:, i : i + 4, j : j + 4] @ values["kernel"][i, j]
            for i in range(3)
            for j in range(3)
        )
        if normalised:
            x = (x - values["moving_mean"]) / np.sqrt(values["moving_variance"] + 1e-3)
            x = x * values["gamma"] + values["beta"]
        x = np.maximum(x * scale, 0).mean(axis=(1, 2))
        log_f = special.log_softmax(x @ values["dense"] + values["offset"], axis=-1)
        return -log_f[np.arange(len(log_f)), labels[batch]].mean()

    step, expected = 1e-6, np.zeros(5)
    for batch in (slice(0, 4), slice(4, 7)):
        for channel in range(5):
            shift = step * np.eye(5)[channel]
            change = (loss(batch, 1 + shift) - loss(batch, 1 - shift)) / (2 * step)
            expected[channel] += change**2 / 2
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.max())


@pytest.mark.parametrize("structure", [list, lambda outputs: dict(zip("ab", outputs, strict=True))])
def test_taylor_of_several_outputs(structure):
    """Of two, one of which is the other one doubled: gradients of the sum of both losses."""
    image = keras.Input((1, 1, 2))
    x = keras.layers.Flatten()(keras.layers.Conv2D(3, 1, use_bias=False, name="conv")(image))
    logits = keras.layers.Dense(2, name="logits")(x)
    network = randomised(keras.Model(image, structure([logits, keras.layers.Rescaling(2)(logits)])))
    images, labels = RNG.normal(size=(4, 1, 1, 2)).astype("float32"), RNG.integers(0, 2, 4)
    (found,) = Taylor(images, labels).scores(network, channel_groups(network))

    x, conv = (np.squeeze(v).astype("float64") for v in (images, network.weights[0]))
    dense, offset = (np.asarray(v, "float64") for v in network.get_layer("logits").weights)
    z = x @ conv @ dense + offset
    errors = sum(k * (special.softmax(k * z, axis=-1) - np.eye(2)[labels]) for k in (1, 2)) / 4
    joint = (conv * (x.T @ errors @ dense.T)).sum(axis=0)
    np.testing.assert_allclose(found, joint**2, rtol=1e-4)


def test_taylor_of_probabilities_is_refused():
    image = keras.Input((2, 2, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1)(image))
    outputs = [keras.layers.Dense(2)(x), keras.layers.Dense(2, activation="softmax")(x)]
    network = keras.Model(image, outputs, name="net")
    groups = channel_groups(network)
    with pytest.raises(ValueError, match=r"`network` must return logits.*'net', which .* softmax"):
        Taylor(np.zeros((1, 2, 2, 1), "float32"), np.zeros(1, int)).scores(network, groups)


def test_names():
    assert as_importance("l2") == importance.L2()
    with pytest.raises(ValueError, match=r"`importance` must be an object .* Taylor\(images"):
        as_importance("taylor")
    with pytest.raises(ValueError, match="`labels` must be of the 3 images"):
        Taylor(np.zeros((3, 2, 2, 1)), np.zeros(2))

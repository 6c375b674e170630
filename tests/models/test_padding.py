"""Padding as in PyTorch: as many zeros before an image as after it."""

import keras
import numpy as np
import pytest

from kdtoolkit import models
from kdtoolkit.models import precision
from kdtoolkit.models.layers import conv, depthwise_conv, max_pool

RNG = np.random.default_rng(0)


def windows(images, size, stride):
    """`(batch, rows, columns, size, size, channels)`: `size // 2` zeros all around an image."""
    pad = size // 2
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    return np.moveaxis(views[:, ::stride, ::stride], 3, -1)


@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 9, 3), (8, 9, 3)])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (7, 2), (3, 1), (1, 2)])
def test_convolution(shape, size, stride):
    image = keras.Input(shape)
    network = keras.Model(image, conv(image, 4, size, stride, padding="torch", name="conv"))
    images = RNG.normal(size=(2, *shape))
    kernel = np.asarray(network.get_layer("conv").kernel, np.float64)
    expected = np.einsum("nrcijk,ijkf->nrcf", windows(images, size, stride), kernel)
    np.testing.assert_allclose(network.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "torch"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4, 3), (2, 1, 3)])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 3), (1, 2), (1, 3)])
def test_strides_over_the_whole_image(shape, size, stride, padding):
    """They are as long as the image, which gives the same numbers; see `strides_over`."""
    image = keras.Input(shape)
    images = RNG.normal(size=(2, *shape)).astype(np.float32)
    for build, layer in (
        (conv, keras.layers.Conv2D),
        (depthwise_conv, keras.layers.DepthwiseConv2D),
    ):
        filters = (3,) if build is conv else ()
        ours = build(image, *filters, size, stride, padding=padding, name="conv")
        network = keras.Model(image, ours)
        pad = size // 2 if padding == "torch" and size > 1 else 0
        keras_own = layer(
            *filters, size, stride, padding="valid" if pad else "same", use_bias=False
        )
        expected = keras_own(keras.layers.ZeroPadding2D(pad)(image))
        keras_own.set_weights(network.get_weights())
        assert not any(precision.strides_over(layer) for layer in network.layers)
        np.testing.assert_allclose(
            network.predict(images, verbose=0),
            keras.Model(image, expected).predict(images, verbose=0),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.parametrize("shape", [(8, 6, 3), (7, 9, 3)])
def test_max_pool(shape):
    image = keras.Input(shape)
    network = keras.Model(image, max_pool(image, 3, 2, padding="torch", name="pool"))
    images = RNG.uniform(0, 1, (2, *shape)).astype(np.float32)
    np.testing.assert_array_equal(
        network.predict(images, verbose=0), windows(images, 3, 2).max((3, 4))
    )


@pytest.mark.parametrize("name", ["resnet8", "resnet18-w4"])
def test_even_and_odd_images(name):
    """Only where a stride meets an even size do the paddings differ."""
    images = {size: RNG.normal(size=(2, size, size, 3)) for size in (8, 17)}
    same = {size: models.build(name, (size, size, 3), 5) for size in images}
    torch = {size: models.build(name, (size, size, 3), 5, padding="torch") for size in images}
    difference = {}
    for size, batch in images.items():
        torch[size].set_weights(same[size].get_weights())
        logits = [network[size].predict(batch, verbose=0) for network in (same, torch)]
        difference[size] = np.max(np.abs(logits[0] - logits[1]))
    assert difference[8] > 0.01
    assert difference[17] < 1e-5


def test_other_paddings():
    with pytest.raises(ValueError, match=r"`padding` must be one of same, torch.*padding='valid'"):
        models.build("resnet8", (8, 8, 3), 5, padding="valid")

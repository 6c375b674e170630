"""Multiply-accumulates counted by hand."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kdtoolkit import models
from kdtoolkit.models.cost import trainable_parameters


@pytest.mark.parametrize(
    "layer, expected",
    [
        (layers.Conv2D(4, 3, padding="same"), 8 * 10 * 4 * 9 * 6),
        (layers.Conv2D(4, 3, padding="valid"), 6 * 8 * 4 * 9 * 6),
        (layers.Conv2D(4, (3, 1), 2, padding="same"), 4 * 5 * 4 * 3 * 6),
        (layers.Conv2D(4, 3, padding="same", groups=2), 8 * 10 * 4 * 9 * 3),
        (layers.DepthwiseConv2D(3, padding="same"), 8 * 10 * 6 * 9),
        (layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2), 4 * 5 * 12 * 9),
        (
            layers.SeparableConv2D(4, 3, 2, padding="same", depth_multiplier=2),
            4 * 5 * (12 * 9 + 12 * 4),
        ),
        (layers.Conv2DTranspose(4, 3, 2, padding="same"), 8 * 10 * 4 * 9 * 6),
        (layers.Conv2DTranspose(4, (2, 3), (2, 1), padding="valid"), 8 * 10 * 4 * 2 * 3 * 6),
        (layers.Dense(7), 8 * 10 * 6 * 7),
        (layers.BatchNormalization(), 0),
        (layers.AveragePooling2D(2), 0),
        (layers.SpectralNormalization(layers.Conv2D(4, 3)), 6 * 8 * 4 * 9 * 6),
        (layers.TimeDistributed(layers.Conv1D(4, 3)), 8 * 8 * 4 * 3 * 6),
        (layers.TimeDistributed(keras.Sequential([layers.Dense(4)])), 8 * 10 * 6 * 4),
    ],
)
def test_layers(layer, expected):
    image = keras.Input((8, 10, 6))
    assert models.macs(keras.Model(image, layer(image))) == expected


@pytest.mark.parametrize("trainable", [True, False])
def test_parameters_of_what_is_frozen_too(trainable):
    """A kernel, biases, scales and offsets; no moving statistics, and no seed."""
    image = keras.Input((8, 10, 6))
    x = layers.Dropout(0.5, seed=0)(layers.BatchNormalization()(layers.Conv2D(4, 3)(image)))
    network = keras.Model(image, x)
    network.trainable = trainable
    assert trainable_parameters(keras.Sequential([network])) == 6 * 4 * 9 + 4 + 4 + 4


@pytest.mark.parametrize(
    "layer, expected",
    [
        (layers.Conv1D(4, 3, 2, padding="same"), 4 * 4 * 3 * 6),
        (layers.DepthwiseConv1D(3, padding="same"), 7 * 6 * 3),
        (layers.SeparableConv1D(4, 3, padding="same"), 7 * (6 * 3 + 6 * 4)),
        (layers.Conv1DTranspose(4, 3, 2, padding="same"), 7 * 4 * 3 * 6),
        (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), 7 * 6 * 2 * 3),
        (layers.EinsumDense("...x,xy->...y", 5), 7 * 6 * 5),
        (layers.EinsumDense("abc,bd->adc", (4, 6)), 7 * 6 * 4),
        (lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), 7 * 7 * 6),
        (lambda x: ops.einsum("btc,bsc->bts", x, x[:, :3]), 7 * 3 * 6),
        (lambda x: ops.einsum("btc->bct", x), 0),
        (lambda x: ops.einsum("...tc,...sc->...ts", x, x[:, :3]), 7 * 3 * 6),
    ],
)
def test_layers_of_tokens(layer, expected):
    tokens = keras.Input((7, 6))
    assert models.macs(keras.Model(tokens, layer(tokens))) == expected


@pytest.mark.parametrize("named", [False, True])
def test_attention(named):
    tokens, others = keras.Input((7, 6)), keras.Input((5, 8))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, value_dim=4, output_shape=9)
    given = {"value": others, "query": tokens} if named else (tokens, others)
    attended = layer(**given) if named else layer(*given)
    projections = 7 * 6 * (2 * 3) + 5 * 8 * (2 * 3) + 5 * 8 * (2 * 4) + 7 * (2 * 4) * 9
    scores = 2 * 7 * 5 * (3 + 4)
    network = keras.Model([tokens, others], attended)
    assert models.macs(network) == projections + scores


def test_attention_along_one_axis():
    image = keras.Input((4, 5, 6))
    layer = layers.MultiHeadAttention(num_heads=2, key_dim=3, attention_axes=(2,))
    projections = 4 * 5 * 6 * (2 * 3) * 4
    scores = 4 * 2 * 5 * 5 * (3 + 3)
    assert models.macs(keras.Model(image, layer(image, image))) == projections + scores


@pytest.mark.parametrize(
    "combine, expected",
    [
        (layers.Attention(), 7 * 5 * (6 + 6)),
        (layers.AdditiveAttention(), 7 * 5 * (6 + 6)),
        (layers.Dot(-1), 7 * 5 * 6),
        (layers.Dot((2, 2)), 7 * 5 * 6),
        (lambda both: ops.dot(both[0], np.ones((6, 4), "float32")), 7 * 6 * 4),
        (lambda both: ops.conv(both[0], np.ones((3, 6, 4), "float32")), 5 * 4 * 3 * 6),
        (lambda both: ops.depthwise_conv(both[0], np.ones((3, 6, 2), "float32")), 5 * 12 * 3),
    ],
)
def test_products_without_weights(combine, expected):
    both = [keras.Input((7, 6)), keras.Input((5, 6))]
    assert models.macs(keras.Model(both, combine(both))) == expected


def test_grouped_attention():
    tokens = keras.Input((7, 6))
    layer = layers.GroupQueryAttention(head_dim=3, num_query_heads=4, num_key_value_heads=2)
    projections = 7 * 6 * (4 * 3) + 2 * 7 * 6 * (2 * 3) + 7 * (4 * 3) * 6
    scores = 4 * 7 * 7 * (3 + 3)
    assert models.macs(keras.Model(tokens, layer(tokens, tokens))) == projections + scores


@pytest.mark.parametrize(
    "layer, expected",
    [
        (layers.Conv2D(4, 3, padding="same"), 8 * 10 * 4 * 9 * 6),
        (layers.DepthwiseConv2D(3, padding="same"), 8 * 10 * 6 * 9),
        (layers.SeparableConv2D(4, 3, padding="same"), 8 * 10 * (6 * 9 + 6 * 4)),
        (layers.Conv2DTranspose(4, 3, 2), 8 * 10 * 4 * 9 * 6),
    ],
)
def test_channels_first(layer, expected):
    layer = type(layer).from_config(layer.get_config() | {"data_format": "channels_first"})
    image = keras.Input((6, 8, 10))
    assert models.macs(keras.Model(image, layer(image))) == expected


def test_a_nested_network_of_open_shape_is_counted_as_it_is_called():
    image = keras.Input((8, 10, 3))
    conv = layers.Conv2D(4, 3, padding="same")
    open_shape = keras.Sequential([keras.Input((None, None, 3)), conv])
    network = keras.Model(image, [open_shape(image), open_shape(image[:, ::2])])
    assert models.macs(network) == (8 + 4) * 10 * 4 * 9 * 3
    with pytest.raises(ValueError, match=r"^Argument `network` must take inputs of a fixed shape"):
        models.macs(open_shape)


class Block(keras.Model):
    """A model of a `call` alone."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(4, 3)

    def call(self, x):
        return self.conv(x)


def test_a_model_without_a_graph_counts_nothing():
    image = keras.Input((8, 10, 6))
    assert models.macs(keras.Model(image, layers.Dense(7)(Block()(image)))) == 6 * 8 * 4 * 7


def test_nested_network_and_a_layer_that_is_used_twice():
    image = keras.Input((8, 10, 6))
    conv = layers.Conv2D(6, 1)
    inner = keras.Model(image, conv(conv(image)))
    assert models.macs(inner) == 2 * 8 * 10 * 6 * 6
    assert models.macs(keras.Sequential([keras.Input((8, 10, 6)), inner])) == models.macs(inner)
    outer_image = keras.Input((8, 10, 6))
    outer = keras.Model(outer_image, layers.Dense(2)(inner(outer_image)))
    assert models.macs(outer) == 2 * 8 * 10 * 6 * 6 + 8 * 10 * 6 * 2


def test_resnet8():
    # 3x3 convolutions of the stem and three blocks, 1x1 shortcuts, dense layer.
    stages = 1024 * 9 * (3 * 16 + 2 * 16 * 16)
    stages += 256 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    stages += 64 * (9 * (32 * 64 + 64 * 64) + 32 * 64)
    assert models.macs(models.build("resnet8", (32, 32, 3), 100)) == stages + 6400


@pytest.mark.parametrize(
    "name, speedups",
    [
        ("resnet18", [3.10, 1.87, 1.31]),
        ("resnet50", [4.73, 2.23, 1.24]),
        ("resnet101", [9.14, 4.32, 1.11]),
        ("resnet152", [13.56, 4.30, 1.07]),
    ],
)
def test_published_speedups_of_exits(name, speedups):
    with keras.StatelessScope():  # no values for variables that are only counted
        network = models.add_exits(models.build(name, (32, 32, 3), 100), mid=128)
    exits = [models.macs(models.cut(network, f"exit_{k}")) for k in (1, 2, 3, 4)]
    assert [round(exits[-1] / cost, 2) for cost in exits[:-1]] == speedups


def test_stages_cost_together_what_the_network_costs():
    network = models.add_exits(models.build("resnet18-w4", (16, 16, 3), 5), mid=4)
    assert sum(models.macs(stage) for stage in models.stages(network)) == models.macs(network)

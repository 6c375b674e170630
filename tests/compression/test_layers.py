"""Which layers are pruned, and how many weights are zero."""

import functools
import operator

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import models
from kdtoolkit.compression import quantization_aware, sparsity
from kdtoolkit.compression.layers import choose, kernels


@pytest.fixture(scope="module")
def resnet8():
    return models.build("resnet8", (8, 8, 3), 10)


def mixed():
    """Every kind of layer, one of them inside a nested model, and two heads."""
    inner_input = keras.Input((4, 4, 8))
    inner = keras.Model(inner_input, layers.Conv2D(8, 1, name="conv")(inner_input), name="inner")
    image = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", name="first")(image)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = inner(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(100, name="hidden")(x)
    small = layers.Activation("softmax")(layers.Dense(10, name="small_head")(x))
    return keras.Model(image, [small, layers.Dense(100, name="large_head")(x)])


def test_default_on_resnet8(resnet8):
    """Not the convolution on the image, not the head of 640 weights."""
    assert list(choose(resnet8)) == [
        *("stage1_block1_conv1", "stage1_block1_conv2"),
        *("stage2_block1_conv1", "stage2_block1_conv2", "stage2_block1_shortcut_conv"),
        *("stage3_block1_conv1", "stage3_block1_conv2", "stage3_block1_shortcut_conv"),
    ]


def test_default_leaves_out_depthwise_and_small_heads():
    assert list(choose(mixed())) == ["inner/conv", "separable", "hidden", "large_head"]


def test_default_of_dense_layers_alone():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2)])
    assert list(choose(network)) == ["a"]


@pytest.mark.parametrize(
    "chosen, expected",
    [
        ("inner/*", ["inner/conv"]),
        (layers.Dense, ["hidden", "small_head", "large_head"]),
        (lambda layer: layer.kernel.shape[0] == 3 if hasattr(layer, "kernel") else False, None),
        (["first", layers.DepthwiseConv2D, lambda layer: "hid" in layer.name], None),
    ],
)
def test_choices(chosen, expected):
    expected = expected or (
        ["first", "depthwise", "hidden"] if isinstance(chosen, list) else ["first", "depthwise"]
    )
    assert sorted(choose(mixed(), chosen)) == sorted(expected)


def test_kernel_of_a_separable_convolution_is_the_pointwise_one():
    assert kernels(mixed())["separable"].shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "chosen, message",
    [
        ("stage1_block1_convl", "'stage1_block1_convl', which matches none. Near matches: stage1_"),
        ("nothing*", "There are stem_conv, stage1_block1_conv1, .* and 2 more"),
        (layers.Conv3D, "'Conv3D', which matches none"),
        (["stem_conv", lambda layer: False], "'<lambda>', which matches none"),
        (functools.partial(operator.is_, None), r"'functools.partial\(.*', which matches none"),
        ([], r"must choose a layer. Received: layers=\[\]"),
        (3, "name patterns, types of layers or predicates. Received: layers=3"),
    ],
)
def test_choices_that_match_nothing(resnet8, chosen, message):
    with pytest.raises(ValueError, match=message) as error:
        choose(resnet8, chosen)
    assert "\n" not in str(error.value)


def test_networks_with_nothing_to_prune():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="head")])
    with pytest.raises(ValueError, match=r"must say which layers to prune.* for head$"):
        choose(network)
    with pytest.raises(ValueError, match="must have convolutions or dense layers"):
        choose(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    with pytest.raises(ValueError, match=r"must be built before it is pruned.*'later'"):
        choose(keras.Sequential([layers.Dense(3, name="later")]))


def test_sparsity():
    network = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="b")]
    )
    a, b = np.ones((4, 3)), np.ones((3, 2))
    a[:2], b[0, 0] = 0, 0
    network.set_weights([a, np.zeros(3), b, np.zeros(2)])  # zeros in biases do not count
    found = pytest.approx({"a": 0.5, "b": 1 / 6})
    assert sparsity(network) == (pytest.approx(7 / 18), found, 18)


def test_sparsity_of_a_separable_convolution():
    """That of its two kernels, which are two layers of a network that rounds."""
    image = keras.Input((4, 4, 3))
    x = layers.SeparableConv2D(8, 3, name="a")(image)
    network = keras.Model(image, x)
    depthwise, pointwise, bias = map(np.ones_like, network.get_weights())
    depthwise[0], pointwise[..., :2, :] = 0, 0
    network.set_weights([depthwise, pointwise, bias])
    share = (9 + 16) / (27 + 24)
    assert sparsity(network) == (pytest.approx(share), {"a": pytest.approx(share)}, 27 + 24)
    rounded = sparsity(quantization_aware(network, np.ones((1, 4, 4, 3), "float32")))
    assert rounded[0] == pytest.approx(share) and rounded.size == 27 + 24


class Block(layers.Layer):
    """A layer of somebody's own that holds others."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs)


def attentive():
    tokens = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 3, name="attention")(tokens, tokens)
    x = Block(name="block")(layers.LayerNormalization()(x))
    return keras.Model(tokens, layers.Dense(5, name="head")(layers.GlobalMaxPooling1D()(x)))


def test_kernels_inside_of_layers():
    """Queries, keys, values and their output are 4 x 8 x 6 weights; the block has 32."""
    network = attentive()
    names = [f"attention/{part}" for part in ("query", "key", "value", "attention_output")]
    assert sorted(choose(network)) == sorted([*names, "block/inner"])
    assert sorted(kernels(network)) == sorted([*names, "block/inner", "head"])
    assert sparsity(network).size == 4 * 8 * 6 + 8 * 4 + 4 * 5
    network.get_layer("attention").query_dense.kernel.assign(np.zeros((8, 2, 3)))
    assert sparsity(network).layers["attention/query"] == 1
    assert sparsity(network).total == pytest.approx(48 / 244)


def test_the_small_head_of_a_nested_model_is_left_out():
    inside = [keras.Input((4, 4, 3)), layers.Conv2D(8, 3, name="a"), layers.Conv2D(8, 1, name="b")]
    inner = keras.Sequential(
        [*inside, layers.Flatten(), layers.Dense(5, name="head"), layers.Activation("softmax")],
        name="inner",
    )
    image = keras.Input((4, 4, 3))
    assert list(choose(keras.Model(image, inner(image)))) == ["inner/b"]


class Projections(layers.Layer):
    """Two layers of one name, and a third whose name is what a second one could be called."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = layers.Dense(4, name="proj")
        self.second = layers.Dense(5, name="proj")
        self.third = layers.Dense(6, name="proj_1")

    def build(self, shape):
        for layer in (self.first, self.second, self.third):
            layer.build(shape)

    def call(self, inputs):
        return keras.ops.concatenate(
            [self.first(inputs), self.second(inputs), self.third(inputs)], axis=-1
        )


def test_layers_of_the_same_name_are_all_there():
    block = Projections(name="block")
    network = keras.Sequential([keras.Input((8,)), block])
    block.second.kernel.assign(np.zeros((8, 5)))
    found = sparsity(network)
    assert found.layers == {"block/proj": 0, "block/proj_1": 1, "block/proj_1_1": 0}
    assert found.size == 8 * (4 + 5 + 6)
    chosen = choose(network, "block/proj*").values()
    assert list(chosen) == [block.first, block.second, block.third]


def test_a_layer_that_models_share_counts_once():
    shared = layers.Dense(8, name="shared")
    left, right = (
        keras.Sequential([keras.Input((8,)), shared], name=name) for name in ("left", "right")
    )
    vector = keras.Input((8,))
    found = sparsity(keras.Model(vector, layers.Add()([left(vector), right(vector)])))
    assert (found.layers, found.size) == ({"left/shared": 0}, 64)

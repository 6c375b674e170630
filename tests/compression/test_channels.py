"""Channels that go together, the choice among them, and the networks without them."""

import json
import zipfile

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops

from kdtoolkit import export, models
from kdtoolkit.compression import (
    channel_groups,
    mask_channels,
    prune_channels,
    select_channels,
    shrink,
)
from kdtoolkit.methods import KD
from kdtoolkit.training import Student

SHAPE = (8, 8, 3)
X = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32")


def randomised(network, seed=0):
    """The network with weights, statistics, scales and offsets of which none is zero or one."""
    rng = np.random.default_rng(seed)
    for variable in network.weights:
        if "variance" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        else:
            fan_in = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 4
            variable.assign(rng.normal(size=variable.shape) / np.sqrt(fan_in))
    return network


def conv_bn_relu(x, filters, name, **options):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name, **options)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def classified(image, x):
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, layers.Dense(5, name="logits")(x), name="net")


def vgg():
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
            layers.ZeroPadding2D(1),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 3, name="conv2"),
            layers.BatchNormalization(name="bn2"),
            layers.Activation("tanh"),
            layers.SpatialDropout2D(0.1),
            layers.Flatten(),
            layers.BatchNormalization(name="bn_flat"),
            layers.Dense(12, activation="sigmoid", name="hidden"),
            layers.Dropout(0.5),
            layers.Dense(5, name="logits"),
        ],
        name="net",
    )


def densenet():
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(6, 3, padding="same", name="stem")(image)
    for block in range(3):
        y = layers.BatchNormalization(name=f"bn{block}")(x)
        y = layers.Activation("relu", name=f"relu{block}")(y)
        y = layers.Conv2D(4, 3, padding="same", name=f"conv{block}")(y)
        x = layers.Concatenate(name=f"concat{block}")([x, y])
    x = layers.AveragePooling2D(2, name="pool")(x)
    return classified(image, conv_bn_relu(x, 6, "transition"))


def mobilenet():
    image = keras.Input(SHAPE, name="image")
    x = conv_bn_relu(image, 8, "stem")
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.ReLU(6.0, name="depthwise_relu")(x)
    x = conv_bn_relu(x, 12, "point")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="widening", activation="relu")(x)
    x = layers.SeparableConv2D(10, 3, depth_multiplier=3, activation="relu", name="separable")(x)
    x = layers.Conv2D(20, 3, groups=10, padding="same", name="grouped_depthwise")(x)
    return classified(image, conv_bn_relu(x, 6, "last"))


def squeeze_and_excitation():
    image = keras.Input(SHAPE, name="image")
    x = conv_bn_relu(image, 8, "stem")
    gate = layers.GlobalAveragePooling2D(name="squeeze")(x)
    gate = layers.Dense(4, activation="silu", name="reduce")(gate)
    gate = layers.Dense(8, activation="sigmoid", name="expand")(gate)
    gate = layers.Reshape((1, 1, 8), name="reshape")(gate)
    x = layers.Multiply(name="scale")([x, gate])
    spatial = layers.Conv2D(1, 1, activation="sigmoid", name="spatial")(x)
    x = layers.Multiply(name="attend")([x, spatial])
    return classified(image, layers.PReLU(shared_axes=[1, 2], name="prelu")(x))


def resnext():
    image = keras.Input(SHAPE, name="image")
    stem = conv_bn_relu(image, 8, "stem")
    x = conv_bn_relu(stem, 12, "reduce")
    x = conv_bn_relu(x, 6, "grouped", groups=3)
    x = layers.UpSampling2D(2, name="up")(conv_bn_relu(x, 8, "expand"))
    x = layers.Cropping2D(4, name="crop")(x)
    return classified(image, layers.Maximum(name="maximum")([stem, x]))


def operations():
    image = keras.Input(SHAPE, name="image")
    x = ops.relu(layers.Conv2D(6, 3, padding="same", name="conv1")(image))
    y = ops.concatenate([x, ops.tanh(layers.Conv2D(3, 1, name="conv2")(x))], axis=-1)
    z = layers.Conv2D(4, 1, name="padded")(x)
    y = 0.5 * y + ops.pad(z, ((0, 0), (0, 0), (0, 0), (2, 3)))
    tall = ops.concatenate([y, layers.Conv2D(9, 1, name="conv3")(x)], axis=1)
    flat = ops.reshape(tall, (-1, 16 * 8 * 9))
    return keras.Model(image, layers.Dense(5, name="logits")(flat), name="net")


def shared():
    image = keras.Input(SHAPE, name="image")
    conv, norm, relu = (
        layers.Conv2D(6, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
    )
    x = layers.Conv2D(6, 1, name="stem")(image)
    x = relu(norm(conv(relu(norm(conv(x))))))
    towers = [layers.Conv2D(4, 1, name=name)(x) for name in ("left", "right")]
    reshape, dense = layers.Reshape((4 * 64,)), layers.Dense(5)
    x = layers.Subtract()([dense(reshape(relu(tower))) for tower in towers])
    return keras.Model(image, x, name="net")


def split():
    image = keras.Input(SHAPE, name="image")
    x = conv_bn_relu(image, 9, "stem")
    first, second, third = ops.split(x, [2, 5], axis=-1)
    y = layers.Conv2D(6, 1, name="second")(second)
    parts = [layers.Conv2D(2, 1, name=f"half{k}")(y) for k, y in enumerate(ops.split(y, 2, -1))]
    upper, lower = ops.split(layers.Concatenate(name="concat")([first, *parts, third]), 2, axis=1)
    return classified(image, layers.Add(name="add")([upper, lower]))


def exits():
    return models.add_exits(models.build("resnet18-w8", SHAPE, 5), mid=6)


NETWORKS = {
    "resnet8": lambda: models.build("resnet8", SHAPE, 5),
    "resnet20-identity": lambda: models.build("resnet20", SHAPE, 5, shortcut="identity"),
    "resnet18-w8": lambda: models.build("resnet18-w8", SHAPE, 5),
    "vgg": vgg,
    "densenet": densenet,
    "mobilenet": mobilenet,
    "squeeze-and-excitation": squeeze_and_excitation,
    "resnext": resnext,
    "operations": operations,
    "shared layers": shared,
    "split": split,
    "exits": exits,
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_shrunk_network_returns_what_the_masked_one_returns(build):
    network = randomised(build())
    before = network.get_weights()
    keep = select_channels(network, 0.5)
    masked, shrunk = mask_channels(network, keep), shrink(network, keep)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

    removed = {name: np.sum(~kept) for name, kept in keep.items()}
    assert set(removed) == {
        name for g in channel_groups(network) if g.size > 1 for name in g.layers
    }
    for layer in network.layers:  # with a separable convolution's `pointwise_kernel`
        if layer.name in keep:
            width = layer.weights[-1].shape[-1] - removed[layer.name]
            assert shrunk.get_layer(layer.name).weights[-1].shape[-1] == width
    assert models.macs(shrunk) < 0.75 * models.macs(network)
    names = {layer.name for layer in shrunk.layers}
    assert names == {layer.name for layer in network.layers} | {network.inputs[0].name}
    assert shrunk.input_shape == network.input_shape
    assert shrunk.output_names == masked.output_names

    full, zeroed, small = (keras.tree.flatten(net(X)) for net in (network, masked, shrunk))
    for a, b, c in zip(full, zeroed, small, strict=True):
        np.testing.assert_allclose(b, c, rtol=1e-5, atol=1e-5)
        assert np.abs(a - c).max() > 1e-2


def tied(network):
    return {tuple(group.layers): group.size for group in channel_groups(network)}


def test_additions_tie_and_blocks_do_not():
    assert tied(NETWORKS["resnet8"]()) == {
        ("stem_conv", "stage1_block1_conv2"): 16,
        ("stage1_block1_conv1",): 16,
        ("stage2_block1_conv1",): 32,
        ("stage2_block1_shortcut_conv", "stage2_block1_conv2"): 32,
        ("stage3_block1_conv1",): 64,
        ("stage3_block1_shortcut_conv", "stage3_block1_conv2"): 64,
    }


def test_zeros_around_the_channels_of_an_identity_shortcut():
    network = models.build("resnet8", SHAPE, 5, shortcut="identity")
    groups = {group.layers: group for group in channel_groups(network)}
    ends = [f"stage{k}_block1_conv2" for k in (1, 2, 3)]
    inner = {(f"stage{k}_block1_conv1",) for k in (1, 2, 3)}
    assert groups.keys() == {("stem_conv", *ends), tuple(ends[1:]), (ends[2],)} | inner
    # 8 zeros on both sides, then 16: channel 0 of the stem is the 8th of 32 and the 24th of 64.
    whole = groups["stem_conv", *ends].channels
    np.testing.assert_array_equal(whole["stem_conv"], np.arange(16)[:, None])
    np.testing.assert_array_equal(whole[ends[1]], np.arange(8, 24)[:, None])
    np.testing.assert_array_equal(whole[ends[2]], np.arange(24, 40)[:, None])
    later = groups[tuple(ends[1:])].channels
    np.testing.assert_array_equal(later[ends[1]].ravel(), [*range(8), *range(24, 32)])
    np.testing.assert_array_equal(later[ends[2]].ravel(), [*range(16, 24), *range(40, 48)])
    np.testing.assert_array_equal(
        groups[ends[2],].channels[ends[2]].ravel(), [*range(16), *range(48, 64)]
    )

    keep = select_channels(randomised(network), 0.75)
    assert {name: int(kept.sum()) for name, kept in keep.items()} == {
        "stem_conv": 4,
        **dict(zip(ends, (4, 8, 16), strict=True)),
        **dict(zip(sorted(name for (name,) in inner), (4, 8, 16), strict=True)),
    }


def test_concatenations_offset():
    image = keras.Input(SHAPE)
    parts = [layers.Conv2D(n, 1, name=f"part{n}")(image) for n in (2, 3)]
    joined = layers.Concatenate(name="concat")(parts)
    whole = layers.Conv2D(5, 1, name="whole")(image)
    network = classified(image, layers.Add(name="add")([joined, whole]))
    first, second = channel_groups(network)
    assert first.size, second.size == (2, 3)
    rows = {name: channels.ravel().tolist() for name, channels in first.channels.items()}
    assert rows == {"part2": [0, 1], "whole": [0, 1]}
    rows = {name: channels.ravel().tolist() for name, channels in second.channels.items()}
    assert rows == {"part3": [0, 1, 2], "whole": [2, 3, 4]}


def test_each_part_of_a_split_keeps_a_channel():
    network = randomised(split())
    sizes = sorted((group.layers, group.size) for group in channel_groups(network))
    assert sizes == [
        (("half0",), 2),
        (("half1",), 2),
        (("second",), 3),
        (("second",), 3),
        (("stem",), 2),
        (("stem",), 3),
        (("stem",), 4),
    ]
    keep = select_channels(network, 0.9)
    assert [kept.sum() for kept in np.split(keep["stem"], [2, 5])] == [1, 1, 1]
    assert [kept.sum() for kept in np.split(keep["second"], [3])] == [1, 1]


def test_groups_of_a_convolution_lose_the_same_places():
    groups = {group.layers: group for group in channel_groups(resnext())}
    # Three groups of 4 channels in, and of 2 out.
    into, out = groups["reduce",].channels["reduce"], groups["grouped",].channels["grouped"]
    np.testing.assert_array_equal(into, [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]])
    np.testing.assert_array_equal(out, [[0, 2, 4], [1, 3, 5]])
    keep = {
        "reduce": np.array([True, False, False, True] * 3),
        "grouped": np.array([False, True] * 3),
    }
    network = randomised(resnext())
    kernel = shrink(network, keep).get_layer("grouped").kernel
    expected = network.get_layer("grouped").kernel.numpy()[:, :, [0, 3]][..., [1, 3, 5]]
    np.testing.assert_array_equal(kernel, expected)


def test_weights_of_a_residual_network_by_hand():
    network = randomised(models.build("resnet8", SHAPE, 5))
    rng = np.random.default_rng(1)
    wide = np.sort(rng.choice(64, 20, replace=False))
    inner = np.sort(rng.choice(64, 30, replace=False))
    keep = {"stage3_block1_conv1": np.isin(range(64), inner)}
    keep |= {f"stage3_block1_{n}": np.isin(range(64), wide) for n in ("conv2", "shortcut_conv")}
    shrunk = shrink(network, keep)
    every = {16: np.arange(16), 32: np.arange(32), 3: np.arange(3)}
    expected = {layer.name: layer.get_weights() for layer in network.layers}
    for name, rows, columns in (
        ("stage3_block1_conv1", every[32], inner),
        ("stage3_block1_conv2", inner, wide),
        ("stage3_block1_shortcut_conv", every[32], wide),
    ):
        expected[name] = [expected[name][0][:, :, rows][..., columns]]
    for name, channels in (("bn1", inner), ("bn2", wide), ("shortcut_bn", wide)):
        name = f"stage3_block1_{name}"
        expected[name] = [values[channels] for values in expected[name]]
    expected["logits"] = [expected["logits"][0][wide], expected["logits"][1]]
    for layer in shrunk.layers:
        for a, b in zip(layer.get_weights(), expected[layer.name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_sizes_by_hand():
    image = keras.Input(SHAPE, name="image")
    x = conv_bn_relu(image, 6, "conv1")
    x = layers.MaxPooling2D(2)(conv_bn_relu(x, 4, "conv2"))
    network = keras.Model(image, layers.Dense(5)(layers.Flatten()(x)))
    shrunk = prune_channels(network, 0.5)
    # Two 3x3 convolutions to 3 and 2 channels, four statistics for each, 2 * 4 * 4 places to 5.
    assert shrunk.count_params() == 9 * 3 * 3 + 4 * 3 + 9 * 3 * 2 + 4 * 2 + 32 * 5 + 5
    assert models.macs(shrunk) == 64 * 9 * (3 * 3 + 3 * 2) + 32 * 5
    assert [w.shape for w in shrunk.layers[-1].weights] == [(32, 5), (5,)]


def test_masked_channels_are_zero_and_the_others_as_before():
    image = keras.Input(SHAPE, name="image")
    network = randomised(classified(image, conv_bn_relu(image, 6, "conv")))
    kept = np.array([True, False, True, True, False, False])
    masked = mask_channels(network, {"conv": kept})
    features = [keras.Model(n.input, n.get_layer("features").output)(X) for n in (network, masked)]
    np.testing.assert_array_equal(features[1], features[0] * kept)
    kernel, bias = (w.numpy() for w in network.get_layer("logits").weights)
    expected = features[0].numpy()[:, kept].astype("float64") @ kernel[kept] + bias
    np.testing.assert_allclose(masked(X), expected, atol=1e-6)


def test_a_masked_network_stays_masked_in_training():
    image = keras.Input(SHAPE, name="image")
    x = conv_bn_relu(conv_bn_relu(image, 6, "conv1"), 4, "conv2")
    network = randomised(classified(image, x))
    keep = select_channels(network, 0.5)
    masked = mask_channels(network, keep)
    before = masked.get_layer("conv1").kernel.numpy()
    masked.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    masked.fit(X, np.arange(4), epochs=2, verbose=0)
    for name, kept in keep.items():
        kernel = masked.get_layer(name).kernel.numpy()
        np.testing.assert_array_equal(np.abs(kernel).sum((0, 1, 2)) > 0, kept)
    moved = (masked.get_layer("conv1").kernel.numpy() != before).any((0, 1, 2))
    np.testing.assert_array_equal(moved, keep["conv1"])


def test_l1_scores():
    network = randomised(models.build("resnet8", SHAPE, 5))
    keep = select_channels(network, 0.25)

    def norms(name):
        return np.abs(network.get_layer(name).kernel.numpy()).astype("float64").sum((0, 1, 2))

    scores = norms("stem_conv") + norms("stage1_block1_conv2")
    np.testing.assert_array_equal(keep["stem_conv"], scores > np.sort(scores)[3])
    np.testing.assert_array_equal(keep["stage1_block1_conv2"], keep["stem_conv"])
    scores = norms("stage3_block1_conv1")
    np.testing.assert_array_equal(keep["stage3_block1_conv1"], scores > np.sort(scores)[15])


def test_scales_of_batch_normalisation_as_scores():
    network = randomised(densenet())
    keep = select_channels(network, 0.5, "bn_scale")
    gammas = [np.abs(network.get_layer(f"bn{block}").gamma.numpy()) for block in range(3)]
    # The stem's channels come first in each concatenation, the first block's behind them. The last
    # block's pass no normalisation before the transition reads them.
    scores = sum(gamma[:6].astype("float64") for gamma in gammas)
    np.testing.assert_array_equal(keep["stem"], scores > np.sort(scores)[2])
    scores = sum(gamma[6:10].astype("float64") for gamma in gammas[1:])
    np.testing.assert_array_equal(keep["conv0"], scores > np.sort(scores)[1])
    assert keep.keys() == {"stem", "conv0", "conv1", "transition"}


@pytest.mark.parametrize(
    ("size", "fraction", "multiple", "left"),
    [
        (16, 0.5, 1, 8),
        (10, 0.29, 1, 8),
        (100, 0.29, 1, 71),
        (10, 0.99, 1, 1),
        (20, 0.5, 8, 16),
        (16, 0.5, 8, 8),
        (9, 0.99, 8, 8),
        (6, 0.5, 8, 6),
        (12, 0.1, 8, 12),
    ],
)
def test_how_many_channels_stay(size, fraction, multiple, left):
    image = keras.Input(SHAPE)
    network = classified(image, layers.Conv2D(size, 1, name="conv")(image))
    pruned = prune_channels(network, fraction, multiple=multiple)
    assert pruned.get_layer("conv").filters == left


def test_layers_by_pattern():
    network = models.build("resnet8", SHAPE, 5)
    # The output of stage 1 is tied to the stem, whose name does not match.
    assert select_channels(network, 0.5, layers="stage1_*").keys() == {"stage1_block1_conv1"}
    keep = select_channels(network, 0.5, layers=("stage1_*", "stem_conv"))
    assert keep.keys() == {"stem_conv", "stage1_block1_conv1", "stage1_block1_conv2"}
    assert select_channels(network, 0) == {}


@keras.saving.register_keras_serializable(package="tests")
class Reversed(layers.Conv2D):
    def call(self, inputs):
        return super().call(inputs)[..., ::-1]


@keras.saving.register_keras_serializable(package="tests")
class Backwards(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs)[..., ::-1]


def inner(kind=Backwards):
    return kind([keras.Input((8, 8, 6)), layers.Conv2D(6, 1, name="inside")], name="inner")


@pytest.mark.parametrize(
    "unknown",
    [
        lambda: layers.LayerNormalization(),
        lambda: layers.Softmax(),
        lambda: layers.Activation("softmax"),
        lambda: layers.Permute((1, 3, 2)),
        lambda: layers.Reshape((16, 4, 6, 1)),
        lambda: layers.BatchNormalization(axis=1),
        lambda: Reversed(6, 1),
        inner,
        lambda: lambda x: x * np.arange(6.0),
        lambda: lambda x: layers.Add()([x, np.ones((1, 8, 8, 6), "float32")]),
        lambda: lambda x: ops.average(x, axis=-1),
        lambda: lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)), mode="reflect"),
        lambda: lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))),
    ],
)
def test_what_is_not_understood_keeps_its_channels(unknown):
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 1, name="before")(image)
    x = unknown()(layers.Conv2D(6, 1, name="kept")(x))
    x = layers.Conv2D(4, 1, name="after")(layers.Reshape((8, 8, -1))(x))
    network = randomised(classified(image, x))
    keep = select_channels(network, 0.5)
    assert keep.keys() == {"before", "after"}
    np.testing.assert_allclose(
        shrink(network, keep)(X), mask_channels(network, keep)(X), rtol=1e-5, atol=1e-5
    )


def test_noise_of_each_channel_is_of_those_that_stay():
    image = keras.Input(SHAPE)
    x = layers.Dropout(0.5, noise_shape=(None, 1, 1, 8), seed=0)(layers.Conv2D(8, 1)(image))
    network = classified(image, layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x))
    fewer = shrink(network, select_channels(network, 0.5))
    assert [x.noise_shape for x in fewer.layers if isinstance(x, layers.Dropout)] == [
        (None, 1, 1, 4),
        (None, 1, 1, 1),
    ]
    assert fewer(X, training=True).shape == network(X).shape


def test_layers_of_nested_models_are_pruned():
    """By hand: what reads the removed filters is in another model."""
    image = keras.Input(SHAPE, name="image")
    first = keras.Sequential(
        [keras.Input(SHAPE), layers.Conv2D(6, 1, name="conv"), layers.BatchNormalization()]
    )
    x = inner(keras.Sequential)(layers.ReLU()(first(image, training=False)))
    network = randomised(classified(image, x))
    keep = select_channels(network, 0.5)
    assert keep.keys() == {"conv", "inside"}
    pruned, kept = shrink(network, keep), keep["conv"]
    read = network.get_layer("inner").get_layer("inside").kernel
    np.testing.assert_array_equal(
        pruned.get_layer("inside").kernel,
        ops.convert_to_numpy(read)[:, :, kept][..., keep["inside"]],
    )
    assert pruned.get_layer("inside").kernel.shape == (1, 1, 3, 3)
    np.testing.assert_allclose(pruned(X), mask_channels(network, keep)(X), rtol=1e-5, atol=1e-5)


def test_a_convolution_with_softmax_keeps_its_channels():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 1, activation="softmax", name="soft")(image)
    x = layers.Conv2D(4, 1, name="plain")(x)
    assert select_channels(classified(image, x), 0.5).keys() == {"plain"}


def test_channels_that_are_an_output_stay():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 1, name="first")(image)
    y = layers.Conv2D(4, 1, name="second")(x)
    network = keras.Model(
        image, {"features": layers.ReLU()(y), "logits": classified(image, y).output}
    )
    assert select_channels(network, 0.5).keys() == {"first"}


def test_saved_without_this_package(tmp_path):
    network = randomised(models.build("resnet8", SHAPE, 5, shortcut="identity"))
    network.compile("adam", "mse")
    shrunk = prune_channels(network, 0.5)
    assert not shrunk.compiled
    for name, model in (("full", network), ("shrunk", shrunk)):
        model.save(tmp_path / f"{name}.keras")
    with zipfile.ZipFile(tmp_path / "shrunk.keras") as archive:
        config = archive.read("config.json").decode()
    assert json.loads(config)["class_name"] == "Functional" and "kdtoolkit" not in config
    loaded = keras.models.load_model(tmp_path / "shrunk.keras")
    np.testing.assert_array_equal(loaded(X), shrunk(X))
    assert [t.name for t in loaded.inputs] == ["image"] and loaded.output_names == ["logits"]
    again = prune_channels(loaded, 0.5)
    assert again.get_layer("stage3_block1_conv2").filters == 16


def test_it_learns_from_the_network_that_it_was():
    network = randomised(models.build("resnet8", SHAPE, 5))
    shrunk = prune_channels(network, 0.5)
    before, taught = network.get_weights(), [v.numpy() for v in shrunk.trainable_variables]
    trainer = Student(shrunk, network, KD(1.0, 1.0))
    trainer.compile(keras.optimizers.SGD(0.01))
    trainer.fit(X, np.arange(4), verbose=0)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(
        (a != v.numpy()).any() for a, v in zip(taught, shrunk.trainable_variables, strict=True)
    )


def test_frozen_layers_and_precision_are_kept():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = models.build("resnet8", SHAPE, 5)
    finally:
        keras.config.set_dtype_policy("float32")
    network.get_layer("stem_conv").trainable = False
    shrunk = prune_channels(network, 0.5)
    assert not shrunk.get_layer("stem_conv").trainable
    assert shrunk.get_layer("stem_conv").compute_dtype == "bfloat16"
    assert shrunk.get_layer("logits").compute_dtype == "float32"


def test_exits_and_stages():
    shrunk = prune_channels(randomised(exits()), 0.5)
    assert models.exit_names(shrunk) == ["exit_1", "exit_2", "exit_3", "exit_4"]
    expected, x = shrunk(X), X
    for name, stage in zip(models.exit_names(shrunk), models.stages(shrunk), strict=True):
        outputs = stage(x)
        np.testing.assert_allclose(outputs["logits"], expected[name], atol=1e-5)
        x = outputs.get("features")
    widths = {name: z.shape[-1] for name, z in models.features(shrunk).output["features"].items()}
    assert set(widths.values()) == {32}


def test_a_smaller_litert_file(tmp_path):
    network = randomised(models.build("resnet8", SHAPE, 5))
    shrunk = prune_channels(network, 0.5)
    large = export.to_litert(network, tmp_path / "large.tflite")
    small = export.to_litert(shrunk, tmp_path / "small.tflite")
    assert small.bytes < 0.5 * large.bytes
    image = np.random.default_rng(2).integers(0, 256, (1, *SHAPE), np.uint8)
    runner = Interpreter(str(tmp_path / "small.tflite")).get_signature_runner()
    expected = ops.softmax(shrunk(image.astype("float32")))
    np.testing.assert_allclose(runner(image=image)["probabilities"], expected, atol=1e-5)


def plain():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 1, name="conv")(image)
    y = layers.Conv2D(4, 1, name="tied")(image)
    x = layers.Conv2D(6, 1, name="last")(layers.Add(name="add")([x, y]))
    return classified(image, x)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: select_channels(plain(), 1.0),
            r"`fraction` must be in \[0, 1\). Received: .*=1.0",
        ),
        (lambda: select_channels(plain(), -0.1), "`fraction`.*-0.1"),
        (lambda: select_channels(plain(), "0.5"), "`fraction`.*'0.5'"),
        (
            lambda: select_channels(plain(), 0.5, "bn_scales"),
            "`importance` must be one of l1, l2, group_norm, bn_scale.*: bn_scale",
        ),
        (
            lambda: select_channels(plain(), 0.5, "bn_scale"),
            "`importance` must be another .* bn_scale says nothing of",
        ),
        (lambda: select_channels(plain(), 0.5, multiple=0), "`multiple`.*0"),
        (lambda: select_channels(plain(), 0.5, layers="lasd"), "'lasd', which .*: last"),
        (lambda: select_channels(plain(), 0.5, layers="conv"), "'conv', which .* conv, tied"),
        (lambda: channel_groups(Subclassed(name="sub")), "functional .*: Subclassed 'sub'"),
        (lambda: channel_groups(keras.Sequential([layers.Dense(2)], name="s")), "built.*'s'"),
        (lambda: channel_groups(classified(i := keras.Input((8, 8, 3)), i)), "that can be .*'net'"),
        (
            lambda: channel_groups(classified(i := keras.Input((8, 8, 6)), inner()(i))),
            "can be removed.*Backwards 'inner'",
        ),
        (lambda: shrink(plain(), {"lost": [True]}), "`keep` must name .*'lost'. Near.*last"),
        (lambda: shrink(plain(), {"conv": [True]}), r"\(4,\) for 'conv'.*shape \(1,\)"),
        (lambda: shrink(plain(), {"conv": [1, 0, 1, 1]}), "booleans .*int"),
        (lambda: shrink(plain(), {"conv": [False] * 4}), "some of them true.* 0 true"),
        (lambda: shrink(plain(), {"logits": [False] + [True] * 4}), "outputs .*'logits'"),
        (lambda: mask_channels(plain(), {"conv": [False] + [True] * 3}), "tied .*'tied' keeps"),
        (lambda: shrink(split(), {"stem": [False] * 2 + [True] * 7}), "each part .*'split"),
        (
            lambda: select_channels(plain(), 0.5, layers=()),
            r"\(\), which .* all of conv, tied, last",
        ),
    ],
)
def test_one_line_errors(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

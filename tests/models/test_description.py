"""Costs counted by hand, part by part."""

import keras
import pytest
from keras import layers

from kdtoolkit import models

FLOAT = 4


def rows(network):
    found = models.describe(network)
    assert len({row.name for row in found}) == len(found)
    return {row.name: row for row in found}


def test_resnet8_part_by_part():
    found = rows(models.build("resnet8", (32, 32, 3), 100))
    assert list(found) == ["stem", "stage1", "stage2", "stage3", "head", "resnet8"]

    def block(before, width):
        shortcut = before * width + 2 * width if before != width else 0
        return 9 * before * width + 9 * width * width + 4 * width + shortcut

    assert {name: row.parameters for name, row in found.items()} == {
        "stem": 27 * 16 + 32,
        "stage1": block(16, 16),
        "stage2": block(16, 32),
        "stage3": block(32, 64),
        "head": 6500,
        "resnet8": 464 + block(16, 16) + block(16, 32) + block(32, 64) + 6500,
    }
    assert {name: row.macs for name, row in found.items()} == {
        "stem": 1024 * 27 * 16,
        "stage1": 1024 * 9 * 2 * 16 * 16,
        "stage2": 256 * (9 * (16 * 32 + 32 * 32) + 16 * 32),
        "stage3": 64 * (9 * (32 * 64 + 64 * 64) + 32 * 64),
        "head": 6400,
        "resnet8": models.macs(models.build("resnet8", (32, 32, 3), 100)),
    }
    small, large = 1024 * 16, 256 * 32  # of stage 1 and 2
    assert {name: row.activation_bytes // FLOAT for name, row in found.items()} == {
        "stem": 1024 * 3 + small,  # image and feature map: normalisation and ReLU are in place
        "stage1": 3 * small,  # the block's input, and input and output of its second convolution
        "stage2": small + 2 * large,  # the block's input, waiting for the shortcut
        "stage3": large + 2 * 64 * 64,
        "head": 64 * 64 + 64,  # pooling
        "resnet8": 3 * small,
    }


def test_exits():
    plain = models.build("resnet18-w4", (32, 32, 3), 5)
    network = models.add_exits(plain, mid=4)
    found = rows(network)
    parts = ["stem", "stage1", "stage2", "stage3", "stage4"]
    parts += ["exit_1 head", "exit_2 head", "exit_3 head", "head"]
    exits = ["exit_1", "exit_2", "exit_3", "exit_4"]
    assert list(found) == [*parts, *exits, network.name]
    # 1x1 of 4 to 4 channels, 8x8 of 4 to 4, 1x1 of 4 to 32, biases and normalisations, dense layer.
    head = (4 * 4 + 3 * 4) + (64 * 4 * 4 + 3 * 4) + (4 * 32 + 3 * 32) + 32 * 5 + 5
    assert found["exit_1 head"].parameters == head
    assert found["exit_1 head"].macs == 1024 * 4 * 4 + 16 * (1024 + 4 * 32) + 32 * 5
    for fact in ("parameters", "macs"):
        total = sum(getattr(found[part], fact) for part in parts)
        assert getattr(found[network.name], fact) == total
        # An exit needs the stages before it and its own head.
        before = sum(getattr(found[part], fact) for part in ("stem", "stage1", "exit_1 head"))
        assert getattr(found["exit_1"], fact) == before
    own = rows(plain)["resnet18-w4"]
    assert found["exit_4"].parameters == own.parameters
    assert found["exit_4"].macs == own.macs
    assert found["exit_4"].activation_bytes == own.activation_bytes


def test_a_layer_of_several_parts_is_the_first_ones():
    image = keras.Input((4, 4, 2))
    shared = layers.Conv2D(2, 1)
    stem = layers.ReLU(name="stem")(shared(image))
    logits = layers.Dense(3)(layers.Flatten()(shared(stem)))
    found = rows(keras.Model(image, logits, name="network"))
    parameters = {name: row.parameters for name, row in found.items()}
    assert parameters == {"stem": 6, "head": 32 * 3 + 3, "network": 6 + 32 * 3 + 3}


def test_what_is_needed_later_is_counted():
    image = keras.Input((4, 4, 2))  # 32 numbers
    x = layers.Conv2D(3, 1)(image)  # 48, needed until the end: ReLU cannot overwrite it
    y = layers.ReLU()(x)
    y = layers.Conv2D(5, 1)(y)  # 80
    y = layers.ReLU()(y)
    y = layers.Conv2D(3, 1)(y)
    network = keras.Model(image, layers.Add()([x, y]), name="network")
    # x, and input and output of the last two convolutions.
    assert rows(network)["network"].activation_bytes == FLOAT * (48 + 80 + 48)
    relu = keras.Model(image, layers.Add()([x, layers.ReLU()(x)]), name="relu")
    assert rows(relu)["relu"].activation_bytes == FLOAT * 3 * 48


def test_nested_network():
    image = keras.Input((4, 4, 2))
    inner = keras.Model(image, layers.Conv2D(1, 1)(layers.Conv2D(9, 1)(image)), name="inner")
    inside = FLOAT * 16 * (9 + 2)
    assert rows(inner)["inner"].activation_bytes == inside
    outer_image = keras.Input((4, 4, 2))
    skip = layers.Add()([outer_image, inner(outer_image)])
    found = rows(keras.Model(outer_image, skip, name="outer"))
    # The image is needed afterwards, beside input and output of the second convolution.
    assert found["outer"].activation_bytes == FLOAT * 16 * (2 + 9 + 1)
    sequential = keras.Sequential([keras.Input((4, 4, 2)), inner, layers.Conv2D(1, 1)], name="two")
    assert rows(sequential)["two"].activation_bytes == inside
    assert found["outer"].parameters == (2 * 9 + 9) + (9 + 1)
    assert list(found) == ["head", "outer"]


def test_nested_network_of_open_shape():
    image, outer_image = keras.Input((None, None, 2)), keras.Input((4, 4, 2))
    inner = keras.Model(image, layers.Conv2D(1, 1)(layers.Conv2D(9, 1)(image)))
    found = rows(keras.Model(outer_image, inner(outer_image), name="outer"))["outer"]
    assert (found.macs, found.activation_bytes) == (16 * (2 * 9 + 9), FLOAT * 16 * (9 + 2))


def test_half_precision_takes_half_the_memory():
    def network():
        image = keras.Input((4, 4, 2))
        x = layers.Conv2D(3, 1)(image)
        return keras.Model(image, layers.Conv2D(5, 1)(x), name="network")

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = rows(network())["network"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert half.activation_bytes == 2 * 16 * (3 + 5)
    assert rows(network())["network"].activation_bytes == 4 * 16 * (3 + 5)


def test_features_alone_have_no_head():
    network = models.build("resnet8", (8, 8, 3), 5)
    features = keras.Model(network.input, network.get_layer("stage1").output, name="features")
    assert list(rows(features)) == ["stem", "stage1", "features"]


def test_moving_statistics_and_frozen_layers():
    image = keras.Input((4, 4, 2))
    network = keras.Model(image, layers.BatchNormalization()(image), name="network")
    network.trainable = False
    assert rows(network)["network"].parameters == 4


def test_open_shape():
    image = keras.Input((None, None, 3))
    network = keras.Model(image, layers.Conv2D(2, 1)(image), name="open")
    with pytest.raises(ValueError, match=r"fixed shape\. Received: 'open'.*\(None, None, None, 3"):
        models.describe(network)

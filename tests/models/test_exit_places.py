"""Places for exits, worked out by hand; what is attached there runs stage by stage."""

import keras
import pytest
from keras import layers

from kdtoolkit import models
from kdtoolkit.models.exit_places import exit_places


def block(x, channels, name):
    """An inverted residual: its inside is wider than its end, and a connection leads past it."""
    y = layers.Conv2D(2 * channels, 1, name=f"{name}_expand")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depthwise")(y)
    y = layers.Conv2D(channels, 1, name=f"{name}_project")(y)
    return layers.Add(name=f"{name}_add")([x, y])


def test_ends_of_blocks():
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255, name="pixels")(image)
    x = layers.Conv2D(4, 3, 2, padding="same", name="stem")(x)
    x = block(x, 4, "first")
    x = layers.Conv2D(6, 3, 2, padding="same", name="halved")(x)
    x = block(x, 6, "second")
    x = layers.Conv2D(12, 1, name="wider")(x)
    x = layers.Conv2D(8, 3, 2, padding="same", name="last")(x)
    logits = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    assert exit_places(keras.Model(image, logits)) == ["first_add", "second_add"]


def test_what_leads_past_is_no_place():
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, 2, padding="same", name="stem")(image)
    y = layers.Conv2D(4, 3, 2, padding="same", name="left")(x)
    y = layers.Conv2D(4, 3, padding="same", name="more")(y)
    x = layers.Concatenate(name="both")([y, layers.MaxPooling2D(2, name="right")(x)])
    x = layers.Conv2D(8, 3, 2, padding="same", name="last")(x)
    logits = layers.Dense(2)(layers.Flatten()(x))
    assert exit_places(keras.Model(image, logits)) == ["stem", "both"]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        # At 16, 8 and 4 pixels: the last with 24, 32 and 64 channels, before those with 96.
        ("keras:MobileNetV2", ["block_2_add", "block_5_add", "block_9_add"]),
        ("resnet8", ["stage2"]),
    ],
)
def test_networks(name, places):
    network = models.build(name, (64, 64, 3), 5)
    found = exit_places(network)
    assert found[-len(places) :] == places
    stages = models.stages(models.add_exits(network, found[-1:]))
    assert len(stages) == 2

"""Which pixel values a network takes, from how it begins."""

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import models
from kdtoolkit.models.input_range import implied

APPLICATIONS = keras.applications


def of(*operations, size=32):
    """A classifier that begins with these."""
    x = image = keras.Input((size, size, 3))
    for operation in operations:
        x = operation(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return keras.Model(image, layers.Dense(2)(x))


def adapted(top):
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).random((8, 4, 4, 3)) * top)
    return layer


def nested(*operations):
    """The beginning in a model within a model, augmentation before it."""
    augmentation = keras.Sequential([keras.Input((32, 32, 3)), layers.RandomFlip()])
    return of(augmentation, layers.RandomRotation(0.1), of_model(*operations))


def of_model(*operations):
    x = image = keras.Input((32, 32, 3))
    for operation in operations:
        x = operation(x)
    return keras.Model(image, layers.Conv2D(4, 3)(x))


def application(name):
    return getattr(APPLICATIONS, name)(weights=None, input_shape=(32, 32, 3), classes=4)


def shared(x):
    """Pixels that are taken twice: as they are, and scaled."""
    return layers.Concatenate()([x, layers.Rescaling(1 / 255)(x)])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: of(layers.Rescaling(1 / 255)), "bytes"),
        (lambda: of(layers.Rescaling(1 / 127.5, offset=-1)), "bytes"),
        (lambda: of(layers.Rescaling(2.0, offset=-1)), "unit"),
        (lambda: of(layers.Rescaling(1 / 255), layers.Rescaling(2.0, offset=-1)), "bytes"),
        (lambda: of(adapted(255)), "bytes"),
        (lambda: of(adapted(1)), "unit"),
        (lambda: nested(layers.Rescaling(1 / 255)), "bytes"),
        (lambda: nested(adapted(255)), "bytes"),
        (lambda: of(APPLICATIONS.mobilenet_v2.preprocess_input), "bytes"),
        (lambda: of(APPLICATIONS.densenet.preprocess_input), "bytes"),
        (lambda: nested(lambda x: 2 * x - 1), "unit"),
        (lambda: application("MobileNetV3Small"), "bytes"),
        (lambda: of(), None),
        (lambda: of(layers.Rescaling(1.0)), None),
        (lambda: of(layers.Rescaling(255.0)), None),
        (lambda: of(layers.Rescaling(-1 / 255, offset=1)), None),
        (lambda: of(lambda x: 1 - x / 255), "bytes"),
        (lambda: of(lambda x: 255 / (x + 1)), None),
        (lambda: of(layers.BatchNormalization()), None),
        (lambda: of(shared), None),
        (lambda: models.build("resnet8", (8, 8, 3), 4), None),
        # Ours, which turn normalised images into the pixels that Keras' networks scale again.
        (lambda: models.build("keras:EfficientNetB0", (32, 32, 3), 4), None),
        (
            lambda: of(
                layers.Rescaling([58.4, 57.1, 57.4], [123.7, 116.3, 103.5]),
                layers.Rescaling(1 / 127.5, offset=-1),
            ),
            None,
        ),
    ],
)
def test_implied(build, expected):
    network = build()
    assert implied(network) == expected


def test_implied_by_a_stored_network(tmp_path):
    for number, operation in enumerate(
        (adapted(255), APPLICATIONS.mobilenet_v2.preprocess_input, layers.Rescaling(1 / 255))
    ):
        path = tmp_path / f"{number}.keras"
        nested(operation).save(path)
        assert implied(keras.models.load_model(path)) == "bytes"

"""A family of one small network that may have trained weights, as those of keras.applications."""

import keras
from keras import layers

from kdtoolkit.models import keras_weights, registry


def backbone(shape):
    image = keras.Input(shape)
    x = layers.Rescaling(1 / 64)(image)
    x = layers.Conv2D(16, 3, 4, activation="relu", name="first")(x)
    return keras.Model(image, layers.BatchNormalization(name="norm")(x))


def small(input_shape, classes, name, *, weights=None, preprocessing=None):
    """A backbone that may have trained weights, and a new classifier."""
    own = backbone(input_shape)
    if weights is not None:
        keras_weights.load(own, weights)
    x = layers.GlobalAveragePooling2D()(own.output)
    return keras.Model(own.input, layers.Dense(classes, name="logits")(x), name=name)


def register(monkeypatch):
    """Makes it known by the name `small`."""
    family = registry.Family("small", ("small",), small, "fine_tuning", "small", trained=True)
    monkeypatch.setitem(registry._registered, "small", family)

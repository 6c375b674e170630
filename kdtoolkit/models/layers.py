"""The pieces that the convolution networks share, with the conventions of the papers' code."""

import keras
from keras import layers


def he_normal():
    """Normal with variance `2 / fan_out`, not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def conv(x, filters, size, strides=1, *, name):
    """Convolution without bias (batch normalisation follows it)."""
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def batch_norm(x, *, name):
    """Batch normalisation as in the papers' code: Keras' own defaults differ."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def classifier(x, classes):
    """Average pooling, the layer `features`, and a dense layer, `logits`, of float32 at all times.

    A mixed-precision network keeps its head in float32.
    """
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)

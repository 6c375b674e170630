"""The pieces that the convolution networks share, with the conventions of the papers' code."""

import keras
from keras import layers


def he_normal():
    """Normal with variance `2 / fan_out`, not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def conv(x, filters, size, strides=1, *, padding="same", name):
    """Convolution without bias (batch normalisation follows it).

    `padding` is `"same"`, Keras' own, or `"torch"`, as many zeros on each side: where an image of
    even size is strided over, `"same"` puts one fewer before it than after it.

    Raises:
        ValueError: `padding` is neither.
    """
    x, padding = padded(x, size, strides, padding, name)
    return layers.Conv2D(
        filters,
        size,
        strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def max_pool(x, size, strides, *, padding="same", name):
    """Maximum pooling of what is not negative: the zeros of `"torch"` padding must not win."""
    x, padding = padded(x, size, strides, padding, name)
    return layers.MaxPooling2D(size, strides, padding=padding, name=name)(x)


def padded(x, size, strides, padding, name):
    """Returns `x`, padded as PyTorch does if that makes a difference, and a layer's `padding`."""
    if padding not in ("same", "torch"):
        raise ValueError(
            f"Argument `padding` must be 'same' or 'torch'. Received: padding={padding!r}"
        )
    if padding == "same" or strides == 1 or size == 1:
        return x, "same"
    return layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"


def batch_norm(x, *, name):
    """Batch normalisation as in the papers' code: Keras' own defaults differ."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def classifier(x, classes):
    """Average pooling, the layer `features`, and a dense layer, `logits`, of float32 at all times.

    A mixed-precision network keeps its head in float32.
    """
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)

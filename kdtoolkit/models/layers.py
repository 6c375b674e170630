"""The pieces that the convolution networks share, with the conventions of the papers' code."""

import keras
from keras import layers, ops

from kdtoolkit._checks import BELOW_1, OneOf, check

MOMENTUM = 0.9
"""Of the moving statistics of batch normalisation."""


def he_normal():
    """Normal with variance `2 / fan_out`, not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def conv(x, filters, size, strides=1, *, padding="same", use_bias=False, name):
    """Convolution, usually without bias (batch normalisation follows it).

    `padding` is `"same"`, Keras' own, or `"torch"`, as many zeros on each side: where an image of
    even size is strided over, `"same"` puts one fewer before it than after it.

    Raises:
        ValueError: `padding` is neither.
    """
    x, padding = padded(x, size, strides, padding, name)
    return layers.Conv2D(
        filters,
        size,
        _within(x, strides),
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def grouped_conv(x, filters, size, groups, strides=1, *, padding="same", name):
    """A convolution in as many groups, one layer `{name}_group{g}` each.

    Not `Conv2D(groups=...)`: TensorFlow has no gradient of it on a CPU, so that Keras goes through
    XLA there, and a training step takes 20 to 27 times as long.
    """
    outputs = [
        conv(part, filters // groups, size, strides, padding=padding, name=f"{name}_group{group}")
        for group, part in enumerate(ops.split(x, groups, axis=-1), start=1)
    ]
    return layers.Concatenate(name=name)(outputs) if groups > 1 else outputs[0]


def depthwise_conv(x, size, strides=1, *, padding="same", name):
    """A convolution of each channel by itself, without bias; `padding` as of `conv`."""
    x, padding = padded(x, size, strides, padding, name)
    return layers.DepthwiseConv2D(
        size,
        _within(x, strides),
        padding=padding,
        use_bias=False,
        depthwise_initializer=he_normal(),
        name=name,
    )(x)


def shuffle_channels(x, groups):
    """Deals the channels of each group out to all, so that the next groups see every one."""
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height, width, groups, channels // groups))
    return ops.reshape(ops.transpose(x, (0, 1, 2, 4, 3)), (-1, height, width, channels))


def max_pool(x, size, strides, *, padding="same", name):
    """Maximum pooling of what is not negative: the zeros of `"torch"` padding must not win."""
    x, padding = padded(x, size, strides, padding, name)
    return layers.MaxPooling2D(size, strides, padding=padding, name=name)(x)


def padded(x, size, strides, padding, name):
    """Returns `x`, padded as PyTorch does if that makes a difference, and a layer's `padding`."""
    check("padding", padding, OneOf(("same", "torch")))
    if padding == "same" or strides == 1 or size == 1:
        return x, "same"
    return layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"


def _within(x, strides):
    """Strides as long as the image where they are longer: either way there is one output pixel.

    For longer ones, see `models.precision.strides_over`.
    """
    return tuple(strides if side is None else min(strides, side) for side in x.shape[1:3])


def batch_norm(x, *, name):
    """Batch normalisation as in the papers' code: Keras' own defaults differ."""
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=1e-5, name=name)(x)


def norm_relu(x, *, name, output_name=None):
    """Batch normalisation `{name}_bn` and ReLU, `{name}_relu` unless it has another name."""
    x = batch_norm(x, name=f"{name}_bn")
    return layers.ReLU(name=output_name or f"{name}_relu")(x)


def pad_channels(x, before, after):
    """Channels of zeros in front of and behind those of `x`."""
    return ops.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)))


def classifier(x, classes, dropout=0.0):
    """Average pooling, the layer `features`, and a dense layer, `logits`, of float32 at all times.

    A mixed-precision network keeps its head in float32. `dropout` is the share of the features that
    is left out in training.

    Raises:
        ValueError: `dropout` is not in [0, 1).
    """
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return logits(x, classes, dropout)


def logits(x, classes, dropout=0.0):
    """The end of `classifier`, for features that are pooled already."""
    check("dropout", dropout, BELOW_1)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)

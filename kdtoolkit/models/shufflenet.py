"""ShuffleNets for small images, as the field's benchmark of distillation has them."""

import keras
from keras import layers, ops

from kdtoolkit._checks import ArgumentError
from kdtoolkit.models.layers import (
    batch_norm,
    classifier,
    conv,
    depthwise_conv,
    grouped_conv,
    norm_relu,
    padded,
    shuffle_channels,
)

_STEM = 24
_GROUPS = 3
_BLOCKS = (4, 8, 4)  # of the stages; the first of each halves the image


def shufflenet_v1(input_shape, classes, name, *, width=240, padding="same", dropout=0.0):
    """Builds a ShuffleNet of three groups (Zhang, Zhou, Lin, Sun 2018).

    The stem is a 1x1 convolution that keeps the image's size; each of the three stages halves it.
    The output of stage k is the layer `stage{k}`, that of its block b `stage{k}_block{b}`.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        width: channels of the first stage; each next one has twice as many.
        padding: of what is strided, `"same"` as in Keras or `"torch"` as in PyTorch.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ArgumentError: the width cannot be grouped.
    """
    if width % (4 * _GROUPS) or width <= _STEM:
        raise ArgumentError("width", f"a multiple of {4 * _GROUPS} above {_STEM}", width)
    image = keras.Input(input_shape, name="image")
    x = norm_relu(conv(image, _STEM, 1, name="stem_conv"), name="stem", output_name="stem")
    for stage, blocks in enumerate(_BLOCKS, start=1):
        channels = width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            output_name = f"stage{stage}" if block == blocks else f"stage{stage}_block{block}"
            x = _v1_block(
                x, channels, block == 1, padding, f"stage{stage}_block{block}", output_name
            )
    return keras.Model(image, classifier(x, classes, dropout), name=name)


def _v1_block(x, channels, halves, padding, prefix, output_name):
    # What halves the image is joined with its average, so that the rest makes fewer channels.
    made = channels - x.shape[-1] if halves else channels
    groups = 1 if x.shape[-1] == _STEM else _GROUPS
    stride = 2 if halves else 1
    y = grouped_conv(x, made // 4, 1, groups, name=f"{prefix}_conv1")
    y = shuffle_channels(norm_relu(y, name=f"{prefix}_1"), groups)
    y = depthwise_conv(y, 3, stride, padding=padding, name=f"{prefix}_conv2")
    y = norm_relu(y, name=f"{prefix}_2")
    y = grouped_conv(y, made, 1, _GROUPS, name=f"{prefix}_conv3")
    y = batch_norm(y, name=f"{prefix}_bn3")
    if halves:
        x, rule = padded(x, 3, 2, padding, f"{prefix}_pool")
        x = layers.AveragePooling2D(3, 2, padding=rule, name=f"{prefix}_pool")(x)
        y = layers.Concatenate(name=f"{prefix}_join")([y, x])
    else:
        y = layers.Add(name=f"{prefix}_join")([y, x])
    return layers.ReLU(name=output_name)(y)


def shufflenet_v2(input_shape, classes, name, *, width=116, padding="same", dropout=0.0):
    """Builds a ShuffleNetV2 (Ma, Zhang, Zheng, Sun 2018).

    The stem is a 1x1 convolution that keeps the image's size; each of the three stages halves it.
    The output of stage k is the layer `stage{k}`, that of its block b `stage{k}_block{b}`. A 1x1
    convolution to 1024 channels, or as much fewer as the width is less than 116, comes last.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        width: channels of the first stage, even; each next one has twice as many.
        padding: of what is strided, `"same"` as in Keras or `"torch"` as in PyTorch.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ArgumentError: the width is odd.
    """
    if width % 2:
        raise ArgumentError("width", "even", width)
    image = keras.Input(input_shape, name="image")
    x = norm_relu(conv(image, _STEM, 1, name="stem_conv"), name="stem", output_name="stem")
    for stage, blocks in enumerate(_BLOCKS, start=1):
        channels = width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            if block == 1:
                left, right = _v2_halved(x, channels // 2, padding, f"{prefix}_left"), x
            else:
                left, right = ops.split(x, 2, axis=-1)
            right = _v2_branch(right, channels // 2, 2 if block == 1 else 1, padding, prefix)
            x = shuffle_channels(layers.Concatenate(name=f"{prefix}_join")([left, right]), 2)
            output_name = f"stage{stage}" if block == blocks else prefix
            x = layers.Activation("linear", name=output_name)(x)
    last = 1024 * min(width, 116) // 116
    x = norm_relu(conv(x, last, 1, name="last_conv"), name="last")
    return keras.Model(image, classifier(x, classes, dropout), name=name)


def _v2_halved(x, channels, padding, prefix):
    x = depthwise_conv(x, 3, 2, padding=padding, name=f"{prefix}_conv1")
    x = batch_norm(x, name=f"{prefix}_bn1")
    return norm_relu(conv(x, channels, 1, name=f"{prefix}_conv2"), name=f"{prefix}_2")


def _v2_branch(x, channels, stride, padding, prefix):
    x = norm_relu(conv(x, channels, 1, name=f"{prefix}_conv1"), name=f"{prefix}_1")
    x = depthwise_conv(x, 3, stride, padding=padding, name=f"{prefix}_conv2")
    x = batch_norm(x, name=f"{prefix}_bn2")
    return norm_relu(conv(x, channels, 1, name=f"{prefix}_conv3"), name=f"{prefix}_3")

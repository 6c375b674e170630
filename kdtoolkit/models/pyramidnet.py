"""PyramidNet: bottlenecks that widen a little with each block (Han, Kim and Kim 2017)."""

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError
from kdtoolkit.models.layers import batch_norm, classifier, conv, norm_relu, pad_channels

_STEM = 16
_EXPANSION = 4


def pyramidnet(input_shape, classes, name, *, depth, alpha, padding="same", dropout=0.0):
    """Builds a PyramidNet of bottlenecks in three stages.

    The i-th of N blocks has `16 + i * alpha / N` channels, rounded, and returns four times as many.
    Shortcuts have no parameters: 2x2 average pooling between stages, zeros for new channels.

    The layer `stage{k}` is the sum at the end of a stage, `stage{k}_block{b}` that of its block b.
    A block begins with a normalisation, without ReLU, and ends with one.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: `9n + 2` for n bottlenecks a stage.
        alpha: channels that the 3x3 convolutions gain over the whole network.
        padding: of strided convolutions, `"same"` as in Keras or `"torch"` as in PyTorch.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: `depth` is none of the above.
    """
    blocks, rest = divmod(depth - 2, 9)
    if blocks < 1 or rest:
        raise ArgumentError("depth", "9n + 2, n >= 1", depth)
    image = keras.Input(input_shape, name="image")
    x = conv(image, _STEM, 3, name="stem_conv")
    x = batch_norm(x, name="stem")
    for stage in (1, 2, 3):
        for block in range(1, blocks + 1):
            index = (stage - 1) * blocks + block
            prefix = f"stage{stage}_block{block}"
            y = _branch(
                x,
                width=round(_STEM + index * alpha / (3 * blocks)),
                stride=2 if stage > 1 and block == 1 else 1,
                padding=padding,
                prefix=prefix,
            )
            if stage > 1 and block == 1:
                x = layers.AveragePooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
            x = pad_channels(x, 0, y.shape[-1] - x.shape[-1])
            output_name = f"stage{stage}" if block == blocks else prefix
            x = layers.Add(name=output_name)([y, x])
    x = norm_relu(x, name="last")
    return keras.Model(image, classifier(x, classes, dropout), name=name)


def _branch(x, width, stride, padding, prefix):
    x = batch_norm(x, name=f"{prefix}_bn1")
    x = conv(x, width, 1, name=f"{prefix}_conv1")
    x = norm_relu(x, name=f"{prefix}_2")
    x = conv(x, width, 3, stride, padding=padding, name=f"{prefix}_conv2")
    x = norm_relu(x, name=f"{prefix}_3")
    x = conv(x, _EXPANSION * width, 1, name=f"{prefix}_conv3")
    return batch_norm(x, name=f"{prefix}_bn4")

"""ResNeXt for small images: bottlenecks with a grouped convolution (Xie et al. 2017)."""

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError
from kdtoolkit.models.layers import batch_norm, classifier, conv, grouped_conv, norm_relu


def resnext(input_shape, classes, name, *, depth, cardinality, width, padding="same", dropout=0.0):
    """Builds a ResNeXt of three stages, which return 256, 512 and 1024 channels.

    The output of stage k is the layer `stage{k}`, that of its block b the layer
    `stage{k}_block{b}`; the last block's is the stage's.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: `9n + 2` for n bottlenecks a stage.
        cardinality: groups of the 3x3 convolutions.
        width: channels of a group in the first stage; each next one has twice as many.
        padding: of strided convolutions, `"same"` as in Keras or `"torch"` as in PyTorch.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: an argument is none of the above.
    """
    blocks, rest = divmod(depth - 2, 9)
    if blocks < 1 or rest:
        raise ArgumentError("depth", "9n + 2, n >= 1", depth)
    image = keras.Input(input_shape, name="image")
    x = conv(image, 64, 3, name="stem_conv")
    x = norm_relu(x, name="stem", output_name="stem")
    for stage in (1, 2, 3):
        scale = 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = conv(x, cardinality * width * scale, 1, name=f"{prefix}_conv1")
            y = norm_relu(y, name=f"{prefix}_1")
            y = grouped_conv(
                y, y.shape[-1], 3, cardinality, stride, padding=padding, name=f"{prefix}_conv2"
            )
            y = norm_relu(y, name=f"{prefix}_2")
            y = conv(y, 256 * scale, 1, name=f"{prefix}_conv3")
            y = batch_norm(y, name=f"{prefix}_bn3")
            if x.shape[-1] != y.shape[-1]:
                x = conv(x, y.shape[-1], 1, stride, name=f"{prefix}_shortcut_conv")
                x = batch_norm(x, name=f"{prefix}_shortcut_bn")
            y = layers.Add(name=f"{prefix}_add")([y, x])
            x = layers.ReLU(name=f"stage{stage}" if block == blocks else prefix)(y)
    return keras.Model(image, classifier(x, classes, dropout), name=name)

"""MobileNetV2 for small images, as the field's benchmark of distillation has it."""

import keras
from keras import layers

from kdtoolkit._checks import POSITIVE, check
from kdtoolkit.models.layers import batch_norm, classifier, conv, depthwise_conv, norm_relu

_LAST = 1280
# Channels, blocks, stride of the first one, whether a stage ends there.
_GROUPS = (
    (16, 1, 1, False),
    (24, 2, 1, True),
    (32, 3, 2, True),
    (64, 4, 2, False),
    (96, 3, 1, True),
    (160, 3, 2, False),
    (320, 1, 1, True),
)


def mobilenet_v2(input_shape, classes, name, *, width, padding="same", dropout=0.0):
    """Builds a MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018) for images of 32 pixels.

    The stem halves the image; the four stages have a half, a quarter, an eighth and a sixteenth of
    its height and width. The output of stage k is the layer `stage{k}`. Activations are ReLU.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        width: share of the published channels; the last 1280 are as many at every width below 1.
        padding: of strided convolutions, `"same"` as in Keras or `"torch"` as in PyTorch.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ArgumentError: the width is not positive.
    """
    width = float(width)
    check("width", width, POSITIVE)
    image = keras.Input(input_shape, name="image")
    x = conv(image, max(int(32 * width), 1), 3, 2, padding=padding, name="stem_conv")
    x = norm_relu(x, name="stem", output_name="stem")
    stage = 1
    for group, (channels, blocks, first_stride, ends) in enumerate(_GROUPS, start=1):
        for block in range(1, blocks + 1):
            stride = first_stride if block == 1 else 1
            expansion = 1 if group == 1 else 6
            prefix = f"group{group}_block{block}"
            x = _block(x, max(int(channels * width), 1), stride, expansion, padding, prefix)
        if ends:
            x = layers.Activation("linear", name=f"stage{stage}")(x)
            stage += 1
    x = norm_relu(conv(x, max(int(_LAST * width), _LAST), 1, name="last_conv"), name="last")
    return keras.Model(image, classifier(x, classes, dropout), name=name)


def _block(x, channels, stride, expansion, padding, prefix):
    y = norm_relu(conv(x, x.shape[-1] * expansion, 1, name=f"{prefix}_conv1"), name=f"{prefix}_1")
    y = depthwise_conv(y, 3, stride, padding=padding, name=f"{prefix}_conv2")
    y = norm_relu(y, name=f"{prefix}_2")
    y = batch_norm(conv(y, channels, 1, name=f"{prefix}_conv3"), name=f"{prefix}_bn3")
    if stride == 1 and x.shape[-1] == channels:
        y = layers.Add(name=f"{prefix}_add")([y, x])
    return y

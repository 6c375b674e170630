"""ResNet-18 and 34 with the stem for small images (He et al. 2016)."""

import keras
from keras import layers

from kdtoolkit.models.layers import batch_norm, classifier, conv

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def resnet(input_shape, classes, name, *, depth, width=64, padding="same"):
    """Builds a ResNet of basic blocks in four stages; the stem is one 3x3 convolution.

    The output of stage k is the layer `stage{k}`, that of its block b the layer
    `stage{k}_block{b}`; the last block's is the stage's.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: 18 or 34.
        width: channels of the first stage; each next one has twice as many.
        padding: of strided layers, `"same"` as in Keras or `"torch"` as in PyTorch, which weights
            trained there need (`load_state_dict`).

    Returns:
        A functional `keras.Model`, images to logits.
    """
    image = keras.Input(input_shape, name="image")
    x = conv(image, width, 3, name="stem_conv")
    x = batch_norm(x, name="stem_bn")
    x = layers.ReLU(name="stem")(x)
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            output_name = f"stage{stage}" if block == blocks else prefix
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, width * 2 ** (stage - 1), stride, padding, prefix, output_name)
    return keras.Model(image, classifier(x, classes), name=name)


def _block(x, width, stride, padding, prefix, output_name):
    y = conv(x, width, 3, stride, padding=padding, name=f"{prefix}_conv1")
    y = batch_norm(y, name=f"{prefix}_bn1")
    y = layers.ReLU(name=f"{prefix}_relu1")(y)
    y = conv(y, width, 3, name=f"{prefix}_conv2")
    y = batch_norm(y, name=f"{prefix}_bn2")
    if stride > 1:
        x = conv(x, width, 1, stride, name=f"{prefix}_shortcut_conv")
        x = batch_norm(x, name=f"{prefix}_shortcut_bn")
    y = layers.Add(name=f"{prefix}_add")([y, x])
    return layers.ReLU(name=output_name)(y)

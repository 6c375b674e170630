"""ResNets of four stages, for small images or for ImageNet's (He et al. 2016)."""

import keras
from keras import layers

from kdtoolkit._checks import OneOf, check
from kdtoolkit.models.layers import batch_norm, classifier, conv, max_pool

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_EXPANSION = 4


def resnet(
    input_shape, classes, name, *, depth, width=64, stem="cifar", padding="same", dropout=0.0
):
    """Builds a ResNet: of basic blocks up to 34 layers, of bottlenecks from 50.

    The output of stage k is the layer `stage{k}`, that of its block b the layer
    `stage{k}_block{b}`; the last block's is the stage's. A bottleneck's stride is that of its 3x3
    convolution.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: 18, 34, 50, 101 or 152.
        width: channels of the 3x3 convolutions of the first stage; each next one has twice as many.
        stem: `"cifar"`, one 3x3 convolution, or `"imagenet"`, one of 7x7 and a maximum pooling,
            which leave a quarter of the height and width.
        padding: of strided layers, `"same"` as in Keras or `"torch"` as in PyTorch, which weights
            trained there need (`load_state_dict`).
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: an argument is none of the above.
    """
    check("stem", stem, OneOf(("cifar", "imagenet")))
    block_of = _bottleneck if depth >= 50 else _basic
    image = keras.Input(input_shape, name="image")
    if stem == "cifar":
        x = conv(image, width, 3, name="stem_conv")
        x = batch_norm(x, name="stem_bn")
        x = layers.ReLU(name="stem")(x)
    else:
        x = conv(image, width, 7, 2, padding=padding, name="stem_conv")
        x = batch_norm(x, name="stem_bn")
        x = layers.ReLU(name="stem_relu")(x)
        x = max_pool(x, 3, 2, padding=padding, name="stem")
    for stage, blocks in enumerate(_BLOCKS[depth], start=1):
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            output_name = f"stage{stage}" if block == blocks else prefix
            stride = 2 if stage > 1 and block == 1 else 1
            y = block_of(x, width * 2 ** (stage - 1), stride, padding, prefix)
            if stride > 1 or x.shape[-1] != y.shape[-1]:
                x = conv(x, y.shape[-1], 1, stride, name=f"{prefix}_shortcut_conv")
                x = batch_norm(x, name=f"{prefix}_shortcut_bn")
            y = layers.Add(name=f"{prefix}_add")([y, x])
            x = layers.ReLU(name=output_name)(y)
    return keras.Model(image, classifier(x, classes, dropout), name=name)


def _basic(x, width, stride, padding, prefix):
    x = conv(x, width, 3, stride, padding=padding, name=f"{prefix}_conv1")
    x = batch_norm(x, name=f"{prefix}_bn1")
    x = layers.ReLU(name=f"{prefix}_relu1")(x)
    x = conv(x, width, 3, name=f"{prefix}_conv2")
    return batch_norm(x, name=f"{prefix}_bn2")


def _bottleneck(x, width, stride, padding, prefix):
    x = conv(x, width, 1, name=f"{prefix}_conv1")
    x = batch_norm(x, name=f"{prefix}_bn1")
    x = layers.ReLU(name=f"{prefix}_relu1")(x)
    x = conv(x, width, 3, stride, padding=padding, name=f"{prefix}_conv2")
    x = batch_norm(x, name=f"{prefix}_bn2")
    x = layers.ReLU(name=f"{prefix}_relu2")(x)
    x = conv(x, _EXPANSION * width, 1, name=f"{prefix}_conv3")
    return batch_norm(x, name=f"{prefix}_bn3")

"""ResNets for small images: 6n+2 layers in three stages (He et al. 2016)."""

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError, OneOf, check
from kdtoolkit.models.layers import batch_norm, classifier, conv, pad_channels


def cifar_resnet(
    input_shape,
    classes,
    name,
    *,
    depth,
    width=16,
    stem_width=16,
    shortcut="conv",
    downsample="stride",
    padding="same",
    dropout=0.0,
):
    """Builds a ResNet of `depth = 6n + 2` layers.

    The output of stage k is the layer `stage{k}`, that of its block b the layer
    `stage{k}_block{b}`; the last block's is the stage's.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: `6n + 2` for n residual blocks a stage.
        width: channels of the first stage; each next one has twice as many.
        stem_width: channels of the convolution before the first stage.
        shortcut: where the width changes, `"conv"` (1x1 convolution and batch normalisation) or
            `"identity"` (zeros for the new channels, no parameters).
        downsample: between stages, `"stride"` (the first convolution's and the shortcut's) or
            `"pool"` (2x2 average pooling before the stage).
        padding: of strided convolutions, `"same"` as in Keras or `"torch"` as in PyTorch, which
            weights trained there need (`load_state_dict`).
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: an argument is none of the above.
    """
    check("shortcut", shortcut, OneOf(("conv", "identity")))
    check("downsample", downsample, OneOf(("stride", "pool")))
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ArgumentError("depth", "6n + 2, n >= 1", depth)

    image = keras.Input(input_shape, name="image")
    x = conv(image, stem_width, 3, name="stem_conv")
    x = batch_norm(x, name="stem_bn")
    x = layers.ReLU(name="stem")(x)
    for stage in (1, 2, 3):
        stride = 1
        if stage > 1 and downsample == "stride":
            stride = 2
        elif stage > 1:
            x = layers.AveragePooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            output_name = f"stage{stage}" if block == blocks else prefix
            block_stride = stride if block == 1 else 1
            stage_width = width * 2 ** (stage - 1)
            x = _block(x, stage_width, block_stride, shortcut, padding, prefix, output_name)
    return keras.Model(image, classifier(x, classes, dropout), name=name)


def _block(x, width, stride, shortcut, padding, prefix, output_name):
    y = conv(x, width, 3, stride, padding=padding, name=f"{prefix}_conv1")
    y = batch_norm(y, name=f"{prefix}_bn1")
    y = layers.ReLU(name=f"{prefix}_relu1")(y)
    y = conv(y, width, 3, name=f"{prefix}_conv2")
    y = batch_norm(y, name=f"{prefix}_bn2")
    if x.shape[-1] != width and shortcut == "conv":
        x = conv(x, width, 1, stride, name=f"{prefix}_shortcut_conv")
        x = batch_norm(x, name=f"{prefix}_shortcut_bn")
    elif x.shape[-1] != width:
        if stride > 1:  # every second pixel
            x = layers.MaxPooling2D(1, stride, name=f"{prefix}_shortcut_subsample")(x)
        missing = width - x.shape[-1]
        x = pad_channels(x, missing // 2, missing - missing // 2)
    y = layers.Add(name=f"{prefix}_add")([y, x])
    return layers.ReLU(name=output_name)(y)

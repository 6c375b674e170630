"""VGG with batch normalisation (Simonyan and Zisserman 2015)."""

import keras
from keras import layers

from kdtoolkit._checks import Integers, check
from kdtoolkit.models.layers import conv, logits, max_pool, norm_relu

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 13: (2, 2, 2, 2, 2), 19: (2, 2, 4, 4, 4)}


def vgg(input_shape, classes, name, *, depth, width=64, hidden=0, dropout=0.0):
    """Builds a VGG.

    The first 64 channels are the layer `stem`; of the four stages that follow, the k-th returns the
    layer `stage{k}`, its b-th convolution `stage{k}_block{b}`, after ReLU. A maximum pooling comes
    before each stage. VGG-8 and 13 are those of the field's benchmark of distillation, whose last
    stage is not pooled before if images are smaller than 64 pixels. The last features are averaged.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: 8, 13 or 19.
        width: channels of the stem; the others are as much narrower or wider as it is.
        hidden: width of two dense layers before the logits, `hidden1` and `hidden2`, as in the
            first VGGs; 0 for none.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: `hidden` is negative, or `dropout` is not in [0, 1).
    """
    check("hidden", hidden, Integers(0))
    image = x = keras.Input(input_shape, name="image")
    for stage, convolutions in enumerate(_CONVOLUTIONS[depth]):
        stage_name = f"stage{stage}" if stage else "stem"
        if stage in (1, 2, 3) or (stage == 4 and (depth == 19 or input_shape[0] >= 64)):
            x = max_pool(x, 2, 2, name=f"{stage_name}_pool")
        for block in range(1, convolutions + 1):
            prefix = f"{stage_name}_block{block}"
            channels = _WIDTHS[stage] * width // _WIDTHS[0]
            x = conv(x, channels, 3, use_bias=True, name=f"{prefix}_conv")
            output_name = stage_name if block == convolutions else prefix
            x = norm_relu(x, name=prefix, output_name=output_name)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    if hidden:
        for index in (1, 2):
            x = layers.Dense(hidden, "relu", kernel_initializer="he_normal", name=f"hidden{index}")(
                x
            )
    return keras.Model(image, logits(x, classes, dropout), name=name)

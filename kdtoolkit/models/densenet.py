"""DenseNet-BC: three blocks in which every layer sees all before it (Huang et al. 2017)."""

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError
from kdtoolkit.models.layers import classifier, conv, norm_relu


def densenet(input_shape, classes, name, *, depth, growth, dropout=0.0):
    """Builds a DenseNet-BC: bottlenecks of 4 x `growth` channels, half of them kept between stages.

    The layer `stage{k}` is all that the k-th dense block has gathered, `stage{k}_block{b}` what it
    has after its b-th bottleneck; neither is normalised yet, which is up to who reads it.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: `6n + 4` for n bottlenecks a stage.
        growth: channels that each bottleneck adds.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: `depth` is none of the above.
    """
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        raise ArgumentError("depth", "6n + 4, n >= 1", depth)
    image = keras.Input(input_shape, name="image")
    x = conv(image, 2 * growth, 3, name="stem")
    for stage in (1, 2, 3):
        if stage > 1:
            x = norm_relu(x, name=f"stage{stage}_transition")
            x = conv(x, x.shape[-1] // 2, 1, name=f"stage{stage}_transition_conv")
            x = layers.AveragePooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            y = norm_relu(x, name=f"{prefix}_1")
            y = conv(y, 4 * growth, 1, name=f"{prefix}_conv1")
            y = norm_relu(y, name=f"{prefix}_2")
            y = conv(y, growth, 3, name=f"{prefix}_conv2")
            output_name = f"stage{stage}" if block == blocks else prefix
            x = layers.Concatenate(name=output_name)([x, y])
    x = norm_relu(x, name="last")
    return keras.Model(image, classifier(x, classes, dropout), name=name)

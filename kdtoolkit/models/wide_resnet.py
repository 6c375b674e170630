"""Wide ResNets: pre-activation residual blocks in three stages (Zagoruyko and Komodakis 2016)."""

import keras
from keras import layers

from kdtoolkit._checks import ArgumentError, Integers, check
from kdtoolkit.models.layers import classifier, conv, norm_relu


def wide_resnet(
    input_shape, classes, name, *, depth, width, blocks=None, padding="same", dropout=0.0
):
    """Builds a Wide ResNet.

    A stage has n blocks of two convolutions. Names say `6n + 4`, which counts the shortcuts'
    convolutions (16, 28, 40), or `6n + 2`, which does not, as in the first ResNets (20, 44): so
    20 means 3 blocks a stage and 44 means 7. Some code rounds `(depth - 4) / 6` down instead, and
    has 2 and 6 there: `blocks=2`, `blocks=6`.

    The layer `stage{k}` is the sum at the end of a stage, `stage{k}_block{b}` that of its block b;
    the normalisation and ReLU come at the start of the next block.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        name: of the network.
        depth: `6n + 4` or `6n + 2`.
        width: how many times the stages are wider than 16, 32 and 64 channels.
        blocks: residual blocks a stage, in place of those that `depth` says.
        padding: of strided convolutions, `"same"` as in Keras or `"torch"` as in PyTorch.
        dropout: share of the features before the logits that is left out in training.

    Returns:
        A functional `keras.Model`, images to logits.

    Raises:
        ValueError: an argument is none of the above.
    """
    said, rest = divmod(depth - 2, 6)
    if said < 1 or rest not in (0, 2):
        raise ArgumentError("depth", "6n + 4 or 6n + 2, n >= 1", depth)
    blocks = said if blocks is None else blocks
    check("blocks", blocks, Integers(1))
    image = keras.Input(input_shape, name="image")
    x = conv(image, 16, 3, name="stem")
    for stage, channels in enumerate((16 * width, 32 * width, 64 * width), start=1):
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = norm_relu(x, name=f"{prefix}_1")
            if stride > 1 or x.shape[-1] != channels:
                x = conv(y, channels, 1, stride, name=f"{prefix}_shortcut_conv")
            y = conv(y, channels, 3, stride, padding=padding, name=f"{prefix}_conv1")
            y = norm_relu(y, name=f"{prefix}_2")
            y = conv(y, channels, 3, name=f"{prefix}_conv2")
            output_name = f"stage{stage}" if block == blocks else prefix
            x = layers.Add(name=output_name)([y, x])
    x = norm_relu(x, name="last")
    return keras.Model(image, classifier(x, classes, dropout), name=name)

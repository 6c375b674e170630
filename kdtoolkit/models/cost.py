"""What a network costs to run."""

import math

import keras
from keras import layers


def macs(network):
    """Multiply-accumulate operations of the convolutions and dense layers for one image.

    Args:
        network: functional Keras model with inputs of a fixed shape.

    Returns:
        int.
    """
    return sum(_macs(operation) for operation in network.operations)


def _macs(layer):
    if isinstance(layer, keras.Model):
        return macs(layer)
    if isinstance(layer, layers.Dense):
        return math.prod(layer.output.shape[1:]) * layer.kernel.shape[0]
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        # Each place of the output sees each weight of the kernel once, grouped or not.
        return math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
    return 0

"""What a network costs to run."""

import itertools
import math

import keras
from keras import layers


def macs(network):
    """Multiply-accumulate operations of the 2-D convolutions and dense layers for one image.

    Args:
        network: functional or sequential Keras model with inputs of a fixed shape.

    Returns:
        int. A layer counts each time it is used.
    """
    functional = keras.Model(network.inputs, network.outputs)
    uses = itertools.chain.from_iterable(functional._nodes_by_depth.values())
    return sum(_macs(use.operation, use.output_tensors[0]) for use in uses)


def _macs(layer, output):
    places = math.prod(output.shape[1:-1])
    if isinstance(layer, keras.Model):
        return macs(layer)
    if isinstance(layer, layers.SeparableConv2D):
        return places * (_size(layer.depthwise_kernel) + _size(layer.pointwise_kernel))
    # Each place of the output sees each weight of the kernel once, in groups or not.
    if isinstance(layer, (layers.Dense, layers.Conv2D, layers.DepthwiseConv2D)):
        return places * _size(layer.kernel)
    return 0


def _size(variable):
    return math.prod(variable.shape)

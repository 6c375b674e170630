"""Kinds of Keras' layers with kernels, by which they are told apart."""

from keras import layers

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
"""Of all channels at once, on places of the output; those above are none of them."""


def is_channels_first(layer):
    """Whether it has channels before the sides of an image; layers that do not say have not."""
    return getattr(layer, "data_format", "channels_last") == "channels_first"


def sides(layer, tensor):
    """The lengths of the sides of images, such as `(height, width)`, that a layer takes or returns.

    Args:
        layer: it is asked where its channels are.
        tensor: its images, with a batch axis.
    """
    return tensor.shape[2:] if is_channels_first(layer) else tensor.shape[1:-1]
